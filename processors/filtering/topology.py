"""Declares the topology `filtering`: packets and what was lost of them in, verdicts and contacts out; no arithmetic."""

from __future__ import annotations

from akbypass.processors import losses
from akbypass.processors.filtering.core import FilteringCore
from akbypass.topology import Topology

ADDRESSES = ("src_ip", "dst_ip", "src_port", "dst_port", "protocol")
HEADERS = frozenset((*ADDRESSES, "ts_capture_ns", "tcp_flags", "tcp_seq", "tcp_ack", "wire_length"))
TOPOLOGY = Topology(
    name="filtering",
    version=2,
    inputs=("packets", "captures"),  # keyed by flow: both directions of a connection meet; what was lost
    outputs=("verdicts", "contacts"),
    make_core=FilteringCore,
    ordinal=0,
    reads={"packets": HEADERS, "captures": losses.COLUMNS},
)
