"""Original timing for a replay: sleeps until a frame is due; clock and sleep are given."""

from __future__ import annotations

from collections.abc import Callable


class Pace:
    """Holds a replay to its original timing, or does nothing; the first frame is due at `begin_s` of the clock, or now."""

    def __init__(
        self, speed: float | None, monotonic: Callable[[], float], sleep: Callable[[float], None], begin_s: float | None = None
    ) -> None:  # fmt: skip
        self._speed, self._monotonic, self._sleep, self._begin_s = speed, monotonic, sleep, begin_s
        self._start: tuple[int, float] | None = None  # capture time (ns) and clock (s) of the first frame

    def left_s(self, next_ns: int | None, due_ns: int | None) -> float:
        """Seconds until all frames from `next_ns` to `due_ns` (run_ns) are due; not above 0 when they are."""
        if self._speed is None or next_ns is None or due_ns is None:
            return 0.0
        if self._start is None:
            self._start = next_ns, self._monotonic() if self._begin_s is None else self._begin_s
        first_ns, first_s = self._start
        return first_s + (due_ns - first_ns) / 1e9 / self._speed - self._monotonic()

    def wait(self, next_ns: int | None, due_ns: int | None) -> None:
        """Sleep until these frames are due."""
        left_s = self.left_s(next_ns, due_ns)
        if left_s > 0:
            self._sleep(left_s)
