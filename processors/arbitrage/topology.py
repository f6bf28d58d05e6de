"""The arbitrage topology: quotes of every venue in, opportunities between venues out."""

from __future__ import annotations

from akbypass.processors.arbitrage.detector import ArbitrageCore
from akbypass.topology import Topology

TOPOLOGY = Topology("arbitrage", 1, ("quotes",), ("arbitrage",), ArbitrageCore, ordinal=6)
