"""Runs topologies as Faust apps in one process: Faust carries and supervises, the cores compute, checkpoints remember.

Not Faust's: state (design rule 7), acknowledgement (behind a checkpoint only), production (one idempotent producer).
Measured on Faust 0.15.3: an exception acknowledges the record, so agents here catch what foreign bytes can do and let
everything else end the process; a crashed worker stands still for its session time-out unless membership is static.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import faust
import orjson
from faust.assignor.partition_assignor import PartitionAssignor
from faust.types import TP
from mode import Service

from akbypass import accounts, batch, letters, topics, transport
from akbypass.batch import Batch, BatchError
from akbypass.checkpoint import Checkpoint, CheckpointStore, HandoverError, SupersededError, load_all
from akbypass.checkpoint_log import LogWriter
from akbypass.config import Config
from akbypass.emitter import Emitter
from akbypass.errors import ConfigError, ServiceError
from akbypass.letters import Place
from akbypass.processors import saving
from akbypass.processors.care import Care
from akbypass.processors.points import Points
from akbypass.processors.watch import TopologyWatch
from akbypass.progress import LostMessagesError, Progress
from akbypass.telemetry.life import Life
from akbypass.telemetry.metrics import LOST, LOST_ROWS, QUEUE_MESSAGES
from akbypass.telemetry.probes import LagProbe
from akbypass.topology import Emission, Topology, TopologyPartition
from akbypass.transport import Publisher, RunWriter

log = logging.getLogger("akbypass.worker")

ADVANCE_S = 0.05  # how long rows may wait for company before the cores step
ADVANCE_STEPS, ADVANCE_STEPS_BEHIND = 4, 10  # and for at least so many times the last step: large steps cost less a row
ADVANCE_S_MAX = 0.5
BEHIND_NS = 1_000_000_000  # age of a message at which its reader is behind
RUN_SILENT_S = 900.0  # a run of which nothing comes for this long was left by its source; live ones speak every second
MARK_S = 0.1  # how long a watermark without rows may wait
PASSED_MAX = 64  # messages that were fetched before a seek and come behind it
ASKED_MAX = 5  # seeks to one offset before it counts as lost
KNOWN_WAIT_S = 5.0  # before an assignment that lacks an input ends the process
FETCH_WAIT_MS = 250  # how long the broker may hold a fetch that has nothing to bring


@contextmanager
def _fatal(name: str) -> Iterator[None]:
    """End the process on any error of ours: going on would acknowledge what was not done, a restart repeats it."""
    try:
        yield
    except Exception:
        log.exception("topology failed; the worker ends and starts again from its checkpoint", extra={"topology": name})
        logging.shutdown()
        os._exit(1)


class _Decoded:
    """Messages that were decoded lately, for the other topologies of this process that read the same topic."""

    def __init__(self, topologies: tuple[Topology, ...], messages_max: int) -> None:
        self._messages_max = messages_max
        readers = Counter(topic for t in topologies for topic in t.inputs)
        self._shared = {topic for topic, count in readers.items() if count > 1}
        self._columns = {topic: _columns_read(topologies, topic) for topic in readers}
        self._kept: dict[tuple[str, int, int], Batch] = {}

    def get(self, topic: str, message: Any, value: bytes | None) -> Batch:
        """Decode a message, or hand out what another topology decoded; rows are never changed. Raises BatchError."""
        place = (topic, message.partition, message.offset)
        found = self._kept.pop(place, None)
        if found is None:
            headers = message.headers
            listed = list(headers.items()) if isinstance(headers, dict) else headers
            found = batch.decode(topic, value, listed, only=self._columns[topic])
            if topic in self._shared:
                self._kept[place] = found
            while len(self._kept) > self._messages_max:
                del self._kept[next(iter(self._kept))]
        return found


def _columns_read(topologies: tuple[Topology, ...], topic: str) -> frozenset[str] | None:
    """The columns of a topic that any of its readers reads; None when one reads all."""
    readers = [t for t in topologies if topic in t.inputs]
    if any(topic not in t.reads for t in readers):
        return None
    return frozenset[str]().union(*(t.reads[topic] for t in readers))


class _Partition:
    """One partition of one topology: input progress, state, and the writers of its runs."""

    def __init__(self, worker: TopologyWorker, number: int) -> None:
        self.number = number
        self.progress = Progress(TopologyPartition(worker.topology, worker.config, number))
        topology = worker.topology
        self.store = CheckpointStore(worker.config, worker.log, topology.name, topology.version, number)
        self.writers: dict[str, Emitter] = {}
        self._make_writer = worker.make_writer
        self.saved: dict[str, int] = {}

    def restore(self, found: Checkpoint) -> None:
        """Take over the newest state."""
        if found.meta:
            self.progress.restore(found.meta, found.arrays)
            self.saved = dict(self.progress.next_offset)
            self.writers = {r: self._make_writer(r, self.number, n) for r, n in found.meta["numbers"].items()}

    def writer(self, run_id: str) -> Emitter:
        """The writer of a run."""
        if run_id not in self.writers:
            self.writers[run_id] = self._make_writer(run_id, self.number, None)
        return self.writers[run_id]

    def meta(self, released: Mapping[str, int]) -> dict[str, Any]:
        """What a manifest says beside the state."""
        numbers = {r: w.numbers() for r, w in self.writers.items()}
        return self.progress.meta(released) | {"numbers": numbers, "careful": self.progress.partition.careful}


class Assignor(PartitionAssignor):  # type: ignore[misc]  # Faust ships no types
    """Faust's, but it refuses to assign while the broker names no partitions of an input, as just after its start.

    Faust would leave such an input out, and so would every restart: static members come back without a rebalance.
    The process ends, and its next start asks again; after a while, as a supervisor allows only so many starts a minute.
    """

    def assign(self, cluster: Any, member_metadata: Mapping[str, Any]) -> Any:
        """Assign as Faust does; topics without partitions end the process, as aiokafka would only wait with an error."""
        with _fatal(self.app.conf.id):
            try:
                require_known(cluster, member_metadata)
            except ServiceError:
                time.sleep(KNOWN_WAIT_S)
                raise
        return super().assign(cluster, member_metadata)


def require_known(cluster: Any, member_metadata: Mapping[str, Any]) -> None:
    """Raise ServiceError for topics of the members that have no partitions in the broker's metadata."""
    wanted = {topic for member in member_metadata.values() for topic in member.subscription}
    missing = sorted(topic for topic in wanted if not cluster.partitions_for_topic(topic))
    if missing:
        raise ServiceError(f"the broker knows no partitions of {', '.join(missing)}")


@dataclass
class _Asked:
    """An offset that was sought, how often, and the messages behind it that came since."""

    offset: int
    times: int = 1
    passed: int = 0


class TopologyWorker:
    """One topology as a Faust app: `app` is to be run by a faust.Worker."""

    def __init__(
        self,
        topology: Topology,
        config: Config,
        bootstrap: str,
        publisher: Publisher,
        member: str,
        marked: frozenset[str],
        decoded: _Decoded,
        log: LogWriter,
        pace: saving.Pace,
    ) -> None:
        self.topology, self.config, self.bootstrap, self.publisher = topology, config, bootstrap, publisher
        self.decoded, self.log, self.pace = decoded, log, pace
        self.care = Care(publisher, topology.name)
        self.marked = [t for t in topology.outputs if t in marked]
        self.partitions: dict[int, _Partition] = {}
        self.paused: set[TP] = set()
        self._asked: dict[TP, _Asked] = {}
        self.rejected = 0
        self.watch = TopologyWatch(topology, config.checkpoint.interval_max_s)
        self._draining = False
        self._names = {topics.full_name(config.kafka.prefix, t): t for t in topology.inputs}
        self._due_s = 0.0
        self._behind = False
        self._saving = asyncio.Lock()
        self.app = self._make_app(member)

    def _make_app(self, member: str) -> Any:
        kafka, buffers = self.config.kafka, self.config.buffers
        app = faust.App(
            transport.group_of(self.config, self.topology),
            broker=[f"kafka://{b}" for b in self.bootstrap.split(",")],
            broker_credentials=credentials(kafka.options),
            store="memory://",
            web_enabled=False,
            topic_partitions=kafka.partitions,
            topic_disable_leader=True,
            topic_allow_declare=False,
            broker_commit_interval=1.0,
            broker_session_timeout=10.0,
            broker_heartbeat_interval=2.0,
            broker_max_poll_interval=600.0,
            broker_max_poll_records=buffers.poll_messages_max,
            consumer_group_instance_id=f"{member}-{self.topology.name}",
            consumer_auto_offset_reset="earliest",
            PartitionAssignor=Assignor,
            consumer_max_fetch_size=buffers.fetch_bytes_max,
            stream_buffer_maxsize=buffers.stream_messages_max,
            stream_wait_empty=False,
            worker_redirect_stdouts=False,
        )
        source = app.topic(*self._names, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")

        @app.agent(source, name=f"{self.topology.name}.agent", concurrency=1)
        async def agent(stream: Any) -> None:
            async for event in stream.noack().events():  # raw batch message of an input topic
                with _fatal(self.topology.name):
                    await self._take(event)

        @app.task
        async def advance() -> None:
            while True:
                await asyncio.sleep(ADVANCE_S)
                if app.should_stop:
                    return
                with _fatal(self.topology.name):
                    self._advance_when_due()
                    self._resume()

        @app.task
        async def checkpoint() -> None:
            while True:
                for number in sorted(self.partitions) or [-1]:
                    await asyncio.sleep(self.pace.interval_s() / max(1, len(self.partitions)))
                    if app.should_stop:
                        return
                    with _fatal(self.topology.name):
                        await self._save(number)

        @app.on_partitions_revoked.connect
        async def revoked(app: Any, revoked: Any, **kwargs: Any) -> None:
            with _fatal(self.topology.name):
                await self.save()
            self.partitions = {}
            self.watch.revoked()

        @app.on_before_shutdown.connect
        async def closing(app: Any, **kwargs: Any) -> None:
            with _fatal(self.topology.name):
                await self._drain()

        app.on_partitions_assigned.connect(self._hasten)
        app._new_consumer = functools.partial(self._new_consumer, app._new_consumer)
        app._create_directories = lambda: None  # for tables; it would leave empty ones in the working directory
        return app

    # -- assignment: newest checkpoint, then seek to its offsets ---------------------------------------------------

    def _new_consumer(self, make: Callable[[], Any]) -> Any:
        """Make Faust's consumer with a seek (to committed offsets) that ends at the offsets of the checkpoints.

        From its making on: Faust may seek before it tells anybody of the assignment, and what it then brought would be
        dropped as another's for ever.
        """
        consumer = make()
        original = consumer.perform_seek

        async def perform_seek() -> None:
            await original()
            with _fatal(self.topology.name):
                async with self._saving:
                    await self._restore(consumer)

        consumer.perform_seek = perform_seek
        return consumer

    async def _hasten(self, app: Any, assigned: Any, **kwargs: Any) -> None:
        """Shorten the wait of a fetch: Faust asks for 1.5 s, and with idle partitions all others of the broker wait."""
        app.consumer._thread._ensure_consumer()._fetcher._fetch_max_wait_ms = FETCH_WAIT_MS

    async def _restore(self, consumer: Any) -> None:
        loop = asyncio.get_running_loop()
        wanted = sorted({tp.partition for tp in consumer.assignment() if tp.topic in self._names})
        self.partitions = {}
        self.pace.forget(self.topology.name)
        made = {n: _Partition(self, n) for n in wanted}
        stores = [partition.store for partition in made.values()]
        kept = await loop.run_in_executor(None, load_all, stores)
        loaded = {number: made[number] for number in kept}
        for number, checkpoint in kept.items():
            loaded[number].restore(checkpoint)
            saving.tell_of_foreign(self.publisher, loaded[number].store)
        self.care.restored(loaded, kept)
        places = [TP(tp.topic, tp.partition) for tp in sorted(consumer.assignment()) if tp.topic in self._names]
        earliest = await consumer.earliest_offsets(*places) if places else {}
        for position in (p for p in places if p.partition in loaded):
            topic, progress = self._names[position.topic], loaded[position.partition].progress
            first = progress.next_offset.get(topic, 0)
            lost = progress.begin(topic, earliest[position])
            if lost:
                self._tell_retention(topic, position.partition, first, lost)
                LOST.labels(self.topology.name, topic).inc(lost)
                place = {"topology": self.topology.name, "topic": topic, "partition": position.partition}
                log.error("retention took %d messages that were not read", lost, extra=place)
            offset = progress.next_offset[topic]
            await consumer.seek(position, offset)
            # Faust compares acknowledged offsets with these; without them it would wait for what we do not read again
            consumer._read_offset[position] = offset or None
            consumer._committed_offset[position] = offset or None
            for by_place in (consumer._acked, consumer._acked_index, consumer._gap):
                by_place.pop(position, None)
        self.paused.clear()
        self._asked.clear()
        self.partitions = loaded
        positions = {(t, n): p.progress.next_offset[t] for n, p in loaded.items() for t in self.topology.inputs}
        self.watch.restored(positions, loaded)
        log.info("partitions %s from their checkpoints", sorted(loaded), extra={"topology": self.topology.name})

    def _tell_retention(self, topic: str, partition: int, first: int, messages: int) -> None:
        """Write what retention took away to the ledger."""
        now_ns = time.time_ns()
        run_id, row = accounts.retention(self.topology.name, partition, topic, first, messages, now_ns)
        RunWriter(self.publisher, run_id, 0, 1).write({topics.LEDGER: row}, now_ns, None)

    # -- input -----------------------------------------------------------------------------------------------------

    async def _take(self, event: Any) -> None:
        message = event.message
        partition = self.partitions.get(message.partition)
        if partition is None or self._draining:
            return  # of an assignment that is gone, or too late: it is read again by its next owner
        topic = self._names[message.topic]
        if message.offset > partition.progress.wanted_offset.get(topic, message.offset):
            await self._ask_again(TP(message.topic, message.partition), partition.progress.wanted_offset[topic])
            return
        try:
            found = self.decoded.get(topic, message, event.value)
        except BatchError as error:
            found = None
            self._reject(topic, message, event.value, str(error))
        self._behind = found is not None and time.time_ns() - found.publish_ns > BEHIND_NS
        fresh = partition.progress.take(topic, message.offset, found, event, time.monotonic())
        if partition.progress.late:
            late, partition.progress.late = partition.progress.late, []
            self.care.tell_late(_place(topic, message), event.value, late)
        event.value = message.value = None  # only the offset is needed from here on
        if not fresh:
            return
        self.watch.message(topic, message, found)
        full = self._is_full(partition, topic)
        if full:
            self._due_s = 0.0
        self._advance_when_due()
        if full and self._is_full(partition, topic):
            self._hold_back(topic, message)
        await asyncio.sleep(0)

    def _reject(self, topic: str, message: Any, value: bytes | None, detail: str) -> None:
        """Write a message that cannot be decoded to `rejected`."""
        self.rejected += 1
        place = _place(topic, message)
        letters.send(
            self.publisher,
            letters.letter(place, stage=self.topology.name, reason=letters.NOT_A_BATCH, detail=detail, value=value),
        )
        where = {"topology": self.topology.name, "topic": topic, "partition": place.partition, "offset": place.offset}
        log.warning("message rejected", extra={**where, "reason": letters.NOT_A_BATCH, "detail": detail})

    def _is_full(self, partition: _Partition, topic: str) -> bool:
        """Whether so many rows of an input wait for the other inputs that no more may come."""
        several = len(self.topology.inputs) > 1
        return several and self._waiting(partition, topic) > self.config.buffers.pending_rows_max

    def _hold_back(self, topic: str, message: Any) -> None:
        """Pause an input that is far ahead of the others, so that what waits for them stays bounded."""
        position = TP(message.topic, message.partition)
        # as Faust does when a stream is full; what it had taken still comes (`pause_partitions` would drop it)
        self.app.consumer.on_buffer_full(position)
        self.paused.add(position)
        self.watch.hold(self._names, self.paused)

    @staticmethod
    def _waiting(partition: _Partition, topic: str) -> int:
        return sum(run.merge.waiting_rows(topic) for run in partition.progress.partition.runs.values())

    # -- output ----------------------------------------------------------------------------------------------------

    def make_writer(self, run_id: str, partition: int, numbers: batch.Numbers | None) -> Emitter:
        """Make the writer of one run of a partition, from its start or from where its numbers stood."""
        return Emitter(self.publisher, self.topology, run_id, partition, self.marked, MARK_S, numbers)

    def _resume(self) -> None:
        """Read on the inputs that were paused and are not far ahead any more."""
        for position in list(self.paused):
            partition = self.partitions.get(position.partition)
            topic = self._names[position.topic]
            if partition is None or self._waiting(partition, topic) >= self.config.buffers.pending_rows_max // 2:
                continue
            self.paused.discard(position)
            self.app.consumer.on_buffer_drop(position)
            self.watch.hold(self._names, self.paused)

    async def _ask_again(self, position: TP, wanted: int) -> None:
        """Pass over a message that came too early, and seek to the one that is missing; raises LostMessagesError.

        Messages that were fetched before a seek still come behind it, so only many of them ask for another.
        """
        asked = self._asked.get(position)
        if asked is None or asked.offset != wanted:
            asked = self._asked[position] = _Asked(wanted, passed=PASSED_MAX)
        asked.passed += 1
        if asked.passed <= PASSED_MAX:
            return
        asked.times, asked.passed = asked.times + 1, 0
        if asked.times > ASKED_MAX:
            raise LostMessagesError(f"{position.topic}[{position.partition}]: offset {wanted} does not come")
        await self.app.consumer.seek(position, wanted)

    def _advance_when_due(self) -> None:
        started_s = time.monotonic()
        if started_s >= self._due_s and not self._draining:
            self._advance()
            ended_s = time.monotonic()
            self.watch.stepped(ended_s - started_s, self.partitions)
            steps = ADVANCE_STEPS_BEHIND if self._behind else ADVANCE_STEPS
            self._due_s = ended_s + min(ADVANCE_S_MAX, max(ADVANCE_S, steps * (ended_s - started_s)))

    def _advance(self) -> None:
        for partition in self.partitions.values():
            with self.care.stepping(partition):
                emissions = partition.progress.partition.advance()
            for emission in emissions:
                self._publish(partition, emission)
            for writer in partition.writers.values():
                writer.mark()
        self.care.relax(self.partitions)

    def _publish(self, partition: _Partition, emission: Emission) -> None:
        self.watch.made(partition.number, emission.run_id, emission.rows, emission.counters)
        partition.writer(emission.run_id).write(emission)
        lost = partition.progress.partition.lost
        for topic in list(lost):
            LOST_ROWS.labels(self.topology.name, topic).inc(lost.pop(topic))
        if emission.end_ns is not None:
            del partition.writers[emission.run_id]
            counted = ", ".join(f"{reason} {n:,}" for reason, n in emission.counters.items()) or "nothing"
            log.info("run ended; counted %s", counted, extra=self._place(partition, emission.run_id))

    def _place(self, partition: _Partition, run_id: str) -> dict[str, Any]:
        return {"topology": self.topology.name, "partition": partition.number, "run_id": run_id}

    # -- checkpoints -----------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Take what was read, save it, and from then on take nothing: the next owner repeats no row of ours."""
        self._advance()
        self._draining = True
        await self.save()
        log.info("drained", extra={"topology": self.topology.name})

    async def save(self) -> None:
        """Save every partition that has moved, then acknowledge what its checkpoint covers."""
        for number in sorted(self.partitions):
            await self._save(number)

    async def _save(self, number: int) -> None:
        async with self._saving:
            partition = self.partitions.get(number)
            if partition is None:
                return
            try:
                await self._write(partition)
            except (HandoverError, SupersededError) as error:
                await self._step_aside(partition, isinstance(error, HandoverError))

    async def _step_aside(self, partition: _Partition, asked: bool) -> None:
        """Leave a partition to another version: publish no more, save a last time if it waits for that, and say so."""
        del self.partitions[partition.number]
        if asked:
            await self._write(partition, last=True)
        run = asyncio.get_running_loop().run_in_executor
        await run(None, saving.leave, self.publisher, partition.store)
        self.watch.dropped(partition.number)
        where = {"topology": self.topology.name, "partition": partition.number}
        log.warning("left to another version", extra=where)

    async def _write(self, partition: _Partition, last: bool = False) -> None:
        loop, progress, name = asyncio.get_running_loop(), partition.progress, self.topology.name
        started_s = time.perf_counter()
        for run_id in progress.abandon(time.monotonic(), RUN_SILENT_S):
            partition.writers.pop(run_id, None)
            log.warning("run given up, its source is silent", extra=self._place(partition, run_id))
        tokens, offsets = progress.settle(), dict(progress.next_offset)
        if not tokens and offsets == partition.saved and not last:
            await loop.run_in_executor(None, saving.check, self.publisher, partition.store)
            self.watch.saved(partition.number, None)
            return
        arrays, released = progress.partition.snapshot()
        meta = orjson.dumps(partition.meta(released))
        pause_s = time.perf_counter() - started_s
        with self.watch.saving():
            done = await loop.run_in_executor(None, saving.write, self.publisher, partition.store, arrays, meta)
        self.pace.spent(name, partition.number, pause_s + done.cpu_s)
        if self.partitions.get(partition.number) is not partition:
            return  # assigned anew meanwhile; the new owner reads from the checkpoint
        partition.saved = offsets
        self.watch.saved(partition.number, done.saved)
        for event in tokens:
            event.ack()


def _place(topic: str, message: Any) -> Place:
    return Place(topic, message.partition, message.offset, round(message.timestamp * 1000))


def credentials(options: Mapping[str, str]) -> Any:
    """Turn librdkafka's security options into Faust's; raises ConfigError for those that it has no equal of."""
    known = {
        "security.protocol", "sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password",
        "ssl.ca.location", "ssl.certificate.location", "ssl.key.location",
    }  # fmt: skip
    unknown = [k for k in options if k.startswith(("sasl.", "ssl.", "security.")) and k not in known]
    protocol = options.get("security.protocol", "PLAINTEXT").upper()
    if unknown or protocol not in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"):
        raise ConfigError(
            f"kafka.options: workers cannot use {', '.join(unknown) or protocol}; known: {', '.join(sorted(known))}"
        )
    if protocol == "PLAINTEXT":
        return None
    context = ssl.create_default_context(cafile=options.get("ssl.ca.location")) if protocol.endswith("SSL") else None
    if context is not None and "ssl.certificate.location" in options:
        context.load_cert_chain(options["ssl.certificate.location"], options.get("ssl.key.location"))
    if protocol == "SSL":
        return faust.SSLCredentials(context=context)
    mechanism = options.get("sasl.mechanism", options.get("sasl.mechanisms", "PLAIN"))
    return faust.SASLCredentials(
        username=options.get("sasl.username"), password=options.get("sasl.password"), ssl_context=context, mechanism=mechanism
    )  # fmt: skip


class _Together(Service):  # type: ignore[misc]  # mode ships no types
    """Starts and stops apps at the same time; a worker would wait some seconds for each of them in turn."""

    logger = logging.getLogger("mode.together")  # what a service says of itself is not ours

    def __init__(self, apps: list[Any]) -> None:
        self.apps = apps
        super().__init__()

    async def on_start(self) -> None:
        """Start all; as children of the worker, so that the crash of one is the worker's."""
        for app in self.apps:
            app.beacon.reattach(self.beacon)
        await asyncio.gather(*(app.maybe_start() for app in self.apps))

    async def on_stop(self) -> None:
        """Stop all."""
        await asyncio.gather(*(app.stop() for app in self.apps))


class _Worker(faust.Worker):  # type: ignore[misc]  # Faust ships no types
    """Faust's worker under our signals, and with our log lines instead of its own."""

    def __init__(self, life: Life, app: Any, *services: Service) -> None:
        self.life = life
        super().__init__(app, *services, quiet=True, redirect_stdouts=False, override_logging=False)
        self.spinner = None  # nobody watches

    def install_signal_handlers(self) -> None:
        """Let the first signal stop the apps from within the loop, however busy that is."""
        stop = functools.partial(self._schedule_shutdown, signal.SIGTERM)
        self.life.on_stop(functools.partial(self.loop.call_soon_threadsafe, stop))


def run_worker(
    topologies: tuple[Topology, ...],
    config: Config,
    bootstrap: str,
    member: str,
    marked: frozenset[str],
    life: Life | None = None,
) -> None:
    """Run topologies until SIGTERM or SIGINT; any failure ends the process with code 1, to be started anew."""
    life = life or Life(config, "worker")
    publisher = Publisher(config, bootstrap)
    QUEUE_MESSAGES.set_function(publisher.waiting)
    shared = (
        _Decoded(topologies, config.buffers.decoded_messages_max),
        LogWriter(config, bootstrap),
        saving.Pace(config.checkpoint),
    )
    workers = [TopologyWorker(t, config, bootstrap, publisher, member, marked, *shared) for t in topologies]
    readers = [w.watch for w in workers]
    life.begin(readers, [LagProbe(config, bootstrap, readers)])
    first, *rest = [w.app for w in workers]
    for app in (first, *rest):
        app.finalize()
    worker = _Worker(life, first, _Together(rest))
    points = Points(config, bootstrap, publisher)
    points.start()
    try:
        worker.execute_from_commandline()
    finally:
        points.stop()
        life.end()
