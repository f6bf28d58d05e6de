"""bench checkpoint: what saving and loading the state of a busy market costs on this machine, on a real broker.

States are built by the cores themselves, one partition after the other, and saved three times: whole, with nothing
changed, and after one flow, order or contact in a hundred was touched. Then a worker process starts from them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Consumer, TopicPartition

from akbypass import batch, topics, transport
from akbypass import config as configuration
from akbypass.bench import states
from akbypass.checkpoint import CheckpointStore, load_all
from akbypass.checkpoint_log import LogWriter
from akbypass.config import Config
from akbypass.errors import ServiceError
from akbypass.local.kafka import KafkaServer
from akbypass.topology import Topology, TopologyPartition
from akbypass.transport import Publisher, RunWriter

RUN_ID = "00000000000000be"
RECOVERY_S = 120.0
SECOND_NS = 1_000_000_000
TOLD = ("contacts", "latency", "quotes")  # outputs that say how far filtering, latency and books have come


@dataclass(frozen=True)
class Sizes:
    """What is open at a time, over all partitions (counts)."""

    flows: int = 1_000_000
    orders: int = 100_000
    contacts: int = 262_144
    books: int = 10_000
    book_orders: int = 1_000_000

    def part(self, count: int) -> Sizes:
        """The share of one of `count` partitions."""
        return Sizes(*(n // count for n in (self.flows, self.orders, self.contacts, self.books, self.book_orders)))


@dataclass(frozen=True)
class SaveCost:
    """One topology: state and what was sent (bytes, all partitions), longest pause and save (s), CPU (s)."""

    topology: str
    save: str
    state_bytes: int
    sent_bytes: int
    pause_s: float
    save_s: float
    cpu_s: float


@dataclass(frozen=True)
class Recovery:
    """From the start of a worker process to the first step of every topology, and of that the loading alone (s)."""

    seconds: float
    load_s: float


def measure(sizes: Sizes) -> tuple[list[SaveCost], Recovery]:
    """Save and load states of these sizes on a broker of our own; raises ServiceError when a worker does not start."""
    from akbypass import processors

    with tempfile.TemporaryDirectory(prefix="akbypass-bench-") as home, KafkaServer(Path(home) / "kafka") as server:
        config = Config().model_copy(update={"kafka": configuration.Kafka(bootstrap_servers=server.bootstrap_servers)})
        chosen = processors.choose(("filtering", "security", "latency", "books"))
        transport.declare_topics(
            config, server.bootstrap_servers, transport.known_topics(), processors.all_topologies()
        )
        writer, publisher = LogWriter(config, server.bootstrap_servers), Publisher(config, server.bootstrap_servers)
        costs: list[SaveCost] = []
        released_ns = 0
        for topology in chosen:
            saves, last_ns = _save(topology, config, sizes, writer, publisher)
            costs, released_ns = costs + saves, max(released_ns, last_ns)
        load_s = sum(_load(t, config, writer) for t in chosen)
        file = Path(home) / "config.yaml"
        file.write_text(configuration.dump(config))
        RunWriter(publisher, RUN_ID, 0, 1).write({}, released_ns + SECOND_NS, None, marked=topics.CAPTURE_TOPICS)
        publisher.flush()
        return costs, Recovery(_recover([t.name for t in chosen], config, file), load_s)


def _save(
    topology: Topology, config: Config, sizes: Sizes, writer: LogWriter, publisher: Publisher
) -> tuple[list[SaveCost], int]:
    """Build and save every partition of one topology; returns what it cost and up to where its rows were taken (ns)."""
    count, by_save, last_ns = config.kafka.partitions, dict[str, list[SaveCost]](), 0
    for number in range(count):
        store = CheckpointStore(config, writer, topology.name, topology.version, number)
        load_all([store])
        partition = TopologyPartition(topology, config, number)
        for save, steps in _stages(topology.name, sizes.part(count)):
            last_ns = _feed(partition, steps, last_ns)
            by_save.setdefault(save, []).append(_saved(save, partition, store, publisher))
    return [_together(costs) for costs in by_save.values()], last_ns


def _stages(topology: str, part: Sizes) -> Iterator[tuple[str, Iterable[states.Step]]]:
    """The rows before each save."""
    begin, rows = states.BEGIN_NS, states
    later = begin + 100 * SECOND_NS
    few = replace(part, flows=part.flows // 100, orders=part.orders // 100, contacts=part.contacts // 100)
    whole: dict[str, Callable[[], Iterable[states.Step]]] = {
        "filtering": lambda: rows.flows(part.flows, begin),
        "security": lambda: rows.contacts(part.contacts, part.contacts // 4, begin),
        "latency": lambda: [*rows.flows(part.flows, begin), *rows.orders(part.orders, begin + 10 * SECOND_NS)],
        "books": lambda: rows.market(part.book_orders, part.books, begin),
    }
    touched: dict[str, Callable[[], Iterable[states.Step]]] = {
        "filtering": lambda: rows.touches(few.flows, part.flows, later),
        "security": lambda: rows.contacts(few.contacts, part.contacts // 4, later, part.contacts),
        "latency": lambda: [
            *rows.touches(few.flows, part.flows, later),
            *rows.orders(few.orders, later + 10 * SECOND_NS, part.orders),
        ],
        "books": lambda: rows.market(part.book_orders // 100, part.books, later, part.book_orders),
    }
    yield "whole", whole[topology]()
    yield "unchanged", ()
    yield "1 % touched", touched[topology]()


def _feed(partition: TopologyPartition, steps: Iterable[states.Step], last_ns: int) -> int:
    for step in steps:
        last_ns = max(int(r["run_ns"][-1]) for r in step.values()) + 1
        for topic in partition.topology.inputs:
            partition.add(topic, RUN_ID, 0, 1, step.get(topic), last_ns, None)
        partition.advance()
    return last_ns


def _saved(save: str, partition: TopologyPartition, store: CheckpointStore, publisher: Publisher) -> SaveCost:
    from akbypass.processors import saving

    started_s = time.perf_counter()
    arrays, released = partition.snapshot()
    offsets = dict.fromkeys(partition.topology.inputs, 0)
    meta = orjson.dumps({"offsets": offsets, "spoken": {}, "released": released, "ended": {}, "numbers": {}})
    pause_s = time.perf_counter() - started_s
    done = saving.write(publisher, store, arrays, meta)
    save_s = time.perf_counter() - started_s - pause_s
    sizes = done.saved.state_bytes, done.saved.sent_bytes
    return SaveCost(partition.topology.name, save, *sizes, pause_s, save_s, done.cpu_s + pause_s)


def _together(costs: Sequence[SaveCost]) -> SaveCost:
    state, sent = sum(c.state_bytes for c in costs), sum(c.sent_bytes for c in costs)
    pause_s, save_s = max(c.pause_s for c in costs), max(c.save_s for c in costs)
    return SaveCost(costs[0].topology, costs[0].save, state, sent, pause_s, save_s, sum(c.cpu_s for c in costs))


def _load(topology: Topology, config: Config, writer: LogWriter) -> float:
    """Claim, read and take over every partition; seconds."""
    started_s = time.perf_counter()
    numbers = range(config.kafka.partitions)
    stores = [CheckpointStore(config, writer, topology.name, topology.version, n) for n in numbers]
    for number, found in load_all(stores).items():
        TopologyPartition(topology, config, number).restore(found.arrays, found.meta["released"], found.meta["ended"])
    return time.perf_counter() - started_s


def _recover(names: list[str], config: Config, file: Path) -> float:
    """Start a worker process and return the seconds until every partition has stepped beyond its checkpoint."""
    command = [sys.executable, "-m", "akbypass.cli", "process", *names, "--config", str(file)]
    wanted = {(topic, source) for topic in TOLD for source in range(config.kafka.partitions)}
    reader = _outputs(config)
    with tempfile.TemporaryFile() as said:
        started_s = time.monotonic()
        worker = subprocess.Popen(command, stdout=said, stderr=said)
        try:
            while wanted:
                if worker.poll() is not None or time.monotonic() - started_s > RECOVERY_S:
                    said.seek(0)
                    raise ServiceError(f"no first step of {sorted(wanted)}: {said.read().decode()[-2000:]}")
                wanted -= {_source(config, m) for m in reader.consume(100, 0.05) if m.error() is None}
            return time.monotonic() - started_s
        finally:
            worker.kill()
            worker.wait()
            reader.close()


def _outputs(config: Config) -> Consumer:
    options = {**transport.client_options(config, config.kafka.bootstrap_servers), "group.id": "bench"}
    reader = Consumer({**options, "auto.offset.reset": "earliest", "enable.auto.commit": False})
    full = [topics.full_name(config.kafka.prefix, t) for t in TOLD]
    reader.assign([TopicPartition(t, p, 0) for t in full for p in range(config.kafka.partitions)])
    return reader


def _source(config: Config, message: Any) -> tuple[str, int]:
    topic = next(t for t in TOLD if topics.full_name(config.kafka.prefix, t) == message.topic())
    return topic, batch.decode(topic, message.value(), message.headers()).source


COLUMNS = ["topology", "save", "state (MB)", "sent (MB)", "pause (ms)", "save (ms)", "CPU (ms)"]


def rows(costs: list[SaveCost]) -> list[list[Any]]:
    """Costs as rows of COLUMNS; pause and save are those of the slowest partition, the others of all together."""
    return [
        [
            c.topology,
            c.save,
            *(round(n / 1e6, 1) for n in (c.state_bytes, c.sent_bytes)),
            *_ms(c.pause_s, c.save_s, c.cpu_s),
        ]
        for c in costs
    ]


def _ms(*seconds: float) -> list[int]:
    return [round(s * 1_000) for s in seconds]


def title(sizes: Sizes) -> str:
    """What was open."""
    return (
        f"{sizes.flows:,} flows, {sizes.orders:,} open orders, {sizes.books:,} books with {sizes.book_orders:,} orders"
    )


def recovery_rows(recovery: Recovery) -> list[list[Any]]:
    """Recovery as rows of (what, seconds)."""
    return [
        ["worker process started → every partition has stepped", round(recovery.seconds, 2)],
        ["the same states claimed, read and taken over one after the other", round(recovery.load_s, 2)],
    ]


def plain(costs: list[SaveCost], recovery: Recovery) -> dict[str, Any]:
    """What `measure` found, for JSON."""
    return {"name": "checkpoint", "saves": [c.__dict__ for c in costs], "recovery": recovery.__dict__}
