"""Live capture: dumpcap's pcapng stream on a pipe, read by the same reader as a file; captures nothing itself.

dumpcap opens the interface, filters in the kernel and stamps the frames; it alone needs the privilege. It ends when it
is told to (stop), when this process ends (the kernel kills it; one with file capabilities, which the kernel does not
kill this way, at its next write into the broken pipe), or with its interface. Its own end is orderly: the last frames
and the drop counts are still read.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import IO

from akbypass.errors import CaptureError, MissingError
from akbypass.local.children import LAUNCH
from akbypass.producers.capture.formats import open_reader
from akbypass.producers.capture.reader import Reader

PROGRAM = "dumpcap"
IDLE_MS = 250  # a read that brings nothing for this long says so
STOP_WAIT_S = 5.0
STDERR_BYTES_MAX = 65_536
SUMMARY = re.compile(r"received/dropped on interface .*: \d+/(\d+) ")
NO_PERMISSION = re.compile(r"permission|not permitted|privilege", re.IGNORECASE)
NO_INTERFACE = re.compile(r"no (such )?device|no interface|device named|not up|went down", re.IGNORECASE)
BAD_FILTER = re.compile(r"capture filter", re.IGNORECASE)
INSTALL = "install it: apt-get install wireshark-common (or tshark); Fedora: dnf install wireshark-cli"
GRANT = (
    "run as root, or let your group use dumpcap: dpkg-reconfigure wireshark-common, then usermod -aG wireshark $USER; "
    "elsewhere: setcap cap_net_raw,cap_net_admin=ep $(command -v dumpcap)"
)


class LiveSource:
    """The pipe from a running dumpcap."""

    lookahead = False

    def __init__(self, interface: str, capture_filter: str = "") -> None:
        program = shutil.which(PROGRAM)
        if program is None and shutil.which(PROGRAM, mode=os.F_OK) is not None:
            raise MissingError(f"{interface}: expected the right to run {PROGRAM}, found none; {GRANT}")
        if program is None:
            raise MissingError(f"live capture needs {PROGRAM}, which is not installed; {INSTALL}")
        self.name = interface
        self.damage: tuple[str, str] | None = None
        self.dropped = 0  # frames that kernel or dumpcap dropped, as its last words say (count)
        self.words = ""  # what dumpcap wrote to its standard error, once it has ended
        self.bytes_read = 0
        self._stopped = False
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the child; a pipe could fill)
        argv = [program, "-q", "-n", "-i", interface, "-w", "-"]
        argv += ["-f", capture_filter] if capture_filter else []
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), *argv],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._stderr, bufsize=0, start_new_session=True,
        )  # fmt: skip
        assert self._child.stdout is not None
        self._pipe = self._child.stdout
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)

    @property
    def pid(self) -> int:
        """Process id of dumpcap."""
        return self._child.pid

    def readinto(self, view: memoryview) -> int | None:
        """Read what is there; None after a while of silence, 0 when dumpcap has ended."""
        if self._pipe.closed:
            return 0
        if not self._poll.poll(IDLE_MS):
            return None
        n = os.readv(self._pipe.fileno(), [view])
        self.bytes_read += n
        if n == 0:
            self._ended()
        return n

    def _ended(self) -> None:
        code = self._child.wait()
        self._stderr.seek(0)
        self.words = self._stderr.read(STDERR_BYTES_MAX).decode("utf-8", "replace")
        found = SUMMARY.search(self.words)
        self.dropped = int(found[1]) if found else 0
        if code != 0 and not self._stopped:
            self.damage = ("capture_tool", f"{PROGRAM} ended with exit code {code}: {first_complaint(self.words)}")

    def stop(self) -> None:
        """Ask dumpcap to end in order; reading goes on to the end of what it still writes."""
        self._stopped = True
        if self._child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(signal.SIGINT)

    def close(self) -> None:
        """End dumpcap, at the latest after some seconds."""
        self.stop()
        self._pipe.close()
        try:
            self._child.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._stderr.close()


def open_live(interface: str, capture_filter: str = "", **limits: int) -> Reader:
    """Start a live capture; returns its reader, whose source is a LiveSource.

    Args:
        interface: Network interface, as the system names it.
        capture_filter: BPF filter expression; empty for everything.

    Raises:
        MissingError: dumpcap, the privilege or the interface is missing.
        CaptureError: The filter is wrong, or dumpcap failed otherwise.
    """
    source = LiveSource(interface, capture_filter)
    try:
        return open_reader(source, **limits)
    except CaptureError as error:
        raise failure(interface, capture_filter, source.words, error) from error


def failure(interface: str, capture_filter: str, words: str, error: CaptureError) -> MissingError | CaptureError:
    """Turn what dumpcap said into an error that says what to do."""
    complaint = first_complaint(words)
    if NO_PERMISSION.search(words):
        return MissingError(f"{interface}: expected the privilege to capture, found none ({complaint}); {GRANT}")
    if BAD_FILTER.search(complaint):
        return CaptureError(
            f"{interface}: expected a capture filter in BPF syntax, found {capture_filter!r}; {complaint}"
        )
    if NO_INTERFACE.search(words):
        known = ", ".join(name for _, name in socket.if_nameindex())
        return MissingError(f"{interface}: expected one of the interfaces {known}, or any; {complaint}")
    return CaptureError(f"{interface}: {PROGRAM} captured nothing: {complaint or error}")


def first_complaint(words: str) -> str:
    """First line of dumpcap's error message."""
    lines = [line for line in words.splitlines() if line.startswith(f"{PROGRAM}:")]
    return lines[0].removeprefix(f"{PROGRAM}:").strip() if lines else ""


@contextlib.contextmanager
def stop_on_interrupt(source: LiveSource) -> Iterator[None]:
    """Let the first Ctrl-C end the capture in order, where nobody else has taken the signal; the second one interrupts."""
    try:
        ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if ours:
            signal.signal(signal.SIGINT, lambda *_: _interrupted(source))
    except ValueError:  # not the main thread: signals are not ours
        ours = False
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupted(source: LiveSource) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    source.stop()
