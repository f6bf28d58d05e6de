"""What a running topology tells metrics and health; looks at its state once a second and changes none of it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from faust.types import TP

from akbypass.batch import Batch
from akbypass.checkpoint import Saved
from akbypass.order import END_NS, START_NS
from akbypass.progress import Progress
from akbypass.rows import Rows
from akbypass.telemetry import metrics
from akbypass.telemetry.readers import Reader
from akbypass.topology import Topology

SAMPLE_S = 1.0  # how often state is looked at


class Watched(Protocol):
    """One partition of a topology."""

    progress: Progress


class TopologyWatch(Reader):
    """The reader that a topology is, with its output, state and checkpoints; used by the event loop alone.

    `interval_max_s` is how far apart saves may be (s).
    """

    def __init__(self, topology: Topology, interval_max_s: float) -> None:
        super().__init__(topology.name, topology.inputs)
        name, self._interval_max_s = topology.name, interval_max_s
        self._step, self._wait = metrics.STEP.labels(name), metrics.WAIT.labels(name)
        self._out = {topic: metrics.OUT_ROWS.labels(name, topic) for topic in topology.outputs}
        self._taken_s: dict[int, float] = {}  # partition → when the oldest message since its last step came
        self._sampled_s = 0.0
        self._counted: dict[tuple[int, str], dict[str, int]] = {}  # (partition, run) → what its core has counted
        self._state_bytes: dict[int, int] = {}
        self._saved_s: dict[int, float] = {}  # partition → when everything of it was last known to be saved
        self._duration = metrics.CHECKPOINT_DURATION.labels(name)
        metrics.CHECKPOINT_AGE.labels(name).set_function(self.checkpoint_age_s)

    # -- input and output ------------------------------------------------------------------------------------------

    def restored(self, positions: Mapping[tuple[str, int], int], partitions: Mapping[int, Watched]) -> None:
        """Take over an assignment whose states were loaded; what they had counted was told before."""
        self.assigned(positions)
        now_s = time.monotonic()
        self._taken_s, self._saved_s = {}, dict.fromkeys(partitions, now_s)
        self._state_bytes = {n: size for n, size in self._state_bytes.items() if n in partitions}
        self._tell_state()
        self._counted = {
            (n, run_id): dict(run.core.counters)
            for n, partition in partitions.items()
            for run_id, run in partition.progress.partition.runs.items()
        }

    def dropped(self, partition: int) -> None:
        """Forget a partition that another owner has taken."""
        self._saved_s.pop(partition, None)
        self._state_bytes.pop(partition, None)
        self._tell_state()
        self.positions = {place: at for place, at in self.positions.items() if place[1] != partition}

    def message(self, topic: str, message: Any, found: Batch | None) -> None:
        """Count one message taken; `found` is None for one that could not be read."""
        if found is None:
            self.rejected(topic)
        publish_ns = (found.publish_ns if found is not None else 0) or int(message.timestamp * 1e9)
        rows = len(found.rows) if found is not None and found.rows is not None else 0
        self.taken(topic, message.partition, message.offset, rows, publish_ns)
        self._taken_s.setdefault(message.partition, time.monotonic())

    def hold(self, names: Mapping[str, str], paused: Collection[TP]) -> None:
        """Say which inputs are held back."""
        self.paused = frozenset((names[p.topic], p.partition) for p in paused)
        metrics.PAUSED.labels(self.name).set(len(paused))

    def made(self, partition: int, run_id: str, rows: Mapping[str, Rows], counters: Mapping[str, int]) -> None:
        """Count what a step made; `counters` are the core's, with a run's last step."""
        for topic, made in rows.items():
            self._out[topic].inc(len(made))
        taken_s = self._taken_s.pop(partition, None)
        if taken_s is not None:
            self._wait.observe(time.monotonic() - taken_s)
        if counters:
            self._count(partition, run_id, counters)

    def stepped(self, seconds: float, partitions: Mapping[int, Watched]) -> None:
        """Count one step of all partitions, and look at their states when that is due."""
        self._step.observe(seconds)
        now_s = time.monotonic()
        if now_s - self._sampled_s >= SAMPLE_S:
            self._sampled_s = now_s
            self._sample(partitions)

    # -- state -----------------------------------------------------------------------------------------------------

    def _sample(self, partitions: Mapping[int, Watched]) -> None:
        pending = dict.fromkeys(self.topics, 0)
        slowest_ns, furthest_ns, runs = END_NS, 0, set()
        for number, partition in partitions.items():
            for run_id, run in partition.progress.partition.runs.items():
                runs.add(run_id)
                merge = run.merge
                for topic in self.topics:
                    pending[topic] += sum(len(rows) for s in merge.sources[topic].values() for _, rows in s.pending)
                self._count(number, run_id, run.core.counters)
                spoken = [ns for t in self.topics if START_NS < (ns := merge.spoken_ns(t)) < END_NS]
                if spoken and merge.released_ns > START_NS:
                    furthest_ns = max(furthest_ns, max(spoken) - merge.released_ns)
                    slowest_ns = min(slowest_ns, merge.released_ns)
        for topic, rows in pending.items():
            metrics.PENDING_ROWS.labels(self.name, topic).set(rows)
        metrics.OPEN_RUNS.labels(self.name).set(len(runs))
        metrics.WATERMARK_LAG.labels(self.name).set(furthest_ns / 1e9)
        if slowest_ns < END_NS:
            metrics.WATERMARK.labels(self.name).set(slowest_ns / 1e9)
        self._counted = {key: seen for key, seen in self._counted.items() if key[1] in runs}

    def _count(self, partition: int, run_id: str, counters: Mapping[str, int]) -> None:
        seen = self._counted.setdefault((partition, run_id), {})
        for reason, count in counters.items():
            new = int(count) - seen.get(reason, 0)
            if new > 0:
                metrics.COUNTED.labels(self.name, reason).inc(new)
                seen[reason] = int(count)

    # -- checkpoints -----------------------------------------------------------------------------------------------

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Time one checkpoint."""
        with self._duration.time():
            yield

    def saved(self, partition: int, made: Saved | None) -> None:
        """Say that everything of a partition is saved; `made` is None when nothing had changed."""
        self._saved_s[partition] = time.monotonic()
        if made is not None:
            self._state_bytes[partition] = made.state_bytes
            metrics.CHECKPOINT_SENT.labels(self.name).inc(made.sent_bytes)
            self._tell_state()

    def _tell_state(self) -> None:
        metrics.STATE_BYTES.labels(self.name).set(sum(self._state_bytes.values()))

    def checkpoint_age_s(self) -> float:
        """Time since every partition was last known to be saved (s); 0 without partitions."""
        oldest_s = min(self._saved_s.copy().values(), default=None)
        return 0.0 if oldest_s is None else time.monotonic() - oldest_s

    def overdue_s(self) -> float:
        """How long a save is overdue (s); it comes in time even if nothing has changed, unless the event loop hangs."""
        return max(0.0, self.checkpoint_age_s() - self._interval_max_s)

    def details(self) -> Mapping[str, Any]:
        """Lag and the age of the checkpoint."""
        return {**super().details(), "checkpoint_age_s": round(self.checkpoint_age_s(), 1)}
