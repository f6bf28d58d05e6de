"""Counts what a reader took of one writer's rows by the numbers that the writer gave them; does no I/O.

A writer numbers the rows that it puts into one partition of a topic: 0, 1, 2, … over the whole run. The numbers depend on
the run alone, so a writer that starts again gives the same row the same number. A reader that finds a jump knows at once
how many rows it will never see, whatever took them: retention, a poison message, a fault of ours.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, field

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
    aside: int = 0  # rows before `position` that came and were set aside (count)
    coming: list[list[int]] = field(default_factory=list)  # numbers [from, to) of further ones, in order

    @property
    def rows(self) -> int:
        """Rows taken (count)."""
        return self.position - self.lost - self.aside

    def set_aside(self, number: int | None, count: int) -> None:
        """Know of rows, the first with this number, that came and will not be taken; they are not lost."""
        if number is None:
            return
        start = max(number, self.position, self.coming[-1][1] if self.coming else 0)
        if start < number + count:
            self.coming.append([start, number + count])

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
        aside = self._pass(number)
        lost = number - self.position - aside
        self.position, self.aside = number, self.aside + aside
        if lost:
            if not self.lost:
                self.lost_from_ns = self.last_ns
            self.lost, self.lost_to_ns = self.lost + lost, until_ns

    def _pass(self, number: int) -> int:
        """Forget the rows set aside below a number; returns how many they were."""
        passed = 0
        while self.coming and self.coming[0][0] < number:
            start, end = self.coming[0]
            passed += min(end, number) - start
            if end > number:
                self.coming[0][0] = number
                break
            del self.coming[0]
        return passed

    def pack(self) -> tuple[int | list[list[int]], ...]:
        """Every field, in order."""
        return astuple(self)
