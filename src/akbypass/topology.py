"""What a topology is: a pure core behind one interface, driven alike by Faust, `analyze`, benchmarks and tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from akbypass import accounts, order, quarantine
from akbypass.accounts import Accounts
from akbypass.config import Config
from akbypass.order import BEFORE_ALL, END_NS, START_NS, Merge, OrderKey, Released, key_at
from akbypass.quarantine import SetAside
from akbypass.rows import Array, Rows
from akbypass.topics import CAPTURE_TOPICS


class Core(Protocol):
    """State and logic of one topology for one run and one partition: no clock, no I/O, no randomness.

    `step` receives, per input topic, the rows with run_ns below `watermark_ns` that it has not seen, sorted by order
    key; inputs without rows are absent. Timers with a due time below `watermark_ns` fire inside the step, before the
    first row whose run_ns is at or above their due time. `end` is True once, in the run's last step: what is open is
    flushed with run_ns = watermark_ns. Every output row carries its cause's run_ns (or the timer's due time), in
    [previous watermark_ns, watermark_ns] and below it unless `end`, capture_id and capture_pos; `sub`, and `id` where
    it is left empty, are set by the caller. Results depend on the rows alone, never on how they were cut into steps.
    """

    @property
    def counters(self) -> Mapping[str, int]:
        """What the core set aside or refused so far, by reason (count)."""
        ...

    def step(self, inputs: Mapping[str, Rows], watermark_ns: int, end: bool) -> dict[str, Rows]:
        """Advance to the watermark and return output rows by topic."""
        ...

    def snapshot(self) -> dict[str, Array]:
        """Copy the whole state as named arrays of numbers or bytes (no objects)."""
        ...

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over a snapshot of the same topology version."""
        ...


@dataclass(frozen=True)
class Topology:
    """A named core with its input and output topics; `version` changes when results or state change."""

    name: str
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    make_core: Callable[[Config, str, int], Core]  # configuration, run_id, partition
    ordinal: int = 0  # number among all topologies, which tells the writers of their accounts apart
    reads: Mapping[str, frozenset[str]] = field(
        default_factory=dict
    )  # columns that the core reads of an input, if not all


@dataclass(frozen=True)
class Emission:
    """What one partition of a topology has to say after a release: rows by topic and how far it has spoken.

    `counters` are the core's, by reason, with the run's last emission; reasons that never occurred are left out.
    `accounts` are rows of `ledger` and `alerts.loss`, which every topology writes.
    """

    run_id: str
    rows: dict[str, Rows]
    watermark_ns: int
    end_ns: int | None
    counters: dict[str, int]
    accounts: dict[str, Rows]


class CoreError(RuntimeError):
    """A core failed; the state of its run is void, and only a checkpoint brings it back."""

    def __init__(self, partition: int, run_id: str, from_ns: int, to_ns: int, error: Exception) -> None:
        super().__init__(f"run {run_id}, partition {partition}, between {from_ns} and {to_ns} ns: {error!r}")
        self.partition, self.run_id, self.from_ns, self.to_ns = partition, run_id, from_ns, to_ns


@dataclass
class _Run:
    merge: Merge
    core: Core
    accounts: Accounts
    aside: int = 0  # rows set aside (count)


Tails = dict[str, dict[str, dict[str, OrderKey]]]  # run → topic → source → last order key that came
TAILS_MAX = 16  # ended runs of several captures of which is known how far each capture came
RUNS_ENDED_MAX = 1_024  # ended runs remembered per partition, so that their repeats stay repeats


class TopologyPartition:
    """One partition of a topology over all its runs: merges its inputs, steps the cores, numbers their rows."""

    def __init__(self, topology: Topology, config: Config, partition: int) -> None:
        self.topology, self.config, self.partition = topology, config, partition
        self.runs: dict[str, _Run] = {}
        self.ended: dict[str, int] = {}  # run_id → end_ns, oldest first
        self.tails: Tails = {}  # of runs that ended lately
        self.lost = Counter[str]()  # rows that never came, by input, since this object was made (count)
        self.careful = False  # copy the state before every step, and set aside what a core fails at
        self.aside: list[SetAside] = []  # what was set aside; whoever tells of it empties it

    def add(
        self,
        topic: str,
        run_id: str,
        source: int,
        sources: int,
        rows: Rows | None,
        watermark_ns: int,
        end_ns: int | None,
        rows_before: int | None = None,
        last_key: OrderKey = BEFORE_ALL,
    ) -> Rows | None:
        """Take one batch of an input topic; returns its late rows, if any.

        `rows_before` is the number of its first row, None when it has none; `last_key` as `Merge.add` takes it.
        """
        if run_id in self.ended:
            return self._after_end(topic, run_id, source, rows)
        run = self.runs.get(run_id)
        if run is None:
            run = self.runs[run_id] = self._open(run_id)
        if rows is not None and topic in self.topology.reads:
            rows = rows.only(self.topology.reads[topic])
        return run.merge.add(topic, source, sources, rows, watermark_ns, end_ns, rows_before, last_key)

    def _after_end(self, topic: str, run_id: str, source: int, rows: Rows | None) -> Rows | None:
        """Rows that no source had sent before the run ended without it; None where they are repeats, or it is long ago."""
        known = self.tails.get(run_id, {}).get(topic)
        if known is None or rows is None or not len(rows):
            return None
        last = tuple(known.get(str(source), BEFORE_ALL))
        if key_at(rows, -1) <= last:
            return None
        keep = np.fromiter((key_at(rows, i) > last for i in range(len(rows))), bool, len(rows))
        known[str(source)] = key_at(rows, -1)
        return rows.take(keep)

    def _open(self, run_id: str) -> _Run:
        topology = self.topology
        own = Accounts(run_id, topology.name, self.partition, topology.outputs, self.lost)
        return _Run(Merge(topology.inputs), topology.make_core(self.config, run_id, self.partition), own)

    def advance(self) -> list[Emission]:
        """Step every run whose watermark has moved."""
        emissions = []
        for run_id, run in list(self.runs.items()):
            before_ns = run.merge.released_ns
            released = run.merge.release()
            if released is None:
                continue
            end = released.end_ns is not None
            made = self._step(run_id, run, released, before_ns)
            rows = {t: order.number_rows(r, self.topology.name, run_id) for t, r in made.items() if len(r)}
            counters = {k: int(n) for k, n in run.core.counters.items() if n} if end else {}
            told = run.accounts.advance(rows, run.merge.taken(), before_ns, released.watermark_ns, end)
            emissions.append(Emission(run_id, rows, released.watermark_ns, released.end_ns, counters, told))
            if released.end_ns is not None:
                del self.runs[run_id]
                self.ended[run_id] = released.end_ns
                while len(self.ended) > RUNS_ENDED_MAX:
                    del self.ended[next(iter(self.ended))]
                self._remember_tail(run_id, run.merge)
        return emissions

    def _remember_tail(self, run_id: str, merge: Merge) -> None:
        """Keep how far each of several captures came, to know what comes late from what comes again."""
        several = [t for t in merge.inputs if t in CAPTURE_TOPICS and merge.expected.get(t, 1) > 1]
        if several:
            self.tails[run_id] = {t: {str(i): s.last_key for i, s in merge.sources[t].items()} for t in several}
            while len(self.tails) > TAILS_MAX:
                del self.tails[next(iter(self.tails))]

    def _step(self, run_id: str, run: _Run, released: Released, before_ns: int) -> dict[str, Rows]:
        end = released.end_ns is not None
        if not self.careful:
            try:
                return run.core.step(released.rows, released.watermark_ns, end)
            except Exception as error:
                raise CoreError(self.partition, run_id, before_ns, released.watermark_ns, error) from error
        limits = self.config.rejects
        stepped = quarantine.step(
            run_id, lambda: self.topology.make_core(self.config, run_id, self.partition), run.core, released.rows,
            before_ns, released.watermark_ns, end, tries=limits.core_tries - 1, rows_max=limits.core_rows_max - run.aside,
        )  # fmt: skip
        run.core = stepped.core
        run.aside += sum(len(rows) for found in stepped.aside for rows in found.rows.values())
        self.aside += stepped.aside
        return stepped.made

    def released_ns(self, run_id: str) -> int:
        """Up to where rows of a run have been taken; END_NS once it has ended."""
        if run_id in self.ended:
            return END_NS
        run = self.runs.get(run_id)
        return START_NS if run is None else run.merge.released_ns

    def snapshot(self) -> tuple[dict[str, Array], dict[str, int]]:
        """Copy the state of every open run: arrays named run_id/name, and up to where each run was taken (ns)."""
        arrays = {f"{r}/{name}": a for r, run in self.runs.items() for name, a in run.core.snapshot().items()}
        for run_id, run in self.runs.items():
            arrays[f"{run_id}/{accounts.NAME}"] = run.accounts.pack(run.merge.taken())
            if run.aside:
                arrays[f"{run_id}/{quarantine.ASIDE}"] = np.array([run.aside])
        return arrays, {r: run.merge.released_ns for r, run in self.runs.items()}

    def restore(self, arrays: Mapping[str, Array], released: Mapping[str, int], ended: Mapping[str, int]) -> None:
        """Take over a snapshot; rows that it has taken will be dropped as repeats when they come again."""
        self.ended = dict(ended)
        for run_id, released_ns in released.items():
            own = {k.partition("/")[2]: a for k, a in arrays.items() if k.startswith(run_id + "/")}
            run = self.runs[run_id] = self._open(run_id)
            run.merge = Merge(self.topology.inputs, released_ns, run.accounts.restore(own.pop(accounts.NAME)))
            run.aside = int(own.pop(quarantine.ASIDE, [0])[0])
            if quarantine.GIVEN_UP in own:
                run.core = quarantine.GivenUp()
            run.core.restore(own)
