"""How far a run has come, seen from outside: what is on the topics, and what is in the store.

Fractions of event time for `published` and `consumed` (watermarks of `packets` and of `contacts`, which the filtering
topology writes), of rows for `stored`. An absent broker or store leaves a gauge where it was.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator

from confluent_kafka import Consumer, TopicPartition

from akbypass import batch, store_client, topics
from akbypass.config import Config
from akbypass.order import START_NS
from tests.chaos.day import Day

log = logging.getLogger("chaos")

COUNTED = ("packets", "market_data", "quotes", "latency", "order_events")  # the tables that hold nearly all rows
LOOK_S = 0.25


@contextlib.contextmanager
def refused(what: str) -> Iterator[None]:
    """Let pass whatever the store answers while it is hurt; it stands in the harness's log."""
    try:
        yield
    except Exception as error:
        log.info("%s: %s: %.500s", what, type(error).__name__, error)


class Gauges:
    """Watches one pipeline in two threads until `close`."""

    def __init__(self, day: Day, config: Config, bootstrap: str, store_url: str) -> None:
        self.published = self.consumed = self.stored = 0.0
        self._day, self._config, self._bootstrap, self._url = day, config, bootstrap, store_url
        self._closing = threading.Event()
        watches: tuple[Callable[[], None], ...] = (self._watch_topics, self._watch_store)
        self._threads = [threading.Thread(target=watch, daemon=True) for watch in watches]
        for thread in self._threads:
            thread.start()

    def __getitem__(self, gauge: str) -> float:
        return float(getattr(self, gauge))

    def close(self) -> None:
        """Stop watching."""
        self._closing.set()
        for thread in self._threads:
            thread.join()

    def _watch_topics(self) -> None:
        options = {"bootstrap.servers": self._bootstrap, "group.id": secrets.token_hex(4), "log_level": 0}
        consumer = Consumer({**options, "enable.auto.commit": False, "auto.offset.reset": "earliest"})
        names = {topics.full_name(self._config.kafka.prefix, t): t for t in ("packets", "contacts")}
        consumer.assign([TopicPartition(name, 0, 0) for name in names])  # every partition gets the watermarks
        while not self._closing.is_set():
            for message in consumer.consume(50, LOOK_S):
                if message.error() is None:
                    with contextlib.suppress(batch.BatchError):
                        topic = names[message.topic()]
                        found = batch.decode(topic, message.value(), message.headers(), as_arrow=True)
                        self._told("published" if topic == "packets" else "consumed", found)
        consumer.close()

    def _told(self, gauge: str, found: batch.Batch) -> None:
        if found.end_ns is not None:
            setattr(self, gauge, 1.0)
        elif found.watermark_ns != START_NS:
            span = self._day.last_ns - self._day.first_ns
            setattr(self, gauge, max(self[gauge], (found.watermark_ns - self._day.first_ns) / span))

    def _watch_store(self) -> None:
        wanted = sum(self._day.expected[t].rows for t in COUNTED)
        sql = " + ".join(f"(SELECT count() FROM {t})" for t in COUNTED)
        client = None
        while not self._closing.wait(LOOK_S):
            # a store that is away, killed or full answers with many kinds of errors; each means: not now
            with refused("gauge"):
                client = client or store_client.connect(self._config, self._url)
                self.stored = max(self.stored, float(client.command(f"SELECT {sql}")) / wanted)


def wait_for(reached: Callable[[], bool], timeout_s: float, meanwhile: Callable[[], None]) -> bool:
    """Wait until something holds; returns False when it did not within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        if time.monotonic() > deadline:
            return False
        meanwhile()
        time.sleep(0.05)
    return True
