"""A reader of topics, a topology or a sink, as metrics and health see it: what it took and how far it is behind.

Its own thread calls `assigned`, `taken` and `revoked`; the probe's thread calls `measure`. Positions are replaced or set
one by one, so a copy of them is always whole.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

from akbypass.telemetry import metrics
from akbypass.telemetry.health import Part

RECENT = 0.1  # weight of a message in the mean rows of a topic's messages

Place = tuple[str, int]  # topic without prefix, partition


class _Topic:
    """Metrics of one topic, looked up once."""

    def __init__(self, reader: str, topic: str) -> None:
        self.rows = metrics.READ_ROWS.labels(reader, topic)
        self.fill = metrics.READ_FILL.labels(reader, topic)
        self.delay = metrics.HOP_DELAY.labels(reader, topic)
        self.lag_messages = metrics.LAG_MESSAGES.labels(reader, topic)
        self.lag_rows = metrics.LAG_ROWS.labels(reader, topic)
        self.lag_s = metrics.LAG_SECONDS.labels(reader, topic)
        self.mean_rows = 0.0


class Reader(Part):
    """One reader; `positions` are the offsets that it takes next."""

    def __init__(self, name: str, topics: Collection[str]) -> None:
        super().__init__(name)
        self.positions: dict[Place, int] = {}
        self.paused: frozenset[Place] = frozenset()  # held back on purpose
        self.topics = tuple(topics)
        self.lag_s = 0.0
        self.held_back = 0  # messages of paused inputs
        self._topics = {topic: _Topic(name, topic) for topic in topics}
        self._published_ns: dict[Place, int] = {}  # of the last message taken
        self._level_ns: dict[Place, int] = {}  # when it was last seen without lag
        self._partitions = metrics.ASSIGNED.labels(name)

    def assigned(self, positions: Mapping[Place, int]) -> None:
        """Take over an assignment: the offset that comes next of every partition."""
        self.positions, self._published_ns, self._level_ns = dict(positions), {}, {}
        self.paused = frozenset()
        self.ready = True
        self.moved()
        self._partitions.set(len(positions))

    def revoked(self) -> None:
        """Give an assignment up; until the next one the reader is not ready."""
        self.ready, self.positions = False, {}
        self._partitions.set(0)

    def taken(self, topic: str, partition: int, offset: int, rows: int, publish_ns: int) -> None:
        """Count one message; `publish_ns` is its publish time (ns since the UNIX epoch)."""
        now_ns = time.time_ns()
        seen = self._topics[topic]
        seen.rows.inc(rows)
        seen.fill.observe(rows)
        seen.delay.observe(max(0, now_ns - publish_ns) / 1e9)
        seen.mean_rows = rows if seen.mean_rows == 0 else seen.mean_rows + RECENT * (rows - seen.mean_rows)
        self.positions[topic, partition] = offset + 1
        self._published_ns[topic, partition] = publish_ns
        self.moved()

    def rejected(self, topic: str) -> None:
        """Count one message that could not be read."""
        metrics.REJECTED.labels(self.name, topic).inc()

    def measure(self, ends: Mapping[Place, tuple[int, int]], now_ns: int) -> None:
        """Work out the lag from the first and next offset of each partition on the broker."""
        behind = dict.fromkeys(self._topics, 0)
        oldest_s = dict.fromkeys(self._topics, 0.0)
        held = 0
        for place, position in dict(self.positions).items():
            if place not in ends:
                continue
            first, end = ends[place]
            left = max(0, end - max(first, position))
            if left == 0:
                self._level_ns[place] = now_ns
                continue
            topic = place[0]
            behind[topic] += left
            held += left if place in self.paused else 0
            since_ns = max(self._published_ns.get(place, 0), self._level_ns.get(place, 0))
            if since_ns:  # unknown after a start, until the first message
                oldest_s[topic] = max(oldest_s[topic], (now_ns - since_ns) / 1e9)
        for topic, seen in self._topics.items():
            seen.lag_messages.set(behind[topic])
            seen.lag_rows.set(round(behind[topic] * seen.mean_rows))
            seen.lag_s.set(oldest_s[topic])
        self.lag_s = max(oldest_s.values(), default=0.0)
        self.lies_before(sum(behind.values()) - held)
        self.held_back = held

    def details(self) -> Mapping[str, Any]:
        """Lag, the messages held back included."""
        lag = None if self.behind is None else self.behind + self.held_back
        return {"lag_messages": lag, "lag_seconds": round(self.lag_s, 1), "partitions": len(self.positions)}
