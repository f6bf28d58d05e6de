"""The schemas: what every field must say, and that a released version stays readable."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import fastavro
import fastavro.utils
import numpy as np
import pyarrow as pa
import pytest

from akbypass import schemas
from akbypass.rows import CODED, CODED_ROWS_MIN, Rows, plain, read_ipc
from akbypass.schemas import reference
from akbypass.strings import CODES_MAX
from tests.support import ROOT

RELEASED = Path(__file__).parent / "released"


def readable(writer: dict[str, Any], reader: dict[str, Any]) -> None:
    """Write a record with one schema and read it with the other; raises when they do not resolve."""
    for record in fastavro.utils.generate_many(copy.deepcopy(writer), 3):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, copy.deepcopy(writer), record)
        out.seek(0)
        fastavro.schemaless_reader(out, copy.deepcopy(writer), copy.deepcopy(reader))


@pytest.mark.parametrize("path", sorted(RELEASED.glob("*.avsc")), ids=lambda p: p.name)
def test_released_schema_stays_compatible(path: Path) -> None:
    """What was written with the released schema is read with today's, and the other way round."""
    released, today = json.loads(path.read_text()), json.loads((ROOT / "schemas" / path.name).read_text())
    readable(released, today)
    readable(today, released)
    assert released.get("key") == today.get("key"), "another key is another topic version"


@pytest.mark.parametrize("harm", ["retype", "remove", "symbol"])
def test_compatibility_check_finds_harm(harm: str) -> None:
    """A retyped field, a removed enum symbol and a new field without default are found."""
    released = json.loads((RELEASED / "alerts.v1.avsc").read_text())
    broken = copy.deepcopy(released)
    fields = {f["name"]: f for f in broken["fields"]}
    if harm == "retype":
        fields["value"]["type"] = "string"
    elif harm == "remove":
        broken["fields"].append({"name": "new", "type": "long", "doc": "count"})
    else:
        fields["severity"]["type"]["symbols"] = ["info"]
    with pytest.raises(Exception, match=r".+"):
        for _ in range(10):
            readable(released, broken)


@pytest.mark.parametrize("name", schemas.names())
def test_every_field_is_documented_with_its_unit(name: str) -> None:
    """Every field has a sentence; fields that end in a unit name it there."""
    for column in schemas.load(name).columns:
        assert column.doc.endswith((".", ")", "…")), column.name
        if column.name.endswith("_ns"):
            assert "ns" in column.doc, column.name
        if column.name.endswith("_nanos"):
            assert "1e-9" in column.doc, column.name
        if column.name.endswith("length"):
            assert "bytes" in column.doc.lower(), column.name


@pytest.mark.parametrize("name", schemas.names())
def test_rows_survive_arrow_and_json(name: str) -> None:
    """Every column type keeps its values through an IPC stream and through JSON, unknown ones included."""
    rows = sample(name)
    again = Rows.from_ipc(name, rows.to_ipc())
    assert again.to_dicts() == rows.to_dicts()
    assert Rows.from_dicts(name, rows.to_dicts()).to_dicts() == rows.to_dicts()


@pytest.mark.parametrize("name", schemas.names())
def test_strings_of_few_values_travel_as_codes_and_come_back(name: str) -> None:
    """Many rows of few strings come back as they were, as rows and as Arrow for a sink."""
    rows = Rows.concat([sample(name)] * CODED_ROWS_MIN)
    sent = read_ipc(name, rows.to_ipc(), full=True)
    coded = {c.name for c in rows.schema.columns if c.kind == "string"}
    assert {f.name for f in sent.schema if f.type == CODED and rows.schema.by_name[f.name].kind == "string"} == coded
    again = Rows.from_arrow(name, sent)
    assert all((again[c] == rows[c]).all() for c in coded)
    assert plain(name, sent).equals(rows.to_arrow())


def test_strings_of_many_values_travel_as_they_are() -> None:
    """More values than codes can name: no dictionary, the same rows."""
    n = 4 * CODES_MAX
    few, many = (np.array([b"%x" % (i * 7919 % k) for i in range(n)]) for k in (CODES_MAX, CODES_MAX + 1))
    rows = Rows.build("latency", n, capture_pos=np.arange(n), venue=few, symbol=many)
    sent = read_ipc("latency", rows.to_ipc(), full=True)
    assert sent.schema.field("venue").type == CODED
    assert sent.schema.field("symbol").type == pa.utf8()
    assert Rows.from_arrow("latency", sent).to_dicts() == rows.to_dicts()


@pytest.mark.parametrize(
    ("codes", "values", "said"),
    [
        ([0, 2, 1], ["a", "b"], "codes below 2"),
        ([0, -1, 1], ["a", "b"], "codes below 2"),
        ([0, 0, 0], [], "values in the dictionary"),
        ([0, 1, 0], ["a", None], "values in the dictionary"),
        ([0, 1, 0], ["a", "b" * 99], "at most 16 bytes"),
        ([0, 1, 0], ["a", "\u00e9"], "ASCII"),
    ],
)
def test_codes_without_a_value_are_refused(codes: list[int], values: list[str | None], said: str) -> None:
    """What a dictionary does not have, or our columns cannot hold, raises instead of reading beside it."""
    rows = Rows.build("latency", 3, capture_pos=np.arange(3))
    indices = pa.Array.from_buffers(pa.int8(), 3, [None, pa.py_buffer(np.array(codes, np.int8))])
    venue = pa.DictionaryArray.from_arrays(indices, pa.array(values, pa.utf8()), safe=False)
    batch = rows.to_arrow()
    at = batch.schema.get_field_index("venue")
    with pytest.raises(pa.ArrowInvalid, match=said):
        Rows.from_arrow("latency", batch.set_column(at, batch.schema.field(at).with_type(CODED), venue))


def sample(name: str) -> Rows:
    """Three rows: plain values, extremes, and everything unknown that may be."""
    made: dict[str, Any] = {}
    for c in schemas.load(name).columns:
        if c.kind in ("timestamp", "long"):
            made[c.name] = np.array([1_700_000_000_123_456_789, np.iinfo(np.int64).max, c.null])
        elif c.kind == "int":
            made[c.name] = np.array([7, np.iinfo(np.int32).max, c.null], np.int32)
        elif c.kind == "double":
            made[c.name] = np.array([0.1, -1e300, c.null])
        elif c.kind == "boolean":
            made[c.name] = np.array([True, False, False])
        elif c.kind == "string":
            made[c.name] = np.array([b"x" * c.width, b"a b"[: c.width], b""], c.dtype)
        elif c.kind == "enum":
            made[c.name] = np.array([0, len(c.symbols) - 1, 0], np.int8)
        elif c.kind == "ip":
            mapped = bytes(10) + b"\xff\xff\x0a\x00\x00\x01"
            made[c.name] = np.frombuffer(bytes(range(16)) + mapped + bytes(16), "V16")
        else:
            made[c.name] = {
                "text": ["é – µ", "plain", ""],
                "bytes": [b"\x00\xff", b"text", b""],
                "list": [["a", "b"], [], ["c"]],
            }[c.kind]
    return Rows.build(name, 3, **made)


def test_foreign_arrow_is_refused() -> None:
    """A stream with other columns raises, and does not become rows."""
    sink = pa.BufferOutputStream()
    batch = pa.record_batch({"a": [1]})
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(pa.ArrowInvalid, match="expected the columns of latency"):
        Rows.from_ipc("latency", sink.getvalue().to_pybytes())


def test_reference_page_is_up_to_date() -> None:
    """docs/reference/topics.md is what `make docs` writes."""
    assert (ROOT / "docs" / "reference" / "topics.md").read_text() == reference.page()
