"""Every column type into a table made from the schema and back, through the ordinary client, byte for byte."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from akbypass import schemas, store_client
from akbypass.config import Config
from akbypass.rows import Rows, address_bytes
from akbypass.schemas import NULL_INT32, NULL_INT64, Column
from tests.backends import Store

pytestmark = pytest.mark.services

N = 4
NANOSECONDS = 1_696_248_000_123_456_789  # 2023-10-02 12:00:00.123456789 UTC, by date -u -d @1696248000
LAST = 9_223_372_036_854_775_807  # the largest int64: 2262-04-11 23:47:16.854775807 UTC
ADDRESSES = ("192.0.2.1", "2001:db8::ff00:42:8329", "::", "255.255.255.255")
NOT_TEXT = (b"\x00\xff\xfe\n\t'\\", bytes(range(256)), b"", b"\xc3\x28")


def values(column: Column) -> Any:
    """Four values of a column: ordinary, extreme, unknown where it may be, zero."""
    kind, null = column.kind, column.nullable
    if kind == "timestamp":
        return np.array([NANOSECONDS, LAST, NULL_INT64 if null else 1, 0])
    if kind == "long":
        return np.array([-1, LAST, NULL_INT64 if null else NULL_INT64 + 1, 0])
    if column.clickhouse == "UInt32":  # a revision counts from zero; the schema's int holds no more
        return np.array([1, 2**31 - 1, 2, 0], np.int32)
    if kind == "int":
        return np.array([-1, 2**31 - 1, NULL_INT32 if null else NULL_INT32 + 1, 0], np.int32)
    if kind == "double":
        return np.array([0.1, -1e308, np.nan if null else 5e-324, 0.0])
    if kind == "boolean":
        return np.array([True, False, True, False])
    if kind == "string":
        return np.array([b"a", b"~" * column.width, b"", b'it\'s \\ "q"'[: column.width]], column.dtype)
    if kind == "text":
        return ["a", "grün – 10 µs\t\n'\\", "", "x" * 10_000]
    if kind == "enum":
        return np.arange(N, dtype=np.int8) % len(column.symbols)
    if kind == "ip":
        return np.array([np.void(address_bytes(a)) for a in ADDRESSES], "V16")
    if kind == "bytes":
        return list(NOT_TEXT)
    return [["a", "b"], [], ["it's", "\t"], [""]]


def sample(name: str) -> Rows:
    """Four rows of a type that use every column."""
    return Rows.build(name, N, **{c.name: values(c) for c in schemas.load(name).columns})


@pytest.fixture(scope="module")
def client(store_server: Store) -> Iterator[Any]:
    """A client with a database of its own."""
    database = f"round_trip_{uuid.uuid4().hex[:8]}"
    with store_client.connect(Config(), store_server.url, database="") as admin:
        admin.command(f"CREATE DATABASE {database}")
    with store_client.connect(Config(), store_server.url, database=database) as made:
        yield made


def fill(client: Any, name: str) -> pa.Table:
    """Make the table of a row type, insert the four rows with an ordinal that keeps them apart, return what was sent."""
    columns = ", ".join(f"`{c.name}` {c.clickhouse}" for c in schemas.load(name).columns)
    client.command(f"DROP TABLE IF EXISTS {name}")
    client.command(f"CREATE TABLE {name} ({columns}, `_n` Int64) ENGINE = MergeTree ORDER BY _n")
    sent = pa.Table.from_batches([sample(name).to_arrow()]).append_column("_n", pa.array(range(N)))
    client.insert_arrow(name, sent)
    return sent


def plain(array: Any) -> list[Any]:
    """Python values of an Arrow column; texts as bytes, times as integers (ns)."""
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    if pa.types.is_timestamp(array.type):
        assert array.type == pa.timestamp("ns", "UTC")
        array = array.cast(pa.int64())

    def value(found: Any) -> Any:
        if isinstance(found, list):
            return [value(f) for f in found]
        return found.encode() if isinstance(found, str) else found

    return [value(v) for v in array.to_pylist()]


@pytest.mark.parametrize("name", schemas.names())
def test_every_column_of_a_row_type_comes_back_as_it_went_in(client: Any, name: str) -> None:
    """insert_arrow into a table derived from the schema and query_arrow give equal values in every column."""
    sent = fill(client, name)
    found = client.query_arrow(f"SELECT * FROM {name} ORDER BY _n", use_strings=False)
    for column in schemas.load(name).columns:
        assert plain(found[column.name]) == plain(sent[column.name]), column.name


def test_the_store_reads_values_as_we_mean_them(client: Any) -> None:
    """Asked in SQL, times have their nanoseconds, addresses their text, unknown is NULL, enums are their symbols."""
    latency = schemas.load("latency")
    for name in ("latency", "rejected"):
        fill(client, name)
    first = client.query(
        "SELECT toString(ts_capture_ns), toUnixTimestamp64Nano(ts_capture_ns), toString(src_ip), kind, "
        "toTypeName(ts_capture_ns), toTypeName(src_ip) FROM latency ORDER BY _n"
    ).result_rows
    assert first[0][:3] == ("2023-10-02 12:00:00.123456789", NANOSECONDS, "::ffff:192.0.2.1")
    assert first[1][:3] == ("2262-04-11 23:47:16.854775807", LAST, "2001:db8::ff00:42:8329")
    assert first[3][:3] == ("1970-01-01 00:00:00.000000000", 0, "::ffff:255.255.255.255")
    assert [row[3] for row in first] == [
        latency.by_name["kind"].symbols[i % len(latency.by_name["kind"].symbols)] for i in range(N)
    ]
    assert first[0][4:] == ("DateTime64(9, 'UTC')", "IPv6")
    nulls = client.query("SELECT session IS NULL, value_ns FROM latency ORDER BY _n").result_rows
    assert [row[0] for row in nulls] == [0, 0, 1, 0]
    assert nulls[1][1] == LAST
    hexes = client.query("SELECT hex(bytes), partition IS NULL FROM rejected ORDER BY _n").result_rows
    assert [bytes.fromhex(row[0]) for row in hexes] == list(NOT_TEXT)
    assert [row[1] for row in hexes] == [0, 0, 1, 0]
