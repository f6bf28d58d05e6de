"""Declares the topology `filtering`: packets and what was lost of them in, verdicts and contacts out; no arithmetic."""

from __future__ import annotations

from akbypass.processors.filtering.core import FilteringCore
from akbypass.topology import Topology

TOPOLOGY = Topology(
    name="filtering",
    version=2,
    inputs=("packets", "captures"),  # keyed by flow: both directions of a connection meet; what was lost
    outputs=("verdicts", "contacts"),
    make_core=FilteringCore,
    ordinal=0,
)
