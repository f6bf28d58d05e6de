"""The books topology: market data of every line in, best bid and offer per venue out."""

from __future__ import annotations

from akbypass.processors.books.builder import BooksCore
from akbypass.topology import Topology

FRAMES = frozenset(("feed", "session", "line", "venue", "kind", "first_seq", "count"))
TOPOLOGY = Topology(
    "books", 1, ("feed_frames", "market_data"), ("quotes",), BooksCore, ordinal=5, reads={"feed_frames": FRAMES}
)
