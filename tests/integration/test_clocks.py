"""Writers whose clocks are wrong: the broker takes what they write and keeps it as long as anything else."""

from __future__ import annotations

import secrets
import time
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, Producer, TopicPartition

from akbypass import topics, transport
from akbypass.config import Config, Kafka
from tests.backends import Broker

pytestmark = pytest.mark.services
OFF_S = (-400 * 86_400, -7_200, 0, 7_200, 400 * 86_400)


def test_a_clock_that_is_wrong_by_hours_or_years_costs_no_message(kafka_server: Broker) -> None:
    """Messages stamped far ahead and far behind are delivered, stamped with their arrival, from which retention counts."""
    config = Config(kafka=Kafka(prefix=f"k{secrets.token_hex(4)}."))
    bootstrap = kafka_server.bootstrap_servers
    transport.declare_topics(config, bootstrap, ["packets"], [])
    name = topics.full_name(config.kafka.prefix, "packets")
    failed: list[Any] = []
    producer = Producer({"bootstrap.servers": bootstrap})
    before_ms = time.time_ns() // 1_000_000
    for off_s in OFF_S:
        stamp = before_ms + off_s * 1000
        producer.produce(
            name, b"x", partition=0, timestamp=stamp, on_delivery=lambda e, m: failed.append(e) if e else None
        )
    assert producer.flush(30) == 0
    assert failed == []
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "k", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(name, 0, 0)])
    found = [m.timestamp() for m in consumer.consume(len(OFF_S), 30)]
    consumer.close()
    assert [kind for kind, _ in found] == [TIMESTAMP_LOG_APPEND_TIME] * len(OFF_S)
    assert all(before_ms - 60_000 < stamp < before_ms + 60_000 for _, stamp in found)
