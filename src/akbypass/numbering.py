"""Counts what a reader took of one writer's rows by the numbers that the writer gave them; does no I/O.

A writer numbers the rows that it puts into one partition of a topic: 0, 1, 2, … over the whole run. The numbers depend on
the run alone, so a writer that starts again gives the same row the same number. A reader that finds a jump knows at once
how many rows it will never see, whatever took them: retention, a poison message, a fault of ours.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

from akbypass.rows import Rows
from akbypass.schemas import NULL_INT64

UNKNOWN = -1


@dataclass
class Taken:
    """What was taken of one writer's rows, in order; part of a checkpoint, so restarts count nothing twice."""

    position: int = 0  # number of the row that must come next
    lost: int = 0  # rows before it that never came (count)
    total: int = UNKNOWN  # rows of the whole run, once the writer has said so
    last_ns: int = NULL_INT64  # run_ns of the last row taken
    lost_from_ns: int = NULL_INT64  # the lost rows lie not before this, where it is known
    lost_to_ns: int = NULL_INT64  # … and not behind this

    @property
    def rows(self) -> int:
        """Rows taken (count)."""
        return self.position - self.lost

    def take(self, number: int | None, rows: Rows) -> None:
        """Take rows, at least one, the first of which has this number; None when its writer did not number them."""
        if number is not None:
            self._skip(number, int(rows["run_ns"][0]))
        self.position += len(rows)
        self.last_ns = int(rows["run_ns"][-1])

    def finish(self, end_ns: int) -> None:
        """Take the end of the writer's run: what is missing now will not come."""
        if self.total != UNKNOWN:
            self._skip(self.total, end_ns)

    def _skip(self, number: int, until_ns: int) -> None:
        if number <= self.position:
            return
        if not self.lost:
            self.lost_from_ns = self.last_ns
        self.lost += number - self.position
        self.position, self.lost_to_ns = number, until_ns

    def pack(self) -> tuple[int, ...]:
        """Every field, in order."""
        return astuple(self)
