"""Drives a topology's core in tests as the worker does: merged rows, watermarks, timers, end, numbering, checkpoints.

It uses no broker and no Faust. Every step checks the contract of `akbypass.topology.Core` on the rows that come out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from akbypass import order, topics
from akbypass.config import Config
from akbypass.order import START_NS
from akbypass.rows import Array, Rows
from akbypass.topology import Core, Topology

RUN_ID = "00000000000000aa"
CUTS = (1, 7, 100)  # rows per step that every core must be indifferent to


def drive(
    topology: Topology,
    config: Config,
    inputs: Mapping[str, Rows],
    cuts: int | None = None,
    snapshot: bool = False,
    *,
    run_id: str = RUN_ID,
    partition: int = 0,
    end_ns: int | None = None,
) -> dict[str, Rows]:
    """Run one core over whole inputs and return its rows by output topic, sorted by order key and id.

    `cuts` is the number of input rows per step (extended to whole run_ns values; None for one step); with `snapshot`
    every step runs in a fresh core that was restored from the last one. `end_ns` is the end of the run, by default
    one nanosecond behind the last row. With cuts the end comes in a step of its own, as an idle source's would.
    """
    sorted_inputs = {name: rows.sorted_by_order() for name, rows in inputs.items()}
    last_ns = max((int(rows["run_ns"][-1]) for rows in sorted_inputs.values() if len(rows)), default=0)
    end_ns = last_ns + 1 if end_ns is None else end_ns
    core = topology.make_core(config, run_id, partition)
    made: dict[str, list[Rows]] = {topic: [] for topic in topology.outputs}
    previous_ns = START_NS
    for rows, watermark_ns, end in _steps(sorted_inputs, cuts, end_ns):
        out = core.step(rows, watermark_ns, end)
        for topic, part in out.items():
            _check(topic, part, previous_ns, watermark_ns, end)
            if len(part):
                made[topic].append(order.number_rows(part, topology.name, run_id))
        previous_ns = watermark_ns
        if snapshot and not end:
            core = _reborn(topology, config, core, run_id, partition)
    return {topic: in_order(_joined(topic, parts)) for topic, parts in made.items()}


def in_order(rows: Rows) -> Rows:
    """Sort by order key and, where the type has one, id: the order in which two pipelines are compared."""
    if len(rows) == 0:
        return rows
    tie = rows["id"] if rows.schema.has_life else np.zeros(len(rows), np.int8)
    return rows.take(np.lexsort((tie, rows["sub"], rows["capture_pos"], rows["capture_id"], rows["run_ns"])))


def assert_cut_invariant(
    topology: Topology, config: Config, inputs: Mapping[str, Rows], end_ns: int | None = None
) -> dict[str, Rows]:
    """Run with every cut, with and without checkpoints, expect identical rows, and return them."""
    whole = drive(topology, config, inputs, end_ns=end_ns)
    expected = {topic: rows.to_dicts() for topic, rows in whole.items()}
    for cuts in CUTS:
        for snapshot in (False, True):
            found = drive(topology, config, inputs, cuts, snapshot, end_ns=end_ns)
            for topic, rows in found.items():
                assert rows.to_dicts() == expected[topic], f"{topic} differs with cuts={cuts}, snapshot={snapshot}"
    return whole


def _joined(topic: str, parts: list[Rows]) -> Rows:
    return Rows.concat(parts) if parts else Rows.empty(topics.row_type(topic))


def _steps(inputs: Mapping[str, Rows], cuts: int | None, end_ns: int) -> Iterator[tuple[dict[str, Rows], int, bool]]:
    """Yield (rows by input, watermark, end) like `Merge.release`: whole run_ns values, then the end."""
    if cuts is None:
        yield {name: rows for name, rows in inputs.items() if len(rows)}, end_ns, True
        return
    times = np.sort(np.concatenate([np.empty(0, np.int64), *(rows["run_ns"] for rows in inputs.values())]))
    at = 0
    while at < len(times):
        target = at + cuts
        watermark_ns = int(times[target]) if target < len(times) else max(end_ns, int(times[-1]) + 1)
        if watermark_ns == times[at]:  # more equal times than `cuts`: go on to the next time
            later = np.searchsorted(times, watermark_ns, "right")
            watermark_ns = int(times[later]) if later < len(times) else max(end_ns, int(times[-1]) + 1)
        low, at = int(times[at]), int(np.searchsorted(times, watermark_ns, "left"))
        step = {}
        for name, rows in inputs.items():
            first, last = np.searchsorted(rows["run_ns"], (low, watermark_ns), "left")
            if last > first:
                step[name] = rows.take(slice(first, last))
        yield step, watermark_ns, False
    yield {}, end_ns, True


def _check(topic: str, rows: Rows, previous_ns: int, watermark_ns: int, end: bool) -> None:
    assert rows.schema is topics.schema_of(topic), topic
    run_ns = rows["run_ns"]
    assert (run_ns >= previous_ns).all(), f"{topic}: a row below the last watermark"
    assert (run_ns <= watermark_ns if end else run_ns < watermark_ns).all(), f"{topic}: a row ahead of the watermark"


def _reborn(topology: Topology, config: Config, core: Core, run_id: str, partition: int) -> Core:
    state: dict[str, Array] = {}
    for name, array in core.snapshot().items():
        assert isinstance(array, np.ndarray) and array.dtype.kind in "iufbSV", f"{name}: {array.dtype}"
        state[name] = np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)  # read-only, as from a broker
    fresh = topology.make_core(config, run_id, partition)
    fresh.restore(state)
    return fresh
