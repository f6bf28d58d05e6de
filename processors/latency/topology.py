"""Declares the topologies `latency` (rows) and `latency_windows` (statistics and alerts a venue); no arithmetic."""

from __future__ import annotations

from akbypass.processors.latency.correlator import LatencyCore
from akbypass.processors.latency.windows import LatencyWindowsCore
from akbypass.topology import Topology

TOPOLOGY = Topology(
    name="latency",
    version=1,
    inputs=("packets", "orders"),  # keyed by flow; by session
    outputs=("latency", "order_events"),
    make_core=LatencyCore,
    ordinal=2,
)
LATENCY_WINDOWS = Topology(
    name="latency_windows",
    version=1,
    inputs=("latency",),  # keyed by venue: all delays of a venue meet
    outputs=("latency_windows", "alerts.latency"),
    make_core=LatencyWindowsCore,
    ordinal=3,
)
