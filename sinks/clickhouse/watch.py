"""What a running sink tells metrics and health."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from akbypass.telemetry import metrics
from akbypass.telemetry.readers import Reader


class SinkWatch(Reader):
    """The reader that a sink is, with its inserts; used by the sink's thread alone."""

    def __init__(self, name: str, topics: Collection[str]) -> None:
        super().__init__(name, topics)
        self._repeated, self._retries = metrics.REPEATED_ROWS.labels(name), metrics.RETRIES.labels(name)
        self._rows, self._bytes = metrics.BUFFERED_ROWS.labels(name), metrics.BUFFERED_BYTES.labels(name)
        self._since_s: float | None = None  # when the oldest row that is not inserted yet was taken
        self._delay = metrics.STORE_DELAY.labels(name)

    def buffered(self, rows: int, size_bytes: int) -> None:
        """Say what waits to be inserted."""
        self._rows.set(rows)
        self._bytes.set(size_bytes)
        if rows == 0:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = time.monotonic()

    def repeated(self, rows: int) -> None:
        """Count rows that the store has."""
        self._repeated.inc(rows)

    def set_aside(self, topic: str, reason: str) -> None:
        """Count one row that could be read but not written."""
        metrics.SET_ASIDE.labels(self.name, topic, reason).inc()

    @contextmanager
    def inserting(self, table: str, rows: int) -> Iterator[None]:
        """Time and count one insert; nothing is counted when it fails."""
        started_s = time.monotonic()
        yield
        metrics.INSERT_DURATION.labels(self.name, table).observe(time.monotonic() - started_s)
        metrics.INSERT_ROWS.labels(self.name, table).observe(rows)
        metrics.STORED_ROWS.labels(self.name, table).inc(rows)
        self.moved()

    def flushed(self, oldest_s: float) -> None:
        """Count one flush; `oldest_s` is when its oldest message was taken (monotonic clock, s)."""
        self._delay.observe(time.monotonic() - oldest_s)
        self.buffered(0, 0)

    def overdue_s(self) -> float:
        """How long rows have waited to be inserted (s)."""
        since_s = self._since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def retrying(self) -> None:
        """Say that the store did not take something and is asked again."""
        self._retries.inc()
        self.held = "store"

    def answered(self) -> None:
        """Say that the store took something."""
        self.held = ""
