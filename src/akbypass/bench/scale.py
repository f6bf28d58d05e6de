"""How CPU per packet changes with workers, partitions and load, and how many cores a rate needs; measures only."""

from __future__ import annotations

from dataclasses import replace

from akbypass.bench.day import Day
from akbypass.bench.line import Measurement, line

WORKERS = (1, 2, 4)
PARTITIONS = (1, 2, 4)
LOADS = (1, 2, 5, 10)  # times BASE_PACE
BASE_PACE = 10_000.0  # packets/s
TARGETS = (1_000_000, 10_000_000, 100_000_000)  # packets/s


def by_workers(warm: Day, day: Day) -> list[Measurement]:
    """Flat out with as many workers as each of WORKERS, four partitions."""
    return [_flat(warm, day, workers, 4) for workers in WORKERS]


def by_partitions(warm: Day, day: Day) -> list[Measurement]:
    """Flat out with one worker and as many partitions as each of PARTITIONS."""
    return [_flat(warm, day, 1, partitions) for partitions in PARTITIONS]


def by_load(warm: Day, day: Day) -> list[Measurement]:
    """Paced at each of LOADS times BASE_PACE, one worker."""
    with line(warm) as running:
        return [replace(running.paced(day, BASE_PACE * load), name="load") for load in LOADS]


def cores(measured: Measurement, packets_per_s: float) -> dict[str, float]:
    """Cores that each part needs at a rate: CPU per packet times the rate, as if it stayed."""
    parts = ("capture", "worker", "sink", "kafka", "store")
    return {part: measured.per_packet_us(part) * packets_per_s / 1e6 for part in parts}


def _flat(warm: Day, day: Day, workers: int, partitions: int) -> Measurement:
    with line(warm, workers=workers, partitions=partitions) as running:
        measured = running.flat_out(day)
    return replace(measured, settings={"workers": workers, "partitions": partitions})
