"""Messages on Kafka: whatever is cut and encoded comes back; foreign bytes are named, never taken."""

from __future__ import annotations

import io
import itertools

import fastavro
import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from akbypass import batch, schemas, transport
from akbypass.batch import Batch, BatchError
from akbypass.order import END_NS, START_NS
from akbypass.rows import Rows


def packets(n: int) -> Rows:
    """Rows with rising times, two a nanosecond."""
    return Rows.build("packets", n, run_ns=np.arange(n) // 2, capture_pos=np.arange(n))


@pytest.mark.parametrize("rows_max", [1, 7, 4096])
def test_cut_batches_keep_rows_and_watermarks(rows_max: int) -> None:
    """Messages hold at most rows_max rows; a watermark never passes a row that is still to come."""
    rows = packets(50)
    made = list(batch.encode(Batch("packets", "ab", 0, 1, rows, 24, 25), rows_max, 768 * 1024))
    got = [batch.decode("packets", m.value, m.headers) for m in made]
    assert [d for g in got if g.rows for d in g.rows.to_dicts()] == rows.to_dicts()
    for before, after in itertools.pairwise(got):
        assert after.rows is not None
        assert before.watermark_ns <= after.rows["run_ns"][0]
        assert before.end_ns is None
    assert (got[-1].watermark_ns, got[-1].end_ns) == (24, 25)


def test_messages_stay_below_the_byte_limit() -> None:
    """A batch that is too large in bytes is cut further."""
    made = list(batch.encode(Batch("packets", "ab", 0, 1, packets(4000), 9, None), 4096, 100_000))
    assert len(made) > 5
    assert max(len(m.value or b"") for m in made) <= 100_000


def test_plain_records_are_json_with_key_and_end() -> None:
    """Plain topics carry one JSON object a message, keyed, and a message without value at the end."""
    rows = Rows.build("alerts", 2, entity=np.array([b"a", b"b"]), evidence=[["x"], []])
    made = list(batch.encode(Batch("alerts.security", "ab", 3, 4, rows, 5, 6), 4096, 768 * 1024))
    assert [m.key for m in made] == [b"a", b"b", None]
    got = [batch.decode("alerts.security", m.value, m.headers) for m in made]
    assert [g.rows.to_dicts()[0]["entity"] for g in got if g.rows] == ["a", "b"]
    assert (got[-1].end_ns, got[-1].source, got[-1].sources) == (6, 3, 4)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(transport.known_topics()), st.binary(max_size=300))
def test_foreign_bytes_are_refused(topic: str, value: bytes) -> None:
    """Any bytes are either a batch or a BatchError."""
    with pytest.raises(BatchError):
        batch.decode(topic, value, [])


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255), st.booleans())
def test_damaged_messages_are_refused_or_read(place: int, byte: int, cut: bool) -> None:
    """One changed byte or a cut never raises anything but BatchError."""
    message = next(iter(batch.encode(Batch("packets", "ab", 0, 1, packets(20), 9, None), 4096, 768 * 1024)))
    value = bytearray(message.value or b"")
    at = place % len(value)
    harmed = bytes(value[:at]) if cut else bytes(value[:at]) + bytes([byte]) + bytes(value[at + 1 :])
    try:
        batch.decode("packets", harmed, [])
    except BatchError:
        return


@pytest.mark.parametrize("n", [0, 20])
def test_a_message_that_breaks_off_is_refused_wherever_it_does(n: int) -> None:
    """No beginning of a message is a message, with rows and without; the whole one is."""
    rows = packets(n) if n else None
    value = next(iter(batch.encode(Batch("packets", "ab", 0, 1, rows, 9, None), 4096, 768 * 1024))).value or b""
    assert batch.decode("packets", value, []).watermark_ns == 9
    for size in range(len(value)):
        with pytest.raises(BatchError):
            batch.decode("packets", value[:size], [])


def test_every_type_has_a_topic_or_a_table() -> None:
    """The topics of the design are all there."""
    assert {"packets", "feed_frames", "market_data", "orders", "captures", "rejected", "control"} <= set(
        transport.known_topics()
    )
    assert schemas.load("audit").encoding == "table"


def envelope(**changes: object) -> bytes:
    """An envelope of three packets rows with some fields changed."""
    out = io.BytesIO()
    record = {
        "run_id": "ab", "schema": "packets.v1", "source": 0, "sources": 1, "sequence": 0, "rows": 3, "watermark_ns": 5,
        "end_ns": None, "publish_ns": 0, "payload": packets(3).to_ipc(),
    }  # fmt: skip
    fastavro.schemaless_writer(out, schemas.envelope(), {**record, **changes})
    return out.getvalue()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run_id": "x/y"}, "expected a run"),
        ({"run_id": ""}, "expected a run"),
        ({"source": 1}, "expected a source"),
        ({"source": -1}, "expected a source"),
        ({"sources": 10**9, "source": 5}, "expected a source"),
        ({"watermark_ns": END_NS}, "expected a watermark"),
        ({"watermark_ns": START_NS - 1}, "expected a watermark"),
        ({"end_ns": END_NS}, "expected an end"),
        ({"rows": 2}, "expected 2 rows"),
        ({"schema": "orders.v1"}, "expected rows of packets.v1"),
        ({"payload": packets(3).take([0, 2, 1]).to_ipc()}, "strict order"),
        ({"payload": packets(3).take([0, 1, 1]).to_ipc()}, "strict order"),
        ({"payload": b"nonsense"}, "expected a message"),
    ],
)
@pytest.mark.parametrize("as_arrow", [False, True])
def test_what_would_mislead_a_reader_is_refused(changes: dict[str, object], said: str, as_arrow: bool) -> None:
    """Runs, sources, watermarks, ends and orders that no writer of ours sends are named and refused."""
    assert batch.decode("packets", envelope(), []).rows is not None
    with pytest.raises(BatchError, match=said):
        batch.decode("packets", envelope(**changes), [], as_arrow=as_arrow)


@pytest.mark.parametrize("as_arrow", [False, True])
def test_missing_values_of_columns_that_have_none_are_refused(as_arrow: bool) -> None:
    """A null in an enum column would otherwise show whatever byte lies there."""
    rows = Rows.build("contacts", 2, run_ns=np.array([1, 2])).to_arrow()
    at = rows.schema.get_field_index("outcome")
    symbols = rows.column(at).dictionary
    harmed = rows.set_column(
        at, rows.schema.field(at), pa.DictionaryArray.from_arrays(pa.array([0, None], pa.int8()), symbols)
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, harmed.schema) as writer:
        writer.write_batch(harmed)
    value = envelope(schema="contacts.v1", rows=2, payload=sink.getvalue().to_pybytes())
    with pytest.raises(BatchError, match="expected a value in every row of outcome"):
        batch.decode("contacts", value, [], as_arrow=as_arrow)


@pytest.mark.parametrize(
    "change",
    [{"entity": 5}, {"description": 5}, {"evidence": [5]}, {"evidence": None}, {"value": "x"}, {"run_ns": 2**70}],
)
def test_plain_records_of_wrong_types_are_refused(change: dict[str, object]) -> None:
    """JSON whose values have other types raises BatchError; so do headers without a value."""
    rows = Rows.build("alerts", 1, evidence=[["x"]])
    message = next(iter(batch.encode(Batch("alerts.security", "ab", 0, 1, rows, 5, None), 4096, 768 * 1024)))
    value = orjson.dumps({**rows.to_dicts()[0], **{k: v for k, v in change.items() if v != 2**70}})
    if change.get("run_ns"):
        value = value.replace(b'"run_ns":0', b'"run_ns":%d' % 2**70)
    with pytest.raises(BatchError):
        batch.decode("alerts.security", value, message.headers)
    with pytest.raises(BatchError):
        batch.decode("alerts.security", message.value, [("run_id", None)])  # type: ignore[list-item]
