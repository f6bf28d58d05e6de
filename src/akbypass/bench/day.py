"""The simulated days that benchmarks run on; makes them in a scratch folder and says what is in them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

WARM_SECONDS = 4.0  # a short day that compiles and loads everything before the clock runs


@dataclass(frozen=True)
class Day:
    """A simulated day: its files, its packets (count), its length (s) and its first frame (ns since the UNIX epoch)."""

    capture: str
    config: str
    packets: int
    seconds: float
    first_ns: int

    @property
    def rate(self) -> float:
        """Packets per second of the day."""
        return self.packets / self.seconds


@contextmanager
def days(seed: int, seconds: float, messages_per_second: int) -> Iterator[tuple[Day, Day]]:
    """Make a warm-up day and the day to be measured."""
    from akbypass.producers.simulator import simulate
    from akbypass.producers.simulator.run import MESSAGES_PER_SECOND

    with tempfile.TemporaryDirectory(prefix="akbypass-bench-") as scratch:
        warm = simulate(Path(scratch) / "warm", seed + 1, WARM_SECONDS, MESSAGES_PER_SECOND)
        day = simulate(Path(scratch) / "day", seed, seconds, messages_per_second)
        yield _read(warm), _read(day)


def _read(made: object) -> Day:
    from akbypass.producers.capture.formats import open_capture

    capture, config, truth = (str(getattr(made, name)) for name in ("capture", "config", "truth"))
    reader = open_capture(capture)
    times = [(int(b.ts_ns.min()), int(b.ts_ns.max())) for b in reader]
    reader.close()
    first, last = min(t for t, _ in times), max(t for _, t in times)
    return Day(capture, config, int(orjson.loads(Path(truth).read_bytes())["packets"]), (last - first) / 1e9, first)
