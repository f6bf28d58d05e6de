"""Numbered messages through a broker that a test kills, pauses and brings back, and what arrived of them."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from confluent_kafka import Consumer, TopicPartition

from akbypass import batch, topics, transport
from akbypass.batch import Batch, Message
from akbypass.config import Config, Kafka, Spool
from akbypass.local.kafka import KafkaServer
from akbypass.rows import Rows

START_NS = 1_772_000_000_000_000_000
PARTITIONS = 4
ROWS = 100  # in one message


def configured(server: KafkaServer, directory: Path, **spool: int) -> Config:
    """Topics of one test, declared, and a spool that begins early."""
    kafka = Kafka(
        prefix=f"p{secrets.token_hex(4)}.",
        partitions=4,
        bootstrap_servers=server.bootstrap_servers,
        queue_bytes_max=1 << 20,
    )
    chosen = {"after_ms": 200, "segment_bytes": 1 << 18, "reserve_market_bytes": 0, "reserve_orders_bytes": 0, **spool}
    config = Config(kafka=kafka, spool=Spool(directory=str(directory), **{"reserve_accounts_bytes": 0, **chosen}))
    transport.declare_topics(config, server.bootstrap_servers, topics.CAPTURE_TOPICS, ())
    return config


def message(topic: str, number: int, rows: int = ROWS) -> Message:
    """The n-th message of a topic, of capture 0: rows in order behind those of the message before."""
    i = np.arange(number * ROWS, number * ROWS + rows)
    made = Rows.build(topic, rows, run_ns=START_NS + i, capture_pos=i) if rows else None
    whole = Batch(topic, "r1", 0, 1, made, START_NS + (number + 1) * ROWS, None, number, rows_before=number * ROWS)
    return next(batch.encode(whole, 4_096, 768 * 1024))


def arrived(config: Config, topic: str) -> dict[int, list[Batch]]:
    """Everything on a topic by partition, as it stands in the log, repeats included."""
    full = topics.full_name(config.kafka.prefix, topic)
    consumer = Consumer({"bootstrap.servers": config.kafka.bootstrap_servers, "group.id": secrets.token_hex(4)})
    found: dict[int, list[Batch]] = {p: [] for p in range(PARTITIONS)}
    for partition, batches in found.items():
        low, high = consumer.get_watermark_offsets(TopicPartition(full, partition), timeout=30)
        consumer.assign([TopicPartition(full, partition, low)])
        while len(batches) < high - low:
            batches += [
                batch.decode(topic, m.value(), m.headers())
                for m in consumer.consume(high - low - len(batches), 5)
                if not m.error()
            ]
    consumer.close()
    return found


def taken(batches: list[Batch]) -> list[int]:
    """Numbers of the rows that a reader takes: those above the last order key that it took (design rule 6)."""
    positions: list[int] = []
    for found in batches:
        if found.rows is not None:
            positions += [p for p in found.rows["capture_pos"].tolist() if not positions or p > positions[-1]]
    return positions


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait for something that happens in another thread or process."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def kill(server: KafkaServer) -> None:
    """Kill the broker, as nothing it could prepare for."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: server.pid is None)
