"""The wall clock of chosen processes, set while they run; their monotonic clock goes on, other processes see nothing.

A library of a few lines (`wall_clock.c`) stands before libc. It is compiled when a C compiler is there; without one the
action is left out and the run says so. Broker and store keep the true clock: what they get comes from another time, as
from a host whose clock is wrong.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("wall_clock.c")


class Clock:
    """Offset of the wall clock of every process that was started with `prefix`."""

    def __init__(self, directory: Path) -> None:
        self._file, self._library = directory / "clock", directory / "wall_clock.so"
        self.usable = _compile(self._library)
        self._file.write_bytes(bytes(8))

    def step(self, seconds: float) -> None:
        """Set the clocks to the true time and `seconds`, at once."""
        with self._file.open("r+b", buffering=0) as file:  # in place: the processes have it mapped
            file.write(int(seconds * 1e9).to_bytes(8, "little", signed=True))

    def prefix(self) -> list[str]:
        """What stands before a command so that its clock can be stepped; nothing when that cannot be."""
        return ["env", f"LD_PRELOAD={self._library}", f"CHAOS_CLOCK={self._file}"] if self.usable else []


def _compile(library: Path) -> bool:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return False
    command = [compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"]
    return subprocess.run(command, check=False).returncode == 0
