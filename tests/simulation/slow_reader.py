"""Reads a simulated capture the slow and obvious way, to find again what truth.json says; shares no code with anyone.

It knows just what the simulator writes: nanosecond pcap, Ethernet, IPv4, UDP with MoldUDP64 and ITCH, TCP with FIX.
"""

from __future__ import annotations

import re
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GROUPS = {"233.54.12.1": ("XNAS", "A"), "233.54.12.129": ("XNAS", "B"), "233.54.12.2": ("XBOS", "A"),
          "233.54.12.130": ("XBOS", "B"), "233.54.12.3": ("XPSX", "A"), "233.54.12.131": ("XPSX", "B")}  # fmt: skip
GATEWAYS = {("198.51.100.10", 4001): "XNAS", ("198.51.100.20", 4002): "XBOS", ("198.51.100.30", 4003): "XPSX"}
FIX = re.compile(rb"8=FIXT?\.\d\.\d\x019=(\d+)\x01(.*?)\x0110=\d{3}\x01", re.DOTALL)


@dataclass
class Packet:
    """A frame's IP packet."""

    ts: int
    src: str
    dst: str
    protocol: int
    sport: int
    dport: int
    seq: int
    flags: int
    payload: bytes


def packets(path: Path) -> Iterator[Packet]:
    """Every packet of the capture."""
    data = path.read_bytes()
    magic, _, _, _, _, _, link = struct.unpack_from("<IHHiIII", data)
    assert (magic, link) == (0xA1B23C4D, 1)
    at = 24
    while at < len(data):
        seconds, nanos, captured, wire = struct.unpack_from("<IIII", data, at)
        assert captured == wire >= 60
        frame = data[at + 16 : at + 16 + captured]
        at += 16 + captured
        src, dst = (".".join(map(str, frame[a : a + 4])) for a in (26, 30))
        ip_end = 14 + struct.unpack_from(">H", frame, 16)[0]
        sport, dport = struct.unpack_from(">HH", frame, 34)
        udp = frame[23] == 17
        start = 42 if udp else 34 + (frame[46] >> 4) * 4
        seq, flags = (0, 0) if udp else (struct.unpack_from(">I", frame, 38)[0], frame[47])
        ts = seconds * 1_000_000_000 + nanos
        yield Packet(ts, src, dst, frame[23], sport, dport, seq, flags, frame[start:ip_end])
    assert at == len(data)


@dataclass
class Mold:
    """A market-data packet on a line."""

    ts: int
    feed: str
    line: str
    first: int
    count: int
    messages: list[bytes]


def mold(every: list[Packet]) -> Iterator[Mold]:
    """Every market-data packet, messages taken apart."""
    for p in every:
        if p.protocol == 17:
            _, first, count = struct.unpack_from(">10sQH", p.payload)
            at, messages = 20, []
            for _ in range(0 if count == 0xFFFF else count):
                size = struct.unpack_from(">H", p.payload, at)[0]
                messages.append(p.payload[at + 2 : at + 2 + size])
                at += 2 + size
            assert at == len(p.payload)
            yield Mold(p.ts, *GROUPS[p.dst], first, len(messages), messages)


def gaps(every: list[Mold]) -> set[tuple[str, str, int, int, str]]:
    """(feed, line, first, last, fate) of every gap, by walking each line number by number."""
    expected: dict[tuple[str, str], int] = defaultdict(lambda: 1)
    missing: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    brought: dict[str, set[int]] = defaultdict(set)
    for m in every:
        key = (m.feed, m.line)
        for s in range(expected[key], m.first):
            missing[key][s] = "lost"
        for s in range(m.first, m.first + m.count):
            brought[m.feed].add(s)
            if s in missing[key]:
                missing[key][s] = "filled_late"
        expected[key] = max(expected[key], m.first + m.count)
    found = set()
    for (feed, line), fates in missing.items():
        for s, fate in fates.items():
            if fate == "lost" and s in brought[feed]:
                fates[s] = "recovered_other_line"
        found |= {(feed, line, *run) for run in _runs(fates)}
    for feed, seen in brought.items():
        nobody = {s: "lost" for s in range(1, expected[feed, "A"]) if s not in seen}
        found |= {(feed, "feed", *run) for run in _runs(nobody)}
    return found


def _runs(fates: dict[int, str]) -> Iterator[tuple[int, int, str]]:
    numbers = sorted(fates)
    start = None
    for k, s in enumerate(numbers):
        start = s if start is None else start
        if k + 1 == len(numbers) or numbers[k + 1] != s + 1 or fates[numbers[k + 1]] != fates[s]:
            yield start, s, fates[s]
            start = None


class Books:
    """All venues' books by plain dictionaries."""

    def __init__(self) -> None:
        self.orders: dict[tuple[str, int], list[Any]] = {}  # [symbol, side, price, shares]
        self.symbols: dict[str, set[str]] = defaultdict(set)

    def apply(self, feed: str, m: bytes) -> str | None:
        """Apply one message; returns the symbol whose book it changed."""
        kind = m[:1]
        if kind == b"A":
            ref, side, shares, stock, price = struct.unpack_from(">QcI8sI", m, 11)
            self.orders[feed, ref] = [stock.decode().rstrip(), side, price, shares]
            return str(self.orders[feed, ref][0])
        if kind not in b"ECXDU":
            return None
        ref = struct.unpack_from(">Q", m, 11)[0]
        order = self.orders[feed, ref]
        if kind in b"ECX":
            order[3] -= struct.unpack_from(">I", m, 19)[0]
            assert order[3] >= 0
        if kind == b"U":
            new, shares, price = struct.unpack_from(">QII", m, 19)
            self.orders[feed, new] = [order[0], order[1], price, shares]
        if kind in b"DU" or order[3] == 0:
            del self.orders[feed, ref]
        return str(order[0])

    def best(self, feed: str, symbol: str) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        """Best bid and ask with their shares."""
        sides = []
        for side, pick in ((b"B", max), (b"S", min)):
            rest = [(o[2], o[3]) for (f, _), o in self.orders.items() if f == feed and o[0] == symbol and o[1] == side]
            top = pick((p for p, _ in rest), default=None)
            sides.append(None if top is None else (top, sum(n for p, n in rest if p == top)))
        return sides[0], sides[1]


def edges(every: list[Mold]) -> list[tuple[str, str, str, int, int, int, int]]:
    """(symbol, buy, sell, opened, closed, edge, quantity) of every edge above 0.02, packet by packet as known."""
    held: dict[str, dict[int, Mold]] = defaultdict(dict)
    expected: dict[str, int] = defaultdict(lambda: 1)
    reached: dict[tuple[str, str], int] = defaultdict(int)
    books, best, opened, found = Books(), {}, {}, []
    dead: set[str] = set()
    for m in every:
        reached[m.feed, m.line] = max(reached[m.feed, m.line], m.first)
        if m.count and m.first >= expected[m.feed]:
            held[m.feed].setdefault(m.first, m)
        changed = set()
        while m.feed not in dead and (ready := held[m.feed].pop(expected[m.feed], None)) is not None:
            expected[m.feed] += ready.count
            changed |= {s for message in ready.messages if (s := books.apply(m.feed, message))}
        if m.feed not in dead and all(reached[m.feed, line] > expected[m.feed] for line in "AB"):
            dead.add(m.feed)  # both lines have passed what is missing
            best = {k: v for k, v in best.items() if k[0] != m.feed}
        for symbol in changed:
            best[m.feed, symbol] = books.best(m.feed, symbol)
        for symbol in changed:
            for buy in ("XNAS", "XBOS", "XPSX"):
                for sell in ("XNAS", "XBOS", "XPSX"):
                    ask, bid = best.get((buy, symbol), (None, None))[1], best.get((sell, symbol), (None, None))[0]
                    edge = bid[0] - ask[0] if ask and bid and buy != sell else 0
                    key = (symbol, buy, sell)
                    if key in opened and edge <= 200:
                        start, first_edge, shares = opened.pop(key)
                        found.append((*key, start, m.ts, first_edge * 100_000, shares * 10**9))
                    elif key not in opened and edge > 200:
                        opened[key] = (m.ts, edge, min(ask[1], bid[1]))
    assert not opened
    return found


def fix_messages(every: list[Packet]) -> list[dict[str, Any]]:
    """Every FIX message on a gateway's connection: fields, venue, direction, frame times of its first and last byte."""
    streams: dict[tuple[str, int, str, int], tuple[bytearray, list[tuple[int, int]]]] = {}
    next_seq: dict[tuple[str, int, str, int], int] = {}
    for p in every:
        if p.protocol != 6 or not ({(p.src, p.sport), (p.dst, p.dport)} & GATEWAYS.keys()):
            continue
        key = (p.src, p.sport, p.dst, p.dport)
        if p.flags & 2:
            next_seq[key] = (p.seq + 1) % 2**32
            streams[key] = (bytearray(), [])
        elif p.payload and p.seq == next_seq[key]:  # anything else is a retransmission
            data, marks = streams[key]
            data += p.payload
            marks.append((len(data), p.ts))
            next_seq[key] = (p.seq + len(p.payload)) % 2**32
    found = []
    for (src, sport, dst, dport), (data, marks) in streams.items():
        at = 0
        for match in FIX.finditer(bytes(data)):
            assert match.start() == at, "bytes between messages"
            at = match.end()
            assert int(match[1]) == len(match[2]) + 1
            assert sum(match[0][:-7]) % 256 == int(match[0][-4:-1])
            fields = dict(pair.split("=", 1) for pair in match[2].decode().split("\x01"))
            first = next(ts for end, ts in marks if end > match.start())
            last = next(ts for end, ts in marks if end >= match.end())
            to_venue = (dst, dport) in GATEWAYS
            venue = GATEWAYS[(dst, dport) if to_venue else (src, sport)]
            found.append({"venue": venue, "to_venue": to_venue, "first": first, "last": last, **fields})
        assert at == len(data)
    return sorted(found, key=lambda m: m["last"])
