"""The Faust worker and its checkpoints on a real broker, with a core whose every output depends on all input before."""

from __future__ import annotations

import dataclasses
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from confluent_kafka import Consumer, TopicPartition

from akbypass import batch, topics, transport
from akbypass.checkpoint import CLAIM, MANIFEST, find_manifest
from akbypass.checkpoint_log import LogReader
from akbypass.config import Config, Kafka
from akbypass.offline import Offline
from akbypass.rows import Rows
from akbypass.topology import Topology
from akbypass.transport import Publisher, RunWriter
from tests.backends import Broker
from tests.spine.test_progress import TOY
from tests.support import ROOT

pytestmark = pytest.mark.services
STEP, STEPS = 4_000, 24


def packets(start: int) -> Rows:
    """One step of packets of 400 flows, three a microsecond."""
    i = np.arange(start, start + STEP)
    return Rows.build(
        "packets", STEP, run_ns=1_000_000 + i * 1000 // 3, capture_pos=i * 100, src_port=(i % 401).astype(np.int32),
        wire_length=(i * 7919 % 1500).astype(np.int32),
    )  # fmt: skip


def read(config: Config, bootstrap: str) -> tuple[dict[str, Any], int, int, set[tuple[int, int]]]:
    """Everything in `verdicts`: rows by id, repeats, repeats that differ, and the ends seen."""
    options = {"group.id": secrets.token_hex(4), "enable.partition.eof": True, "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": bootstrap, **options})
    full = topics.full_name(config.kafka.prefix, "verdicts")
    consumer.assign([TopicPartition(full, p, 0) for p in range(config.kafka.partitions)])
    rows: dict[str, Any] = {}
    repeats = differ = eof = 0
    ends = set()
    while eof < config.kafka.partitions:
        message = consumer.poll(10)
        assert message is not None
        if message.error():
            eof += 1
            continue
        found = batch.decode("verdicts", message.value(), message.headers())
        if found.end_ns is not None:
            ends.add((message.partition(), found.source))
        for row in found.rows.to_dicts() if found.rows is not None else []:
            if row["id"] in rows:
                repeats += 1
                differ += rows[row["id"]] != row
            rows[row["id"]] = row
    consumer.close()
    return rows, repeats, differ, ends


def verdicts_to(kept: list[Rows]) -> Callable[[str, Rows], None]:
    """Keep the rows of `verdicts`, the only topic that is compared; accounts come along."""
    return lambda topic, rows: kept.append(rows) if topic == "verdicts" else None


class Workers:
    """Worker processes by member name."""

    def __init__(self, bootstrap: str, prefix: str, logs: Path) -> None:
        self.arguments, self.logs = [bootstrap, prefix], logs
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, member: str, version: str = "1") -> None:
        """Start one."""
        with (self.logs / f"{member}.log").open("ab") as log:
            command = [sys.executable, "-m", "tests.integration.toy_worker", *self.arguments, member, version]
            self.running[member] = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)

    def kill(self, member: str) -> None:
        """Kill one with signal 9."""
        worker = self.running.pop(member)
        worker.send_signal(signal.SIGKILL)
        worker.wait()

    def end(self, member: str) -> None:
        """End one in order."""
        worker = self.running.pop(member)
        worker.terminate()
        assert worker.wait(60) == 0

    def freeze(self, member: str) -> None:
        """Let one stand still, heartbeats included."""
        self.running[member].send_signal(signal.SIGSTOP)

    def wake(self, member: str) -> None:
        """Let it go on as if nothing had happened; it may find out and end, as somebody else has its partitions."""
        self.running[member].send_signal(signal.SIGCONT)

    def stop(self) -> list[int]:
        """End all with SIGTERM and return their exit codes."""
        for worker in self.running.values():
            worker.terminate()
        return [worker.wait(60) for worker in self.running.values()]


STORIES = {  # at which step what is done to whom
    "kills": {9: ["kill w0", "start w0"], 14: ["kill w0", "start w0"], 19: ["kill w0", "start w0"]},
    "a second worker comes and is killed": {7: ["start w1"], 19: ["kill w1"]},
    "a second worker comes and leaves": {4: ["start w1"], 16: ["end w1"]},
    "a worker sleeps through its session": {0: ["start w1"], 7: ["freeze w0"], 23: ["wake w0"]},
}


@pytest.mark.parametrize("story", STORIES)
def test_kills_and_rebalances_change_nothing(story: str, kafka_server: Broker, tmp_path: Path) -> None:
    """Kill -9, workers that come and go, a zombie: every row once by id, repeats identical, sums exact."""
    seed = 20_261_122
    pause = random.Random(seed)
    config = Config(kafka=Kafka(prefix=f"w{secrets.token_hex(4)}."))
    bootstrap = kafka_server.bootstrap_servers
    transport.declare_topics(config, bootstrap, transport.known_topics(), [TOY])
    run_id = secrets.token_hex(8)
    expected: list[Rows] = []
    offline = Offline(config, (TOY,), run_id, 1, verdicts_to(expected))
    publisher = Publisher(config, bootstrap)
    writer = RunWriter(publisher, run_id, 0, 1)
    workers = Workers(bootstrap, config.kafka.prefix, tmp_path)
    workers.start("w0")
    while min(claims(config, bootstrap).values()) < 0:
        time.sleep(0.5)
    for step in range(STEPS):
        rows = packets(step * STEP)
        watermark = int(rows["run_ns"][-1])
        end = watermark + 1 if step == STEPS - 1 else None
        offline.feed({"packets": rows}, 0, watermark, end)
        writer.write({"packets": rows}, watermark, end, marked=["packets", "orders"], ending=topics.CAPTURE_TOPICS)
        time.sleep(0.5 + pause.random() / 2)
        for act, member in (order.split() for order in STORIES[story].get(step, [])):
            getattr(workers, act)(member)
            if act == "freeze":
                owned = claims(config, bootstrap)
            if act == "wake":  # somebody has taken every partition meanwhile
                assert all(later > owned[p] for p, later in claims(config, bootstrap).items())
    publisher.flush()
    deadline = time.monotonic() + 90
    while True:
        rows_by_id, _, differ, ends = read(config, bootstrap)
        if len(ends) == config.kafka.partitions**2 or time.monotonic() > deadline:
            break
        time.sleep(1)
    codes = workers.stop()
    assert codes in ([0], [0, 0]) or (story == "a worker sleeps through its session" and codes == [1, 0])
    assert len(ends) == config.kafka.partitions**2
    assert differ == 0
    assert rows_by_id == {row["id"]: row for rows in expected for row in rows.to_dicts()}
    assert sum(len(r) for r in expected) == STEP * STEPS
    assert saved_offsets(config, bootstrap) == end_offsets(config, bootstrap)  # by whoever owned them last


def saved_offsets(config: Config, bootstrap: str) -> dict[tuple[str, int], int]:
    """Input offsets of the newest manifest of every partition."""
    topic = transport.checkpoint_topic(config, TOY.name, TOY.version)
    found = {}
    with LogReader(config, bootstrap, topic, 60) as reader:
        for partition in range(config.kafka.partitions):
            manifest = find_manifest(reader, partition, TOY.version)
            assert manifest is not None
            found |= {(name, partition): offset for name, offset in manifest["meta"]["offsets"].items()}
    return found


def claims(config: Config, bootstrap: str, topology: Topology = TOY) -> dict[int, int]:
    """Epoch of the newest owner of every partition; -1 before the first."""
    topic, found = transport.checkpoint_topic(config, topology.name, topology.version), {}
    with LogReader(config, bootstrap, topic, 60) as reader:
        for partition in range(config.kafka.partitions):
            records = reader.between(partition, *reader.bounds(partition))
            epochs = [r.offset for r in records if r.key == CLAIM]
            epochs += [orjson.loads(r.value)["epoch"] for r in records if r.key == MANIFEST]
            found[partition] = max(epochs, default=-1)
    return found


def end_offsets(config: Config, bootstrap: str) -> dict[tuple[str, int], int]:
    """Where the inputs end."""
    found = {}
    for name in TOY.inputs:
        with LogReader(config, bootstrap, topics.full_name(config.kafka.prefix, name), 60) as reader:
            found |= {(name, p): reader.bounds(p)[1] for p in range(config.kafka.partitions)}
    return found


def test_an_input_far_ahead_is_paused_and_read_on(kafka_server: Broker, tmp_path: Path) -> None:
    """Packets come long before orders: the worker holds packets back, then takes every one of them, in order."""
    config = Config(kafka=Kafka(prefix=f"p{secrets.token_hex(4)}."))
    bootstrap = kafka_server.bootstrap_servers
    transport.declare_topics(config, bootstrap, transport.known_topics(), [TOY])
    publisher, run_id = Publisher(config, bootstrap), secrets.token_hex(8)
    writer = RunWriter(publisher, run_id, 0, 1)
    expected: list[Rows] = []
    offline = Offline(config, (TOY,), run_id, 1, verdicts_to(expected))
    steps = (
        5 * config.buffers.pending_rows_max // STEP * config.kafka.partitions // 3
    )  # well above the limit in every partition
    for step in range(steps):
        rows = packets(step * STEP)
        watermark = int(rows["run_ns"][-1])
        offline.feed({"packets": rows}, 0, watermark, watermark + 1 if step == steps - 1 else None)
        writer.write({"packets": rows}, watermark, None, marked=["packets"])
    publisher.flush()
    workers = Workers(bootstrap, config.kafka.prefix, tmp_path)
    workers.start("w0")
    time.sleep(15)  # it has read what it may
    writer.write({}, watermark, watermark + 1, marked=["packets", "orders"], ending=topics.CAPTURE_TOPICS)
    publisher.flush()
    deadline = time.monotonic() + 60
    while True:
        rows_by_id, repeats, differ, ends = read(config, bootstrap)
        if len(ends) == config.kafka.partitions**2 or time.monotonic() > deadline:
            break
        time.sleep(1)
    assert workers.stop() == [0]
    assert "LostMessagesError" not in (tmp_path / "w0.log").read_text()
    assert (len(rows_by_id), repeats, differ) == (steps * STEP, 0, 0)
    assert rows_by_id == {row["id"]: row for rows in expected for row in rows.to_dicts()}


def test_a_crash_of_any_topology_ends_the_worker(kafka_server: Broker, tmp_path: Path) -> None:
    """Faust's own crash of the second app ends the process with an error, so that it is started again."""
    prefix = f"x{secrets.token_hex(4)}."
    transport.declare_topics(
        Config(kafka=Kafka(prefix=prefix)),
        kafka_server.bootstrap_servers,
        transport.known_topics(),
        [TOY, dataclasses.replace(TOY, name="toy2")],
    )  # fmt: skip
    command = [sys.executable, "-m", "tests.integration.crashing_worker", kafka_server.bootstrap_servers, prefix]
    with (tmp_path / "log").open("wb") as log:
        done = subprocess.run(command, stdout=log, stderr=log, cwd=ROOT, timeout=120, check=False)
    assert done.returncode != 0
    assert "planted" in (tmp_path / "log").read_text()


def test_a_worker_that_hears_late_of_its_partitions_takes_every_message(kafka_server: Broker, tmp_path: Path) -> None:
    """Faust seeks and fetches before it tells us of the assignment: nothing that it brings is dropped."""
    config = Config(kafka=Kafka(prefix=f"l{secrets.token_hex(4)}."))
    bootstrap = kafka_server.bootstrap_servers
    transport.declare_topics(config, bootstrap, transport.known_topics(), [TOY])
    publisher = Publisher(config, bootstrap)
    rows = packets(0)
    watermark = int(rows["run_ns"][-1])
    writer = RunWriter(publisher, secrets.token_hex(8), 0, 1)
    writer.write(
        {"packets": rows}, watermark, watermark + 1, marked=["packets", "orders"], ending=topics.CAPTURE_TOPICS
    )
    publisher.flush()
    command = [sys.executable, "-m", "tests.integration.late_worker", bootstrap, config.kafka.prefix]
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while len(found := read(config, bootstrap)[0]) < STEP and time.monotonic() < deadline:
            time.sleep(0.5)
    finally:
        worker.kill()
        worker.wait()
    assert len(found) == STEP
