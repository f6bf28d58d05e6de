"""How a process ends: the first SIGTERM or SIGINT asks it to drain, the second one or the bound ends it at once.

Nothing is lost either way: what was not committed is read again after a restart, and repeats are dropped.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from akbypass.errors import EXIT_FORCED
from akbypass.telemetry.logs import write_now


class Shutdown:
    """Takes the signals of this process; make it in the main thread, before the work starts.

    Args:
        drain_s: How long draining may take (s).
        exit_now: Ends the process with a code, without any clean-up.
    """

    def __init__(self, drain_s: float, exit_now: Callable[[int], Any] = os._exit) -> None:
        self.drain_s, self.asked = drain_s, False
        self._exit_now = exit_now
        self._ask: Callable[[], None] | None = None
        self._watch: threading.Timer | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def on_stop(self, ask: Callable[[], None]) -> None:
        """Say what asks the work to end; called in the main thread between two instructions, so it only sets a flag.

        Before this call a signal just ends the process with 0: there is nothing to drain.
        """
        self._ask = ask
        if self.asked:
            ask()

    def done(self) -> None:
        """Say that draining has ended."""
        if self._watch is not None:
            self._watch.cancel()

    def _on_signal(self, number: int, _frame: object) -> None:
        if self.asked:
            self._force("a second signal")
        self.asked = True
        if self._ask is None:
            sys.exit(0)
        self._watch = threading.Timer(self.drain_s, self._force, [f"draining took more than {self.drain_s:g} s"])
        self._watch.daemon = True
        self._watch.start()
        self._ask()

    def _force(self, why: str) -> None:
        write_now(f"ended at once, {why}; what was not committed is repeated after a restart")
        self._exit_now(EXIT_FORCED)
