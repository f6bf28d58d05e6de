"""Declares the topology `security`: contacts in, alerts out; no arithmetic."""

from __future__ import annotations

from akbypass.processors.security.scan import SecurityCore
from akbypass.topology import Topology

TOPOLOGY = Topology(
    name="security",
    version=1,
    inputs=("contacts",),  # keyed by source address: a scan meets itself
    outputs=("alerts.security",),
    make_core=SecurityCore,
    ordinal=1,
)
