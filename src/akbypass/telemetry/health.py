"""Whether a process moves and does its work: offsets that move, not a process that is up; asks nobody itself.

Healthy: every part moved lately, or has nothing to do, or waits for somebody whom a restart would not bring back
(broker or store away, an input held back on purpose); and none holds what it should have saved.
Ready: every part has its partitions, and broker and store answer. So a liveness probe ends only processes that a
restart can help.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any


class Part:
    """Something that moves through what lies before it: a topology, a sink, a capture."""

    def __init__(self, name: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.name, self.monotonic = name, monotonic
        self.ready = False
        self.held = ""  # whom it waits for, when it knows
        self.behind: int | None = None  # messages that lie before it; None while nobody knows
        self._moved_s = self._free_s = monotonic()

    def moved(self) -> None:
        """Say that something was taken."""
        self._moved_s = self.monotonic()

    def lies_before(self, behind: int | None) -> None:
        """Say how much is left to take, as seen now; None when nobody can tell, which is no fault of this part."""
        self.behind = behind
        if behind is None or (self.ready and behind == 0):
            self._free_s = self.monotonic()

    def stalled_s(self) -> float:
        """How long nothing has moved although it should have (s)."""
        idle = self.ready and (self.behind == 0 or bool(self.held))
        if idle:
            self._free_s = self.monotonic()
        return 0.0 if idle else self.monotonic() - max(self._moved_s, self._free_s)

    def overdue_s(self) -> float:
        """How long something that was taken should have been saved or written already (s); 0 for nothing of the kind."""
        return 0.0

    def details(self) -> Mapping[str, Any]:
        """What else a report says of it."""
        return {}


class Health:
    """The verdict over the parts of one process and whom they depend on (name → whether it answers)."""

    def __init__(self, stalled_s: float) -> None:
        self.stalled_s = stalled_s
        self.parts: list[Part] = []
        self.dependencies: dict[str, Callable[[], bool | None]] = {}
        self.begun = False
        self.stopping = False

    def report(self) -> dict[str, Any]:
        """Everything that /healthz and /readyz say; the reasons name what is wrong."""
        answers = {name: up() for name, up in self.dependencies.items()}
        away = [name for name, up in answers.items() if up is False]
        stalled = {part.name: part.stalled_s() for part in self.parts}
        overdue = {part.name: part.overdue_s() for part in self.parts if not part.held}
        unhealthy = [f"{n} has not moved for {s:.0f} s" for n, s in stalled.items() if s >= self.stalled_s]
        unhealthy += [f"{n} is {s:.0f} s late with saving" for n, s in overdue.items() if s >= self.stalled_s]
        unhealthy = [] if away else unhealthy
        unready = [] if self.begun else ["starting"]
        unready += [f"{name} does not answer" for name, up in answers.items() if not up]
        unready += [f"{part.name} has no partitions yet" for part in self.parts if not part.ready]
        unready += [f"{part.name} waits for the {part.held}" for part in self.parts if part.held]
        unready += ["stopping"] if self.stopping else []
        return {
            "healthy": not unhealthy, "ready": not unready, "reasons": [*unhealthy, *unready], "dependencies": answers,
            "parts": [self._part(part, stalled[part.name]) for part in self.parts],
        }  # fmt: skip

    @staticmethod
    def _part(part: Part, stalled_s: float) -> dict[str, Any]:
        return {
            "name": part.name,
            "ready": part.ready,
            "lag_messages": part.behind,
            "stalled_s": round(stalled_s, 1),
            **part.details(),
        }
