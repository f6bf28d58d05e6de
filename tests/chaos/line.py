"""One pipeline of its own, from a capture process to the store, kept alive as `akbypass up` does it.

Broker, store, workers and sink are the product's own supervised stack. The capture is a process that reads a file at a
pace; killed, it is started again with the same arguments, as whoever runs it would.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from akbypass import config as configuration
from akbypass import results, store_client
from akbypass.errors import ServiceError
from akbypass.local import children
from akbypass.local.stack import Places, Stack
from akbypass.local.store import StoreServer
from tests.chaos.clock import Clock
from tests.chaos.day import Day
from tests.chaos.gauges import refused

RESTART_S = 0.7  # between the death of a capture and its next life
STALLED_S = 300.0  # no end marker for so long means that the pipeline stands still


class ChaosError(AssertionError):
    """The pipeline gave up, or stands still."""


class _Stack(Stack):
    """The product's stack; its own processes (not the servers) see a clock that can be stepped."""

    clock: Clock

    def _spawn(self, name: str) -> None:
        prefix = self.clock.prefix()
        if self._commands[name][: len(prefix)] != prefix:
            self._commands[name] = [*prefix, *self._commands[name]]
        super()._spawn(name)


class Line:
    """A pipeline over a day in the directory `home`."""

    def __init__(self, day: Day, home: Path, workers: int, replay_s: float, own_store: bool = False) -> None:
        """Describe a pipeline; with `own_store` the store is no part of the stack, so that it can be away for long."""
        self.day, self.places, self._workers = day, Places(home), workers
        self.config, self.config_path = day.config, home / "config.yaml"
        home.mkdir(parents=True, exist_ok=True)
        self.clock = Clock(home)
        self.speed = day.seconds / replay_s
        self.own_store = StoreServer(self.places.store) if own_store else None
        self.away_until_s = 0.0
        self.capture: subprocess.Popen[bytes] | None = None
        self.captured = threading.Event()
        self.failure: str | None = None
        self.captures_killed = 0
        self._closing = threading.Event()

    def __enter__(self) -> Line:
        if self.own_store is not None:
            url = self.own_store.start()
            self.config = self.config.model_copy(
                update={"clickhouse": self.config.clickhouse.model_copy(update={"url": url})}
            )
            threading.Thread(target=self._watch_own_store, daemon=True).start()
        self.config_path.write_text(configuration.dump(self.config))
        self.stack = _Stack(self.places, self.config, str(self.config_path), self._workers)
        self.stack.clock = self.clock
        try:
            self.stack.start()
        except BaseException:
            self.stack.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if self.capture is not None:
            children.stop(self.capture, wait_s=5)
        self.stack.stop()
        if self.own_store is not None:
            self.own_store.stop()

    def hold_store_away(self, seconds: float) -> None:
        """Kill a store of our own and start it again after a while."""
        assert self.own_store is not None
        self.away_until_s = time.monotonic() + seconds
        self.send("store", signal.SIGKILL)

    def _watch_own_store(self) -> None:
        assert self.own_store is not None
        while not self._closing.wait(0.5):
            if self.own_store.pid is None and time.monotonic() > self.away_until_s:
                try:
                    self.own_store.start()
                except ServiceError as error:  # killed while it started
                    self.failure = None if self.own_store.pid is None else str(error)

    def start_capture(self) -> None:
        """Begin to replay the day, and go on with that until it is published."""
        self._spawn_capture()
        threading.Thread(target=self._watch_capture, daemon=True).start()

    def _spawn_capture(self) -> None:
        files = [str(f) for f in self.day.captures]
        options = ["--speed", f"{self.speed:.6f}", "--config", str(self.config_path)]
        options += ["--bootstrap-servers", self.stack.endpoints.bootstrap_servers]
        command = [*self.clock.prefix(), sys.executable, "-m", "akbypass.cli", "capture", *files, *options]
        output = self.places.logs / f"capture-{self.captures_killed}.log"
        self.capture = children.spawn(command, output=output, cwd=self.places.home)

    def _watch_capture(self) -> None:
        while not self._closing.wait(0.1):
            assert self.capture is not None
            code = self.capture.poll()
            if code == 0:
                self.captured.set()
                return
            if code == -signal.SIGKILL:
                self.captures_killed += 1
                time.sleep(RESTART_S)
                self._spawn_capture()
            elif code is not None:
                log = self.places.logs / f"capture-{self.captures_killed}.log"
                self.failure = f"capture ended with code {code}:\n{children.tail(log)}"
                return

    def check(self) -> None:
        """Raise ChaosError when a part was given up."""
        if self.failure is None:
            with contextlib.suppress(Exception):
                self.stack.check()
                return
            self.failure = str(self.stack._failure)
        raise ChaosError(self.failure)

    def pid(self, part: str) -> int | None:
        """Process of a part at this moment; None while there is none."""
        if part == "capture":
            found = self.capture
            return found.pid if found is not None and found.poll() is None else None
        if part == "store" and self.own_store is not None:
            return self.own_store.pid
        if part in ("broker", "store"):
            server = self.stack._servers["kafka" if part == "broker" else "store"]
            return int(server.pid) if server.pid else None
        child = self.stack._children.get(part)
        return child.pid if child is not None and child.poll() is None else None

    def send(self, part: str, number: signal.Signals) -> bool:
        """Signal a part; returns whether there was a process to signal."""
        pid = self.pid(part)
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            return True
        return False

    def workers(self) -> list[str]:
        """Names of the workers that should run."""
        return sorted(name for name in self.stack._children if name.startswith("worker-"))

    def finish(self, timeout_s: float) -> None:
        """Wait until the store holds the whole run; raises ChaosError when it does not come to that."""
        expected = sum(results.expected_ends(self.config, len(self.day.captures)).values())
        started_s = moved_s = time.monotonic()
        done = -1
        while done < expected:
            self.check()
            now_s = time.monotonic()
            with refused("ends"), store_client.connect(self.config, self.url) as client:
                found = results._ends_found(
                    client, results.expected_ends(self.config, len(self.day.captures)), self.day.run_id
                )
                if found != done:
                    done, moved_s = found, now_s
            if now_s - moved_s > STALLED_S or now_s - started_s > timeout_s:
                raise ChaosError(
                    f"expected {expected} end markers, found {done} and no more for {now_s - moved_s:.0f} s"
                )
            time.sleep(0.3)

    @property
    def url(self) -> str:
        """Address of the store."""
        return self.stack.endpoints.store_url

    @property
    def bootstrap(self) -> str:
        """Address of the broker."""
        return self.stack.endpoints.bootstrap_servers
