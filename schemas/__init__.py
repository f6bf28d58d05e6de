"""The contract: loads every .avsc once and derives column types from it; does no other I/O and knows no stage.

An .avsc file is the one source of a row type. From it come the Avro schema, the NumPy columns that cores work on,
the Arrow schema of a batch payload and the ClickHouse columns:

    Avro                            NumPy           Arrow                        ClickHouse
    long, timestamp-nanos           int64           timestamp[ns, UTC]           DateTime64(9, 'UTC')
    long                            int64           int64                        Int64
    int                             int32           int32                        Int32
    double                          float64         float64                      Float64
    boolean                         bool            bool                         Bool
    string with width w             S{w}            utf8                         String
    string without                  object (str)    utf8                         String
    enum                            int8 (ordinal)  dictionary<int8, utf8>       LowCardinality(String)
    fixed(16), ip-address           V16             fixed_size_binary[16]        IPv6
    bytes                           object (bytes)  binary                       String
    array of string                 object (list)   list<utf8>                   Array(String)

Unknown values: the smallest integer of the width, NaN, and the empty string of a nullable column.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

import fastavro.schema
import numpy as np
import pyarrow as pa

NULL_INT64 = int(np.iinfo(np.int64).min)  # unknown, in a nullable long or timestamp column
NULL_INT32 = int(np.iinfo(np.int32).min)  # unknown, in a nullable int column


_NUMPY = {
    "timestamp": "i8", "long": "i8", "int": "i4", "double": "f8", "boolean": "?", "enum": "i1", "ip": "V16",
    "text": "O", "bytes": "O", "list": "O",
}  # fmt: skip
_ARROW = {
    "timestamp": pa.timestamp("ns", "UTC"), "long": pa.int64(), "int": pa.int32(), "double": pa.float64(),
    "boolean": pa.bool_(), "string": pa.utf8(), "text": pa.utf8(), "enum": pa.dictionary(pa.int8(), pa.utf8()),
    "ip": pa.binary(16), "bytes": pa.binary(), "list": pa.list_(pa.utf8()),
}  # fmt: skip


@functools.cache
def _dtype(kind: str, width: int) -> np.dtype[Any]:
    return np.dtype(f"S{width}" if kind == "string" else _NUMPY[kind])


@dataclass(frozen=True, slots=True)
class Column:
    """One field of a row type, with its type in each representation.

    `kind` is one of timestamp, long, int, double, boolean, string, text, enum, ip, bytes, list;
    `width` is the bytes kept of a string; `symbols` are the enum's, by ordinal.
    """

    name: str
    kind: str
    nullable: bool
    doc: str
    width: int
    low_cardinality: bool
    symbols: tuple[str, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy type of the column inside a core."""
        return _dtype(self.kind, self.width)

    @property
    def arrow(self) -> pa.DataType:
        """Arrow type of the column on the wire."""
        return _ARROW[self.kind]

    @property
    def clickhouse(self) -> str:
        """ClickHouse type of the column in the store."""
        if self.name == "revision":
            return "UInt32"  # the engine's version column must be unsigned
        plain = {
            "timestamp": "DateTime64(9, 'UTC')", "long": "Int64", "int": "Int32", "double": "Float64",
            "boolean": "Bool", "string": "String", "text": "String", "enum": "String", "ip": "IPv6",
            "bytes": "String", "list": "Array(String)",
        }[self.kind]  # fmt: skip
        if self.nullable:
            plain = f"Nullable({plain})"
        return f"LowCardinality({plain})" if self.low_cardinality or self.kind == "enum" else plain

    @property
    def null(self) -> Any:
        """The value that stands for unknown in a nullable column, else the zero of the type."""
        if self.kind in ("timestamp", "long"):
            return NULL_INT64 if self.nullable else 0
        if self.kind == "int":
            return NULL_INT32 if self.nullable else 0
        if self.kind == "double":
            return float("nan") if self.nullable else 0.0
        return {"boolean": False, "string": b"", "text": "", "enum": 0, "ip": bytes(16), "bytes": b"", "list": ()}[
            self.kind
        ]

    def code(self, symbol: str) -> int:
        """Ordinal of an enum symbol; raises ValueError for a symbol that the schema does not have."""
        return self.symbols.index(symbol)


@dataclass(frozen=True)
class RowSchema:
    """A row type: its columns in order, how its topic is keyed and encoded, and the parsed Avro schema.

    `key` is the tuple of key columns, or ("flow",) for the symmetric flow, or ("all",) for every partition;
    `encoding` is arrow (batches), plain (one record a message) or table (stored only, not a topic); `sort` leads the store's primary key.
    """

    name: str
    version: int
    doc: str
    key: tuple[str, ...]
    encoding: str
    sort: tuple[str, ...]
    columns: tuple[Column, ...]
    avro: Any

    @functools.cached_property
    def by_name(self) -> dict[str, Column]:
        """Columns by name."""
        return {column.name: column for column in self.columns}

    @functools.cached_property
    def arrow(self) -> pa.Schema:
        """Arrow schema of a batch payload."""
        return pa.schema([pa.field(column.name, column.arrow, column.nullable) for column in self.columns])

    @property
    def has_life(self) -> bool:
        """Whether rows carry id and revision."""
        return "id" in self.by_name

    def code(self, column: str, symbol: str) -> int:
        """Ordinal of an enum symbol in a column."""
        return self.by_name[column].code(symbol)


def _column(field: dict[str, Any], named: dict[str, Any]) -> Column:
    typ, nullable = field["type"], False
    if isinstance(typ, list):
        typ, nullable = next(t for t in typ if t != "null"), True
    if isinstance(typ, str) and typ in named:
        typ = named[typ]
    if isinstance(typ, dict) and "name" in typ:
        named[typ["name"]] = typ
    base = typ if isinstance(typ, str) else typ["type"]
    logical = None if isinstance(typ, str) else typ.get("logicalType")
    kind = base
    if logical == "timestamp-nanos":
        kind = "timestamp"
    elif base == "fixed":
        kind = "ip"
    elif base == "array":
        kind = "list"
    elif base == "string" and "width" not in field:
        kind = "text"
    symbols = tuple(typ["symbols"]) if base == "enum" and isinstance(typ, dict) else ()
    return Column(
        field["name"], kind, nullable, field["doc"], field.get("width", 0), field.get("low_cardinality", False), symbols
    )


def avsc_text(name: str, version: int = 1) -> str:
    """Return the text of one .avsc file."""
    return (resources.files(__package__) / f"{name}.v{version}.avsc").read_text()


@functools.cache
def envelope() -> Any:
    """Return the parsed Avro schema of the batch envelope."""
    return fastavro.schema.parse_schema(json.loads(avsc_text("packet_batch")))


@functools.cache
def envelope_head() -> Any:
    """Return the envelope without its last field, the payload, which readers and writers need not copy."""
    raw = json.loads(avsc_text("packet_batch"))
    assert raw["fields"][-1]["name"] == "payload", "the payload stands last"
    return fastavro.schema.parse_schema(raw | {"fields": raw["fields"][:-1]})


@functools.cache
def load(name: str, version: int = 1) -> RowSchema:
    """Return a row type by name, as "packets"; raises FileNotFoundError for a name without a file."""
    raw = json.loads(avsc_text(name, version))
    named: dict[str, Any] = {}
    columns = tuple(_column(field, named) for field in raw["fields"])
    avro = fastavro.schema.parse_schema(json.loads(avsc_text(name, version)))
    return RowSchema(
        raw["name"], raw["version"], raw["doc"], tuple([raw["key"]] if isinstance(raw["key"], str) else raw["key"]),
        raw["encoding"], tuple(raw["sort"]), columns, avro,
    )  # fmt: skip


@functools.cache
def names() -> tuple[str, ...]:
    """Return every row type, sorted by name; the envelope is not one."""
    files = (entry.name for entry in resources.files(__package__).iterdir())
    return tuple(sorted(f.split(".")[0] for f in files if f.endswith(".avsc") and not f.startswith("packet_batch")))
