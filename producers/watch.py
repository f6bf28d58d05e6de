"""What a running capture tells metrics and health: its counters, as they have grown; called after each batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from akbypass.order import END_NS, START_NS
from akbypass.producers.edge import Edge
from akbypass.telemetry import metrics
from akbypass.telemetry.health import Part

UPDATE_S = 0.25  # how often counters are looked at
GROWING = {
    "packets": metrics.CAPTURE_PACKETS,
    "bytes": metrics.CAPTURE_BYTES,
    "truncated": metrics.CAPTURE_TRUNCATED,
    "fragments": metrics.CAPTURE_FRAGMENTS,
    "feed_messages": metrics.CAPTURE_FEED,
    "order_messages": metrics.CAPTURE_ORDERS,
    "rejected": metrics.CAPTURE_REJECTED,
}
INTENDED = {"not_ip": "yes"}  # other reasons are losses


class CaptureWatch(Part):
    """One capture process."""

    def __init__(
        self,
        edge: Edge,
        now_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("capture", monotonic)
        self.edge, self.ready = edge, True
        self._now_ns = now_ns
        self._told = dict.fromkeys(edge.counters, 0) | {"read": 0}
        self._updated_s = 0.0

    def update(self) -> None:
        """Say that a batch is in the producer."""
        self.moved()
        now_s = self.monotonic()
        if now_s - self._updated_s >= UPDATE_S:
            self._updated_s = now_s
            self.tell()

    def tell(self) -> None:
        """Tell what the counters have grown by, now."""
        for name, total in {**self.edge.counters, "read": self.edge.bytes_read}.items():
            grown = max(0, total - self._told[name])
            self._told[name] = total
            if name in GROWING:
                GROWING[name].inc(grown)
            elif name == "read":
                metrics.CAPTURE_READ_BYTES.inc(grown)
            elif name.startswith("dropped_"):
                reason = name.removeprefix("dropped_")
                metrics.CAPTURE_DROPPED.labels(reason, INTENDED.get(reason, "no")).inc(grown)
        watermark_ns = self.edge.watermark_ns
        if START_NS < watermark_ns < END_NS:
            metrics.CAPTURE_WATERMARK.set(watermark_ns / 1e9)
            if self.edge.interface is not None:
                metrics.CAPTURE_DELAY.observe(max(0, self._now_ns() - watermark_ns) / 1e9)

    def details(self) -> Mapping[str, Any]:
        """Nobody knows how much is left of a capture."""
        return {"lag_messages": None}

    def stalled_s(self) -> float:
        """How long no batch has come although one was due (s): a paced replay waits for its time."""
        self.lies_before(0 if self.edge.is_waiting else 1)
        return super().stalled_s()
