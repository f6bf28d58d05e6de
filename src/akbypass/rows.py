"""Columns of one row type, and their exact conversions to and from Arrow and JSON; holds no meaning and does no I/O."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from akbypass import schemas, strings
from akbypass.schemas import NULL_INT32, NULL_INT64, Column, RowSchema

Array = np.ndarray[Any, np.dtype[Any]]
UNKNOWN_ROWS = 4_096
CODED_ROWS_MIN = 256  # of a message whose strings may travel as codes; below, their dictionaries cost more
CODED = pa.dictionary(pa.int8(), pa.utf8())
ORDER = ("run_ns", "capture_id", "capture_pos", "sub")


class Rows:
    """Rows of one type as NumPy columns of equal length, keyed by column name.

    Columns hold the types of `akbypass.schemas`: times as int64 ns, enums as ordinals, strings as NUL-padded bytes.
    A Rows object is never changed after it is made; every method returns a new one.

    >>> rows = Rows.build("latency", 1, value_ns=np.array([44_600_000]), venue=np.array([b"XNAS"]))
    >>> rows.to_dicts()[0]["value_ns"], rows.to_dicts()[0]["cl_ord_id"]
    (44600000, None)
    """

    __slots__ = ("columns", "schema")

    def __init__(self, schema: RowSchema, columns: dict[str, Array]) -> None:
        self.schema = schema
        self.columns = columns

    @classmethod
    def build(cls, name: str, n: int, /, **columns: Any) -> Rows:
        """Make n rows of type `name`; a column that is not given is unknown, or zero where it cannot be unknown.

        Raises KeyError for a column that the schema does not have and ValueError for a wrong length.
        """
        schema = schemas.load(name)
        made: dict[str, Array] = {}
        for column in schema.columns:
            value = columns.pop(column.name, None)
            made[column.name] = _filled(schema, column, n) if value is None else _coerced(column, value, n)
        if columns:
            raise KeyError(f"{name} has no column {', '.join(sorted(columns))}")
        return cls(schema, made)

    @classmethod
    def empty(cls, name: str) -> Rows:
        """Make no rows of type `name`."""
        return cls.build(name, 0)

    @classmethod
    def concat(cls, parts: Sequence[Rows]) -> Rows:
        """Join rows of one type, at least one part, in the order given."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        return cls(first.schema, {k: np.concatenate([p.columns[k] for p in parts]) for k in first.columns})

    def __len__(self) -> int:
        return len(self.columns["run_ns"])

    def __getitem__(self, column: str) -> Array:
        return self.columns[column]

    def take(self, index: Any) -> Rows:
        """Select rows by an index array, a boolean mask or a slice."""
        if (
            isinstance(index, np.ndarray) and index.dtype == np.int64
        ):  # np.take gathers wide strings three times as fast
            return Rows(self.schema, {k: v.take(index) for k, v in self.columns.items()})
        return Rows(self.schema, {k: v[index] for k, v in self.columns.items()})

    def only(self, names: Collection[str]) -> Rows:
        """The columns of these names, and the order key; a core that reads few columns is handed few."""
        return Rows(self.schema, {k: v for k, v in self.columns.items() if k in names or k in ORDER})

    def with_columns(self, **columns: Array) -> Rows:
        """Replace columns."""
        return Rows(self.schema, {**self.columns, **columns})

    def sorted_by_order(self) -> Rows:
        """Sort by order key; rows that are in order already come back as they are."""
        if self.rises(ORDER):
            return self
        return self.take(np.lexsort((self["sub"], self["capture_pos"], self["capture_id"], self["run_ns"])))

    def rises(self, names: Sequence[str], *, strictly: bool = False) -> bool:
        """Whether the tuple of these columns never falls from row to row; `strictly`, whether it always rises."""
        n = len(self)
        if n < 2:
            return True
        first = self[names[0]]
        if bool((first[1:] > first[:-1]).all()):
            return True
        holds = np.full(n - 1, not strictly)
        for name in reversed(names):
            before, after = self[name][:-1], self[name][1:]
            holds = (after > before) | ((after == before) & holds)
        return bool(holds.all())

    def bytes_of(self, column: str) -> Array:
        """View a string or address column as a (rows, width) array of uint8, for a kernel."""
        array = np.ascontiguousarray(self.columns[column])
        return array.view(np.uint8).reshape(len(array), array.dtype.itemsize)

    # -- Arrow -----------------------------------------------------------------------------------------------------

    def to_arrow(self, *, dense: bool = False) -> pa.RecordBatch:
        """Convert to a record batch of the row type's Arrow schema.

        For the wire `dense`: without the columns that nobody knows, and strings of few values as dictionaries.
        """
        columns, n = self.schema.columns, len(self)
        if not dense or not n:
            arrays = [_to_arrow(c, self.columns[c.name]) for c in columns]
            return pa.RecordBatch.from_arrays(arrays, schema=self.schema.arrow)
        made = {c.name: _coded(c, self.columns[c.name]) for c in columns}
        known = {k: a for k, a in made.items() if a.null_count < n}
        coded = tuple(k for k, a in known.items() if isinstance(a, pa.DictionaryArray))
        return pa.RecordBatch.from_arrays(list(known.values()), schema=_part(self.schema.name, tuple(known), coded))

    @classmethod
    def from_arrow(cls, name: str, batch: pa.RecordBatch, only: Collection[str] | None = None) -> Rows:
        """Convert back, all columns or `only` some; a nullable column that is missing is unknown in every row.

        Raises pa.ArrowInvalid when the batch has another schema.
        """
        schema, n, names = schemas.load(name), batch.num_rows, batch.schema.names
        arrays = dict(zip(names, batch.columns, strict=True))
        coded = tuple(k for k, a in arrays.items() if isinstance(a, pa.DictionaryArray))
        known = schema.by_name.keys() >= set(names)
        if not known or not batch.schema.equals(_part(name, tuple(names), coded)):
            raise pa.ArrowInvalid(f"expected the columns of {name}.v{schema.version}, found {names}")
        made: dict[str, Array] = {}
        for c in schema.columns:
            array = arrays.get(c.name)
            if not c.nullable and (array is None or array.null_count):
                raise pa.ArrowInvalid(f"expected a value in every row of {c.name}, found rows without")
            if only is None or c.name in only:
                made[c.name] = _filled(schema, c, n) if array is None else _from_arrow(c, array)
        return cls(schema, made)

    def to_ipc(self) -> bytes:
        """Write one Arrow IPC stream, dense."""
        batch, sink = self.to_arrow(dense=True), pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]

    @classmethod
    def from_ipc(cls, name: str, payload: bytes | pa.Buffer) -> Rows:
        """Read one Arrow IPC stream; raises pa.ArrowInvalid for anything else."""
        return cls.from_arrow(name, read_ipc(name, payload))

    # -- JSON ------------------------------------------------------------------------------------------------------

    def to_dicts(self) -> list[dict[str, Any]]:
        """Convert to plain values: times as integers (ns), enums as symbols, addresses as text, unknown as None."""
        kept = [c for c in self.schema.columns if c.name in self.columns]
        values = [_to_python(c, self.columns[c.name]) for c in kept]
        keys = [c.name for c in kept]
        return [dict(zip(keys, row, strict=True)) for row in zip(*values, strict=True)]

    def to_json_lines(self) -> list[bytes]:
        """Write each row as one JSON object without a line end."""
        return [orjson.dumps(row) for row in self.to_dicts()]

    @classmethod
    def from_dicts(cls, name: str, dicts: Iterable[Mapping[str, Any]]) -> Rows:
        """Convert back from plain values; raises KeyError or ValueError for what the schema does not allow."""
        rows = list(dicts)
        schema = schemas.load(name)
        made = {c.name: _from_python(c, [row[c.name] for row in rows]) for c in schema.columns}
        return cls(schema, made)


def _filled(schema: RowSchema, column: Column, n: int) -> Array:
    if column.kind == "list":
        return _objects([[] for _ in range(n)])
    return _unknown(schema.name, column.name)[:n] if n <= UNKNOWN_ROWS else _all(column, n)


@functools.cache
def _unknown(name: str, column: str) -> Array:
    """A column without values that all rows share; most columns of a derived row are such."""
    made = _all(schemas.load(name).by_name[column], UNKNOWN_ROWS)
    made.flags.writeable = False
    return made


def _all(column: Column, n: int) -> Array:
    return np.zeros(n, "V16") if column.kind == "ip" else np.full(n, column.null, column.dtype)


def _coerced(column: Column, value: Any, n: int) -> Array:
    if column.kind in ("text", "bytes", "list"):
        array = value if isinstance(value, np.ndarray) else _objects(list(value))
    else:
        array = np.asarray(value)
        if array.ndim == 0:
            array = np.full(n, array, column.dtype)
        elif column.kind == "ip" and array.dtype == np.uint8:
            array = np.ascontiguousarray(array).view("V16").reshape(-1)
        elif array.dtype != column.dtype:
            array = array.astype(column.dtype)
    if len(array) != n:
        raise ValueError(f"expected {n} values of {column.name}, found {len(array)}")
    return array


@functools.lru_cache(1024)
def _part(name: str, columns: tuple[str, ...], coded: tuple[str, ...]) -> pa.Schema:
    """The Arrow schema of some columns of a row type, in their order, with dictionaries for the `coded`."""
    schema = schemas.load(name)
    swapped = {c.name for c in schema.columns if c.kind == "string" and c.name in coded}
    return pa.schema([f.with_type(CODED) if f.name in swapped else f for f in schema.arrow if f.name in columns])


def _objects(values: list[Any]) -> Array:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def read_ipc(name: str, payload: Any, *, full: bool = False) -> pa.RecordBatch:
    """Read the one record batch of an Arrow IPC stream (any buffer); raises pa.ArrowInvalid for anything else.

    Buffers are checked against lengths; with `full`, as for a batch that is handed on, every value is checked too.
    """
    with pa.ipc.open_stream(pa.BufferReader(payload)) as reader:
        batches = list(reader)
    if len(batches) != 1:
        raise pa.ArrowInvalid(f"expected one record batch of {name}, found {len(batches)}")
    batches[0].validate(full=full)
    return batches[0]


def plain(name: str, batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch of row type `name` without dictionaries but those of its schema."""
    for i, field in enumerate(batch.schema):
        own = schemas.load(name).arrow.field(field.name)
        if field.type != own.type:
            batch = batch.set_column(i, own, batch.column(i).dictionary_decode())
    return batch


def _validity(present: Array) -> pa.Buffer | None:
    """Arrow's validity bitmap of a boolean array; None when everything is present."""
    return None if present.all() else pa.py_buffer(np.packbits(present, bitorder="little"))


def _coded(column: Column, array: Array) -> pa.Array:
    """The column as Arrow, strings of few values as codes."""
    found = strings.encode(array) if column.kind == "string" and len(array) >= CODED_ROWS_MIN else None
    if found is None:
        return _to_arrow(column, array)
    codes, values = found
    offsets, data = strings.pack(values)
    valid = _validity((offsets[1:] > offsets[:-1])[codes]) if column.nullable else None
    indices = pa.Array.from_buffers(pa.int8(), len(array), [valid, pa.py_buffer(codes)])
    table = pa.Array.from_buffers(pa.utf8(), len(values), [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    return pa.DictionaryArray.from_arrays(indices, table)


def _to_arrow(column: Column, array: Array) -> pa.Array:
    # straight from buffers: the general constructors cost several times as much for batches of some hundred rows
    n, kind = len(array), column.kind
    if kind in ("timestamp", "long", "int"):
        valid = _validity(array != column.null) if column.nullable else None
        return pa.Array.from_buffers(column.arrow, n, [valid, pa.py_buffer(np.ascontiguousarray(array))])
    if kind == "double":
        valid = _validity(~np.isnan(array)) if column.nullable else None
        return pa.Array.from_buffers(column.arrow, n, [valid, pa.py_buffer(np.ascontiguousarray(array))])
    if kind == "enum":
        codes = pa.Array.from_buffers(pa.int8(), n, [None, pa.py_buffer(np.ascontiguousarray(array))])
        return pa.DictionaryArray.from_arrays(codes, _symbols(column.symbols))
    if kind == "ip":
        return pa.FixedSizeBinaryArray.from_buffers(column.arrow, n, [None, pa.py_buffer(np.ascontiguousarray(array))])
    if kind == "string":
        offsets, data = strings.pack(array)
        valid = _validity(offsets[1:] > offsets[:-1]) if column.nullable else None
        return pa.Array.from_buffers(column.arrow, n, [valid, pa.py_buffer(offsets), pa.py_buffer(data)])
    if kind == "boolean":
        return pa.Array.from_buffers(column.arrow, n, [None, pa.py_buffer(np.packbits(array, bitorder="little"))])
    values = list(array)
    if kind == "text" and column.nullable:
        values = [v or None for v in values]
    return pa.array(values, column.arrow)


@functools.cache
def _symbols(symbols: tuple[str, ...]) -> pa.Array:
    return pa.array(symbols, pa.utf8())


def _present(array: pa.Array) -> Array | None:
    """Which values of an Arrow array are there; None when all are."""
    if array.null_count == 0:
        return None
    bits = np.frombuffer(array.buffers()[0], np.uint8)
    return np.unpackbits(bits, count=array.offset + len(array), bitorder="little")[array.offset :].astype(bool)


def _from_arrow(column: Column, array: pa.Array) -> Array:
    n, kind = len(array), column.kind
    if kind in ("text", "bytes", "list"):
        array.validate(full=True)
        empty: Any = {"text": "", "bytes": b"", "list": []}[kind]
        return _objects([empty if v is None else v for v in array.to_pylist()])
    if n == 0:
        return np.empty(0, column.dtype)
    if kind == "string" and isinstance(array, pa.DictionaryArray):
        return _decoded(column, array)
    if kind in ("timestamp", "long", "int", "double"):
        values = np.frombuffer(array.buffers()[1], column.dtype)[array.offset : array.offset + n]
        present = _present(array)
        return values if present is None else np.where(present, values, column.null).astype(column.dtype, copy=False)
    if kind == "enum":
        if not array.dictionary.equals(_symbols(column.symbols)):
            raise pa.ArrowInvalid(f"expected the symbols {column.symbols} of {column.name}, found {array.dictionary}")
        indices = array.indices
        codes = np.frombuffer(indices.buffers()[1], np.int8)[indices.offset : indices.offset + n]
        if int(codes.view(np.uint8).max()) >= len(column.symbols):  # below zero is above 127
            raise pa.ArrowInvalid(f"expected one of {len(column.symbols)} symbols in {column.name}")
        return codes
    if kind == "ip":
        return np.frombuffer(array.buffers()[1], "V16")[array.offset : array.offset + n]
    if kind == "boolean":
        bits = np.unpackbits(np.frombuffer(array.buffers()[1], np.uint8), count=array.offset + n, bitorder="little")
        return bits[array.offset :].astype(bool)
    offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + n + 1]
    data = array.buffers()[2]
    try:
        return strings.unpack(offsets, np.frombuffer(b"" if data is None else data, np.uint8), column.width)
    except ValueError as error:
        raise pa.ArrowInvalid(f"{column.name}: {error}") from error


def _decoded(column: Column, array: pa.Array) -> Array:
    """Strings of a dictionary, one for each row; raises pa.ArrowInvalid when a code has none."""
    indices, table = array.indices, array.dictionary
    if table.null_count or not len(table):
        raise pa.ArrowInvalid(f"expected values in the dictionary of {column.name}, found none")
    values = _from_arrow(column, table)
    codes = np.frombuffer(indices.buffers()[1], np.int8)[indices.offset : indices.offset + len(indices)]
    if int(codes.view(np.uint8).max()) >= len(values):  # below zero is above 127
        raise pa.ArrowInvalid(f"expected codes below {len(values)} in {column.name}, found {codes.max()}")
    present, found = _present(indices), values.take(codes)
    return found if present is None else np.where(present, found, b"").astype(column.dtype, copy=False)


def address_text(packed: bytes) -> str:
    """Write a 16-byte address as text; IPv4-mapped addresses as dotted quads."""
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def address_bytes(text: str) -> bytes:
    """Read an address into 16 bytes, IPv4 mapped; raises ValueError for anything else."""
    address = ipaddress.ip_address(text)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def _to_python(column: Column, array: Array) -> list[Any]:
    values: list[Any]
    if column.kind == "string":
        values = [v.decode("ascii", "replace").replace("\ufffd", "?") for v in array.tolist()]
        return [v or None for v in values] if column.nullable else values
    if column.kind == "enum":
        return [column.symbols[v] for v in array.tolist()]
    if column.kind == "ip":
        known: dict[bytes, str] = {}
        return [known.get(v) or known.setdefault(v, address_text(v)) for v in (bytes(x) for x in array)]
    if column.kind == "bytes":
        return [v.hex() for v in array]
    if column.kind == "double":
        return [None if v != v else v for v in array.tolist()]
    values = array.tolist()
    if column.nullable:
        null = column.null
        return [None if v == null else v for v in values]
    return values


def _from_python(column: Column, values: list[Any]) -> Array:
    if column.nullable:
        values = [column.null if v is None else v for v in values]
    if column.kind == "string":
        raw = [v if isinstance(v, bytes) else v.encode("ascii", "replace") for v in values]
        if any(len(v) > column.width for v in raw):
            raise ValueError(f"expected at most {column.width} bytes of {column.name}, found {max(map(len, raw))}")
        return np.array(raw, column.dtype)
    if column.kind == "enum":
        return np.array([column.code(v) for v in values], np.int8)
    if column.kind == "ip":
        return np.frombuffer(b"".join(address_bytes(v) for v in values), "V16")
    if column.kind == "bytes":
        return _objects([bytes.fromhex(v) for v in values])
    if column.kind == "text":
        if not all(isinstance(v, str) for v in values):
            raise ValueError(f"expected text in {column.name}")
        return _objects(values)
    if column.kind == "list":
        if not all(isinstance(v, list) and all(isinstance(e, str) for e in v) for v in values):
            raise ValueError(f"expected lists of text in {column.name}")
        return _objects(values)
    if column.kind == "double":
        values = [float("nan") if v is None else v for v in values]
    return np.array(values, column.dtype)


__all__ = [
    "NULL_INT32",
    "NULL_INT64",
    "ORDER",
    "Array",
    "Rows",
    "address_bytes",
    "address_text",
    "plain",
    "read_ipc",
]
