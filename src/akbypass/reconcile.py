"""Whether every hop of a run handed on all that it took; pure: from counts to a balance, it asks nobody.

    captured   = published + drops       by capture, from its captures rows
    published  = handed on               by capture and topic: what captures rows say, what the account says
    handed on  = taken + drops           by topic and topology that reads it, from the accounts of both
    handed on  = stored + drops          by topic and sink, from the writers' accounts and the rows of the tables

Nobody is believed about his own work: each side of an equation is counted by somebody else.
A hop is open until everybody on it has ended the run; what is under way on an open hop is no loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from akbypass.accounts import CAPTURE

SPOOL = "dropped_spool_"
COUNTED = {
    "packets": "published", "market_data": "feed_messages", "orders": "order_messages", "rejected": "rejected",
}  # fmt: skip  # topic → column of captures rows that counts its rows


@dataclass(frozen=True)
class Hop:
    """One equation. `lost` and `extra` are certain, in rows (frames for `captured`); both are 0 when it holds."""

    kind: str  # captured, published, taken, stored
    topic: str
    place: str  # capture, topology or sink
    expected: int
    found: int
    drops: dict[str, int]
    open: bool
    told: int = 0  # rows that the reader itself knows to be missing (count)

    @property
    def difference(self) -> int:
        """What is expected and neither found nor dropped; negative when something counts twice."""
        return self.expected - self.found - sum(self.drops.values())

    @property
    def lost(self) -> int:
        """Rows that are gone; of an open hop those that cannot come any more."""
        if self.open:
            return max(0, self.told - sum(self.drops.values()))
        return max(0, self.difference)

    @property
    def extra(self) -> int:
        """Rows that count twice; of an open hop none is said to."""
        return 0 if self.open else max(0, -self.difference)


@dataclass(frozen=True)
class Balance:
    """All hops of one run."""

    run_id: str
    hops: tuple[Hop, ...]
    until_ns: int = 0  # event time up to which the accounts go; ns since the UNIX epoch

    @property
    def open(self) -> bool:
        """Whether somebody has not ended the run yet."""
        return any(hop.open for hop in self.hops)

    @property
    def holds(self) -> bool:
        """Whether nothing is lost and nothing counts twice, as far as can be said now."""
        return not any(hop.lost or hop.extra for hop in self.hops)

    @property
    def state(self) -> str:
        """One word: balanced, open, or unbalanced."""
        return "unbalanced" if not self.holds else "open" if self.open else "balanced"


@dataclass(frozen=True)
class Reader:
    """Who takes a topic: a topology that reads it, or a sink that stores it."""

    name: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """What the line consists of, so that a missing account is missed."""

    partitions: int
    topologies: Mapping[str, tuple[str, ...]]  # name → outputs
    readers: Sequence[Reader]
    to_all: frozenset[str]  # topics whose rows go to every partition


@dataclass
class Evidence:
    """What is known of one run, by who counted it."""

    run_id: str
    captures: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)  # capture → sums of its captures rows
    accounts: Sequence[Mapping[str, Any]] = ()  # ledger rows, last revisions
    stored: Mapping[tuple[str, str], int] = field(default_factory=dict)  # (sink, topic) → rows
    ends: Mapping[tuple[str, str], int] = field(default_factory=dict)  # (sink, topic) → end markers
    ends_wanted: Mapping[tuple[str, str], int] = field(default_factory=dict)
    letters: Mapping[tuple[str, str], int] = field(default_factory=dict)  # (reader, topic) → rows set aside
    sources: int = 1  # captures of the run


def balance(line: Line, evidence: Evidence) -> Balance:
    """Draw up the balance of one run."""
    book = _Book(line, evidence)
    until_ns = max((row["until_ns"] for row in evidence.accounts), default=0)
    return Balance(evidence.run_id, (*book.captured(), *book.published(), *book.taken(), *book.stored()), until_ns)


class _Book:
    """The accounts of one run, summed as the equations need them."""

    def __init__(self, line: Line, evidence: Evidence) -> None:
        self.line, self.evidence = line, evidence
        self.out, self.into, self.told = (
            Counter[tuple[str, str]](),
            Counter[tuple[str, str]](),
            Counter[tuple[str, str]](),
        )
        self.own: dict[tuple[int, str], tuple[int, bool]] = {}  # (capture, topic) → rows, whether final
        self.final = Counter[tuple[str, str, str]]()  # (stage, direction, topic) → final accounts
        self.writer = {t: name for name, outputs in line.topologies.items() for t in outputs}
        for row in evidence.accounts:
            self._enter(row)
        self.spool = Counter[str]()
        for sums in evidence.captures.values():
            self.spool.update({k.removeprefix(SPOOL): n for k, n in sums.items() if k.startswith(SPOOL) and n})

    def _enter(self, row: Mapping[str, Any]) -> None:
        stage, topic, rows = row["stage"], row["topic"], row["rows"]
        self.final[stage, row["direction"], topic] += row["ended"]
        if row["direction"] == "in":
            self.into[stage, topic] += rows
            self.told[stage, topic] += row["lost"]
            return
        self.out[stage, topic] += rows
        if stage == CAPTURE:
            self.own[row["number"], topic] = rows, row["ended"]

    def _parts(self, stage: str) -> int:
        return self.evidence.sources if stage == CAPTURE else self.line.partitions

    def _is_written(self, stage: str, topic: str) -> bool:
        """Whether every writer of a topic has stated its final account, and what captures dropped is known."""
        return self.final[stage, "out", topic] >= self._parts(stage) and (
            stage != CAPTURE or self._captures_are_stored()
        )

    def _captures_are_stored(self) -> bool:
        """Whether the captures rows are whole."""
        ends, wanted = self.evidence.ends, self.evidence.ends_wanted
        return all(ends.get(key, 0) >= n for key, n in wanted.items() if key[1] == "captures")

    def _is_taken(self, reader: str, stage: str, topic: str) -> bool:
        """Whether every part of a reader has stated its final account of every writer."""
        return self.final[reader, "in", topic] >= self._parts(stage) * self._parts(reader)

    def _topics(self, inputs: Iterable[str]) -> Iterator[tuple[str, str]]:
        """(topic, stage that writes it) of the inputs that somebody accounts for."""
        for topic in inputs:
            stage = self.writer.get(topic, CAPTURE)
            if (stage, topic) in self.out:
                yield topic, stage

    def captured(self) -> Iterator[Hop]:
        """Frames that arrived against those that became packets rows and those dropped, by capture."""
        for number, sums in sorted(self.evidence.captures.items()):
            reasons = {k: n for k, n in sums.items() if k.startswith("dropped_") and not k.startswith(SPOOL) and n}
            offered = sums["packets"] + (sums["dropped_kernel"] or 0)
            yield Hop(
                "captured",
                "",
                _place(number, sums),
                offered,
                sums["published"],
                reasons,
                self._is_open(number, "packets"),
            )

    def published(self) -> Iterator[Hop]:
        """Rows that a capture counted against those in its account."""
        for number, sums in sorted(self.evidence.captures.items()):
            for topic, column in COUNTED.items():
                if (number, topic) in self.own:
                    rows, place = self.own[number, topic][0], _place(number, sums)
                    yield Hop("published", topic, place, sums[column], rows, {}, self._is_open(number, topic))

    def _is_open(self, capture: int, topic: str) -> bool:
        return not (self.own.get((capture, topic), (0, False))[1] and self._captures_are_stored())

    def taken(self) -> Iterator[Hop]:
        """Rows of a topic against those that a topology took."""
        for reader in self.line.readers:
            for topic, stage in self._topics(reader.inputs):
                copies = self.line.partitions if topic in self.line.to_all else 1
                is_open = not (self._is_written(stage, topic) and self._is_taken(reader.name, stage, topic))
                key, drops = (reader.name, topic), self._drops(topic, reader.name, copies)
                expected = self.out[stage, topic] * copies
                yield Hop("taken", topic, reader.name, expected, self.into[key], drops, is_open, self.told[key])

    def stored(self) -> Iterator[Hop]:
        """Rows of a topic against those in the tables of a sink."""
        for (sink, topic), wanted in sorted(self.evidence.ends_wanted.items()):
            for _, stage in self._topics([topic]):
                is_open = not (self._is_written(stage, topic) and self.evidence.ends.get((sink, topic), 0) >= wanted)
                rows = self.evidence.stored.get((sink, topic), 0)
                drops = self._drops(topic, sink, 1)
                yield Hop("stored", topic, sink, self.out[stage, topic], rows, drops, is_open)

    def _drops(self, topic: str, reader: str, copies: int) -> dict[str, int]:
        spool = self.spool[topic] * copies if topic not in self.writer else 0
        drops = {"spool_full": spool, "rejected": self.evidence.letters.get((reader, topic), 0)}
        return {reason: n for reason, n in drops.items() if n}


def _place(number: int, sums: Mapping[str, Any]) -> str:
    return f"{sums['point']}[{number}]"


def rows_lost(balances: Iterable[Balance]) -> dict[tuple[str, str, str], int]:
    """Rows lost or counted twice, by (kind, topic, reader), summed over runs: the numbers of a gauge.

    Only hops that do not hold are in it; the place of a capture is left out, as labels name parts, never traffic.
    """
    found = Counter[tuple[str, str, str]]()
    for of in balances:
        for hop in of.hops:
            if hop.lost or hop.extra:
                found[hop.kind, hop.topic, hop.place if hop.kind in ("taken", "stored") else CAPTURE] += (
                    hop.lost + hop.extra
                )
    return dict(found)
