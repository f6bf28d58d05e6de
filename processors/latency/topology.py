"""Declares the topologies `latency` (rows) and `latency_windows` (statistics and alerts a venue); no arithmetic."""

from __future__ import annotations

from akbypass.processors import losses
from akbypass.processors.latency.correlator import LatencyCore
from akbypass.processors.latency.windows import LatencyWindowsCore
from akbypass.topology import Topology

ADDRESSES = ("src_ip", "dst_ip", "src_port", "dst_port", "protocol")
SEGMENTS = frozenset(
    (*ADDRESSES, "ts_capture_ns", "ts_resolution_ns", "tcp_flags", "tcp_seq", "tcp_ack", "payload_length")
)
TOPOLOGY = Topology(
    name="latency",
    version=2,
    inputs=("packets", "orders", "captures"),  # keyed by flow; by session; what was lost of both
    outputs=("latency", "order_events"),
    make_core=LatencyCore,
    ordinal=2,
    reads={"packets": SEGMENTS, "captures": losses.COLUMNS},
)
LATENCY_WINDOWS = Topology(
    name="latency_windows",
    version=2,
    inputs=("latency", "captures"),  # keyed by venue: all delays of a venue meet; what was lost
    outputs=("latency_windows", "alerts.latency"),
    make_core=LatencyWindowsCore,
    ordinal=3,
    reads={"latency": frozenset(("venue", "session", "kind", "value_ns", "u_ns")), "captures": losses.COLUMNS},
)
