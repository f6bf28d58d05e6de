"""The same cores without a broker: `analyze` drives the P logical partitions in one process.

Differs from the Kafka pipeline in transport alone; both give the same rows (design rule 2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from akbypass import schemas, topics
from akbypass.config import Config
from akbypass.order import Merge
from akbypass.rows import Rows
from akbypass.topics import LEDGER
from akbypass.topology import Topology, TopologyPartition

RESULTS = (
    "verdicts", "contacts", "latency", "latency_windows", "order_events", "feed_gaps", "feed_quality", "quotes",
    "arbitrage", "alerts", "captures", "rejected", "ledger",
)  # fmt: skip
Sink = Callable[[str, Rows], None]  # topic, rows in order


class Offline:
    """Topologies of one run, fed with captured rows; hands every result to `sink`, sorted by order key per topic."""

    def __init__(self, config: Config, topologies: Sequence[Topology], run_id: str, captures: int, sink: Sink) -> None:
        self.config, self.run_id, self.captures, self.sink = config, run_id, captures, sink
        self.count = config.kafka.partitions
        self.stages = [(t, [TopologyPartition(t, config, p) for p in range(self.count)]) for t in topologies]
        self.readers: dict[str, list[list[TopologyPartition]]] = {}
        for topology, parts in self.stages:
            for topic in topology.inputs:
                self.readers.setdefault(topic, []).append(parts)
        outputs = [t for topology, _ in self.stages for t in topology.outputs]
        self.counters = Counter[tuple[str, str]]()  # (topology, reason) → count, complete at the end of the run
        self.collected = {t: Merge([t]) for t in (*outputs, "captures", "rejected", LEDGER)}

    def feed(self, rows: Mapping[str, Rows], capture_id: int, watermark_ns: int, end_ns: int | None) -> None:
        """Take one batch of one capture and step everything that it moves."""
        for topic in topics.CAPTURE_TOPICS:
            self._deliver(topic, rows.get(topic), capture_id, self.captures, watermark_ns, end_ns)
        accountants = self.captures + self.count * len(self.stages)
        self._deliver(LEDGER, rows.get(LEDGER), capture_id, accountants, watermark_ns, end_ns)
        for stage, (topology, parts) in enumerate(self.stages):
            for part in parts:
                for emission in part.advance():
                    self.counters.update({(topology.name, reason): n for reason, n in emission.counters.items()})
                    for topic in topology.outputs:
                        made = emission.rows.get(topic)
                        self._deliver(topic, made, part.partition, self.count, emission.watermark_ns, emission.end_ns)
                    source = self.captures + stage * self.count + part.partition
                    stated = emission.accounts.get(LEDGER)
                    self._deliver(LEDGER, stated, source, accountants, emission.watermark_ns, emission.end_ns)
        for topic, merge in self.collected.items():
            released = merge.release()
            if released is not None and topic in released.rows:
                self.sink(topic, released.rows[topic])

    def _deliver(
        self, topic: str, rows: Rows | None, source: int, sources: int, watermark_ns: int, end_ns: int | None
    ) -> None:
        readers = self.readers.get(topic)
        if readers:
            parts = {} if rows is None else topics.split(rows, self.count)
            for number in range(self.count):
                for reader in readers:
                    reader[number].add(topic, self.run_id, source, sources, parts.get(number), watermark_ns, end_ns)
        if topic in self.collected:
            self.collected[topic].add(topic, source, sources, rows, watermark_ns, end_ns)


class LastRevisions:
    """Result files: one `<topic>.jsonl` per result topic with the last revision of every row, in order."""

    def __init__(self, out: Path, names: Iterable[str] = RESULTS) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out = out
        self.counts = dict.fromkeys(names, 0)
        self._files: dict[str, IO[bytes]] = {name: (out / f"{name}.jsonl").open("wb") for name in self.counts}
        self._living: dict[str, list[Rows]] = {}

    def __call__(self, topic: str, rows: Rows) -> None:
        """Take rows of one topic, in order."""
        name = topics.row_type(topic)
        if has_revisions(name):
            self._living.setdefault(name, []).append(rows)
        else:
            self._write(name, rows)

    def _write(self, name: str, rows: Rows) -> None:
        self.counts[name] += len(rows)
        self._files[name].writelines(line + b"\n" for line in rows.to_json_lines())

    def close(self) -> None:
        """Write what has revisions, and close the files."""
        for name, parts in self._living.items():
            self._write(name, last_revisions(Rows.concat(parts)))
        for file in self._files.values():
            file.close()


def has_revisions(name: str) -> bool:
    """Whether rows of a type have a life and come in several revisions, or from several topics."""
    return schemas.load(name).encoding == "plain"


def last_revisions(rows: Rows) -> Rows:
    """Keep the highest revision of each id, sorted by (order key, id)."""
    best: dict[bytes, int] = {}
    revisions = rows["revision"]
    for i, identity in enumerate(rows["id"].tolist()):
        if identity not in best or revisions[i] >= revisions[best[identity]]:
            best[identity] = i
    kept = rows.take(sorted(best.values()))
    keys = zip(*(kept[k].tolist() for k in ("run_ns", "capture_id", "capture_pos", "sub", "id")), strict=True)
    return kept.take([i for _, i in sorted((key, i) for i, key in enumerate(keys))])
