"""Threads that ask what a process depends on: whether the broker and the store answer, and how far readers are behind."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from akbypass import topics
from akbypass.config import Config
from akbypass.telemetry.metrics import DEPENDENCY_UP
from akbypass.telemetry.readers import Place, Reader
from akbypass.transport import client_options

log = logging.getLogger("akbypass.probe")

EVERY_S = 2.0
ANSWER_S = 5.0  # a broker that takes longer counts as away


class Probe:
    """Asks one dependency again and again; `up` is None before its first answer."""

    def __init__(self, name: str, ask: Callable[[], Any], every_s: float = EVERY_S) -> None:
        self.name = name
        self.up: bool | None = None
        self._ask, self._every_s = ask, every_s
        self._gauge = DEPENDENCY_UP.labels(name)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"akbypass-probe-{name}", daemon=True)

    def start(self) -> None:
        """Begin asking."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._ask()
                self._answered(up=True)
            except Exception as error:  # whatever it is, the dependency did not answer as it should
                self._answered(up=False, why=_reason(error))
            self._stopping.wait(self._every_s)

    def _answered(self, *, up: bool, why: str = "") -> None:
        if up is False and self.up is not False:
            log.warning("the %s does not answer", self.name, extra={"reason": why})
        if up and self.up is False:
            log.warning("the %s answers again", self.name)
        self.up = up
        self._gauge.set(up)


def _reason(error: Exception) -> str:
    known = error.args[0] if error.args else None
    return str(known.name()) if isinstance(known, KafkaError) else type(error).__name__


class LagProbe(Probe):
    """Asks the broker for the ends of what the readers read, in two requests."""

    def __init__(self, config: Config, bootstrap: str, readers: Sequence[Reader]) -> None:
        super().__init__("broker", self._measure)
        self._readers = readers
        self._full = {t: topics.full_name(config.kafka.prefix, t) for reader in readers for t in reader.topics}
        self._admin = AdminClient(client_options(config, bootstrap))

    def _measure(self) -> None:
        try:
            self._admin.poll(0)  # lets its log lines out
            places = {place for reader in self._readers for place in dict(reader.positions)}
            if places:
                first, end = self._offsets(places, OffsetSpec.earliest()), self._offsets(places, OffsetSpec.latest())
                ends = {place: (first[place], end[place]) for place in places}
            else:
                ends = {}
                self._admin.list_topics(timeout=ANSWER_S)
        except KafkaException:
            for reader in self._readers:
                reader.lies_before(None)
            raise
        for reader in self._readers:
            reader.measure(ends, time.time_ns())

    def _offsets(self, places: Iterable[Place], spec: OffsetSpec) -> dict[Place, int]:
        wanted = {TopicPartition(self._full[topic], p): (topic, p) for topic, p in places}
        asked = self._admin.list_offsets(dict.fromkeys(wanted, spec), request_timeout=ANSWER_S)
        return {wanted[place]: future.result(ANSWER_S).offset for place, future in asked.items()}
