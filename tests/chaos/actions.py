"""What each action of a plan does to a pipeline; when it is done is the runner's."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from akbypass.local.engine import DISK_RESERVE
from tests.chaos.gauges import wait_for
from tests.chaos.line import ChaosError, Line
from tests.chaos.plan import Action, Plan
from tests.chaos.topics import Injector

STEPS_S = (-7_200.0, -90.0, 45.0, 5_400.0)  # a clock that was set: zones, seconds, a host that was off
DISK_MB = 512  # of the file system that is filled
LEFT_BYTES = DISK_RESERVE // 2  # free bytes on a disk that is full for the store
ALIVE_S = 60.0  # how long a part that is being started again may be away
JOIN_S = 8.0  # between two changes of the number of workers


class Disk:
    """A file system of its own for the store, which can be full. Needs the right to mount."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __enter__(self) -> Disk:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.usable = can_mount() and (
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(self.directory)], check=False
            ).returncode == 0
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        if self.usable:
            subprocess.run(["umount", "-l", str(self.directory)], check=False)

    def fill(self) -> None:
        """Leave less than the store keeps in reserve: it may finish what it has begun, and begin nothing."""
        left = shutil.disk_usage(self.directory).free - LEFT_BYTES
        with (self.directory / "ballast").open("wb", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, max(left, 1))

    def free(self) -> None:
        """Give the space back."""
        (self.directory / "ballast").unlink(missing_ok=True)


def can_mount() -> bool:
    """Whether this process may mount a file system."""
    return os.geteuid() == 0


class Actor:
    """Does the actions of one plan; what lasts goes on beside the next action, `settle` waits for its end."""

    def __init__(self, line: Line, injector: Injector, disk: Disk | None) -> None:
        self.line, self.injector, self.disk = line, injector, disk
        self.skipped: list[str] = []
        self._sent: int | None = None
        self._lasting: list[threading.Thread] = []
        self._over = threading.Event()

    def do(self, action: Action) -> str:
        """Do one action; returns what it came to in words."""
        act: Callable[[Action], str] = getattr(self, f"_{action.name}")
        return act(action)

    def settle(self) -> None:
        """Wait for what lasts."""
        for thread in self._lasting:
            thread.join()

    def abort(self) -> None:
        """End what lasts now."""
        self._over.set()
        self.settle()

    def _target(self, action: Action) -> str:
        if action.part != "worker":
            return action.part
        return random.Random(action.seed).choice(self.line.workers())

    def _send(self, part: str, number: signal.Signals) -> None:
        def sent() -> bool:
            self._sent = self.line.pid(part)  # the next signal is for another process: this one may be dying
            return self.line.send(part, number)

        if not wait_for(sent, ALIVE_S, self.line.check):
            raise ChaosError(f"{part} is not started again within {ALIVE_S:.0f} s")

    def _beside(self, act: Callable[[], object]) -> None:
        def run() -> None:
            try:
                act()
            except Exception as error:  # of a thread: the run shall know
                self.line.failure = self.line.failure or f"the harness failed: {error!r}"

        thread = threading.Thread(target=run, daemon=True)
        self._lasting.append(thread)
        thread.start()

    # -- processes -------------------------------------------------------------------------------------------------

    def _kill(self, action: Action) -> str:
        part = self._target(action)
        if part == "capture" and self.line.captured.is_set():
            return "capture had ended"
        self._send(part, signal.SIGKILL)
        if not wait_for(lambda: self.line.pid(part) != self._sent, ALIVE_S, self.line.check):
            raise ChaosError(f"{part} lives on after kill -9")
        return f"kill -9 of {part}"

    def _restart(self, action: Action) -> str:
        self._send(action.part, signal.SIGTERM)
        return f"{action.part} stopped in order"

    def _pause(self, action: Action) -> str:
        part = self._target(action)
        pid = self.line.pid(part)
        self._send(part, signal.SIGSTOP)

        def go_on() -> None:
            self._over.wait(action.seconds)
            if self.line.pid(part) == pid:
                self.line.send(part, signal.SIGCONT)

        self._beside(go_on)
        return f"{part} stands for {action.seconds:.1f} s"

    def _slow(self, action: Action) -> str:
        """A store that works a fifth of the time."""

        def stutter() -> None:
            deadline = time.monotonic() + action.seconds
            while time.monotonic() < deadline and not self._over.is_set():
                self.line.send("store", signal.SIGSTOP)
                self._over.wait(0.8)
                self.line.send("store", signal.SIGCONT)
                self._over.wait(0.2)

        self._beside(stutter)
        return f"store at a fifth of its speed for {action.seconds:.1f} s"

    def _away(self, action: Action) -> str:
        self.line.hold_store_away(action.seconds)
        return f"store refuses connections for {action.seconds:.1f} s"

    def _fill(self, action: Action) -> str:
        if self.disk is None or not self.disk.usable:
            self.skipped.append("fill store: no right to mount a file system")
            return self.skipped[-1]
        disk = self.disk
        disk.fill()

        def free() -> None:
            self._over.wait(action.seconds)
            disk.free()

        self._beside(free)
        return f"disk of the store full for {action.seconds:.1f} s"

    def _rebalance(self, action: Action) -> str:
        """One worker, then two, four and one again."""

        def change() -> None:
            stack = self.line.stack
            for names in (["worker-1"], ["worker-2", "worker-3"]):
                for name in names:
                    stack.add(name, ["process", "--member", name])
                self._over.wait(JOIN_S)
            for name in ("worker-3", "worker-2", "worker-1"):
                stack.remove(name)

        self._beside(change)
        return "workers 1, 2, 4, 1"

    # -- messages and clocks ---------------------------------------------------------------------------------------

    def _duplicate(self, action: Action) -> str:
        self._beside(lambda: self.injector.repeat(action.seed))
        return "messages sent again"

    def _poison(self, action: Action) -> str:
        self._beside(lambda: self.injector.poison(action.seed))
        return "poison in every topic"

    def _step(self, action: Action) -> str:
        if not self.line.clock.usable:
            self.skipped.append("step clock: there is no C compiler")
            return self.skipped[-1]
        seconds = random.Random(action.seed).choice(STEPS_S)
        self.line.clock.step(seconds)
        return f"clocks of capture, workers and sink stepped by {seconds:+.0f} s"


def needs_disk(plan: Plan) -> bool:
    """Whether a plan fills the store's file system."""
    return any(a.name == "fill" for a in plan.actions)


def needs_own_store(plan: Plan) -> bool:
    """Whether a plan takes the store away for longer than its supervisor would allow."""
    return any(a.name == "away" for a in plan.actions)
