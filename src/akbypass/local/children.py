"""Child processes that die with their parent, the directory lock and the ports that they keep; knows no server.

The kernel sends a child its death signal when the *thread* that started it ends, not the process. So every child is
started by one daemon thread that lives as long as the process; callers may come from any thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from akbypass.errors import ServiceError

LAUNCH = Path(__file__).with_name("launch.py")
PORT_FIRST, PORT_LAST = 20_000, 32_000  # below the range that Linux hands out to outgoing connections (32,768 up)
PORT_TRIES_MAX = 200
LOCK_WAIT_S = 5.0  # a killed server needs a moment to die; its lock goes with it
STOP_WAIT_S = 20.0
TAIL_LINES = 12

_Job = tuple[Callable[[], "subprocess.Popen[bytes]"], "queue.SimpleQueue[Any]"]
_jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
_starter: tuple[int, threading.Thread] | None = None
_starter_lock = threading.Lock()


def _run_starter() -> None:
    while True:
        job, answer = _jobs.get()
        try:
            answer.put(job())
        except BaseException as error:  # handed to the caller's thread, which raises it
            answer.put(error)


def _in_starter(job: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    global _starter  # noqa: PLW0603  (one starter a process, made when first needed and again after a fork)
    with _starter_lock:
        if _starter is None or _starter[0] != os.getpid():
            thread = threading.Thread(target=_run_starter, name="akbypass-children", daemon=True)
            thread.start()
            _starter = os.getpid(), thread
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
    _jobs.put((job, answer))
    result = answer.get()
    if isinstance(result, BaseException):
        raise result
    assert isinstance(result, subprocess.Popen)
    return result


def spawn(argv: Sequence[str], *, output: Path, cwd: Path, keep_fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """Start a program that is killed when this process dies, in a session of its own (Ctrl-C does not reach it).

    Args:
        argv: Program and arguments.
        output: File that receives stdout and stderr, emptied first.
        cwd: Working directory.
        keep_fds: Descriptors that stay open in the child, as that of a lock.
    """
    command = [sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), *argv]

    def start() -> subprocess.Popen[bytes]:
        with output.open("wb") as out:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=cwd, pass_fds=tuple(keep_fds),
                start_new_session=True,
            )  # fmt: skip

    return _in_starter(start)


def stop(child: subprocess.Popen[bytes], wait_s: float = STOP_WAIT_S) -> None:
    """Ask a child to end (SIGTERM), kill it after `wait_s` seconds; a child that has ended is fine."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(wait_s)
        except subprocess.TimeoutExpired:
            child.kill()
    child.wait()


def wait_until(
    answers: Callable[[], bool], child: subprocess.Popen[bytes], *, what: str, logs: Sequence[Path], timeout_s: float
) -> None:
    """Wait until a child answers; raises ServiceError with its last log lines when it ends or stays silent."""
    deadline = time.monotonic() + timeout_s
    while not answers():
        code = child.poll()
        if code is not None:
            raise ServiceError(f"{what} ended while starting, exit code {code}; its last lines:\n{tail(*logs)}")
        if time.monotonic() > deadline:
            stop(child, wait_s=2)
            raise ServiceError(f"{what} did not answer within {timeout_s:.0f} s; its last lines:\n{tail(*logs)}")
        time.sleep(0.05)


def tail(*logs: Path, lines: int = TAIL_LINES) -> str:
    """Return the last lines of each log file that exists, indented."""
    parts: list[str] = []
    for log in logs:
        with contextlib.suppress(OSError), log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            found = file.read().decode("utf-8", "replace").splitlines()[-lines:]
            parts += [f"  {log.name}: {line}" for line in found]
    return "\n".join(parts) or "  (nothing was logged)"


def _try_lock(fd: int, wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
        time.sleep(0.05)


def lock(directory: Path, *, what: str, wait_s: float = LOCK_WAIT_S) -> int:
    """Lock a data directory and return the descriptor that holds the lock; raises ServiceError when it is in use.

    The lock belongs to the open file: it is gone when the last process that holds the descriptor is, however it ended.
    So a lock file left behind blocks nobody.
    """
    directory.mkdir(parents=True, exist_ok=True)
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _try_lock(fd, wait_s):
        owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise ServiceError(f"{what} in {directory} is in use by process {owner}; stop it or choose another directory")
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: closed connections do not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def listens(port: int) -> bool:
    """Whether somebody listens on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int, avoid: Sequence[int] = ()) -> list[int]:
    """Choose free ports of 127.0.0.1; raises ServiceError when there are none."""
    found: list[int] = []
    for _ in range(PORT_TRIES_MAX):
        port = PORT_FIRST + secrets.randbelow(PORT_LAST - PORT_FIRST)
        if port not in found and port not in avoid and is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise ServiceError(f"expected {count} free ports of 127.0.0.1 in {PORT_FIRST}–{PORT_LAST}, found {len(found)}")


def kept_ports(file: Path) -> list[int]:
    """Read the ports that a server kept from its last life; none when it has none."""
    try:
        return [int(word) for word in file.read_text().split()]
    except (OSError, ValueError):
        return []


def keep_ports(file: Path, ports: Sequence[int]) -> None:
    """Write the ports for the next life."""
    part = file.with_suffix(".part")
    part.write_text(" ".join(map(str, ports)))
    part.replace(file)
