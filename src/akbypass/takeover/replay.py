"""One partition of a topology, brought from the beginning of what the broker holds to where another version stands.

The cores step over the rows that the other version has taken and not one more; what they make of them is dropped,
because the other version has published its own. It writes nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from akbypass import batch, topics, transport
from akbypass.batch import BatchError
from akbypass.config import Config
from akbypass.errors import ServiceError
from akbypass.order import START_NS, Merge, OrderKey
from akbypass.rows import Array
from akbypass.topology import Core, Topology

log = logging.getLogger("akbypass.takeover")

STALLED_S = 60.0  # without a message although some must come
POLL_S = 0.1


@dataclass
class _Run:
    merge: Merge
    core: Core


class Replay:
    """The cores of one partition on their way; `reach` brings them to a manifest's words, `arrays` is what they are."""

    def __init__(self, topology: Topology, config: Config, bootstrap: str, partition: int) -> None:
        self.topology, self.config, self.partition = topology, config, partition
        self.messages = 0  # read so far
        self._runs: dict[str, _Run] = {}
        self._names = {topics.full_name(config.kafka.prefix, t): t for t in topology.inputs}
        self._consumer = Consumer(
            {
                **transport.client_options(config, bootstrap),
                "group.id": f"{config.kafka.prefix}takeover",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "queued.max.messages.kbytes": 8 * 1024,
            }
        )
        self._read = {topic: self._first(full) for full, topic in self._names.items()}  # offset that comes next
        self._consumer.assign([TopicPartition(f, partition, self._read[t]) for f, t in self._names.items()])
        self._paused: set[str] = set()

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()

    def reach(self, meta: Mapping[str, Any]) -> None:
        """Read and step until every run that is open in `meta` was taken as far as it says; raises ServiceError."""
        goals: dict[str, int] = meta["released"]
        self._runs = {r: run for r, run in self._runs.items() if r not in meta["ended"]}
        while any(self._read[topic] < offset for topic, offset in meta["offsets"].items()):
            self._poll(meta)
        for run_id, by_topic in meta["spoken"].items():  # which sources that are silent now have said
            for topic, said in by_topic.items():
                for source, (watermark_ns, end_ns, key) in said["by"].items():
                    last_key: OrderKey = (key[0], key[1], key[2], key[3])
                    merge = self._run(run_id).merge
                    merge.add(topic, int(source), said["sources"], None, watermark_ns, end_ns, last_key=last_key)
        self._step(goals)
        while any(self._released_ns(run_id) < goal for run_id, goal in goals.items()):
            self._poll(meta)
        self._paused -= self._resume(self._paused)

    def arrays(self, run_ids: Mapping[str, int]) -> dict[str, Array]:
        """The state of these runs, as a checkpoint names it, without accounts."""
        cores = {r: self._runs[r].core for r in run_ids}
        return {f"{r}/{name}": a for r, core in cores.items() for name, a in core.snapshot().items()}

    # -- one message -----------------------------------------------------------------------------------------------

    def _poll(self, meta: Mapping[str, Any]) -> None:
        deadline = time.monotonic() + STALLED_S
        while True:
            message = self._consumer.poll(POLL_S)
            if message is not None and message.error() is None:
                break
            if time.monotonic() > deadline:
                where = f"{self.topology.name}[{self.partition}]"
                raise ServiceError(
                    f"{where}: the inputs end before version {self.topology.version} is where it must be"
                )
        self._take(message, meta)
        self._step(meta["released"])
        self._balance()

    def _take(self, message: Message, meta: Mapping[str, Any]) -> None:
        topic, offset = self._names[message.topic() or ""], message.offset() or 0
        self._read[topic], self.messages = offset + 1, self.messages + 1
        try:
            found = batch.decode(topic, message.value(), message.headers())
        except BatchError:
            return  # the other version has told of it
        is_new = offset >= meta["offsets"].get(topic, 0)  # else it belongs to a run that is long over
        if found.run_id in meta["ended"] or not (found.run_id in meta["released"] or is_new):
            return
        self._run(found.run_id).merge.add(
            topic, found.source, found.sources, found.rows, found.watermark_ns, found.end_ns
        )

    def _step(self, goals: Mapping[str, int]) -> None:
        for run_id, goal_ns in goals.items():
            released = self._run(run_id).merge.release(goal_ns)
            if released is not None:
                self._runs[run_id].core.step(released.rows, released.watermark_ns, False)

    def _balance(self) -> None:
        """Pause inputs that are far ahead of the others, so that what waits for them stays bounded."""
        most = self.config.buffers.pending_rows_max
        waiting = {t: sum(r.merge.waiting_rows(t) for r in self._runs.values()) for t in self.topology.inputs}
        ahead = {t for t, rows in waiting.items() if rows > most} - self._paused
        if ahead and len(ahead | self._paused) < len(waiting):
            self._consumer.pause([self._place(t) for t in ahead])
            self._paused |= ahead
        self._paused -= self._resume({t for t in self._paused if waiting[t] < most // 2})

    def _resume(self, chosen: set[str]) -> set[str]:
        if chosen:
            self._consumer.resume([self._place(t) for t in chosen])
        return set(chosen)

    def _place(self, topic: str) -> TopicPartition:
        return TopicPartition(topics.full_name(self.config.kafka.prefix, topic), self.partition)

    def _run(self, run_id: str) -> _Run:
        if run_id not in self._runs:
            core = self.topology.make_core(self.config, run_id, self.partition)
            self._runs[run_id] = _Run(Merge(self.topology.inputs), core)
        return self._runs[run_id]

    def _released_ns(self, run_id: str) -> int:
        run = self._runs.get(run_id)
        return START_NS if run is None else run.merge.released_ns

    def _first(self, full: str) -> int:
        try:
            low, _ = self._consumer.get_watermark_offsets(TopicPartition(full, self.partition), timeout=30)
        except KafkaException as error:
            raise ServiceError(f"{full}[{self.partition}]: {error}") from error
        if low > 0:
            log.warning(
                "%s[%d] begins at offset %d: what came before is not in the new state", full, self.partition, low
            )
        return int(low)
