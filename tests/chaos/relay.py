"""What a capture published, published again in another order: everything that Kafka does not promise is shuffled.

Kafka keeps the order of one writer in one partition. The relay keeps that, and nothing else: partitions, topics and the
sources of one partition come in bursts of drawn length, and a share of the messages comes a second time, later.
"""

from __future__ import annotations

import random
import secrets
from collections import deque
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from akbypass import batch, topics, transport
from akbypass.config import Config

BURST_MAX = 60  # messages of one queue in a row
REPEATED = 0.1  # share of messages that come twice
LATER_MAX = 400  # messages between a message and its repeat


def read_topics(config: Config, bootstrap: str) -> dict[tuple[str, int, int], deque[Any]]:
    """All messages as queues by (topic, partition, source), each in its order."""
    options = {"bootstrap.servers": bootstrap, "group.id": secrets.token_hex(4), "auto.offset.reset": "earliest"}
    consumer = Consumer({**options, "enable.partition.eof": True})
    names = {topics.full_name(config.kafka.prefix, t): t for t in transport.known_topics()}
    places = [TopicPartition(name, p, 0) for name in names for p in range(config.kafka.partitions)]
    consumer.assign(places)
    queues: dict[tuple[str, int, int], deque[Any]] = {}
    ended = 0
    while ended < len(places):
        message = consumer.poll(30)
        assert message is not None
        if message.error():
            ended += 1
            continue
        topic = names[message.topic()]
        source = batch.decode(topic, message.value(), message.headers()).source
        queues.setdefault((topic, message.partition(), source), deque()).append(message)
    consumer.close()
    return queues


def shuffled(queues: dict[tuple[str, int, int], deque[Any]], draw: random.Random) -> list[Any]:
    """One order of all messages that keeps the order of each queue, with repeats behind their originals."""
    left = {place: deque(queue) for place, queue in sorted(queues.items())}
    made: list[Any] = []
    repeats: list[tuple[int, Any]] = []
    while left:
        place = draw.choice(list(left))
        for _ in range(draw.randint(1, BURST_MAX)):
            message = left[place].popleft()
            made.append(message)
            if draw.random() < REPEATED:
                repeats.append((len(made) + draw.randint(1, LATER_MAX), message))
            if not left[place]:
                del left[place]
                break
    for at, message in sorted(repeats, key=lambda r: -r[0]):
        made.insert(at, message)
    return made


def relay(source: Config, target: Config, bootstrap: str, seed: int) -> tuple[int, int]:
    """Publish what lies under one prefix under another, shuffled; returns messages sent, and how many of them twice."""
    queues = read_topics(source, bootstrap)
    order = shuffled(queues, random.Random(seed))
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5})
    prefix = source.kafka.prefix
    for message in order:
        name = target.kafka.prefix + message.topic().removeprefix(prefix)
        producer.produce(name, message.value(), message.key(), partition=message.partition(), headers=message.headers())
        producer.poll(0)
    assert producer.flush(60) == 0
    return len(order), len(order) - sum(len(q) for q in queues.values())
