"""Accounts: what one part of a stage took and handed on in one run, as rows of the topic `ledger`; does no I/O.

An account counts rows from the start of its run. It is stated when the run's event time passes a full minute, so that a
run of days is watched while it lasts, and finally at the end of the run. The final statement depends on the run alone.
A loss is told at once, as an alert.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import orjson

from akbypass.numbering import Taken
from akbypass.order import START_NS, make_id
from akbypass.rows import Array, Rows
from akbypass.schemas import NULL_INT64
from akbypass.topics import LEDGER, LOSS_ALERTS

PERIOD_NS = 60_000_000_000  # event time between two statements
CAPTURE = "capture"  # the stage of the accounts of captures
ALL_SOURCES = -1
NAME = "@accounts"  # of their array in a snapshot; no core's array is called so
OUT, IN = 0, 1  # ordinals of the schema's Direction
Counts = Mapping[tuple[str, int], Taken]  # by input and source


def is_due(before_ns: int, until_ns: int) -> bool:
    """Whether a full minute of event time lies between two watermarks; not before the first."""
    return before_ns != START_NS and until_ns // PERIOD_NS > before_ns // PERIOD_NS


def retention(stage: str, partition: int, topic: str, first: int, messages: int, now_ns: int) -> tuple[str, Rows]:
    """Return a ledger row for what retention took from a reader, and the run that it travels in: one of its own.

    A reader that stops before it has saved says it again, with at least as many messages; the row is the same.

    Args:
        stage: The reader.
        partition: Partition of the topic.
        topic: The topic, without prefix and version.
        first: First offset that was wanted.
        messages: How many there were from there on (count).
        now_ns: Wall clock; ns since the UNIX epoch.
    """
    place = (stage, partition, topic, first)
    row = Rows.build(
        LEDGER, 1, run_ns=now_ns, until_ns=now_ns, id=make_id("retention", "", *place), revision=messages,
        stage=stage.encode(), number=partition, direction=IN, topic=topic.encode(), source=ALL_SOURCES, ended=True,
        messages_lost=messages,
    )  # fmt: skip
    return make_id("retention", "run", *place).decode(), row


class Accounts:
    """Accounts of one part of a stage in one run.

    Args:
        run_id: The run.
        stage: `capture` or the topology.
        number: The capture in its run, or the partition.
        outputs: Topics that rows are handed on to.
        losses: Where rows that never came are added, by input (count).
    """

    def __init__(
        self, run_id: str, stage: str, number: int, outputs: Iterable[str], losses: Counter[str] | None = None
    ) -> None:
        self.run_id, self.stage, self.number = run_id, stage, number
        self.losses = Counter[str]() if losses is None else losses
        self._given = dict.fromkeys(outputs, 0)
        self._known: dict[tuple[str, int], int] = {}  # rows lost of an input and source, as far as known (count)
        self._told: set[tuple[str, int]] = set()

    def advance(
        self, rows: Mapping[str, Rows], taken: Counts, before_ns: int, until_ns: int, ended: bool
    ) -> dict[str, Rows]:
        """Count what a step between two watermarks handed on; returns what is to be said, by topic."""
        self.give(rows)
        made = {LOSS_ALERTS: self._alerts(taken, until_ns, ended)}
        if ended or is_due(before_ns, until_ns):
            made[LEDGER] = self.statement(taken, until_ns, ended)
        return {topic: found for topic, found in made.items() if len(found)}

    def give(self, rows: Mapping[str, Rows]) -> None:
        """Count rows that are handed on."""
        for topic in rows.keys() & self._given.keys():
            self._given[topic] += len(rows[topic])

    def statement(self, taken: Counts, until_ns: int, ended: bool) -> Rows:
        """Return ledger rows: one an input and source, one an output."""
        lines = [(IN, topic, source, found) for (topic, source), found in taken.items()]
        lines += [(OUT, topic, ALL_SOURCES, Taken(position=n)) for topic, n in self._given.items()]
        ids = [make_id(LEDGER, self.run_id, self.stage, self.number, *line[:3]) for line in lines]
        taken_of = [found for *_, found in lines]
        return Rows.build(
            LEDGER, len(lines), run_ns=until_ns - ended, capture_pos=int(ended), sub=np.arange(len(lines)), id=np.array(ids, "S16"),
            revision=max(until_ns, 0) // PERIOD_NS + ended, stage=self.stage.encode(), number=self.number,
            direction=[line[0] for line in lines], topic=np.array([line[1].encode() for line in lines], "S32"),
            source=[line[2] for line in lines], rows=[t.rows for t in taken_of], lost=[t.lost for t in taken_of],
            lost_from_ns=[t.lost_from_ns for t in taken_of], lost_to_ns=[t.lost_to_ns for t in taken_of],
            until_ns=until_ns, ended=ended,
        )  # fmt: skip

    def _alerts(self, taken: Counts, until_ns: int, ended: bool) -> Rows:
        """Alerts of kind `loss`: one when the first loss of an input and source is found, its last revision at the end."""
        lost = {key: found for key, found in taken.items() if found.lost}
        for key, found in lost.items():
            self.losses[key[0]] += found.lost - self._known.get(key, 0)
            self._known[key] = found.lost
        news = [item for item in lost.items() if ended or item[0] not in self._told]
        self._told |= lost.keys()
        made = [self._alert(i, *key, found, until_ns, ended) for i, (key, found) in enumerate(news)]
        return Rows.from_dicts("alerts", made)

    def _alert(self, sub: int, topic: str, source: int, found: Taken, until_ns: int, ended: bool) -> dict[str, Any]:
        who = f"{self.stage}[{self.number}]"
        identity = (self.run_id, self.stage, self.number)
        return {
            "run_ns": until_ns - ended, "capture_id": 0, "capture_pos": int(ended), "sub": sub, "revision": int(ended),
            "id": make_id(LOSS_ALERTS, *identity, topic, source).decode(),
            "ts_capture_ns": until_ns if found.lost_to_ns == NULL_INT64 else found.lost_to_ns,
            "topology": self.stage[:24], "kind": "loss", "entity": f"{topic} to {who}"[:64],
            "severity": "critical", "state": "firing", "value": float(found.lost), "threshold": 0.0, "unit": "rows",
            "description": f"{found.lost} rows of {topic} from writer {source} never reached {who}",
            "evidence": [make_id(LEDGER, *identity, IN, topic, source).decode()],
        }  # fmt: skip

    def pack(self, taken: Counts) -> Array:
        """Write the counts as an array of bytes, for a checkpoint."""
        counts = [[topic, source, found.pack()] for (topic, source), found in taken.items()]
        return np.frombuffer(orjson.dumps([self._given, counts]), np.uint8)

    def restore(self, array: Array) -> dict[tuple[str, int], Taken]:
        """Take over what `pack` wrote; returns what was taken."""
        given, counts = orjson.loads(array.tobytes())
        self._given = {topic: given.get(topic, 0) for topic in self._given}
        taken = {(topic, source): Taken(*packed) for topic, source, packed in counts}
        self._known = {key: found.lost for key, found in taken.items() if found.lost}
        self._told = set(self._known)
        return taken
