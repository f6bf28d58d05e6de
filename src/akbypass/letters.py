"""Dead letters: a Kafka message that a reader sets aside becomes one row of `rejected`; reads no message and stores nothing.

A letter must be the same row whenever the message is met again, and must not be taken for a repeat of another letter.
So it travels in a run of its own kind, one per stage, partition and hour of the message's time, with the offset in its
order key: offsets rise, and a topic that was made anew begins another hour.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from akbypass import batch, topics
from akbypass.batch import Batch
from akbypass.order import START_NS, make_id
from akbypass.rows import ORDER, Array, Rows
from akbypass.transport import Publisher

TOPIC = "rejected"
BYTES_MAX = (
    1_024  # of the message kept in the letter, as the schema says; the whole stays on Kafka while retention holds it
)
HOUR_MS = 3_600_000
TIME_MS_MAX = 9_000_000_000_000  # year 2255; what a foreign client stamps must fit into nanoseconds of 64 bits

COPIED = (*ORDER, "ts_capture_ns", "src_ip", "dst_ip", "src_port", "dst_port")  # columns that a row's letter has of it

NOT_A_BATCH = "not_a_batch"  # the bytes are no message of the topic
CORE_FAILED = "core_failed"  # a core fails at a row of the message
CORE_GIVEN_UP = (
    "core_given_up"  # a core fails at no row in particular, or at too many: nothing more of its run is taken
)
STORE_REFUSED = "store_refused"  # the store takes other rows of the table, but not this one
LATE = "late"  # rows of the message came behind what had been said for their silent capture
NOT_A_CHECKPOINT = "not_a_checkpoint"  # the bytes are no manifest


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message lies on Kafka: topic without prefix and version, and the message's time (ms since the UNIX epoch)."""

    topic: str
    partition: int
    offset: int
    time_ms: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True, slots=True)
class Letter:
    """One row of `rejected`, and the run that it is written in."""

    run_id: str
    row: Rows

    @property
    def reason(self) -> bytes:
        """Reason, which is the key of the topic."""
        return bytes(self.row["reason"][0])


def letter(
    place: Place, *, stage: str, reason: str, detail: str, value: bytes | None, message_run: str = "", message_rows: int | None = None
) -> Letter:  # fmt: skip
    """Make the letter of one message.

    Args:
        place: Where the message lies.
        stage: Who sets it aside.
        reason: One word per cause.
        detail: What was expected and what was found.
        value: The message's bytes; the first 1,024 are kept.
        message_run: Its run, when it could be told.
        message_rows: Rows set aside with it (count), when they could be told.
    """
    time_ms = min(max(place.time_ms, 0), TIME_MS_MAX)
    hour_ms = time_ms - time_ms % HOUR_MS
    row = Rows.build(
        "rejected", 1, run_ns=hour_ms * 1_000_000, capture_pos=place.offset, ts_capture_ns=time_ms * 1_000_000,
        id=make_id("rejected", stage, str(place), time_ms, reason), stage=stage.encode(), topic=place.topic.encode()[:32],
        reason=reason.encode(), detail=[f"{place}: {detail}"], partition=np.array([place.partition]),
        offset=np.array([place.offset]), bytes=[(value or b"")[:BYTES_MAX]], message_run=message_run.encode(),
        message_rows=None if message_rows is None else np.array([message_rows]),
    )  # fmt: skip
    return Letter(make_id("letters", stage, place.topic, place.partition, hour_ms).decode(), row)


def row_letter(place: Place, *, stage: str, reason: str, detail: str, run_id: str, row: Rows) -> Letter:
    """Make the letter of one row of a message; it has the row's order key and addresses, and the row as JSON.

    Args:
        place: Where the message lies.
        stage: Who sets the row aside.
        reason: One word per cause.
        detail: What was expected and what was found.
        run_id: The message's run.
        row: The one row.
    """
    columns = {name: row[name] for name in COPIED if name in row.columns}
    return key_letter(
        place, stage=stage, reason=reason, detail=detail, run_id=run_id, columns=columns, text=row.to_json_lines()[0]
    )


def key_letter(
    place: Place, *, stage: str, reason: str, detail: str, run_id: str, columns: Mapping[str, Array], text: bytes
) -> Letter:
    """Make the letter of one row of which only some columns are at hand, as arrays of one value: `COPIED`, as far as it has them."""
    key = [int(columns[name][0]) for name in ORDER]
    made = Rows.build(
        TOPIC, 1, **({"ts_capture_ns": columns["run_ns"]} | dict(columns)),
        id=make_id("rejected", stage, reason, run_id, place.topic, *key), stage=stage.encode(),
        topic=place.topic.encode()[:32], reason=reason.encode(), detail=[f"{place}: {detail}"],
        partition=np.array([place.partition]), offset=np.array([place.offset]), bytes=[text[:BYTES_MAX]],
        message_run=run_id.encode(), message_rows=np.array([1]),
    )  # fmt: skip
    return Letter(make_id("letters", stage, place.topic, place.partition, place.offset, run_id).decode(), made)


def run_letter(*, stage: str, partition: int, reason: str, detail: str, run_id: str, at_ns: int) -> Letter:
    """Make the letter of a run of which a stage takes nothing more in one partition, from an event time on (ns)."""
    row = Rows.build(
        TOPIC, 1, run_ns=at_ns, ts_capture_ns=at_ns, id=make_id("rejected", stage, reason, run_id, partition),
        stage=stage.encode(), reason=reason.encode(), detail=[detail], partition=np.array([partition]), bytes=[b""],
        message_run=run_id.encode(),
    )  # fmt: skip
    return Letter(make_id("letters", stage, partition, run_id).decode(), row)


def send(publisher: Publisher, made: Letter) -> None:
    """Queue a letter for the topic `rejected`; its row has no number, because nobody knows how many there will be."""
    config = publisher.config.kafka
    full, partition = topics.full_name(config.prefix, TOPIC), topics.partition_of(made.reason, config.partitions)
    whole = Batch(TOPIC, made.run_id, 0, 1, made.row, START_NS, publish_ns=time.time_ns())
    for message in batch.encode(whole, config.batch_rows_max, config.batch_bytes_max):
        publisher.send(full, partition, message)
