"""The recorded log: single messages by their place; commits nothing and decides nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from akbypass import topics, transport
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
