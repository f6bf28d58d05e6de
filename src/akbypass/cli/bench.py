"""bench: what this machine does with a simulated day, offline and through the whole pipeline; measured, not judged."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import orjson
import psutil

from akbypass import __version__, results, store_client
from akbypass import config as configuration
from akbypass.cli.common import console, show, stderr
from akbypass.errors import ServiceError
from akbypass.local.stack import Places, Stack

WARM_SECONDS = 4.0  # a short day that compiles and loads everything before the clock runs
STALLED_S = 120.0


@dataclass(frozen=True)
class Cost:
    """What one process used."""

    part: str
    cpu_s: float
    memory_mib: float


@dataclass(frozen=True)
class Measurement:
    """One benchmark: packets over seconds, and the cost of each process."""

    name: str
    packets: int
    seconds: float
    costs: list[Cost]
    together_mib: float = 0.0  # pipeline: highest sum of proportional set sizes of capture, worker and sink

    @property
    def rate(self) -> float:
        """Packets per second."""
        return self.packets / self.seconds


@click.command(
    epilog="""\b
Examples:
  akbypass bench analyze                         offline, one process
  akbypass bench pipeline --seconds 400          about a million packets through broker, worker, sinks and store
  akbypass bench all --write docs/reference/performance.md
"""
)
@click.argument("name", type=click.Choice(["analyze", "pipeline", "all"]))
@click.option(
    "--seconds",
    type=click.FloatRange(4, 3600),
    default=240,
    show_default=True,
    help="Length of the simulated day (2,500 packets a second).",
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option(
    "--write", type=click.Path(dir_okay=False), metavar="FILE", help="Write the page docs/reference/performance.md."
)
def bench(name: str, seconds: float, seed: int, as_json: bool, write: str | None) -> None:
    """Measure packets/s, CPU and peak memory of each process on a simulated day."""
    from akbypass.producers.simulator import simulate

    chosen: list[Callable[[Any, Any], Measurement]] = []
    chosen += [bench_analyze] if name in ("analyze", "all") else []
    chosen += [bench_pipeline] if name in ("pipeline", "all") else []
    with tempfile.TemporaryDirectory(prefix="akbypass-bench-") as scratch:
        with stderr.status("simulating"):
            warm = simulate(Path(scratch) / "warm", seed + 1, WARM_SECONDS)
            day = simulate(Path(scratch) / "day", seed, seconds)
        found = []
        for act in chosen:
            with stderr.status(f"measuring {act.__name__.removeprefix('bench_')}"):
                found.append(act(warm, day))
    if as_json:
        sys.stdout.write(orjson.dumps([_plain(m) for m in found], option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        for measurement in found:
            _show(measurement)
    if write:
        Path(write).write_text(page(found, seconds, seed))
        console.print(f"written to {write}")


def bench_analyze(warm: Any, day: Any) -> Measurement:
    """`akbypass analyze` as a process of its own, start-up included."""
    with tempfile.TemporaryDirectory(prefix="akbypass-bench-") as out:
        _command(["analyze", str(warm.capture), "--config", str(warm.config), "--out", out])
        started_s = time.monotonic()
        cost = _command(["analyze", str(day.capture), "--config", str(day.config), "--out", out])
        return Measurement("analyze", _packets(day), time.monotonic() - started_s, [cost])


def bench_pipeline(warm: Any, day: Any) -> Measurement:
    """Capture, worker and sinks with embedded broker and store, from the first packet to the last stored result."""
    with tempfile.TemporaryDirectory(prefix="akbypass-bench-") as home:
        config_path = Path(home) / "config.yaml"
        config_path.write_text(Path(day.config).read_text())
        config = configuration.load(config_path)
        with Stack(Places(Path(home)), config, str(config_path)) as stack:
            points = stack.endpoints
            with store_client.connect(config, points.store_url) as client:
                together = [0.0]

                def watch(*pids: int) -> None:
                    parts = (*pids, points.pids["worker-0"], points.pids["sink"])
                    together[0] = max(together[0], sum(_shared_mib(p) for p in parts))

                def through(capture: Path) -> tuple[Cost, float]:
                    started_s = time.monotonic()
                    arguments = ["capture", str(capture), "--config", str(config_path)]
                    cost = _command([*arguments, "--bootstrap-servers", points.bootstrap_servers], watch)
                    run_id = _edge(config, capture).run_id
                    results.wait_for_run(client, config, run_id, 1, STALLED_S, lambda done, whole: watch())
                    return cost, time.monotonic() - started_s

                through(warm.capture)
                before = {part: _cpu_s(pid) for part, pid in points.pids.items()}
                capture_cost, seconds = through(day.capture)
                costs = [capture_cost]
                costs += [Cost(part, _cpu_s(pid) - before[part], _peak_mib(pid)) for part, pid in points.pids.items()]
        return Measurement("pipeline", _packets(day), seconds, costs, together[0])


def _edge(config: Any, capture: Path) -> Any:
    from akbypass.producers.edge import Edge

    return Edge(config, [str(capture)])


def _packets(day: Any) -> int:
    """Packets of a simulated day, from its truth."""
    return int(orjson.loads(Path(day.truth).read_bytes())["packets"])


def _command(arguments: list[str], watch: Callable[[int], None] = lambda pid: None) -> Cost:
    """Run one of our commands to its end and return what it used; `watch` is called with its process now and then."""
    with tempfile.TemporaryFile() as said:
        command = [sys.executable, "-m", "akbypass.cli", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        memory_mib, ended = 0.0, 0
        while not ended:
            with contextlib.suppress(
                OSError, StopIteration
            ):  # its own peak; ru_maxrss would count the process it came from
                memory_mib = max(memory_mib, _peak_mib(process.pid))
                watch(process.pid)
            time.sleep(0.1)
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            raise ServiceError(
                f"akbypass {arguments[0]} ended with code {process.returncode}: {said.read().decode()[-1000:]}"
            )
    return Cost(arguments[0], usage.ru_utime + usage.ru_stime, memory_mib)


def _shared_mib(pid: int) -> float:
    """Proportional set size: memory of a process in which shared pages count once among those that share them (Linux)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1]) / 1024


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _peak_mib(pid: int) -> float:
    """Highest resident memory of a process so far (Linux); elsewhere what it has now."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        line = next(text for text in status.read_text().splitlines() if text.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def _plain(m: Measurement) -> dict[str, Any]:
    costs = [{"part": c.part, "cpu_s": round(c.cpu_s, 2), "memory_mib": round(c.memory_mib)} for c in m.costs]
    return {
        "name": m.name,
        "packets": m.packets,
        "seconds": round(m.seconds, 2),
        "packets_per_s": round(m.rate),
        "costs": costs,
    }


def _rows(m: Measurement) -> list[list[Any]]:
    return [[c.part, round(c.cpu_s, 2), round(c.cpu_s / m.packets * 1e6, 2), round(c.memory_mib)] for c in m.costs]


_COLUMNS = ["process", "CPU (s)", "CPU per packet (µs)", "peak memory (MiB)"]


def _show(m: Measurement) -> None:
    show(
        f"{m.name}: {m.packets:,} packets in {m.seconds:.1f} s = {m.rate:,.0f} packets/s",
        _COLUMNS,
        _rows(m),
        right=tuple(_COLUMNS[1:]),
    )


def page(found: list[Measurement], seconds: float, seed: int) -> str:
    """Return docs/reference/performance.md."""
    memory = psutil.virtual_memory().total / 2**30
    lines = [
        "# Performance\n\n",
        f"Written by `make bench` (`akbypass bench all --seconds {seconds:g} --seed {seed}`); measures, not promises.\n",
        f"Version {__version__}, {platform.system()} {platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GiB, "
        f"Python {platform.python_version()}; single runs after a warm-up.\n",
        f"Input: the simulated day of seed {seed}, {seconds:g} s, three ITCH venues on two lines each and three FIX sessions.\n",
    ]
    for m in found:
        lines.append(f"\n## {m.name}\n\n{m.packets:,} packets in {m.seconds:.1f} s: **{m.rate:,.0f} packets/s**.\n\n")
        lines.append(f"| {' | '.join(_COLUMNS)} |\n|---|---:|---:|---:|\n")
        lines += [f"| {part} | {cpu:.2f} | {each:.2f} | {mib:,} |\n" for part, cpu, each, mib in _rows(m)]
        if m.name == "pipeline":
            lines.append(
                f"\nCapture, worker and sink together peak at {m.together_mib:,.0f} MiB (sum of their proportional set sizes, "
                "in which the libraries that they share count once); broker and store stand apart.\n"
            )
            lines.append(
                "Seconds run from the start of the capture process to the last stored result, start-up of the capture included.\n"
            )
        else:
            lines.append("\nSeconds are those of the whole process, start-up included.\n")
    return "".join(lines)


COMMANDS = (bench,)
