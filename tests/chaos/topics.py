"""Messages that nobody ordered: published ones sent again, out of their order, and bytes that are no message.

Kafka keeps the order of one writer in one partition, so a repeat comes after its original; among themselves the
repeats come in any order, and between those of other sources, partitions and topics. Knows the broker alone.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from akbypass import topics, transport
from akbypass.config import Config
from tests.chaos.verify import Place

REPEATS = 3  # offsets drawn per partition
POISONS = 2  # messages per topic
READ_S = 10.0


class Injector:
    """Writes into the topics of one pipeline beside its own writers."""

    def __init__(self, config: Config, bootstrap: str) -> None:
        self._prefix, self._partitions = config.kafka.prefix, config.kafka.partitions
        self._bootstrap = bootstrap
        self._names = {topics.full_name(self._prefix, t): t for t in transport.known_topics()}
        self._producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "log_level": 0})
        self.poisoned: set[Place] = set()
        self.repeated = 0

    def repeat(self, seed: int) -> int:
        """Send messages of every topic again, in another order; returns how many."""
        draw = random.Random(seed)
        found = self._read(draw)
        draw.shuffle(found)
        for message in found:
            place = (self._names[message.topic()], message.partition(), message.offset())
            self._send(
                message.topic(), message.partition(), message.value(), message.key(), message.headers(), place in self.poisoned
            )  # fmt: skip
        self._flush()
        self.repeated += len(found)
        return len(found)

    def poison(self, seed: int) -> int:
        """Write bytes that are no message into every topic, checkpoints included; returns how many."""
        draw = random.Random(seed)
        real = self._read(draw)
        count = 0
        for name, topic in self._names.items():
            for _ in range(POISONS):
                # of a topic with one content in all partitions, sinks read the first
                partition = 0 if topics.schema_of(topic).key == ("all",) else draw.randrange(self._partitions)
                value = _poison(draw, [m.value() for m in real if m.topic() == name and m.value()])
                self._send(name, partition, value, draw.choice((None, b"k")), None, True)
                count += 1
        for name in self._checkpoints():
            for partition in range(self._partitions):
                self._send(name, partition, draw.randbytes(200), draw.choice((b"poison", b"manifest")), None, False)
                count += 1
        self._flush()
        return count

    def _checkpoints(self) -> list[str]:
        listed = AdminClient({"bootstrap.servers": self._bootstrap, "log_level": 0}).list_topics(timeout=READ_S).topics
        return sorted(name for name in listed if name.startswith(f"{self._prefix}state."))

    def _send(self, name: str, partition: int, value: bytes | None, key: Any, headers: Any, is_poison: bool) -> None:
        def delivered(error: Any, message: Any) -> None:
            assert error is None, error
            if is_poison:
                self.poisoned.add((self._names[message.topic()], message.partition(), message.offset()))

        self._producer.produce(name, value, key, partition=partition, headers=headers, on_delivery=delivered)

    def _flush(self) -> None:
        left = self._producer.flush(90)
        assert left == 0, f"{left} messages were not delivered"

    def _read(self, draw: random.Random) -> list[Any]:
        """Some messages of every partition that has any."""
        options = {"bootstrap.servers": self._bootstrap, "group.id": secrets.token_hex(4), "log_level": 0}
        consumer = Consumer({**options, "enable.auto.commit": False})
        try:
            return self._drawn(consumer, draw)
        finally:
            consumer.close()

    def _drawn(self, consumer: Any, draw: random.Random) -> list[Any]:
        ends: list[TopicPartition] = []
        for name in self._names:
            for partition in range(self._partitions):
                try:
                    place = TopicPartition(name, partition)
                    low, high = consumer.get_watermark_offsets(place, timeout=READ_S)
                except KafkaException:  # the broker is away; what cannot be read is not sent again
                    continue
                wanted = draw.sample(range(low, high), min(REPEATS, high - low))
                ends += [TopicPartition(name, partition, offset) for offset in wanted]
        found: list[Any] = []
        for number in range(REPEATS):
            part = _nth(ends, number)
            consumer.assign(part)
            missing = {(p.topic, p.partition): p.offset for p in part}
            deadline = time.monotonic() + READ_S
            while missing and time.monotonic() < deadline:
                for message in consumer.consume(200, 0.1):
                    at = (message.topic(), message.partition())
                    if message.error() is None and missing.get(at) == message.offset():
                        found.append(message)
                        del missing[at]
                        consumer.incremental_unassign([TopicPartition(*at)])
        return found


def _nth(places: Sequence[TopicPartition], number: int) -> list[TopicPartition]:
    """The n-th place of every partition that has so many."""
    seen: dict[tuple[str, int], list[TopicPartition]] = {}
    for place in places:
        seen.setdefault((place.topic, place.partition), []).append(place)
    return [of[number] for of in seen.values() if len(of) > number]


def _poison(draw: random.Random, real: Sequence[bytes]) -> bytes | None:
    """Bytes that no reader may take for a message: noise, nothing, text, and a real message that breaks off."""
    kind = draw.randrange(5)
    if kind == 0 and real:
        whole = draw.choice(real)
        return whole[: draw.randrange(1, len(whole))]
    if kind == 1:
        return None
    if kind == 2:
        return b'{"run_id": "poison"}'
    return draw.randbytes(draw.choice((1, 64, 5_000, 700_000)))
