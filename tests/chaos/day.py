"""The capture that every run replays, and what the offline result of it is: counts and checksums by table.

The expected rows come from `Edge` and `Offline`, which know neither broker nor store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from akbypass import config as configuration
from akbypass import schemas
from akbypass.config import Config
from akbypass.offline import RESULTS, LastRevisions, Offline
from akbypass.processors import all_topologies
from akbypass.producers.edge import Edge
from akbypass.producers.simulator import simulate
from akbypass.rows import Rows
from akbypass.sinks.audit.trail import to_trail

CAPTURED = ("packets", "feed_frames", "market_data", "orders")  # what the edge writes and the store gets as it is
TABLES = (*CAPTURED, *RESULTS, "audit")


@dataclass(frozen=True)
class Checksum:
    """Rows of a table: how many, and the hash of their canonical lines in order."""

    rows: int
    digest: str


@dataclass(frozen=True)
class Day:
    """A capture with its configuration, and what the store must hold afterwards, by table; the lines lie in `out`."""

    captures: tuple[Path, ...]
    config: Config
    run_id: str
    first_ns: int
    last_ns: int
    out: Path
    expected: dict[str, Checksum]

    def lines(self, table: str) -> list[bytes]:
        """Canonical lines of a table."""
        return (self.out / f"{table}.lines").read_bytes().splitlines()

    @property
    def seconds(self) -> float:
        """Length of the capture in event time; s."""
        return (self.last_ns - self.first_ns) / 1e9

    @property
    def rows(self) -> int:
        """Rows of all tables (count)."""
        return sum(c.rows for c in self.expected.values())


def canonical(name: str, rows: Iterable[dict[str, Any]]) -> list[bytes]:
    """Rows as lines with sorted keys, sorted by (order key, id)."""
    keys = ("run_ns", "capture_id", "capture_pos", "sub", *(("id",) if schemas.load(name).has_life else ()))
    ordered = sorted(rows, key=lambda row: tuple(row[k] for k in keys))
    return [orjson.dumps(row, option=orjson.OPT_SORT_KEYS) for row in ordered]


def checksum(lines: Sequence[bytes]) -> Checksum:
    """Count and hash of canonical lines."""
    return Checksum(len(lines), hashlib.blake2b(b"\n".join(lines), digest_size=8).hexdigest())


def make_day(out: Path, seed: int, seconds: float, captures: int = 1) -> Day:
    """Simulate a day into `out` and work out what a pipeline must store of it."""
    made = simulate(out, seed, seconds)
    config = configuration.load(made.config)
    more = {
        "store": config.store.model_copy(update={"raw": True}),
        "kafka": config.kafka.model_copy(update={"partitions": 4}),
    }
    config = config.model_copy(update=more)
    files = (Path(made.capture),) if captures == 1 else split_capture(Path(made.capture), captures)
    return expect(files, config, out / "expected")


def split_capture(capture: Path, captures: int) -> tuple[Path, ...]:
    """Deal the frames of a pcap file out to several, as taps of several places would see them."""
    data = capture.read_bytes()
    parts = [bytearray(data[:24]) for _ in range(captures)]
    order = "little" if data[0] in (0x4D, 0xD4) else "big"
    at = 24
    while at < len(data):
        size = 16 + int.from_bytes(data[at + 8 : at + 12], order)
        # whole flows stay together: a TCP stream cut in two would be two broken streams
        addresses = bytes(data[at + 16 + 26 : at + 16 + 34])
        parts[(sum(addresses[:4]) ^ sum(addresses[4:])) % captures] += data[at : at + size]
        at += size
    files = tuple(capture.with_name(f"{capture.stem}-{n}.pcap") for n in range(captures))
    for file, part in zip(files, parts, strict=True):
        file.write_bytes(part)
    return files


def expect(files: tuple[Path, ...], config: Config, out: Path) -> Day:
    """Run the cores over captures without broker and store, and keep the lines of every table."""
    edge = Edge(config, [str(f) for f in files])
    written = LastRevisions(out)
    captured: dict[str, list[Rows]] = {name: [] for name in CAPTURED}
    verdicts: list[Rows] = []

    def sink(topic: str, rows: Rows) -> None:
        written(topic, rows)
        if topic == "verdicts":
            verdicts.append(rows)

    offline = Offline(config, all_topologies(), edge.run_id, edge.captures, sink)
    for made in edge:
        offline.feed(made.rows, made.capture_id, made.watermark_ns, made.end_ns)
        for name in CAPTURED:
            captured[name] += [made.rows[name]] if name in made.rows else []
    written.close()
    times = [int(t) for rows in captured["packets"] for t in (rows["run_ns"][0], rows["run_ns"][-1])]
    trail = [to_trail("orders", rows, edge.run_id) for rows in captured["orders"]]
    captured["audit"] = trail + [to_trail("verdicts", rows, edge.run_id) for rows in verdicts]
    expected = {}
    for name in TABLES:
        rows = _plain(captured[name]) if name in captured else _read(out / f"{name}.jsonl")
        lines = canonical(name, rows)
        (out / f"{name}.lines").write_bytes(b"\n".join(lines))
        expected[name] = checksum(lines)
    return Day(files, config, edge.run_id, min(times), max(times), out, expected)


def _plain(parts: Sequence[Rows]) -> list[dict[str, Any]]:
    return [orjson.loads(line) for rows in parts for line in rows.to_json_lines()]


def _read(file: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in file.read_bytes().splitlines()]
