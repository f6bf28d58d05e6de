"""Signs of life of the captures of a run that has several, so that a silent one can be told; a run of one needs none."""

from __future__ import annotations

import time

from akbypass import beats, topics
from akbypass.beats import Beat
from akbypass.order import START_NS
from akbypass.producers.edge import Edge
from akbypass.producers.spool.publisher import SpoolPublisher
from akbypass.transport import Publisher


class Heart:
    """Sends a sign of life of a capture behind what it has published, not more often than is of use."""

    def __init__(self, edge: Edge, publisher: Publisher | SpoolPublisher) -> None:
        self.edge, self.publisher = edge, publisher
        self._full = topics.full_name(publisher.config.kafka.prefix, beats.TOPIC)
        self._beaten_s: dict[int, float] = {}

    def beat(self, capture: int, watermark_ns: int, ended: bool) -> None:
        """Tell how far a capture has come, and whether it has ended."""
        now_s = time.monotonic()
        recent = now_s - self._beaten_s.get(capture, -beats.BEAT_S) < beats.BEAT_S
        if self.edge.captures < 2 or watermark_ns == START_NS or (recent and not ended):
            return
        self._beaten_s[capture] = now_s
        told = Beat(
            self.edge.run_id, capture, self.edge.captures, watermark_ns, ended, self.edge.point_of(capture)
        )  # fmt: skip
        self.publisher.send(self._full, beats.PARTITION, beats.encode(told, time.time_ns()))
