"""A message that makes a core fail, on a real broker: one crash, then the rest as if its rows had never been."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition

from akbypass import batch, topics, transport
from akbypass.config import Config, Kafka
from akbypass.offline import Offline
from akbypass.rows import ORDER, Rows
from akbypass.transport import Publisher, RunWriter
from tests.backends import Broker
from tests.integration.test_worker import read, verdicts_to
from tests.spine.test_progress import TOY
from tests.spine.test_quarantine import FUSSY, POISON
from tests.support import ROOT

pytestmark = pytest.mark.services
STEP, STEPS = 400, 12
POISONED = (3, 7)  # steps with some rows at which the core fails
ALL_POISON = 9  # a step whose rows all are such, few of them
KILLED_AFTER = 10


def packets(step: int) -> Rows:
    """Packets of 400 flows, three a microsecond; a few, or all of a short step, have the length that the core fails at."""
    count = 24 if step == ALL_POISON else STEP
    i = np.arange(step * STEP, step * STEP + count)
    lengths = (i * 7919 % 1500).astype(np.int32)
    if step in POISONED:
        lengths[[5, 6, 333]] = POISON
    if step == ALL_POISON:
        lengths[:] = POISON
    return Rows.build(
        "packets", count, run_ns=1_000_000 + i * 1000 // 3, capture_pos=i * 100, src_port=(i % 401).astype(np.int32), wire_length=lengths,
    )  # fmt: skip


def rejected(config: Config, bootstrap: str) -> list[dict[str, Any]]:
    """Everything in the topic `rejected`, each row once."""
    options = {"group.id": secrets.token_hex(4), "enable.partition.eof": True, "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": bootstrap, **options})
    full = topics.full_name(config.kafka.prefix, "rejected")
    consumer.assign([TopicPartition(full, p, 0) for p in range(config.kafka.partitions)])
    found: dict[str, Any] = {}
    eof = 0
    while eof < config.kafka.partitions:
        message = consumer.poll(10)
        assert message is not None
        if message.error():
            eof += 1
            continue
        rows = batch.decode("rejected", message.value(), message.headers()).rows
        found |= {row["id"]: row for row in rows.to_dicts()} if rows is not None else {}
    consumer.close()
    return list(found.values())


def test_rows_at_which_a_core_fails_are_set_aside(kafka_server: Broker, tmp_path: Path) -> None:
    """Rows that make the core fail, in several messages and partitions, and a kill -9: the rest is exact, each is named."""
    config = Config(kafka=Kafka(prefix=f"q{secrets.token_hex(4)}."))
    bootstrap = kafka_server.bootstrap_servers
    transport.declare_topics(config, bootstrap, transport.known_topics(), [FUSSY])
    run_id, exits = secrets.token_hex(8), list[int]()
    expected: list[Rows] = []
    offline = Offline(config, (TOY,), run_id, 1, verdicts_to(expected))
    writer = RunWriter(publisher := Publisher(config, bootstrap), run_id, 0, 1)
    command = [sys.executable, "-m", "tests.integration.fussy_worker", bootstrap, config.kafka.prefix, "w0"]
    with (tmp_path / "log").open("ab") as log:
        worker = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)

        def supervise(deadline_s: float) -> subprocess.Popen[bytes]:
            running = worker
            while time.monotonic() < deadline_s:
                time.sleep(0.1)
                if running.poll() is not None:
                    exits.append(running.returncode)
                    running = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
            return running

        for step in range(STEPS):
            rows = packets(step)
            watermark = int(rows["run_ns"][-1])
            end = watermark + 1 if step == STEPS - 1 else None
            offline.feed({"packets": rows.take(rows["wire_length"] != POISON)}, 0, watermark, end)
            writer.write({"packets": rows}, watermark, end, marked=["packets", "orders"], ending=topics.CAPTURE_TOPICS)
            worker = supervise(time.monotonic() + 1.0)
            if step == KILLED_AFTER:
                worker.send_signal(signal.SIGKILL)
        publisher.flush()
        ends, until = set[tuple[int, int]](), time.monotonic() + 90
        while len(ends) < config.kafka.partitions**2 and time.monotonic() < until:
            worker = supervise(time.monotonic() + 1.0)
            rows_by_id, _, differ, ends = read(config, bootstrap)
        worker.terminate()
        assert worker.wait(60) == 0
    said = (tmp_path / "log").read_text()
    assert exits == [1, -signal.SIGKILL], said
    assert said.count("the worker ends and starts again") == 1
    assert "ZeroDivisionError" in said

    assert len(ends) == config.kafka.partitions**2
    assert differ == 0
    assert by_key(rows_by_id.values()) == by_key(row for rows in expected for row in rows.to_dicts())
    poison = Rows.concat([packets(step) for step in range(STEPS)])
    poison = poison.take(poison["wire_length"] == POISON)
    letters = rejected(config, bootstrap)
    assert sorted(key(letter) for letter in letters) == sorted(key(row) for row in poison.to_dicts())
    for letter in letters:
        assert (letter["stage"], letter["topic"], letter["reason"]) == ("fussy", "packets", "core_failed")
        assert (letter["message_run"], letter["message_rows"]) == (run_id, 1)
        assert key(letter) in keys_at(config, bootstrap, letter["partition"], letter["offset"])
        assert "ZeroDivisionError: poison" in letter["detail"]


def key(row: dict[str, Any]) -> tuple[int, ...]:
    """Order key."""
    return tuple(row[name] for name in ORDER)


def by_key(rows: Any) -> list[tuple[Any, ...]]:
    """Verdicts without their ids, which name the topology, in order."""
    return sorted((*key(row), row["src_port"], row["priority"]) for row in rows)


def keys_at(config: Config, bootstrap: str, partition: int, offset: int) -> set[tuple[int, ...]]:
    """Order keys of the packets in the message at a place."""
    from akbypass import recorded

    with recorded.reader(config, bootstrap) as consumer:
        full = topics.full_name(config.kafka.prefix, "packets")
        message = recorded.message_at(consumer, full, partition, offset)
    assert message is not None
    rows = batch.decode("packets", message.value(), message.headers()).rows
    return set() if rows is None else {key(row) for row in rows.to_dicts()}
