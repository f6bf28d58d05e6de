"""What a topology tells metrics: counts of its cores once, whatever is restored or ends; the lag of its watermark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from akbypass.batch import Batch
from akbypass.checkpoint import Saved
from akbypass.config import Config
from akbypass.processors.watch import TopologyWatch
from akbypass.progress import Progress
from akbypass.rows import Rows
from akbypass.telemetry.metrics import REGISTRY
from akbypass.topology import TopologyPartition
from tests.spine.test_progress import TOY, RunningSum

S = 10**9


class Counting(RunningSum):
    """Counts packets as late."""

    def __init__(self, config: Config, run_id: str, partition: int) -> None:
        super().__init__(config, run_id, partition)
        self.late = 0

    @property
    def counters(self) -> Mapping[str, int]:
        """All packets."""
        return {"late": self.late}

    def step(self, inputs: Mapping[str, Rows], watermark_ns: int, end: bool) -> dict[str, Rows]:
        """Count."""
        self.late += sum(len(rows) for rows in inputs.values())
        return super().step(inputs, watermark_ns, end)


@dataclass
class Partition:
    """One partition as the worker has it."""

    progress: Progress


def made(name: str) -> tuple[TopologyWatch, Partition]:
    """A watch of a topology of its own name with one partition."""
    topology = replace(TOY, name=name, make_core=Counting)
    return TopologyWatch(topology, 30), Partition(Progress(TopologyPartition(topology, Config(), 0)))


def feed(
    partition: Partition, offset: int, seconds: list[float], watermark_s: float, end_s: float | None = None
) -> None:
    """Bring packets at these times, and the watermark of both inputs."""
    run_ns = (np.array(seconds) * S).astype(np.int64)
    rows = Rows.build("packets", len(run_ns), run_ns=run_ns, capture_pos=np.arange(len(run_ns)) + offset * 100)
    ends = None if end_s is None else int(end_s * S)
    packets = Batch("packets", "r", 0, 1, rows if len(rows) else None, int(watermark_s * S), ends)
    orders = Batch("orders", "r", 0, 1, None, int(watermark_s * S), ends)
    partition.progress.take("packets", offset, packets, None)
    partition.progress.take("orders", offset, orders, None)


def value(name: str, **labels: str) -> float:
    """One exported value."""
    found = REGISTRY.get_sample_value(f"akbypass_{name}", labels)
    assert found is not None, name
    return found


def sample(watch: TopologyWatch, partition: Partition) -> None:
    """Look at the state now."""
    watch._sampled_s = -1e9
    watch.stepped(0.001, {0: partition})


def test_counts_of_a_core_are_told_once() -> None:
    """What was counted before a restore is not told again; the last word of a run that ends is."""
    watch, partition = made("counts")
    feed(partition, 0, [1, 2, 3], 4)
    partition.progress.partition.advance()
    watch.restored({("packets", 0): 1, ("orders", 0): 1}, {0: partition})
    sample(watch, partition)
    assert (
        REGISTRY.get_sample_value("akbypass_topology_counted_total", {"topology": "counts", "reason": "late"}) is None
    )
    feed(partition, 1, [5, 6], 7)
    partition.progress.partition.advance()
    sample(watch, partition)
    sample(watch, partition)
    assert value("topology_counted_total", topology="counts", reason="late") == 2
    assert value("topology_open_runs", topology="counts") == 1
    feed(partition, 2, [8], 9, end_s=9)
    for emission in partition.progress.partition.advance():
        watch.made(0, emission.run_id, emission.rows, emission.counters)
    sample(watch, partition)
    assert value("topology_counted_total", topology="counts", reason="late") == 3
    assert value("topology_out_rows_total", topology="counts", topic="verdicts") == 1
    assert value("topology_open_runs", topology="counts") == 0


def test_lag_of_the_watermark() -> None:
    """Packets have come to 9 s and orders to 4: rows from 4 on wait, and the topology is 5 s of event time behind."""
    watch, partition = made("lags")
    feed(partition, 0, [1, 2], 4)
    ahead = Rows.build("packets", 3, run_ns=np.array([5, 6, 7]) * S, capture_pos=np.arange(3))
    partition.progress.take("packets", 1, Batch("packets", "r", 0, 1, ahead, 9 * S), None)
    partition.progress.partition.advance()
    sample(watch, partition)
    assert value("topology_watermark_lag_seconds", topology="lags") == 5
    assert value("topology_watermark_timestamp_seconds", topology="lags") == 4
    assert value("topology_pending_rows", topology="lags", topic="packets") == 3


def test_state_and_age_of_checkpoints() -> None:
    """Sizes add up over partitions, a partition that was given away counts no more, and the oldest one is the age."""
    watch, partition = made("saves")
    watch.restored({("packets", 0): 0, ("packets", 1): 0}, {0: partition, 1: partition})
    watch.saved(0, Saved(1_000, 400))
    watch.saved(1, Saved(500, 500))
    assert value("state_bytes", topology="saves") == 1_500
    assert value("checkpoint_sent_bytes_total", topology="saves") == 900
    watch._saved_s[1] -= 100
    assert 100 <= watch.checkpoint_age_s() < 110
    assert 70 <= watch.overdue_s() < 80
    watch.saved(1, None)
    assert watch.checkpoint_age_s() < 10
    watch._saved_s[1] -= 100
    watch.dropped(1)
    assert watch.checkpoint_age_s() < 10
    assert value("state_bytes", topology="saves") == 1_000
    assert list(watch.positions) == [("packets", 0)]
