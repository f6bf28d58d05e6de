"""Decides when a capture of several counts as silent, and how far to speak for it; the clock is given, nothing is sent.

While a capture says nothing, the others of its run wait for it in every merge. After a while it is declared silent:
from then on somebody else says for it how far it has come, always as far as the slowest of those that speak, so that
the run goes on and as little as possible of what it may still bring is late. When it has caught up it is back.

Only time counts in which another capture is heard: when the broker is away nobody is, and nobody is silent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from akbypass.beats import Beat
from akbypass.config import Silence as Settings
from akbypass.order import START_NS

HEARD_S = 2.5  # a capture that was heard within this speaks
TICK_S_MAX = 1.0  # of the time between two looks that counts at most
RUNS_MAX = 256  # runs that are watched; the one that nothing was heard of for longest is forgotten first


class Kind(StrEnum):
    """What becomes a `control` row."""

    SILENT = "point_silent"
    LATE = "point_late"
    BACK = "point_back"
    ENDED = "point_ended"


@dataclass(frozen=True)
class Decision:
    """What to say for one capture: a watermark (`kind` is None while it only moves on), or the end of its run."""

    run_id: str
    source: int
    sources: int
    point: str
    watermark_ns: int
    kind: Kind | None = None
    detail: str = ""

    @property
    def speaks(self) -> bool:
        """Whether the watermark, or the end, is to be said for the capture."""
        return self.kind not in (Kind.LATE, Kind.BACK)


@dataclass
class _Capture:
    point: str = ""
    watermark_ns: int = START_NS
    heard_s: float | None = None
    waited_s: float = 0.0  # how long the others waited for it
    ended: bool = False
    spoken_ns: int | None = None  # how far somebody has spoken for it while it is silent
    late: bool = False  # silent, but heard again

    def speaks(self, now_s: float) -> bool:
        return self.heard_s is not None and now_s - self.heard_s <= HEARD_S


@dataclass
class _Run:
    sources: int
    heard_s: float
    captures: dict[int, _Capture] = field(default_factory=dict)

    def get(self, source: int) -> _Capture:
        return self.captures.setdefault(source, _Capture(f"capture {source}"))


class Silence:
    """The captures of all runs that have several."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.runs: dict[str, _Run] = {}
        self._looked_s: float | None = None

    def hear(self, beat: Beat, now_s: float) -> list[Decision]:
        """Take a sign of life; returns what it changes."""
        if beat.sources < 2:
            return []
        run = self.runs.setdefault(beat.run_id, _Run(beat.sources, now_s))
        run.heard_s, capture = now_s, run.get(beat.source)
        while len(self.runs) > RUNS_MAX:
            del self.runs[min(self.runs, key=lambda r: self.runs[r].heard_s)]
        capture.watermark_ns = max(capture.watermark_ns, beat.watermark_ns)
        capture.point, capture.heard_s, capture.waited_s = beat.point or capture.point, now_s, 0.0
        capture.ended |= beat.ended
        if capture.spoken_ns is None:
            return []
        return self._heard_again(beat.run_id, beat.source, run, capture)

    def _heard_again(self, run_id: str, source: int, run: _Run, capture: _Capture) -> list[Decision]:
        assert capture.spoken_ns is not None
        if capture.ended or capture.watermark_ns >= capture.spoken_ns:
            at_ns, capture.spoken_ns, capture.late = max(capture.watermark_ns, capture.spoken_ns), None, False
            detail = f"has caught up at {at_ns} ns and speaks for itself again"
            return [Decision(run_id, source, run.sources, capture.point, at_ns, Kind.BACK, detail)]
        if capture.late:
            return []
        capture.late = True
        detail = f"is heard again at {capture.watermark_ns} ns; what it brings below {capture.spoken_ns} ns is late"
        return [Decision(run_id, source, run.sources, capture.point, capture.spoken_ns, Kind.LATE, detail)]

    def outage(self) -> None:
        """Forget how long anybody was waited for: the broker was away."""
        for run in self.runs.values():
            for capture in run.captures.values():
                capture.waited_s = 0.0

    def look(self, now_s: float) -> list[Decision]:
        """Decide what is due; to be called about once in half a second."""
        passed_s = 0.0 if self._looked_s is None else min(now_s - self._looked_s, TICK_S_MAX)
        self._looked_s = now_s
        made: list[Decision] = []
        for run_id, run in list(self.runs.items()):
            made += self._look(run_id, run, now_s, passed_s)
            if all(run.get(source).ended for source in range(run.sources)):
                del self.runs[run_id]
        return made

    def _look(self, run_id: str, run: _Run, now_s: float, passed_s: float) -> Iterator[Decision]:
        for source in range(run.sources):
            capture = run.get(source)
            others = [
                c for s, c in run.captures.items() if s != source and c.spoken_ns is None and c.heard_s is not None
            ]
            if capture.ended or not others:
                continue
            over = all(other.ended for other in others)
            if not over and not any(other.speaks(now_s) for other in others):
                capture.waited_s = 0.0  # nobody is heard: that says nothing about this one
                continue
            goal_ns = (
                max(c.watermark_ns for c in others) if over else min(c.watermark_ns for c in others if not c.ended)
            )
            if over or capture.watermark_ns < goal_ns:  # since it was heard last
                capture.waited_s += passed_s
            yield from self._decide(run_id, run, source, goal_ns, over)

    def _decide(self, run_id: str, run: _Run, source: int, goal_ns: int, over: bool) -> Iterator[Decision]:
        capture = run.captures[source]
        about = (run_id, source, run.sources, capture.point)
        if over and capture.waited_s >= self.settings.end_after_s:
            capture.ended, capture.spoken_ns = True, None
            detail = f"was silent for {capture.waited_s:.1f} s after all others had ended; its run is ended for it"
            yield Decision(*about, goal_ns, Kind.ENDED, detail)
        elif capture.spoken_ns is None and capture.waited_s >= self.settings.after_s and goal_ns > capture.watermark_ns:
            last = "it never spoke" if capture.watermark_ns == START_NS else f"it had come to {capture.watermark_ns} ns"
            detail = f"was silent for {capture.waited_s:.1f} s, {last}; the others go on from {goal_ns} ns without it"
            capture.spoken_ns = goal_ns
            yield Decision(*about, goal_ns, Kind.SILENT, detail)
        elif capture.spoken_ns is not None and goal_ns > capture.spoken_ns:
            capture.spoken_ns = goal_ns
            yield Decision(*about, goal_ns)
