"""A seed becomes a plan: what is done to which part, and at which point of the run; touches no process.

A point is a fraction of the run on one of three gauges, so it lies in the middle of the work however fast the machine
is. Some actions follow the one before by a moment instead: they hit what that left half done.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

PARTS = ("capture", "worker", "sink", "store", "broker")
GAUGES = {  # how far the run must have come for an action on a part
    "capture": ("published",),
    "worker": ("consumed", "published"),
    "sink": ("stored", "consumed"),
    "store": ("stored",),
    "broker": ("published", "consumed"),
    "topics": ("published", "consumed"),
    "clock": ("published", "consumed", "stored"),
    "workers": ("published",),
}
KILLS = 7  # of one run: each part once, the others drawn
FIRST, LAST = 0.12, 0.9  # of the run, where actions begin and end
CLOSE = 0.25  # share of actions that follow the one before
CLOSE_S = (0.2, 4.0)

# Disturbances that one run takes together, (name, part, seconds that it lasts).
LIGHT = (("duplicate", "topics", 0.0), ("poison", "topics", 0.0), ("step", "clock", 0.0))
HEAVY = (
    ("pause", "broker", 6.0), ("pause", "store", 8.0), ("slow", "store", 8.0), ("fill", "store", 8.0),
    ("pause", "worker", 14.0), ("rebalance", "workers", 0.0), ("away", "store", 15.0),
)  # fmt: skip


@dataclass(frozen=True)
class Action:
    """What is done, and when: at `at` of the run on `gauge`, or `after_s` behind the action before when that is set."""

    name: str
    part: str
    gauge: str
    at: float
    after_s: float = 0.0
    seconds: float = 0.0
    seed: int = 0  # of what the action draws itself

    def __str__(self) -> str:
        when = f"+{self.after_s:.1f} s" if self.after_s else f"{self.gauge} {self.at:.0%}"
        return f"{self.name} {self.part} ({when})"


@dataclass(frozen=True)
class Plan:
    """One run."""

    seed: int
    workers: int
    actions: tuple[Action, ...]

    def kills(self) -> Counter[str]:
        """Kills by part."""
        return Counter(a.part for a in self.actions if a.name == "kill")


def make_plan(
    seed: int, kills: int = KILLS, parts: Sequence[str] = PARTS, light: bool = True, heavy: Sequence[str] | None = None
) -> Plan:
    """Draw a run from a seed: `kills` kills that begin with each of `parts`, and disturbances.

    `heavy` names the heavy disturbances of this run; None draws one.
    """
    draw = random.Random(seed)
    killed = [parts[i] if i < len(parts) else draw.choice(parts) for i in range(kills)]
    chosen = [("kill", part, 0.0) for part in killed]
    chosen += LIGHT if light else ()
    chosen += (
        [draw.choice(HEAVY)] if heavy is None else [h for h in HEAVY if h[0] in heavy or f"{h[0]} {h[1]}" in heavy]
    )
    draw.shuffle(chosen)
    points = sorted(draw.uniform(FIRST, LAST) for _ in chosen)
    actions = []
    for number, ((name, part, seconds), at) in enumerate(zip(chosen, points, strict=True)):
        close = draw.uniform(*CLOSE_S) if number and draw.random() < CLOSE else 0.0
        close *= part != "capture"  # it may have ended when what is before comes late
        lasts = seconds * draw.uniform(0.6, 1.2)
        actions.append(Action(name, part, draw.choice(GAUGES[part]), at, close, lasts, draw.getrandbits(32)))
    return Plan(seed, draw.choice((1, 1, 2)), tuple(actions))
