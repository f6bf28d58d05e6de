"""Rows of one table on their way into the store: buffered as they come, made into blocks at once; talks to no store.

What came as Arrow stays so; other rows are joined first, because converting costs by the batch more than by the row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from akbypass import schemas
from akbypass.rows import Array, Rows


class Place(NamedTuple):
    """Where rows came from: the columns that every table has beside the row's own."""

    run_id: str
    topic: str
    partition: int
    offset: int
    source: int


class Block:
    """Buffered rows of one table, by row type; `rows` (count) and `bytes` say how much it holds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows = 0
        self.bytes = 0
        self._arrow: list[tuple[pa.RecordBatch, Place]] = []
        self._columns: list[tuple[Rows, Place]] = []

    def add(self, rows: Rows, arrow: pa.RecordBatch | None, place: Place) -> None:
        """Take rows of one message; `arrow`, if given, holds all their columns."""
        self.rows += len(rows)
        if arrow is not None:
            self._arrow.append((arrow, place))
            self.bytes += arrow.nbytes
        else:
            self._columns.append((rows, place))
            self.bytes += sum(column.nbytes for column in rows.columns.values())

    def tables(self) -> list[pa.Table]:
        """Everything as tables, each within one partition of the store's table, so that it is taken whole or not."""
        batches = [batch for batch, _ in self._arrow]
        if self._columns:
            batches.append(Rows.concat([rows for rows, _ in self._columns]).to_arrow())
        tables = [pa.Table.from_batches([batch]) for batch in batches]  # unknown columns may be missing in some
        table = pa.concat_tables(tables, promote_options="default").unify_dictionaries().combine_chunks()
        if "revision" in table.column_names:  # unsigned in the store
            index = table.column_names.index("revision")
            table = table.set_column(index, "revision", table.column(index).cast(pa.uint32()))
        for name, column in self._places().items():
            table = table.append_column(name, column)
        return _by_month(self.name, table)

    def _places(self) -> dict[str, pa.Array]:
        places = [place for _, place in (*self._arrow, *self._columns)]
        lengths = [part.num_rows for part, _ in self._arrow] + [len(part) for part, _ in self._columns]
        return {
            "run_id": _repeated([p.run_id for p in places], lengths),
            "_topic": _repeated([p.topic for p in places], lengths),
            "_partition": pa.array(np.repeat(np.array([p.partition for p in places], np.int32), lengths)),
            "_offset": pa.array(np.repeat(np.array([p.offset for p in places], np.int64), lengths)),
            "_source": pa.array(np.repeat(np.array([p.source for p in places], np.int32), lengths)),
        }


def _repeated(values: list[str], lengths: list[int]) -> pa.Array:
    """Each value as often as its length says, as a dictionary."""
    codes = {value: code for code, value in enumerate(dict.fromkeys(values))}
    indices: Array = np.repeat(np.array([codes[v] for v in values], np.int32), lengths)
    return pa.DictionaryArray.from_arrays(pa.array(indices), pa.array(list(codes), pa.utf8()))


def _by_month(name: str, table: pa.Table) -> list[pa.Table]:
    """Split a table by month of event time, as the store's tables are partitioned."""
    if schemas.load(name).encoding == "plain" or table.num_rows < 2:
        return [table]
    months = np.asarray(table.column("run_ns").cast(pa.int64())).astype("M8[ns]").astype("M8[M]")
    if months.min() == months.max():
        return [table]
    return [table.filter(pa.array(months == month)) for month in np.unique(months)]
