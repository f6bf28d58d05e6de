"""Messages on Kafka: rows in, (value, headers) out, and back; talks to no broker.

Topics of encoding `arrow` carry the envelope of schemas/packet_batch: many rows and a watermark in one message.
Topics of encoding `plain` carry one JSON record a message for whoever subscribes; run and source stand in headers,
and a message without a value marks the end of a source's run.
Both number their rows in the header `rows_before`, by which a reader knows what it missed (see numbering).
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import fastavro
import orjson
import pyarrow as pa

from akbypass import schemas, topics
from akbypass.order import END_NS, START_NS
from akbypass.rows import ORDER, Rows, plain, read_ipc

Headers = list[tuple[str, bytes]]
Numbers = Mapping[str, Sequence[int]]  # number of the next row, by topic and partition
RUN_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
SOURCES_MAX = 65_536
NUMBER = "rows_before"  # header: rows of this source in this partition before the message's first (count)
HEAD_BYTES = 8 * 1024  # envelope, Arrow schema and padding of one message


class BatchError(ValueError):
    """A message that is not one of ours; says what was expected and what was found."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One message: rows of a topic from one source of a run, and how far that source has spoken.

    `arrow` holds the same rows as they came, when they were decoded for a reader that hands them on.
    """

    topic: str
    run_id: str
    source: int
    sources: int
    rows: Rows | None
    watermark_ns: int
    end_ns: int | None = None
    sequence: int = 0
    publish_ns: int = 0
    arrow: pa.RecordBatch | None = None
    rows_before: int | None = None  # rows of this source in this partition before these (count); None when not told


@dataclass(frozen=True, slots=True)
class Message:
    """One Kafka message; `key` is set for plain records only."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    rows: int


def encode(batch: Batch, rows_max: int, bytes_max: int) -> Iterator[Message]:
    """Write a batch as one or more messages of at most `rows_max` rows and `bytes_max` bytes."""
    if schemas.load(topics.row_type(batch.topic)).encoding == "plain":
        yield from _encode_plain(batch)
    else:
        yield from _encode_arrow(batch, rows_max, bytes_max)


def _encode_arrow(batch: Batch, rows_max: int, bytes_max: int) -> Iterator[Message]:
    rows = batch.rows
    if rows is None or len(rows) == 0:
        yield _envelope(batch, b"", 0, batch.watermark_ns, batch.end_ns, 0)
        return
    start, n = 0, len(rows)
    while start < n:
        take = min(rows_max, n - start)
        payload = rows.take(slice(start, start + take)).to_ipc()
        while len(payload) + HEAD_BYTES > bytes_max and take > 1:
            take = max(1, min(take - 1, take * (bytes_max - HEAD_BYTES) // len(payload)))
            payload = rows.take(slice(start, start + take)).to_ipc()
        last = start + take == n
        watermark = batch.watermark_ns if last else int(rows["run_ns"][start + take])
        yield _envelope(batch, payload, take, watermark, batch.end_ns if last else None, start)
        start += take


def _numbered(batch: Batch, start: int) -> Headers:
    """Header with the number of the batch's row `start`; none when the batch has no numbers."""
    return [] if batch.rows_before is None else [(NUMBER, b"%d" % (batch.rows_before + start))]


def _envelope(batch: Batch, payload: bytes, rows: int, watermark_ns: int, end_ns: int | None, start: int) -> Message:
    out = io.BytesIO()
    schema = schemas.load(topics.row_type(batch.topic))
    record = {
        "run_id": batch.run_id, "schema": f"{schema.name}.v{schema.version}", "source": batch.source,
        "sources": batch.sources, "sequence": batch.sequence, "rows": rows, "watermark_ns": watermark_ns,
        "end_ns": end_ns, "publish_ns": batch.publish_ns,
    }  # fmt: skip
    fastavro.schemaless_writer(out, schemas.envelope_head(), record)
    out.write(_long(len(payload)))
    return Message(None, b"".join((out.getvalue(), payload)), _numbered(batch, start), rows)


def _long(value: int) -> bytes:
    """Write a length of Avro bytes: zig-zag, seven bits a byte, lowest first (Avro 1.12, "Binary Encoding")."""
    left, out = value << 1, bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


def _payload(value: bytes, at: int) -> memoryview:
    """The Avro bytes that begin at `at` and end with the message; raises BatchError when they do not."""
    length, shift = 0, 0
    for byte in value[at : at + 5]:
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    else:
        raise BatchError("expected how many bytes of rows follow, found the end of the message")
    if length & 1 or at + (length >> 1) != len(value):
        raise BatchError(f"expected {length >> 1} bytes of rows at the end, found {len(value) - at}")
    return memoryview(value)[at:]


def _encode_plain(batch: Batch) -> Iterator[Message]:
    headers: Headers = [
        ("run_id", batch.run_id.encode()),
        ("source", b"%d" % batch.source),
        ("sources", b"%d" % batch.sources),
    ]
    if batch.rows is not None:
        column = batch.rows.schema.key[0]
        lines = zip(batch.rows[column].tolist(), batch.rows.to_json_lines(), strict=True)
        for i, (key, value) in enumerate(lines):
            yield Message(key, value, [*headers, *_numbered(batch, i)], 1)
    if batch.end_ns is not None:
        n = 0 if batch.rows is None else len(batch.rows)
        yield Message(None, None, [*headers, *_numbered(batch, n), ("end_ns", b"%d" % batch.end_ns)], 0)


def decode(
    topic: str,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes]] | None,
    *,
    as_arrow: bool = False,
    only: Collection[str] | None = None,
) -> Batch:
    """Read one message of a topic; raises BatchError for anything that `encode` does not write.

    With `as_arrow`, rows of arrow topics have their order key only and `arrow` has all columns; with `only`, they have
    these columns beside it.
    """
    known = dict(headers or ())
    try:
        if schemas.load(topics.row_type(topic)).encoding == "plain":
            return _checked(_decode_plain(topic, value, known))
        return _checked(_decode_arrow(topic, value or b"", as_arrow, _number_of(known), only))
    except BatchError:
        raise
    # fastavro, Arrow and JSON raise many kinds for foreign bytes; each means the same here
    except (
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        EOFError,
        OSError,
        ArithmeticError,
        AttributeError,
        pa.ArrowException,
    ) as error:
        raise BatchError(
            f"expected a message of {topic}, found {len(value or b'')} bytes that are none: {error}"
        ) from error


def _number_of(headers: dict[str, bytes]) -> int | None:
    return int(headers[NUMBER]) if NUMBER in headers else None


def _decode_arrow(
    topic: str, value: bytes, as_arrow: bool, rows_before: int | None, only: Collection[str] | None
) -> Batch:
    name = topics.row_type(topic)
    reader = io.BytesIO(value[:HEAD_BYTES])
    record = fastavro.schemaless_reader(reader, schemas.envelope_head(), None)
    payload = _payload(value, reader.tell())
    if not isinstance(record, dict):
        raise BatchError(f"expected an envelope in a message of {topic}")
    expected = f"{name}.v{schemas.load(name).version}"
    if record["schema"] != expected:
        raise BatchError(f"expected rows of {expected}, found {record['schema']!r:.60}")
    arrow = read_ipc(name, payload, full=as_arrow) if record["rows"] else None
    wanted = ORDER if as_arrow else None if only is None else {*ORDER, *only}
    rows = None if arrow is None else Rows.from_arrow(name, arrow, wanted)
    if rows is not None and len(rows) != record["rows"]:
        raise BatchError(f"expected {record['rows']} rows, found {len(rows)}")
    if rows is not None and not rows.rises(ORDER, strictly=True):
        raise BatchError("expected rows in strict order of their keys, found one that is not above the one before")
    return Batch(
        topic, record["run_id"], record["source"], record["sources"], rows, record["watermark_ns"], record["end_ns"],
        record["sequence"], record["publish_ns"], plain(name, arrow) if as_arrow and arrow is not None else None, rows_before,
    )  # fmt: skip


def _checked(found: Batch) -> Batch:
    """Refuse what would make a reader wait for ever, end too early, or mix runs."""
    if not RUN_ID.fullmatch(found.run_id):
        raise BatchError(f"expected a run of letters and digits, found {found.run_id!r:.60}")
    if not 0 <= found.source < found.sources <= SOURCES_MAX:
        raise BatchError(f"expected a source below {found.sources}, found {found.source}")
    if found.end_ns is None and not START_NS <= found.watermark_ns < END_NS:
        raise BatchError(f"expected a watermark of a run that goes on, found {found.watermark_ns}")
    if found.rows_before is not None and found.rows_before < 0:
        raise BatchError(f"expected rows numbered from 0, found {found.rows_before}")
    if found.end_ns is not None and not START_NS <= found.end_ns < END_NS:
        raise BatchError(f"expected an end within 64 bits, found {found.end_ns}")
    return found


def _decode_plain(topic: str, value: bytes | None, headers: dict[str, bytes]) -> Batch:
    run_id, source, sources = headers["run_id"].decode("ascii"), int(headers["source"]), int(headers["sources"])
    before = _number_of(headers)
    if value is None:
        return Batch(topic, run_id, source, sources, None, END_NS, int(headers["end_ns"]), rows_before=before)
    rows = Rows.from_dicts(topics.row_type(topic), [orjson.loads(value)])
    return Batch(topic, run_id, source, sources, rows, START_NS, rows_before=before)
