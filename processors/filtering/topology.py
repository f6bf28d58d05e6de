"""Declares the topology `filtering`: packets in, verdicts and contacts out; no arithmetic."""

from __future__ import annotations

from akbypass.processors.filtering.core import FilteringCore
from akbypass.topology import Topology

TOPOLOGY = Topology(
    name="filtering",
    version=1,
    inputs=("packets",),  # keyed by flow: both directions of a connection meet
    outputs=("verdicts", "contacts"),
    make_core=FilteringCore,
    ordinal=0,
)
