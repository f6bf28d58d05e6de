"""Finds the rows at which a core fails, and goes on without them; does no I/O and knows no topology.

A core is a pure function of its state and rows, so a failure comes again at the same rows. From a copy of the state
before the step, the step is tried in parts: by halves up to the nanosecond at which it fails, then with and without
single rows of that nanosecond. What is left is stepped as if the rows set aside had never been. Where no row is to
blame (a timer fails, or the end) or too many are, the run is given up: it says nothing any more, and ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from akbypass.rows import ORDER, Array, Rows

if TYPE_CHECKING:
    from akbypass.topology import Core

GIVEN_UP = "@given_up"  # of the array in a snapshot that says so; no core's array is called so
ASIDE = "@aside"  # of the array that counts rows set aside
BLAMED_MAX = 64  # rows of one nanosecond that are tried one by one; of more, all are set aside

Inputs = Mapping[str, Rows]


@dataclass(frozen=True)
class SetAside:
    """What a core could not take: rows by input, or the rest of the run when there are none; and its words."""

    run_id: str
    rows: dict[str, Rows]
    error: str
    at_ns: int  # run_ns of the rows, or up to where the run was taken


class GivenUp:
    """The core of a run that was given up: takes rows, counts them, and makes none."""

    def __init__(self, rows: int = 0) -> None:
        self.rows = rows

    @property
    def counters(self) -> Mapping[str, int]:
        """Rows that nobody looked at (count)."""
        return {"given_up_rows": self.rows}

    def step(self, inputs: Inputs, watermark_ns: int, end: bool) -> dict[str, Rows]:
        """Count."""
        self.rows += sum(len(rows) for rows in inputs.values())
        return {}

    def snapshot(self) -> dict[str, Array]:
        """The count."""
        return {GIVEN_UP: np.array([self.rows])}

    def restore(self, state: Mapping[str, Array]) -> None:
        """The count."""
        self.rows = int(state[GIVEN_UP][0])


@dataclass
class Stepped:
    """A step that came to its end: the core as it is now, what it made, and what was set aside on the way."""

    core: Core
    made: dict[str, Rows]
    aside: list[SetAside] = field(default_factory=list)


@dataclass(frozen=True)
class _Step:
    """A step that may fail, to be tried in parts on new cores of the same state."""

    make_core: Callable[[], Core]
    state: Mapping[str, Array]
    inputs: Inputs
    watermark_ns: int
    end: bool

    def core(self) -> Core:
        made = self.make_core()
        made.restore({name: array.copy() for name, array in self.state.items()})
        return made

    def without(self, rows: Inputs) -> _Step:
        """The same step without some of its rows."""
        left = {}
        for name, have in self.inputs.items():
            keep = ~_among(have, rows[name]) if name in rows else np.ones(len(have), bool)
            if keep.any():
                left[name] = have.take(keep)
        return _Step(self.make_core, self.state, left, self.watermark_ns, self.end)

    def with_rows(self, name: str, rows: Rows) -> _Step:
        """The same step with further rows behind those that it has."""
        have = [self.inputs[name]] if name in self.inputs else []
        inputs = {**self.inputs, name: Rows.concat([*have, rows])}
        return _Step(self.make_core, self.state, inputs, self.watermark_ns, self.end)

    def until(self, watermark_ns: int) -> _Step:
        """The part of the step that lies below a watermark."""
        cut = {name: int(np.searchsorted(rows["run_ns"], watermark_ns, "left")) for name, rows in self.inputs.items()}
        part = {name: self.inputs[name].take(slice(0, n)) for name, n in cut.items() if n}
        return _Step(self.make_core, self.state, part, watermark_ns, False)

    def fails(self) -> bool:
        try:
            self.core().step(self.inputs, self.watermark_ns, self.end)
        except MemoryError:
            raise
        except Exception:  # whatever a core's fault is
            return True
        return False


def step(
    run_id: str, make_core: Callable[[], Core], core: Core, inputs: Inputs, from_ns: int, watermark_ns: int, end: bool, *,
    tries: int, rows_max: int,
) -> Stepped:  # fmt: skip
    """Step a core, and where it fails again and again set aside what it fails at.

    Args:
        run_id: The run.
        make_core: Makes a core without state.
        core: The core, which nobody uses after a failure.
        inputs, watermark_ns, end: As a core takes them.
        from_ns: The watermark before.
        tries: Tries of a step before a row is blamed.
        rows_max: Rows that may be set aside; when more are to blame, the run is given up.
    """
    whole = _Step(make_core, core.snapshot(), inputs, watermark_ns, end)
    aside: list[SetAside] = []
    while True:
        error: Exception | None = None
        for _ in range(tries):
            try:
                return Stepped(core, core.step(whole.inputs, watermark_ns, end), aside)
            except MemoryError:
                raise
            except Exception as found:  # whatever a core's fault is
                error, core = found, whole.core()
        words = f"{type(error).__name__}: {error}"
        blamed = _blamed(whole)
        if not blamed or sum(len(r) for r in (*blamed.values(), *_rows_of(aside))) > rows_max:
            return _give_up(run_id, whole, from_ns, words, aside)
        at_ns = int(next(iter(blamed.values()))["run_ns"][0])
        aside.append(SetAside(run_id, blamed, words, at_ns))
        whole = whole.without(blamed)


def _give_up(run_id: str, whole: _Step, from_ns: int, words: str, aside: list[SetAside]) -> Stepped:
    """Take what can be taken in front of the failure, and nothing behind it; where that is depends on the rows alone."""
    low = max(from_ns, min((int(rows["run_ns"][0]) for rows in whole.inputs.values()), default=from_ns))
    high, made = whole.watermark_ns, dict[str, Rows]()
    if not whole.until(high).fails():
        low = high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if whole.until(middle).fails() else (middle, high)
    part = whole.until(low)
    if not part.fails():
        made = part.core().step(part.inputs, low, False)
    left = {name: len(rows) - len(part.inputs.get(name, ())) for name, rows in whole.inputs.items()}
    return Stepped(GivenUp(sum(left.values())), made, [*aside, SetAside(run_id, {}, words, low)])


def _rows_of(aside: list[SetAside]) -> list[Rows]:
    return [rows for found in aside for rows in found.rows.values()]


def _blamed(whole: _Step) -> dict[str, Rows]:
    """The rows to set aside, all of one nanosecond; none when the step fails for another reason."""
    times = np.unique(np.concatenate([rows["run_ns"] for rows in whole.inputs.values()] or [np.empty(0, np.int64)]))
    low, high = 0, len(times)  # steps that hold the first `low` times pass
    while low < high:
        middle = (low + high) // 2
        if whole.until(int(times[middle]) + 1).fails():
            high = middle
        else:
            low = middle + 1
    if low == len(times):  # all rows can be taken: a timer behind them fails, or the end
        return {}
    at_ns = int(times[low])
    part = whole.until(at_ns + 1)
    there = {
        name: found for name, rows in part.inputs.items() if len(found := rows.take(rows["run_ns"] == at_ns))
    }  # fmt: skip
    if part.without(there).fails():  # a timer fails, without any row of this time
        return {}
    return _fewest(part, there)


def _fewest(part: _Step, there: dict[str, Rows]) -> dict[str, Rows]:
    """Of the rows of the nanosecond at which a step fails, as few as one can tell are to blame."""
    ones = [(name, rows.take(slice(i, i + 1))) for name, rows in there.items() for i in range(len(rows))]
    if len(ones) > BLAMED_MAX:
        return there
    before = part.without(there)
    alone = [(name, one) for name, one in ones if before.with_rows(name, one).fails()]
    found = {name: Rows.concat([one for n, one in alone if n == name]) for name in dict(alone)}
    if found and not part.without(found).fails():
        return found
    return next(({name: one} for name, one in ones if not part.without({name: one}).fails()), there)


def _among(rows: Rows, some: Rows) -> Array:
    """Which rows are among some of them, by order key."""
    keys = set(zip(*(some[k].tolist() for k in ORDER), strict=True))
    found = np.zeros(len(rows), bool)
    for i in np.flatnonzero((rows["run_ns"] >= some["run_ns"][0]) & (rows["run_ns"] <= some["run_ns"][-1])).tolist():
        found[i] = tuple(int(rows[k][i]) for k in ORDER) in keys
    return found


__all__ = ["GIVEN_UP", "GivenUp", "SetAside", "Stepped", "step"]
