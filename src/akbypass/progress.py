"""Which input offsets a checkpoint may acknowledge, and what to know again after a restart; does no I/O.

A message is done when the rows it brought have been taken by the core. Offsets move over done messages only, in order.
What a done message said about its source (watermark, end) is kept with the offset, because it will not be read again.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from akbypass.batch import Batch
from akbypass.order import BEFORE_ALL, END_NS, START_NS, OrderKey, key_at
from akbypass.rows import ORDER, Array, Rows
from akbypass.topology import TopologyPartition


class LostMessagesError(RuntimeError):
    """Messages are missing in the middle of a topic."""


@dataclass(frozen=True, slots=True)
class _Entry:
    offset: int
    run_id: str
    source: int
    sources: int
    watermark_ns: int
    end_ns: int | None
    last_run_ns: int | None  # of its rows; None without rows
    token: Any  # acknowledged with the offset
    last_key: OrderKey = BEFORE_ALL  # of its rows
    keys: dict[str, Array] | None = None  # order keys of its rows, while places are wanted


@dataclass(frozen=True, slots=True)
class Late:
    """Rows of one message that came behind what their source had promised, or behind the end of its run."""

    topic: str
    run_id: str
    source: int
    rows: Rows


@dataclass
class Progress:
    """Input side of one topology partition.

    With `places`, the order keys of what was read are kept until they are done, so that a row can be traced to its message.
    """

    partition: TopologyPartition
    next_offset: dict[str, int] = field(default_factory=dict)  # per topic, first offset that is not done
    wanted_offset: dict[str, int] = field(default_factory=dict)  # per topic, the offset that must come next
    spoken: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)  # run → topic → what done messages said
    places: bool = False
    late: list[Late] = field(default_factory=list)  # of the message taken last; whoever tells of them empties it
    _open: dict[str, deque[_Entry]] = field(default_factory=dict)
    _heard_s: dict[str, float] = field(default_factory=dict)  # run → when its last message came

    def take(self, topic: str, offset: int, batch: Batch | None, token: Any, now_s: float = 0.0) -> bool:
        """Take one message; returns False for an offset that was taken before. `batch` is None for a rejected one.

        Raises LostMessagesError when messages are missing before it: our topics have no holes, so that is a fault.
        """
        wanted = self.wanted_offset.get(topic, self.next_offset.get(topic, 0))
        if offset < wanted:
            return False
        if offset > wanted:
            raise LostMessagesError(f"{topic}: expected offset {wanted}, found {offset}")
        self.wanted_offset[topic] = offset + 1
        if batch is None:
            entry = _Entry(offset, "", 0, 1, START_NS, None, None, token)
        else:
            rows = batch.rows
            key = key_at(rows, -1) if rows is not None and len(rows) else BEFORE_ALL
            last = key[0] if key != BEFORE_ALL else None
            self._heard_s[batch.run_id] = now_s
            keys = {k: rows[k].copy() for k in ORDER} if self.places and rows is not None else None
            entry = _Entry(
                offset,
                batch.run_id,
                batch.source,
                batch.sources,
                batch.watermark_ns,
                batch.end_ns,
                last,
                token,
                key,
                keys,
            )
            late = self.partition.add(
                topic, batch.run_id, batch.source, batch.sources, rows, batch.watermark_ns, batch.end_ns, batch.rows_before
            )  # fmt: skip
            if late is not None:
                self.late.append(Late(topic, batch.run_id, batch.source, late))
        self._open.setdefault(topic, deque()).append(entry)
        return True

    def place_of(self, topic: str, run_id: str, key: OrderKey) -> tuple[int, Any] | None:
        """Offset and token of the message that brought a row; None when it was read before places were wanted."""
        for entry in self._open.get(topic, ()):
            if entry.keys is None or entry.run_id != run_id:
                continue
            same = np.ones(len(entry.keys[ORDER[0]]), bool)
            for name, part in zip(ORDER, key, strict=True):
                same &= entry.keys[name] == part
            if same.any():
                return entry.offset, entry.token
        return None

    def begin(self, topic: str, earliest_offset: int) -> int:
        """Say where reading starts, not before the log does; returns how many messages retention took away."""
        wanted = self.next_offset.get(topic, 0)
        lost = max(0, earliest_offset - wanted) if topic in self.next_offset else 0
        self.next_offset[topic] = self.wanted_offset[topic] = max(wanted, earliest_offset)
        return lost

    def abandon(self, now_s: float, silent_s: float) -> list[str]:
        """Give up runs of which nothing came for `silent_s`: their sources were killed and will not end them.

        What waits is dropped, so that offsets move on; captured again, the run begins anew and gives the same rows.
        """
        silent = [r for r in self.partition.runs if now_s - self._heard_s.setdefault(r, now_s) > silent_s]
        for run_id in silent:
            del self.partition.runs[run_id]
        self._heard_s = {r: s for r, s in self._heard_s.items() if r in self.partition.runs}
        return silent

    def settle(self) -> list[Any]:
        """Move offsets over the messages that are done and return their tokens, to be acknowledged after the save."""
        tokens = []
        for topic, entries in self._open.items():
            while entries and self._done(entries[0]):
                entry = entries.popleft()
                self.next_offset[topic] = entry.offset + 1
                tokens.append(entry.token)
                self._remember(topic, entry)
        for run_id in list(self.spoken):
            if run_id not in self.partition.runs:
                del self.spoken[run_id]
        return tokens

    def _done(self, entry: _Entry) -> bool:
        if entry.last_run_ns is None or entry.run_id not in self.partition.runs:  # nothing to take, ended, or given up
            return True
        return self.partition.released_ns(entry.run_id) > entry.last_run_ns

    def _remember(self, topic: str, entry: _Entry) -> None:
        if entry.run_id not in self.partition.runs:
            return
        said = self.spoken.setdefault(entry.run_id, {}).setdefault(topic, {"sources": entry.sources, "by": {}})
        before, end, last_key = said["by"].get(str(entry.source), (START_NS, None, BEFORE_ALL))
        watermark = END_NS if entry.end_ns is not None else entry.watermark_ns
        end = end if entry.end_ns is None else entry.end_ns
        said["by"][str(entry.source)] = (max(before, watermark), end, max(last_key, entry.last_key))

    def meta(self, released: Mapping[str, int]) -> dict[str, Any]:
        """What a manifest says beside the state."""
        ended, tails = dict(self.partition.ended), self.partition.tails
        runs = {"spoken": self.spoken, "released": dict(released), "ended": ended, "tails": tails}
        return {"offsets": dict(self.next_offset), **runs}

    def restore(self, meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Take over a checkpoint: afterwards the inputs are to be read from `next_offset`."""
        self.partition.restore(arrays, meta["released"], meta["ended"])
        self.partition.tails = copy.deepcopy(meta.get("tails", {}))
        self.next_offset = {topic: int(offset) for topic, offset in meta["offsets"].items()}
        self.spoken = {}
        for run_id, by_topic in meta["spoken"].items():
            for topic, said in by_topic.items():
                kept: dict[str, Any] = {"sources": said["sources"], "by": {}}
                self.spoken.setdefault(run_id, {})[topic] = kept
                for source, (watermark, end, key) in said["by"].items():
                    last_key: OrderKey = (key[0], key[1], key[2], key[3])
                    kept["by"][source] = (watermark, end, last_key)
                    self.partition.add(
                        topic, run_id, int(source), said["sources"], None, watermark, end, last_key=last_key
                    )
