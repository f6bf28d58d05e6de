"""Makes feed_frames and market_data rows from short tables, and random traffic of several lines; asserts nothing."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from akbypass.config import Config, Feed, Thresholds
from akbypass.rows import Rows

T0_NS = 1_700_000_000_000_000_000  # a whole second
KINDS = {"data": 0, "heartbeat": 1, "end": 2}


@dataclass(frozen=True)
class Packet:
    """One packet: µs after T0, line, first sequence number (or next expected), messages, kind, session."""

    us: float
    line: str
    first: int
    count: int
    kind: str = "data"
    session: str = "S1"
    feed: str = "F"
    wire_length: int = 100


def packet(us: float, line: str, first: int, count: int | str, **more: object) -> Packet:
    """`count` is a number of messages, "hb" or "end"."""
    if count == "hb":
        return Packet(us, line, first, 0, "heartbeat", **more)  # type: ignore[arg-type]
    if count == "end":
        return Packet(us, line, first, 0xFFFF, "end", **more)  # type: ignore[arg-type]
    return Packet(us, line, first, int(count), **more)  # type: ignore[arg-type]


def config(lines: str = "AB", feed: str = "F", **thresholds: object) -> Config:
    """A configuration with one feed of these lines."""
    targets = {line: f"239.0.0.{i + 1}:5000" for i, line in enumerate(lines)}
    return Config(feeds=[Feed(name=feed, lines=targets)], thresholds=Thresholds(**thresholds))  # type: ignore[arg-type]


def frames(packets: list[Packet]) -> Rows:
    """feed_frames rows in order of time; the position of a row is 1,000 × its place."""
    packets = sorted(packets, key=lambda p: p.us)
    times = np.array([T0_NS + round(p.us * 1_000) for p in packets], np.int64)
    return Rows.build(
        "feed_frames", len(packets), run_ns=times, ts_capture_ns=times, ts_resolution_ns=np.int32(1),
        capture_pos=np.arange(len(packets)) * 1_000, capture_id=np.int32(0),
        feed=np.array([p.feed.encode() for p in packets]).astype("S32"), venue=np.array([b"V"] * len(packets)).astype("S16"),
        line=np.array([p.line.encode() for p in packets]).astype("S8"),
        session=np.array([p.session.encode() for p in packets]).astype("S16"),
        kind=np.array([KINDS[p.kind] for p in packets], np.int8), first_seq=np.array([p.first for p in packets], np.int64),
        count=np.array([p.count for p in packets], np.int32), wire_length=np.array([p.wire_length for p in packets], np.int32),
    )  # fmt: skip


def messages(rows: Rows) -> Rows:
    """The market_data rows of these frames, one per sequence number."""
    counts = np.where(rows["kind"] == 0, rows["count"], 0).astype(np.int64)
    of = np.repeat(np.arange(len(rows)), counts)
    nth = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    same = {
        k: rows[k][of]
        for k in ("run_ns", "capture_id", "capture_pos", "ts_capture_ns", "feed", "venue", "line", "session")
    }
    return Rows.build("market_data", len(of), sub=nth.astype(np.int32), sequence=rows["first_seq"][of] + nth, **same)


def random_packets(seed: int, lines: str, packets: int, loss: float = 0.08, start: int = 1) -> list[Packet]:
    """One stream on several lines, each with its own loss, delay, copies, swaps, heartbeats and packet borders."""
    rng = random.Random(seed)
    out: list[Packet] = []
    borders = [start]
    for _ in range(packets):
        borders.append(borders[-1] + rng.randint(1, 4))
    for place, line in enumerate(lines):
        lag = place * rng.choice([0.5, 3, 40])
        at = 0
        while at < packets:
            span = 1 if rng.random() < 0.9 else 2
            first, end = borders[at], borders[min(at + span, packets)]
            us = (at + span) * 10 + lag + rng.random() * rng.choice([1, 1, 25])
            at += span
            chance = rng.random()
            if chance < loss and at < packets:
                continue
            if chance < loss + 0.03:
                us += rng.choice([15, 60, 150])
            out.append(Packet(round(us, 3), line, first, end - first))
            if rng.random() < 0.03:
                out.append(Packet(round(us + rng.choice([1, 40, 200]), 3), line, first, end - first))
            if rng.random() < 0.05:
                out.append(Packet(round(us + 2, 3), line, end, 0, "heartbeat"))
        out.append(Packet(packets * 10 + 300 + place, line, borders[-1], 0xFFFF, "end"))
    return out
