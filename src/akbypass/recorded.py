"""The recorded log: single messages by their place, and all of one run; commits nothing and decides nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from akbypass import batch, beats, topics, transport
from akbypass.batch import Batch, BatchError
from akbypass.config import Config
from akbypass.errors import ServiceError

STATE = "state."  # how letters name the topics of checkpoints, which are no topics of rows
FETCH_S = 30.0  # longest wait for one message


def broker_name(config: Config, topic: str) -> str:
    """Full name on the broker of a topic as rows and letters name it; raises FileNotFoundError for a name of neither."""
    if topic.startswith(STATE):
        return f"{config.kafka.prefix}{topic}"
    return topics.full_name(config.kafka.prefix, topic)


@contextmanager
def reader(config: Config, bootstrap: str) -> Iterator[Consumer]:
    """A consumer that belongs to no group's work: it commits nothing."""
    consumer = Consumer(
        {
            **transport.client_options(config, bootstrap),
            "group.id": f"{config.kafka.prefix}recorded",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        yield consumer
    except KafkaException as error:
        raise ServiceError(f"broker {bootstrap}: {error}") from error
    finally:
        consumer.close()


def message_at(consumer: Consumer, full: str, partition: int, offset: int) -> Message | None:
    """The message at a place; None when retention or compaction took it. Raises ServiceError after some time without."""
    low, high = consumer.get_watermark_offsets(TopicPartition(full, partition), timeout=10)
    if not low <= offset < high:
        return None
    consumer.assign([TopicPartition(full, partition, offset)])
    deadline = time.monotonic() + FETCH_S
    while time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is None:
            continue
        error = message.error()
        if error is None:
            return message if message.offset() == offset else None
        if error.name() == "_PARTITION_EOF":
            return None
    raise ServiceError(f"{full}[{partition}]@{offset} could not be read within {FETCH_S:.0f} s")


@dataclass(frozen=True, slots=True)
class Recorded:
    """One message of a run as it lies on the log; `spoken` marks what was said for a silent capture."""

    topic: str
    partition: int
    offset: int
    batch: Batch
    spoken: bool


def of_run(config: Config, bootstrap: str, run_id: str, names: Sequence[str]) -> Iterator[Recorded]:
    """Every message of a run in these topics up to their present ends, in order within each partition.

    What retention took is missing; what is no message of ours is left out. Raises ServiceError.
    """
    full = {broker_name(config, name): name for name in names}
    with reader(config, bootstrap) as consumer:
        ends = {}
        for topic in full:
            for partition in range(config.kafka.partitions):
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
                if low < high:
                    ends[topic, partition] = high
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for topic, partition in ends])
        heard_s = time.monotonic()
        while ends:
            if time.monotonic() - heard_s > FETCH_S:
                raise ServiceError(f"{sorted(ends)} could not be read on within {FETCH_S:.0f} s")
            for message in consumer.consume(500, 0.2):
                place, error = (message.topic(), message.partition()), message.error()
                if error is not None and error.name() != "_PARTITION_EOF":
                    continue  # librdkafka tries again
                heard_s = time.monotonic()
                if error is None and place in ends and message.offset() < ends[place]:
                    found = _read(full[place[0]], message, run_id)
                    if found is not None:
                        yield found
                if place in ends and (error is not None or message.offset() + 1 >= ends[place]):
                    del ends[place]


def _read(topic: str, message: Message, run_id: str) -> Recorded | None:
    headers = message.headers()
    if beats.decode(message.value(), headers) is not None:
        return None
    try:
        found = batch.decode(topic, message.value(), headers)
    except BatchError:
        return None
    if found.run_id != run_id:
        return None
    return Recorded(topic, message.partition(), message.offset(), found, beats.SPOKEN in dict(headers or ()))
