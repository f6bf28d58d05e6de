"""How long after it was due a frame shows up: on the broker, in results, in the store; measures, changes nothing.

A frame is due at begin + (run_ns − first run_ns) / speed. Rows carry the run_ns of the frame that caused them, so

    edge      packets message written             − last frame due     publish time of the envelope
    worker    quotes message written              − frame due
    topic     quotes message read by a subscriber − frame due
    alert     alert or opportunity read           − frame due          topics alerts.* and arbitrage
    store     quotes row seen by a query          − frame due          at most STORE_POLL_S too long

Every row of a message counts, for the store every row between two looks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from confluent_kafka import Consumer

from akbypass import batch, store_client, topics, transport
from akbypass.config import Config
from akbypass.rows import Array

STORE_POLL_S = 0.2  # each look is work for the store that the run would not have
HOPS = ("edge", "worker", "topic", "alert", "store")
ALERTS = (*topics.ALERT_TOPICS, "arbitrage")
BETWEEN = 20  # moments that stand for the rows between two looks at the store
SHARES = (50, 90, 99, 100)  # per cent

Delays = dict[str, dict[str, float]]


@dataclass(frozen=True)
class _Due:
    begin_ns: int
    first_ns: int
    speed: float

    def delay_s(self, now_ns: int, run_ns: Array | int) -> Any:
        """Seconds since frames were due."""
        return (now_ns - self.begin_ns - (run_ns - self.first_ns) / self.speed) / 1e9


class Watcher:
    """Subscribes to a run's topics and looks at its quotes in the store while it is under way."""

    def __init__(self, config: Config, endpoints: Any, run_id: str) -> None:
        self._config, self._endpoints, self._run_id = config, endpoints, run_id
        self._found: dict[str, list[Array]] = {hop: [] for hop in HOPS}
        self._stopping = threading.Event()

    @contextmanager
    def running(self, begin_ns: int, first_ns: int, speed: float) -> Iterator[None]:
        """Watch until the block is left."""
        due = _Due(begin_ns, first_ns, speed)
        threads = [threading.Thread(target=f, args=(due,), daemon=True) for f in (self._read, self._look)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()

    def delays(self) -> Delays:
        """Percentiles of each hop (s) and how many rows they stand on."""
        found: Delays = {}
        for hop, parts in self._found.items():
            if parts:
                values = np.concatenate(parts)
                found[hop] = {f"p{s}": float(np.percentile(values, s)) for s in SHARES} | {"n": float(len(values))}
        return found

    def _read(self, due: _Due) -> None:
        prefix = self._config.kafka.prefix
        names = {topics.full_name(prefix, t): t for t in ("packets", "quotes", *ALERTS)}
        options = transport.client_options(self._config, self._endpoints.bootstrap_servers)
        group = {"group.id": f"{prefix}bench.{self._run_id}", "auto.offset.reset": "latest", "fetch.wait.max.ms": 20}
        consumer = Consumer({**options, **group, "enable.auto.commit": False})
        consumer.subscribe(sorted(names))
        try:
            while not self._stopping.is_set():
                for message in consumer.consume(64, 0.05):
                    if message.error() is None:
                        self._take(names[message.topic()], message, due)
        finally:
            consumer.close()

    def _take(self, topic: str, message: Any, due: _Due) -> None:
        now_ns = time.time_ns()
        found = batch.decode(topic, message.value(), message.headers(), as_arrow=True)
        if found.run_id != self._run_id or found.rows is None:
            return
        run_ns = found.rows["run_ns"]
        if topic == "packets":
            self._found["edge"].append(due.delay_s(found.publish_ns, run_ns))
        elif topic == "quotes":
            self._found["worker"].append(due.delay_s(found.publish_ns, run_ns))
            self._found["topic"].append(due.delay_s(now_ns, run_ns))
        else:
            self._found["alert"].append(due.delay_s(now_ns, run_ns))

    def _look(self, due: _Due) -> None:
        """Ask for what is new of each partition's quotes since the last look: it has become readable by now."""
        query = (
            "SELECT _partition, toUnixTimestamp64Nano(min(run_ns)), toUnixTimestamp64Nano(max(run_ns)), count() FROM quotes "
            "WHERE run_id = {run:String} AND toUnixTimestamp64Nano(run_ns) > {since:Array(Int64)}[_partition + 1] "
            "GROUP BY _partition"
        )
        since = [due.first_ns - 1] * self._config.kafka.partitions
        with store_client.connect(self._config, self._endpoints.store_url) as client:
            while not self._stopping.is_set():
                rows = client.query(query, parameters={"run": self._run_id, "since": since}).result_rows
                now_ns = time.time_ns()
                for partition, oldest, newest, count in rows:
                    between = np.linspace(oldest, newest, BETWEEN)
                    self._found["store"].append(np.repeat(due.delay_s(now_ns, between), max(1, count // BETWEEN)))
                    since[partition] = newest
                self._stopping.wait(STORE_POLL_S)
