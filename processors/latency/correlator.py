"""The latency core: TCP round trips and answers to order requests become latency rows; keeps no statistics."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from akbypass import __version__
from akbypass.config import Config
from akbypass.order import make_ids, restrict
from akbypass.processors.latency.requests import OrderRequests
from akbypass.processors.latency.round_trips import RoundTrips
from akbypass.processors.losses import Losses
from akbypass.rows import Array, Rows

CLOCK_SOURCE = b"file"  # stamps come from captures; see the captures rows for the card that made them


class LatencyCore:
    """packets, orders, captures → latency, order_events, for one run and one partition."""

    def __init__(self, config: Config, run_id: str, partition: int) -> None:
        self._run_id = run_id
        self._round_trips = RoundTrips(config)
        self._requests = OrderRequests(config, run_id)
        self._losses = Losses()

    @property
    def counters(self) -> dict[str, int]:
        """What was dropped, by reason (count)."""
        return {**self._round_trips.counters, **self._requests.counters}

    def step(self, inputs: Mapping[str, Rows], watermark_ns: int, end: bool) -> dict[str, Rows]:
        """Measure what the rows below the watermark complete; there are no timers."""
        self._losses.take(restrict(inputs, "captures", "captures"))
        tcp = self._round_trips.step(restrict(inputs, "packets", "packets"))
        answers, events = self._requests.step(restrict(inputs, "orders", "orders"))
        # One frame may complete rows in two partitions (its packet by flow, its messages by session), so the ids are
        # made of what tells these rows apart, not of their number within a partition.
        frame = ("capture_id", "capture_pos")
        tcp = tcp.with_columns(id=make_ids("latency/tcp", self._run_id, *(tcp[k] for k in frame)))
        message = (*frame, "sub")
        answers = answers.with_columns(
            id=make_ids("latency/order", self._run_id, *(answers[k] for k in message), answers["kind"])
        )
        events = events.with_columns(id=make_ids("latency/event", self._run_id, *(events[k] for k in message)))
        rows = Rows.concat([self._doubted(tcp, "packets"), self._doubted(answers, "orders")])
        rows = rows.with_columns(
            n=np.ones(len(rows), np.int64),
            clock_source=np.full(len(rows), CLOCK_SOURCE, rows["clock_source"].dtype),
            decoder_version=np.full(len(rows), __version__.encode(), rows["decoder_version"].dtype),
        )
        return {"latency": rows, "order_events": events}

    def _doubted(self, rows: Rows, topic: str) -> Rows:
        """Say how many rows of a topic were lost while each delay ran: the answer may be among them."""
        lost = self._losses.touching(topic, rows["ts_start_ns"], rows["run_ns"], rows["run_ns"])
        return rows.with_columns(lost_n=lost)

    def snapshot(self) -> dict[str, Array]:
        """Copy the state."""
        return {**self._round_trips.snapshot(), **self._requests.snapshot(), **self._losses.snapshot()}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over a snapshot."""
        self._round_trips.restore(state)
        self._requests.restore(state)
        self._losses.restore(state)
