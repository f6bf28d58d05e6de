"""Drives fresh topologies with a recorded log, cut anew: what the broker would bring them, in another rhythm."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from akbypass import offline, processors, topics
from akbypass.batch import Batch
from akbypass.config import Config
from akbypass.offline import RESULTS
from akbypass.recorded import Recorded
from akbypass.rows import Rows
from akbypass.topology import TopologyPartition


def recut(batch: Batch, rows_max: int) -> list[Batch]:
    """The same message as several: a part's watermark is where the next one begins, as a writer would say it."""
    rows = batch.rows
    if rows is None or len(rows) <= rows_max:
        return [batch]
    parts = []
    for start in range(0, len(rows), rows_max):
        part, last = rows.take(slice(start, start + rows_max)), start + rows_max >= len(rows)
        watermark = batch.watermark_ns if last else min(batch.watermark_ns, int(rows["run_ns"][start + rows_max]))
        before = None if batch.rows_before is None else batch.rows_before + start
        end = batch.end_ns if last else None
        parts.append(replace(batch, rows=part, watermark_ns=watermark, end_ns=end, rows_before=before))
    return parts


def replayed(config: Config, recorded: Sequence[Recorded], seed: int, rows_max: int) -> dict[str, list[dict[str, Any]]]:
    """Results of fresh topologies over a log whose partitions are read in a random interleaving and in small parts."""
    draw, count = random.Random(seed), config.kafka.partitions
    stages = [(t, [TopologyPartition(t, config, p) for p in range(count)]) for t in processors.all_topologies()]
    queues: dict[tuple[str, int], list[Batch]] = {}
    for found in recorded:
        queues.setdefault((found.topic, found.partition), []).extend(recut(found.batch, rows_max))
    collected: dict[str, list[Rows]] = {}

    def deliver(batch: Batch, partition: int) -> None:
        for topology, parts in stages:
            if batch.topic in topology.inputs:
                parts[partition].add(
                    batch.topic, batch.run_id, batch.source, batch.sources, batch.rows, batch.watermark_ns, batch.end_ns,
                    batch.rows_before,
                )  # fmt: skip

    def advance() -> None:
        for topology, parts in stages:
            for part in parts:
                for said in part.advance():
                    for topic, rows in said.accounts.items():
                        collected.setdefault(topics.row_type(topic), []).append(rows)
                    for topic in topology.outputs:
                        made = said.rows.get(topic)
                        if made is not None:
                            collected.setdefault(topics.row_type(topic), []).append(made)
                        split = {} if made is None else topics.split(made, count)
                        for p in range(count):
                            whole = (said.run_id, part.partition, count, split.get(p), said.watermark_ns, said.end_ns)
                            deliver(Batch(topic, *whole), p)

    while queues:
        place = draw.choice(sorted(queues))
        some = draw.randint(1, 5)
        for batch in queues[place][:some]:
            deliver(batch, place[1])
        queues[place] = queues[place][some:]
        if not queues[place]:
            del queues[place]
        if draw.random() < 0.2 or not queues:
            advance()
    return {name: offline_rows(name, collected.get(name, [])) for name in RESULTS}


def offline_rows(name: str, parts: list[Rows]) -> list[dict[str, Any]]:
    """Rows of one result as `analyze` writes them."""
    if not parts:
        return []
    whole = Rows.concat(parts)
    if offline.has_revisions(name):
        return offline.last_revisions(whole).to_dicts()
    return whole.sorted_by_order().to_dicts()
