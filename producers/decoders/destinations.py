"""Where feeds are sent to: configured lines, and destinations that were recognised; a bounded table for the engine.

Names of a destination without configuration are its address: feed `address:port`, venue `address`, line A. What is
too long for its column is cut and ends in a hash of the whole, so that two destinations never share a name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from akbypass import schemas
from akbypass.config import Config
from akbypass.errors import ConfigError
from akbypass.producers.decoders.engine import DEST, DEST_FIXED, DEST_LAYOUT, DEST_PORT, find
from akbypass.rows import Array, address_bytes, address_text

DESTINATIONS_MAX = 4_096  # a large site listens to some hundred groups; a flood of forged ones must not grow memory
HASH_LETTERS = 8


class Destinations:
    """The table: `ips`, `dests`, `slots` and `used` belong to the engine, names by slot to the rows."""

    def __init__(self, config: Config, layouts: Mapping[str, int]) -> None:
        self.ips = np.zeros((DESTINATIONS_MAX, 2), np.uint64)
        self.dests = np.zeros((DESTINATIONS_MAX, DEST), np.int64)
        self.slots = np.full(4 * DESTINATIONS_MAX, -1, np.int32)
        self.used = np.zeros(1, np.int64)
        self.feeds: list[bytes] = []
        self.venues: list[bytes] = []
        self.lines: list[bytes] = []
        for feed in config.feeds:
            if feed.protocol and feed.protocol not in layouts:
                known = ", ".join(sorted(layouts))
                raise ConfigError(f"feed {feed.name}: unknown protocol {feed.protocol}; known are {known}")
            for line, target in feed.lines.items():
                layout = layouts[feed.protocol] if feed.protocol else -1
                self._add(target, layout, feed.name, feed.venue_name, line)
        self._names = self._as_arrays()

    def names(self) -> tuple[Array, Array, Array]:
        """Feed, venue and line by slot, with the slots that the engine has added since."""
        if len(self.feeds) < int(self.used[0]):
            for slot in range(len(self.feeds), int(self.used[0])):
                address = address_text(self.ips[slot].tobytes())
                self.feeds.append(feed_name(address, int(self.dests[slot, DEST_PORT])))
                self.venues.append(shorten(address, schemas.load("feed_frames").by_name["venue"].width))
                self.lines.append(b"A")
            self._names = self._as_arrays()
        return self._names

    def _as_arrays(self) -> tuple[Array, Array, Array]:
        by_name = schemas.load("feed_frames").by_name
        return (
            np.array(self.feeds, by_name["feed"].dtype),
            np.array(self.venues, by_name["venue"].dtype),
            np.array(self.lines, by_name["line"].dtype),
        )

    def _add(self, target: str, layout: int, feed: str, venue: str, line: str) -> None:
        address, _, port = target.rpartition(":")
        high, low = np.frombuffer(address_bytes(address.strip("[]")), np.uint64)
        slot, place = find(self.slots, self.ips, self.dests, high, low, np.int64(port))
        if slot >= 0:
            raise ConfigError(f"feed {feed}: line {line} is sent to {target}, which is a line of {self.feeds[slot]!r}")
        if len(self.feeds) >= DESTINATIONS_MAX:
            raise ConfigError(f"expected at most {DESTINATIONS_MAX} lines of all feeds together")
        slot = len(self.feeds)
        self.ips[slot] = high, low
        self.dests[slot, DEST_PORT], self.dests[slot, DEST_LAYOUT] = int(port), layout
        self.dests[slot, DEST_FIXED] = int(layout >= 0)
        self.slots[place] = slot
        self.used[0] = slot + 1
        self.feeds.append(feed.encode("ascii", "replace"))
        self.venues.append(venue.encode("ascii", "replace"))
        self.lines.append(line.encode("ascii", "replace"))


def feed_name(address: str, port: int) -> bytes:
    """Name of a feed without configuration.

    >>> feed_name("233.54.12.1", 26477), feed_name("2001:db8:1234:5678:9abc:def0:1234:5678", 26477)
    (b'233.54.12.1:26477', b'[2001:db8:1234:5678:9ab~773186d4')
    """
    text = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return shorten(text, schemas.load("feed_frames").by_name["feed"].width)


def shorten(text: str, width: int) -> bytes:
    """Cut a text to `width` bytes; what is cut off is told by a hash of the whole."""
    if len(text) <= width:
        return text.encode("ascii", "replace")
    digest = hashlib.blake2b(text.encode(), digest_size=HASH_LETTERS // 2).hexdigest()
    return f"{text[: width - HASH_LETTERS - 1]}~{digest}".encode("ascii", "replace")
