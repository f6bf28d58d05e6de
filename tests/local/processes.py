"""Small helpers about processes for the tests of embedded servers."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil

PARENT = """
import sys, time
from pathlib import Path
from {module} import {name}
server = {name}(Path(sys.argv[1]))
print(server.start(), server.pid, flush=True)
time.sleep(600)
"""


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has reaped yet has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Parent:
    """A process of its own that starts a server and then waits: to be killed."""

    def __init__(self, module: str, name: str, directory: Path) -> None:
        code = PARENT.format(module=module, name=name)
        self.process = subprocess.Popen([sys.executable, "-c", code, str(directory)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address, pid = self.process.stdout.readline().split()
        self.server_pid = int(pid)

    def kill(self) -> None:
        """End the parent as `kill -9` does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
