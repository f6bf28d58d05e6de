"""bench outage: a capture at a steady pace whose broker is killed for a while; how fast it catches up, and what arrived.

The edge runs in this process, with a spool as `akbypass capture --speed` has it; the broker is a real one of its own.
Afterwards every topic is read from its start: each row once, in order, none missing.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Consumer, TopicPartition

from akbypass import batch, topics, transport
from akbypass import config as configuration
from akbypass.bench.day import Day
from akbypass.config import Config
from akbypass.local.kafka import KafkaServer
from akbypass.order import BEFORE_ALL, OrderKey, key_at

BEFORE_S = 5.0  # of capture before the broker is killed
LOOK_S = 0.05
READ_MESSAGES = 256
READ_S = 5.0


@dataclass(frozen=True)
class Outage:
    """One run: packets (count) and their pace (packets/s), how long the broker was away (s), and the catching up.

    `catch_up_packets` were captured from the kill on until nothing waited on disk, `catch_up_s` after the broker was
    back; the capture went on meanwhile. `growth_mib` is what this process grew by from the kill on (MiB). `lost_rows`,
    `disordered_rows` and `repeated_rows` are of all topics together.
    """

    packets: int
    pace: float
    away_s: float
    spool_bytes_max: int
    catch_up_packets: int
    catch_up_s: float
    rows: int
    lost_rows: int
    disordered_rows: int
    repeated_rows: int
    growth_mib: float

    @property
    def rate(self) -> float:
        """Packets per second while it caught up."""
        return self.catch_up_packets / self.catch_up_s


def measure(warm: Day, day: Day, pace: float, away_s: float) -> Outage:
    """Replay a day at `pace` packets/s with the broker away for at least `away_s`; raises ServiceError."""
    from akbypass.producers.edge import Edge
    from akbypass.producers.publish import publish
    from akbypass.producers.spool.publisher import SpoolPublisher

    with tempfile.TemporaryDirectory(prefix="akbypass-bench-") as home, KafkaServer(Path(home) / "kafka") as server:
        config = configuration.load(day.config)
        bootstrap = server.bootstrap_servers
        transport.declare_topics(config, bootstrap, transport.known_topics(), ())
        publish(Edge(config, [warm.capture]), transport.Publisher(config, bootstrap))
        edge = Edge(config, [day.capture], speed=pace / day.rate)
        with closing(SpoolPublisher(config, bootstrap, Path(home) / "spool")) as publisher:
            seen = _Seen(edge, publisher, server, away_s)
            seen.start()
            sent = publish(edge, publisher)
            seen.join()
        found = _read(config, bootstrap, edge.run_id)
        return Outage(
            edge.totals()["packets"], pace, seen.away_s, seen.spool_bytes_max, seen.catch_up_packets, seen.catch_up_s,
            found["rows"], sum(sent.values()) - found["rows"], found["disordered"], found["repeated"],
            seen.growth_mib,
        )  # fmt: skip


class _Seen(threading.Thread):
    """Kills the broker, brings it back, and looks at the clock."""

    def __init__(self, edge: Any, publisher: Any, server: KafkaServer, away_s: float) -> None:
        super().__init__(name="akbypass-outage", daemon=True)
        self._edge, self._publisher, self._server, self._wanted_s = edge, publisher, server, away_s
        self.away_s, self.spool_bytes_max, self.catch_up_packets, self.catch_up_s = 0.0, 0, 0, 0.0
        self.growth_mib, self._memory = 0.0, psutil.Process()
        self._before = 0

    def run(self) -> None:
        """From the kill until nothing waits on disk."""
        time.sleep(BEFORE_S)
        assert self._server.pid is not None
        self._before = self._memory.memory_info().rss
        packets, killed_s = self._edge.totals()["packets"], time.monotonic()
        os.kill(self._server.pid, signal.SIGKILL)
        while time.monotonic() < killed_s + self._wanted_s:
            self._look()
        self._server.start()
        back_s = time.monotonic()
        while self._publisher.spooling:
            self._look()
        self.away_s, self.catch_up_s = back_s - killed_s, time.monotonic() - back_s
        self.catch_up_packets = self._edge.totals()["packets"] - packets

    def _look(self) -> None:
        self.growth_mib = max(self.growth_mib, (self._memory.memory_info().rss - self._before) / 2**20)
        self.spool_bytes_max = max(self.spool_bytes_max, self._publisher.spool_bytes)
        time.sleep(LOOK_S)


def _read(config: Config, bootstrap: str, run_id: str) -> Counter[str]:
    """Read what arrived of a run: rows a reader takes, rows out of order, rows dropped as repeats (count)."""
    found = Counter[str]()
    consumer = Consumer({**transport.client_options(config, bootstrap), "group.id": "bench"})
    for topic in topics.CAPTURE_TOPICS:
        full = topics.full_name(config.kafka.prefix, topic)
        for partition in range(config.kafka.partitions):
            low, high = consumer.get_watermark_offsets(TopicPartition(full, partition), timeout=30)
            consumer.assign([TopicPartition(full, partition, low)])
            last, left = BEFORE_ALL, high - low
            while left:
                messages = consumer.consume(min(left, READ_MESSAGES), READ_S)
                left -= len(messages)
                for message in messages:
                    last = _take(
                        found, batch.decode(topic, message.value(), message.headers(), as_arrow=True), run_id, last
                    )
    consumer.close()
    return found


def _take(found: Counter[str], made: batch.Batch, run_id: str, last: OrderKey) -> OrderKey:
    rows = made.rows
    if made.run_id != run_id or rows is None:
        return last
    keys = [key_at(rows, i) for i in (0, -1)]
    if keys[0] > last:
        found["rows"] += len(rows)
    elif keys[1] <= last:
        found["repeated"] += len(rows)
    else:
        found["disordered"] += len(rows)
    return max(last, keys[1])


def plain(found: Outage) -> dict[str, Any]:
    """The measurement as values for JSON."""
    return {**asdict(found), "catch_up_packets_per_s": found.rate}


def rows(found: Outage) -> list[list[Any]]:
    """The measurement as lines of a table."""
    return [
        ["packets captured", found.packets],
        ["at a pace of (packets/s)", round(found.pace)],
        ["broker away (s)", round(found.away_s, 1)],
        ["largest spool (MiB)", round(found.spool_bytes_max / 2**20)],
        ["packets caught up with, those that came meanwhile included", found.catch_up_packets],
        ["catching up took (s)", round(found.catch_up_s, 1)],
        ["caught up at (packets/s)", round(found.rate)],
        ["rows read back", found.rows],
        ["rows lost", found.lost_rows],
        ["rows out of order", found.disordered_rows],
        ["rows repeated", found.repeated_rows],
        ["memory that the capture grew by (MiB)", round(found.growth_mib)],
    ]
