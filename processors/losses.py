"""Which times rows are missing from, as captures rows tell: dropped behind the capture, before anyone could read them.

A loss has a range of event time and a count by topic. It is known from the moment (run_ns) of its row on, and is asked
about intervals that end later or then: what becomes known behind the end of an interval does not count for it, so an
answer does not depend on how rows are cut into steps. Only the last LOSSES_MAX losses known are remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from akbypass.kernel import kernel
from akbypass.rows import Array, Rows

LOSSES_MAX = 16_384  # several minutes of a spool that is full all the time
TOPICS = ("packets", "orders")  # that somebody asks about
KNOWN, START, END, FIRST = range(4)  # columns: run_ns, range [start, end) in ns, then the counts of TOPICS
WIDTH = FIRST + len(TOPICS)


@kernel
def _touching(losses: Any, most: int, column: int, start_ns: Any, end_ns: Any, known_ns: Any, out: Any) -> None:
    """Sum the counts of the losses that touch each interval [start, end]; `losses` are in the order of KNOWN."""
    for i in range(len(out)):
        seen, j = 0, len(losses) - 1
        while j >= 0 and seen < most:
            if losses[j, KNOWN] <= known_ns[i]:
                seen += 1
                if losses[j, START] <= end_ns[i] and losses[j, END] > start_ns[i]:
                    out[i] += losses[j, column]
            j -= 1


COLUMNS = frozenset(("ts_start_ns", "ts_end_ns", *(f"dropped_spool_{topic}" for topic in TOPICS)))  # read of captures


class Losses:
    """The losses that one partition of a topology has heard of."""

    def __init__(self) -> None:
        self._losses: Array = np.empty((0, WIDTH), np.int64)

    def take(self, captures: Rows) -> None:
        """Hear of losses; to be called before anything is asked in a step."""
        counts = [_known(captures, f"dropped_spool_{topic}") for topic in TOPICS]
        told = np.flatnonzero(np.any([count > 0 for count in counts], axis=0))
        if len(told):
            columns = [captures["run_ns"], captures["ts_start_ns"], captures["ts_end_ns"], *counts]
            news = np.stack([column[told] for column in columns], axis=1)
            self._losses = np.concatenate([self._losses[-LOSSES_MAX:], news])

    def touching(self, topic: str, start_ns: Array, end_ns: Array, known_ns: Array) -> Array:
        """Rows of a topic lost in ranges that touch each interval [start, end] and were known at `known_ns` (count)."""
        out = np.zeros(len(start_ns), np.int64)
        if len(self._losses) and len(out):
            _touching(self._losses, LOSSES_MAX, FIRST + TOPICS.index(topic), start_ns, end_ns, known_ns, out)
        return out

    def snapshot(self) -> dict[str, Array]:
        """Copy the state."""
        return {"losses": self._losses.copy()}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over a snapshot."""
        self._losses = state["losses"]


def _known(captures: Rows, column: str) -> Array:
    """A nullable count, 0 for unknown."""
    return np.maximum(captures[column], 0)
