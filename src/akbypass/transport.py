"""The broker, as every stage uses it: topics, one idempotent producer, consumers; knows no row's meaning."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from akbypass import batch, schemas, topics
from akbypass.batch import Batch
from akbypass.config import Config
from akbypass.errors import ServiceError
from akbypass.order import START_NS
from akbypass.rows import Rows
from akbypass.telemetry.metrics import published
from akbypass.topology import Topology

log = logging.getLogger("akbypass.kafka")

FLUSH_SLACK_S = 10  # beyond the delivery bound, after which a message has a report
MESSAGE_BYTES_MAX = 2 * 1024 * 1024  # broker-side limit; our batches stay below half of it


def client_options(config: Config, bootstrap: str) -> dict[str, Any]:
    """librdkafka options that every client shares; its log lines come with ours, at the client's next poll."""
    return {"bootstrap.servers": bootstrap, "log_level": 3, "logger": log, **config.kafka.options}


def checkpoint_topic(config: Config, topology: str, version: int) -> str:
    """Full name of the topic that holds the checkpoints of one version of a topology."""
    return f"{config.kafka.prefix}state.{topology}.v{version}"


def answers(config: Config, bootstrap: str, timeout_s: float = 3) -> bool:
    """Whether a broker answers within `timeout_s` (s)."""
    try:
        return bool(
            AdminClient({**client_options(config, bootstrap), "log_level": 0}).list_topics(timeout=timeout_s).brokers
        )
    except KafkaException:
        return False


def group_of(config: Config, topology: Topology) -> str:
    """Consumer group of the workers of one version of a topology."""
    return f"{config.kafka.prefix}{topology.name}.v{topology.version}"


def declare_topics(config: Config, bootstrap: str, names: Iterable[str], topologies: Iterable[Topology]) -> None:
    """Create the topics that do not exist; raises ServiceError when one exists with another number of partitions."""
    admin = AdminClient(client_options(config, bootstrap))
    kafka = config.kafka
    # The broker's time of arrival: a writer whose clock is wrong would be refused (an hour ahead) or have what it writes
    # deleted at once (older than the retention).
    common = {"max.message.bytes": str(MESSAGE_BYTES_MAX), "message.timestamp.type": "LogAppendTime"}
    kept = {**common, "retention.ms": str(config.retention.topics_hours * 3_600_000), "compression.type": "producer"}
    logs = {  # their owners delete what is out of use; small segments, as the one in use is never deleted
        **common, "cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1",
        "segment.bytes": str(8 * 1024 * 1024), "file.delete.delay.ms": "10000", "compression.type": "producer",
    }  # fmt: skip
    wanted = {topics.full_name(kafka.prefix, name): kept for name in names}
    wanted |= {checkpoint_topic(config, t.name, t.version): logs for t in topologies}
    try:
        existing = admin.list_topics(timeout=30).topics
        for name in wanted.keys() & existing.keys():
            found = len(existing[name].partitions)
            if found != kafka.partitions:
                raise ServiceError(
                    f"topic {name}: expected {kafka.partitions} partitions, found {found}; "
                    "set kafka.partitions to it or choose another kafka.prefix"
                )
        new = [
            NewTopic(name, kafka.partitions, kafka.replication_factor, config=options)
            for name, options in wanted.items()
            if name not in existing
        ]
        for name, future in admin.create_topics(new).items() if new else ():
            try:
                future.result(30)
            except KafkaException as error:
                if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                    raise ServiceError(f"topic {name} could not be created: {error}") from error
    except KafkaException as error:
        raise ServiceError(f"broker {bootstrap}: {error}; is it running?") from error


def producer_options(config: Config, bootstrap: str) -> dict[str, Any]:
    """librdkafka options of every producer: idempotent, with a bounded queue, for `kafka.delivery_timeout_s` patient."""
    return {
        **client_options(config, bootstrap),
        "acks": "all",
        "enable.idempotence": True,
        "enable.gapless.guarantee": True,  # after a message that timed out none may follow: holes would pass for loss
        "compression.type": "lz4",
        "linger.ms": 5,
        "batch.size": 1_000_000,
        "message.max.bytes": MESSAGE_BYTES_MAX,
        "queue.buffering.max.kbytes": config.kafka.queue_bytes_max // 1024,
        "delivery.timeout.ms": config.kafka.delivery_timeout_s * 1000,
    }


class Sender(Protocol):
    """Takes messages in order; `Publisher`, and what puts a disk in front of one."""

    @property
    def config(self) -> Config:
        """The configuration."""

    def send(self, topic: str, partition: int, message: batch.Message) -> None:
        """Take one message for a full topic name."""


class Publisher:
    """An idempotent producer with a bounded queue: `send` blocks while it is full, `flush` waits for all reports.

    Thread-safe. Raises ServiceError, from `send` or `flush`, once a message could not be delivered.
    """

    def __init__(self, config: Config, bootstrap: str) -> None:
        self.config = config
        self._failure: str | None = None
        self._lock = threading.Lock()
        self._count = 0
        self._outstanding: dict[int, None] = {}  # messages without a report, oldest first
        self._producer = Producer(producer_options(config, bootstrap))

    def send(self, topic: str, partition: int, message: batch.Message) -> None:
        """Queue one message for a full topic name."""
        self.produce(topic, partition, message.value, message.key, message.headers)

    def produce(
        self, topic: str, partition: int, value: bytes | None, key: bytes | None, headers: batch.Headers
    ) -> None:
        """Queue one message; waits while the queue is full."""
        with self._lock:
            self._count += 1
            number = self._count
            self._outstanding[number] = None
        report = functools.partial(self._delivered, number)
        while True:
            self._check()
            try:
                self._producer.produce(
                    topic, value, key, partition=partition, headers=headers or None, on_delivery=report
                )  # fmt: skip
                self._producer.poll(0)
                return
            except BufferError:
                self._producer.poll(0.1)

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until every message queued before this call is acknowledged by the broker; later ones do not count."""
        timeout_s = self.config.kafka.delivery_timeout_s + FLUSH_SLACK_S if timeout_s is None else timeout_s
        deadline, last = time.monotonic() + timeout_s, self._count
        while True:
            self._check()
            with self._lock:
                oldest = next(iter(self._outstanding), None)
            if oldest is None or oldest > last:
                return
            if time.monotonic() > deadline:
                raise ServiceError(f"messages were not acknowledged within {timeout_s:.0f} s; is the broker running?")
            self._producer.poll(0.01)

    def close(self) -> None:
        """Flush and let go of the broker."""
        self.flush()
        del self._producer

    def waiting(self) -> int:
        """Messages that are queued or in flight (count)."""
        return len(self._producer)

    def _delivered(self, number: int, error: object, message: object) -> None:
        if error is not None:
            self._failure = str(error)
            return
        with self._lock:
            self._outstanding.pop(number, None)

    def _check(self) -> None:
        if self._failure is not None:
            raise ServiceError(f"a message could not be delivered: {self._failure}")


class RunWriter:
    """Writes one source's rows of one run: splits them over partitions and says everywhere how far it has spoken.

    Rows go out at once. A watermark without rows costs every reader as much as a batch, so those wait up to `mark_s`
    for rows to travel with; call `mark` now and then while nothing is written. Rows are numbered per topic and
    partition; a writer that goes on where another stopped is given that one's `numbers`.
    """

    def __init__(
        self, publisher: Sender, run_id: str, source: int, sources: int, mark_s: float = 0.0,
        numbers: batch.Numbers | None = None,
    ) -> None:  # fmt: skip
        self.publisher, self.run_id, self.source, self.sources = publisher, run_id, source, sources
        self.mark_s = mark_s
        self.rows_sent = Counter[str]()
        given = numbers or {}
        self._numbers = Counter({(t, p): n for t, by_partition in given.items() for p, n in enumerate(by_partition)})
        self._sequence = Counter[tuple[str, int]]()
        self._unmarked: dict[tuple[str, int], int] = {}  # (topic, partition) → watermark that has not been told
        self._marked_s = time.monotonic()

    def write(
        self,
        rows: Mapping[str, Rows],
        watermark_ns: int,
        end_ns: int | None,
        *,
        marked: Sequence[str] = (),
        ending: Sequence[str] = (),
    ) -> None:
        """Send rows by topic; `marked` topics get the watermark in every partition, `ending` ones the end marker."""
        partitions = self.publisher.config.kafka.partitions
        for topic in sorted({*rows, *marked, *(ending if end_ns is not None else ())}):
            parts = topics.split(rows[topic], partitions) if topic in rows else {}
            ends = end_ns if topic in ending else None
            for partition in range(partitions):
                if partition in parts or ends is not None:
                    told = watermark_ns if topic in marked else START_NS
                    self._send(topic, partition, parts.get(partition), told, ends)
                elif topic in marked:
                    self._unmarked[topic, partition] = watermark_ns
        self.mark()

    def mark(self) -> None:
        """Tell the watermarks that have waited long enough."""
        now_s = time.monotonic()
        if not self._unmarked or now_s - self._marked_s < self.mark_s:
            return
        self._marked_s = now_s
        for (topic, partition), watermark_ns in list(self._unmarked.items()):
            self._send(topic, partition, None, watermark_ns, None)

    def numbers(self) -> dict[str, list[int]]:
        """Number of the next row, by topic and partition."""
        partitions = range(self.publisher.config.kafka.partitions)
        return {t: [self._numbers[t, p] for p in partitions] for t in sorted({t for t, _ in self._numbers})}

    def _send(self, topic: str, partition: int, rows: Rows | None, watermark_ns: int, end_ns: int | None) -> None:
        kafka = self.publisher.config.kafka
        made = Batch(
            topic, self.run_id, self.source, self.sources, rows, watermark_ns, end_ns, self._sequence[topic, partition],
            time.time_ns(), rows_before=self._numbers[topic, partition],
        )  # fmt: skip
        full = topics.full_name(kafka.prefix, topic)
        for message in batch.encode(made, kafka.batch_rows_max, kafka.batch_bytes_max):
            self.publisher.send(full, partition, message)
            self._sequence[topic, partition] += 1
            self.rows_sent[topic] += message.rows
            self._numbers[topic, partition] += message.rows
            published(topic, message.rows, len(message.value or b""))
        self._unmarked.pop((topic, partition), None)


def known_topics() -> list[str]:
    """Every topic that carries rows."""
    own = [name for name in schemas.names() if name != "alerts" and schemas.load(name).encoding != "table"]
    return sorted([*own, *topics.ALERT_TOPICS])
