"""Rows that the store refuses: found by halves and set aside one by one, so that the others are written; talks to no broker.

A block is written from its first row to its last. What is stored of a writer's rows is therefore always a beginning of
them, less what was set aside, and the last order key in the store still tells what was written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from akbypass import letters, schemas
from akbypass.errors import ServiceError
from akbypass.letters import COPIED, Letter
from akbypass.rows import Array


class RefusedError(ServiceError):
    """The store answered, and said no; another try brings the same."""


def write_the_rest(
    insert: Callable[[pa.Table], None], table: pa.Table, rows_max: int, set_aside: Callable[[pa.Table, str], None]
) -> int:
    """Write a refused block without the rows that are to blame; returns how many rows were written.

    Args:
        insert: Writes rows, or raises RefusedError.
        table: The block.
        rows_max: Rows that may be set aside (count).
        set_aside: Is given each refused row and the store's words, before anything behind it is written.

    Raises RefusedError when not even no rows are taken, or too many are refused: then it is not the rows' fault.
    """
    insert(table.slice(0, 0))
    written, left, parts = 0, rows_max, [table]
    while parts:
        part = parts.pop()
        try:
            insert(part)
            written += part.num_rows
        except RefusedError as error:
            if part.num_rows == 1:
                if left == 0:
                    raise
                left -= 1
                set_aside(part, str(error.__cause__ or error))
            else:
                half = part.num_rows // 2
                parts += [part.slice(half), part.slice(0, half)]
    return written


def refused_letter(stage: str, row: pa.Table, words: str) -> tuple[Letter, letters.Place]:
    """Make the letter of one refused row, a table with the columns of its place; and where its message lies."""
    values = row.to_pylist()[0]
    place = letters.Place(values["_topic"], values["_partition"], values["_offset"], 0)
    columns = {name: _column(row.column(name)) for name in COPIED if name in row.column_names}
    made = letters.key_letter(
        place, stage=stage, reason=letters.STORE_REFUSED, detail=" ".join(words.split()), run_id=values["run_id"],
        columns=columns, text=orjson.dumps(values, default=_text),
    )  # fmt: skip
    return made, place


def _column(chunks: pa.ChunkedArray) -> Array:
    """One value as the rows of `rejected` hold it."""
    if pa.types.is_fixed_size_binary(chunks.type):
        return np.frombuffer(chunks[0].as_py(), "V16")
    if pa.types.is_timestamp(chunks.type):
        chunks = chunks.cast(pa.int64())
    null = schemas.NULL_INT64 if pa.types.is_int64(chunks.type) else 0
    return np.array([null if chunks[0].as_py() is None else chunks[0].as_py()])


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
