"""Append-only logs of checkpoints on the broker: append at known offsets, read back by offset, cut off at the front.

One partition of a topology's log has one owner at a time, and an owner knows the offset of whatever it appends next.
A record that lands elsewhere shows that somebody else has appended: that is the whole fence, and no lock is needed.
The topic is not compacted: an owner deletes what lies before its oldest chunk in use, so the log is as long as the
state asks for and no longer, whenever the broker's cleaner may run. This module knows no state and no topology.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from akbypass import transport
from akbypass.config import Config
from akbypass.errors import ServiceError

log = logging.getLogger("akbypass.checkpoint")

TAIL_RECORDS = 4  # read first when looking backwards for a manifest; eight times as many at each further try
GAP_RECORDS = 8  # unwanted records that are read over rather than sought over
FETCH_BYTES = 8 * 1024 * 1024  # asked for at once; states are read in one go
FETCH_WAIT_MS = 20  # how long the broker may hold a fetch that has nothing to bring


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a log; `time_ms` is since the UNIX epoch."""

    offset: int
    key: bytes
    value: bytes
    time_ms: int = 0


class LogWriter:
    """Appends records and returns their offsets; thread-safe, one for all topologies of a process."""

    def __init__(self, config: Config, bootstrap: str) -> None:
        self._config, self._bootstrap = config, bootstrap
        options = transport.producer_options(config, bootstrap)
        self._admin = AdminClient(transport.client_options(config, bootstrap))
        self._lock = threading.Lock()
        self._patience_s = config.kafka.delivery_timeout_s + transport.FLUSH_SLACK_S
        queue_kbytes = config.buffers.checkpoint_bytes_max // 1024
        self._producer = Producer({**options, "linger.ms": 0, "queue.buffering.max.kbytes": queue_kbytes})

    def append(self, topic: str, partition: int, records: Sequence[tuple[bytes, bytes]]) -> list[int]:
        """Append (key, value) in order and return the offset of each; raises ServiceError when the broker did not."""
        offsets: dict[int, int] = {}
        failures: list[str] = []

        def delivered(number: int, error: object, message: Message) -> None:  # in whichever thread polls: in any order
            if error is None:
                offsets[number] = message.offset()
            else:
                failures.append(str(error))

        deadline = time.monotonic() + self._patience_s
        for number, (key, value) in enumerate(records):
            self._produce(topic, partition, key, value, functools.partial(delivered, number), deadline)
        while len(offsets) < len(records) and not failures:
            if time.monotonic() > deadline:
                raise ServiceError(f"{topic}[{partition}]: a checkpoint was not acknowledged; is the broker running?")
            self._producer.poll(0.05)
        if failures:
            raise ServiceError(f"{topic}[{partition}]: a checkpoint could not be written: {failures[0]}")
        return [offsets[number] for number in range(len(records))]

    def _produce(
        self, topic: str, partition: int, key: bytes, value: bytes, delivered: object, deadline: float
    ) -> None:
        while True:
            try:
                with self._lock:
                    self._producer.produce(topic, value, key, partition=partition, on_delivery=delivered)
                self._producer.poll(0)
                return
            except BufferError:
                if time.monotonic() > deadline:
                    raise ServiceError(f"{topic}[{partition}]: the broker takes no checkpoints") from None
                self._producer.poll(0.05)
            except KafkaException as error:
                raise ServiceError(f"{topic}[{partition}]: a checkpoint could not be written: {error}") from error

    def reader(self, topic: str) -> LogReader:
        """A reader of one log that has `checkpoint.load_timeout_s`."""
        return LogReader(self._config, self._bootstrap, topic, self._config.checkpoint.load_timeout_s)

    def end(self, topic: str, partition: int) -> int:
        """The offset behind the last record; tries as long as `append`, for a new leader or broker; raises ServiceError."""
        place = TopicPartition(topic, partition)
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return int(self._admin.list_offsets({place: OffsetSpec.latest()})[place].result(30).offset)
            except KafkaException as error:
                if time.monotonic() > deadline:
                    raise ServiceError(f"{topic}[{partition}]: {error}") from error
                time.sleep(0.2)

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Let the broker delete what lies before an offset; failing that the log grows, which is logged."""
        asked = self._admin.delete_records([TopicPartition(topic, partition, offset)])

        def told(future: object) -> None:
            error = future.exception()  # type: ignore[attr-defined]
            if error is not None:
                log.warning("%s[%d]: old checkpoints were not deleted: %s", topic, partition, error)

        for future in asked.values():
            future.add_done_callback(told)


class LogReader:
    """Reads partitions of one log; every read ends at the deadline with ServiceError. Use as a context manager."""

    def __init__(self, config: Config, bootstrap: str, topic: str, timeout_s: float) -> None:
        self.topic, self.timeout_s = topic, timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._consumer = Consumer(
            {
                **transport.client_options(config, bootstrap),
                "group.id": f"{config.kafka.prefix}reader",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": FETCH_WAIT_MS,
                "fetch.message.max.bytes": FETCH_BYTES,
                "queued.max.messages.kbytes": 4 * FETCH_BYTES // 1024,
            }
        )

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def bounds(self, partition: int) -> tuple[int, int]:
        """First offset and the one behind the last; tries again while the partition has no leader yet."""
        while True:
            try:
                low, high = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=5)
                return low, high
            except KafkaException as error:
                self._check(f"{self.topic}[{partition}]", str(error))
                time.sleep(0.2)

    def backwards(self, partition: int) -> Iterator[list[Record]]:
        """Ever longer parts of a partition, each up to its present end and twice read only where they overlap."""
        low, high = self.bounds(partition)
        size, end = TAIL_RECORDS, high
        while end > low:
            start = max(low, end - size)
            yield self.between(partition, start, end)
            size, end = size * 8, start

    def between(self, partition: int, start: int, end: int) -> list[Record]:
        """Every record from `start` up to and without `end`."""
        return self._read(partition, start, end, None) if start < end else []

    def at(self, partition: int, offsets: Sequence[int]) -> dict[int, bytes]:
        """The values at these offsets; those that the log does not hold any more are left out."""
        found: dict[int, bytes] = {}
        wanted = sorted(set(offsets))
        while wanted:
            near = 1
            while near < len(wanted) and wanted[near] - wanted[near - 1] <= GAP_RECORDS:
                near += 1
            run, wanted = wanted[:near], wanted[near:]
            found |= {r.offset: r.value for r in self._read(partition, run[0], run[-1] + 1, frozenset(run))}
        return found

    def _read(self, partition: int, start: int, end: int, wanted: frozenset[int] | None) -> list[Record]:
        self._consumer.assign([TopicPartition(self.topic, partition, start)])
        found: list[Record] = []
        while True:
            message = self._consumer.poll(0.2)  # one by one: `consume` waits until it has as many as asked for
            if message is None:
                self._check(f"{self.topic}[{partition}]", f"offsets {start} to {end} did not come")
            elif message.error() is None:
                offset = message.offset()
                if offset < end and (wanted is None or offset in wanted):
                    time_ms = message.timestamp()[1]
                    found.append(Record(offset, message.key() or b"", message.value() or b"", time_ms))
                if offset >= end - 1:
                    return found
            elif message.error().name() == "_PARTITION_EOF":  # others are retried by librdkafka until the deadline
                return found

    def _check(self, where: str, what: str) -> None:
        if time.monotonic() > self._deadline:
            raise ServiceError(f"{where}: no checkpoint could be read within {self.timeout_s:.0f} s: {what}")
