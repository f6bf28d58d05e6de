"""What one of our processes costs: CPU time and memory; knows no benchmark. Linux, with /proc."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from akbypass.errors import ServiceError


@dataclass(frozen=True)
class Cost:
    """What one process used: CPU seconds, peak resident memory (MiB)."""

    part: str
    cpu_s: float
    memory_mib: float


def run(arguments: list[str], watch: Callable[[int], None] = lambda pid: None) -> Cost:
    """Run one of our commands to its end; `watch` is called with its process now and then. Raises ServiceError."""
    with tempfile.TemporaryFile() as said:
        command = [sys.executable, "-m", "akbypass.cli", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        memory_mib, ended = 0.0, 0
        while not ended:
            # its own peak; ru_maxrss would count the process it came from
            with contextlib.suppress(OSError, StopIteration):
                memory_mib = max(memory_mib, peak_mib(process.pid))
                watch(process.pid)
            time.sleep(0.1)
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            ended_with = f"akbypass {arguments[0]} ended with code {process.returncode}"
            raise ServiceError(f"{ended_with}: {said.read().decode()[-1000:]}")
    return Cost(arguments[0], usage.ru_utime + usage.ru_stime, memory_mib)


def shared_mib(pid: int) -> float:
    """Proportional set size: memory in which shared pages count once among those that share them."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1]) / 1024


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, user and system."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def peak_mib(pid: int) -> float:
    """Highest resident memory of a process so far; raises OSError or StopIteration when it has just ended."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
