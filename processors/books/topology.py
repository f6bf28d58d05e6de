"""The books topology: market data of every line in, best bid and offer per venue out."""

from __future__ import annotations

from akbypass.processors.books.builder import BooksCore
from akbypass.topology import Topology

TOPOLOGY = Topology("books", 1, ("feed_frames", "market_data"), ("quotes",), BooksCore, ordinal=5)
