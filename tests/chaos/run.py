"""One seed, from an empty pipeline to the comparison of what it stored."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from akbypass import store_client
from tests.chaos.actions import Actor, Disk, needs_disk, needs_own_store
from tests.chaos.day import Day
from tests.chaos.gauges import Gauges, wait_for
from tests.chaos.line import ChaosError, Line
from tests.chaos.plan import Action, Plan
from tests.chaos.topics import Injector
from tests.chaos.verify import Verdict, verify

REACH_S = 240.0  # longest wait for the point of an action
FINISH_S = 600.0


@dataclass
class Report:
    """What a run came to, as it is written to the record."""

    seed: int
    workers: int
    kills: dict[str, int]  # that hit a living process
    done: list[str] = field(default_factory=list)  # actions in words, with the run's state at that moment
    skipped: list[str] = field(default_factory=list)
    rows: int = 0
    equal: bool = False
    differences: list[str] = field(default_factory=list)
    doubled: dict[str, int] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    repeated: int = 0
    poisoned: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def run_plan(
    plan: Plan, day: Day, home: Path, replay_s: float, tell: Callable[[str], None] = lambda text: None, keep: bool = False
) -> Report:  # fmt: skip
    """Run one plan in a fresh directory; a pipeline that gives up is a difference, never an exception."""
    started_s = time.monotonic()
    report = Report(plan.seed, plan.workers, {})
    kills: Counter[str] = Counter()
    shutil.rmtree(home, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        line = Line(day, home, plan.workers, replay_s, own_store=needs_own_store(plan))
        disk = stack.enter_context(Disk(line.places.store)) if needs_disk(plan) else None
        try:
            stack.enter_context(line)
            verdict = _hurt(plan, line, disk, report, kills, tell)
            report.equal, report.differences = verdict.equal, verdict.differences
            report.rows, report.doubled = verdict.rows, verdict.doubled
        except ChaosError as error:
            report.differences = [str(error)]
        report.restarts = dict(line.stack.endpoints.restarts)
    report.kills = dict(kills)
    report.seconds = round(time.monotonic() - started_s, 1)
    if report.equal and not keep:
        shutil.rmtree(home, ignore_errors=True)
    return report


def _in_time(plan: Plan, gauges: Gauges, line: Line) -> Iterator[Action]:
    """The actions of a plan, each when the run has come to its point; gauges advance one beside the other."""
    chains: list[list[Action]] = []  # an action, and those that follow it by a moment
    for action in plan.actions:
        if action.after_s and chains:
            chains[-1].append(action)
        else:
            chains.append([action])
    while chains:
        due: list[list[Action]] = []

        def look() -> bool:
            due[:] = [chain for chain in chains if gauges[chain[0].gauge] >= chain[0].at][:1]  # noqa: B023
            return bool(due)  # noqa: B023

        if not wait_for(look, REACH_S, line.check):
            at = ", ".join(f"{name} {gauges[name]:.0%}" for name in ("published", "consumed", "stored"))
            raise ChaosError(f"nothing moves for {REACH_S:.0f} s at {at}; still to come: {chains[0][0]}")
        chains.remove(due[0])
        for number, action in enumerate(due[0]):
            if number:
                time.sleep(action.after_s)
            line.check()
            yield action


def _hurt(
    plan: Plan, line: Line, disk: Disk | None, report: Report, kills: Counter[str], tell: Callable[[str], None]
) -> Verdict:
    injector = Injector(line.config, line.bootstrap)
    actor = Actor(line, injector, disk)
    gauges = Gauges(line.day, line.config, line.bootstrap, line.url)
    try:
        line.start_capture()
        for action in _in_time(plan, gauges, line):
            said = actor.do(action)
            if said.startswith("kill -9"):
                kills[action.part] += 1
            report.done.append(f"{gauges.published:.0%}/{gauges.consumed:.0%}/{gauges.stored:.0%} {said}")
            tell(report.done[-1])
        actor.settle()
        line.finish(FINISH_S)
    finally:
        actor.abort()
        gauges.close()
        report.skipped, report.repeated, report.poisoned = actor.skipped, injector.repeated, len(injector.poisoned)
    with store_client.connect(line.config, line.url) as client:
        return verify(client, line.day, injector.poisoned)
