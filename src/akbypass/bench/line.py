"""The whole line as benchmarks drive it: embedded broker and store, workers, sinks, and one capture at a time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from akbypass import config as configuration
from akbypass import results, store_client
from akbypass.bench import process
from akbypass.bench.day import Day
from akbypass.bench.delay import Delays, Watcher
from akbypass.bench.process import Cost
from akbypass.config import Config
from akbypass.local.stack import Places, Stack

STALLED_S = 120.0
AHEAD_S = 6.0  # between the start of a paced capture process and its first frame
BROKER_AND_STORE = ("kafka", "store")


@dataclass(frozen=True)
class Measurement:
    """One run: packets over seconds, and what each process used.

    `together_mib` is the highest sum of proportional set sizes of capture, workers and sinks. A paced run has its
    `pace` (packets/s) and its delays (s).
    """

    name: str
    packets: int
    seconds: float
    costs: list[Cost]
    together_mib: float = 0.0
    pace: float | None = None
    delays: Delays | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Packets per second."""
        return self.packets / self.seconds

    def per_packet_us(self, *parts: str) -> float:
        """CPU per packet of the parts whose names begin so, of all without any; µs."""
        chosen = [c for c in self.costs if not parts or c.part.startswith(parts)]
        return sum(c.cpu_s for c in chosen) / self.packets * 1e6


class Line:
    """A running line; `flat_out` and `paced` send a day through it."""

    def __init__(self, stack: Stack, config: Config, config_path: Path, client: Any) -> None:
        self.stack, self.config, self.config_path, self.client = stack, config, config_path, client
        self.runs = 0
        self._together_mib = 0.0

    def flat_out(self, day: Day, name: str = "pipeline") -> Measurement:
        """From the start of the capture process to the last stored result."""
        before, started_s = self._cpu(), time.monotonic()
        capture = self._capture(day, [])
        seconds = time.monotonic() - started_s
        return Measurement(name, day.packets, seconds, [capture, *self._since(before)], self._together_mib)

    def paced(self, day: Day, packets_per_s: float) -> Measurement:
        """The day replayed at a steady pace, with the delay of every hop from the moment that a frame is due."""
        speed, begin_s = packets_per_s / day.rate, time.time() + AHEAD_S
        before = self._cpu()
        watcher = Watcher(self.config, self.stack.endpoints, self._run_id(day, self.runs + 1))
        with watcher.running(int(begin_s * 1e9), day.first_ns, speed):
            capture = self._capture(day, ["--speed", repr(speed), "--begin-at", repr(begin_s)])
        seconds = time.time() - begin_s
        costs = [capture, *self._since(before)]
        return Measurement(
            "paced", day.packets, seconds, costs, self._together_mib, pace=packets_per_s, delays=watcher.delays()
        )

    def _capture(self, day: Day, options: list[str]) -> Cost:
        self.runs += 1
        self._together_mib = 0.0
        points = self.stack.endpoints
        arguments = ["capture", day.capture, "--run", str(self.runs), "--config", str(self.config_path), *options]
        cost = process.run([*arguments, "--bootstrap-servers", points.bootstrap_servers], self._watch)
        run_id = self._run_id(day, self.runs)
        results.wait_for_run(self.client, self.config, run_id, 1, STALLED_S, lambda done, whole: self._watch())
        return cost

    def _run_id(self, day: Day, run: int) -> str:
        from akbypass.producers.edge import Edge

        return Edge(self.config, [day.capture], salt=str(run)).run_id

    def _watch(self, *pids: int) -> None:
        ours = [pid for part, pid in self.stack.endpoints.pids.items() if part not in BROKER_AND_STORE]
        self._together_mib = max(self._together_mib, sum(process.shared_mib(p) for p in (*pids, *ours)))

    def _cpu(self) -> dict[str, float]:
        return {part: process.cpu_s(pid) for part, pid in self.stack.endpoints.pids.items()}

    def _since(self, before: dict[str, float]) -> list[Cost]:
        pids = self.stack.endpoints.pids
        return [Cost(p, process.cpu_s(pid) - before[p], process.peak_mib(pid)) for p, pid in pids.items()]


@contextmanager
def line(warm: Day, *, workers: int = 1, partitions: int | None = None, raw: bool = False) -> Iterator[Line]:
    """Start a line of its own for days like `warm`, and send that one through first.

    `partitions` of every topic, by default the configuration's; `raw` also stores packets and messages.
    """
    with tempfile.TemporaryDirectory(prefix="akbypass-bench-") as home:
        tree = yaml.safe_load(Path(warm.config).read_text())
        tree["store"] = {"raw": raw}
        if partitions is not None:
            tree["kafka"] = {"partitions": partitions}
        path = Path(home) / "config.yaml"
        path.write_text(yaml.safe_dump(tree))
        config = configuration.load(path)
        with (
            Stack(Places(Path(home)), config, str(path), workers=workers) as stack,
            store_client.connect(config, stack.endpoints.store_url) as client,
        ):
            made = Line(stack, config, path, client)
            made.flat_out(warm)
            yield made
