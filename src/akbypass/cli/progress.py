"""A progress line for capture: packets, rate, drops, and what still waits for the broker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from akbypass.cli.common import stderr

UPDATE_S = 0.1


class EdgeProgress:
    """Shows how far an Edge has come; call `update` after each batch.

    `waiting` gives the messages that the broker has not acknowledged yet (count).
    """

    def __init__(self, edge: Any, waiting: Callable[[], int] = lambda: 0) -> None:
        self.edge, self.waiting = edge, waiting
        self.started_s = time.monotonic()
        self._updated_s = 0.0
        self._progress = Progress(
            SpinnerColumn(), TextColumn("capture"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(), console=stderr, transient=False,
        )  # fmt: skip
        self._task = self._progress.add_task("capture", total=edge.bytes_total, text="")

    def __enter__(self) -> EdgeProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._updated_s = 0.0
        self.update()
        self._progress.stop()

    def update(self) -> None:
        """Redraw, at most ten times a second."""
        now = time.monotonic()
        if now - self._updated_s < UPDATE_S:
            return
        self._updated_s = now
        totals = self.edge.totals()
        rate = totals["packets"] / max(now - self.started_s, 1e-9)
        dropped = sum(n for reason, n in totals.items() if reason.startswith("dropped_"))
        text = f"{totals['packets']:,} packets  {rate:,.0f}/s  {dropped:,} dropped  {self.waiting():,} waiting"
        self._progress.update(self._task, completed=self.edge.bytes_read, text=text)
