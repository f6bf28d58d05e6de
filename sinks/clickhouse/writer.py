"""Kafka to ClickHouse: large inserts, repeats dropped by order key, offsets committed behind the insert.

The store is the checkpoint: what a table holds of a run, partition and source tells the last order key that was
written, so a writer that was killed between insert and commit reads some messages again and drops their rows.
A writer that stood still asks the group whether it still belongs to it before it inserts what it holds: while it slept
another may have read and written the same messages.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from urllib3.exceptions import HTTPError

from akbypass import batch, letters, topics
from akbypass.batch import Batch, BatchError
from akbypass.config import Config
from akbypass.errors import ServiceError
from akbypass.order import BEFORE_ALL, OrderKey, key_at
from akbypass.rows import ORDER, Rows
from akbypass.sinks.clickhouse.block import Block, Place
from akbypass.sinks.clickhouse.missed import Missed
from akbypass.sinks.clickhouse.refusal import RefusedError, refused_letter, write_the_rest
from akbypass.sinks.clickhouse.tables import RAW
from akbypass.sinks.clickhouse.watch import SinkWatch
from akbypass.transport import client_options

log = logging.getLogger("akbypass.sink")

RETRY_S_MAX = 10.0  # longest pause between two tries of one insert
POLL_S = 0.1
FETCH_BYTES_MIN, FETCH_WAIT_MS = 65_536, 100  # of one fetch; else every message of any topic is a fetch of all of them
WAIT_SHARE = 4  # rows wait so many times as long as the last flush took, as larger inserts cost less a row
WAIT_S_MAX = 5.0
SESSION_MS = 10_000  # a member that is silent for this long loses its partitions
MEMBER_S = 5.0  # who has not heard from the group for this long asks it before an insert; half a session
COMMITTED_S = 5.0  # how long an assignment may wait for the offsets that the lag is counted from
# Codes of ClickHouse that pass: too slow, too busy, out of memory, too many parts, outcome unknown; a disk that is full.
PASSING = (159, 202, 241, 252, 319, 75, 243)
DISK_FULL = "No space left on device"  # of an error that has no code of its own
ANSWERS = (OSError, HTTPError, DatabaseError)  # of the way to the store and of the store; any other error is our fault

OUSTED = (  # answers of the group to a member whose partitions are somebody else's
    KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION, KafkaError.FENCED_INSTANCE_ID, KafkaError._ASSIGNMENT_LOST,
    KafkaError._FENCED, KafkaError._FATAL,  # fatal: the consumer brings nothing any more, fenced ones among them
)  # fmt: skip

Convert = Callable[[str, Rows, str], Rows]  # topic, rows, run_id


@dataclass(frozen=True)
class Target:
    """What one sink writes: topic → table, and how a topic's rows become the table's."""

    name: str
    tables: Mapping[str, str]
    convert: Convert | None  # None when the table's rows are the topic's


def clickhouse_target(config: Config) -> Target:
    """Every result topic, orders and captures; raw rows when `store.raw` is set."""
    from akbypass.transport import known_topics

    chosen = [t for t in known_topics() if config.store.raw or t not in RAW]
    return Target("clickhouse", {t: topics.row_type(t) for t in chosen}, None)


class Writer:
    """One sink: takes messages of its topics and writes their rows. `client` is a clickhouse-connect client."""

    def __init__(self, config: Config, bootstrap: str, client: Any, target: Target, member: str = "sink") -> None:
        self.config, self.client, self.target = config, client, target
        self.watch = SinkWatch(target.name, target.tables)
        self.rows_written = 0
        self.repeats = 0
        self.rejected = 0
        self.stopping = False
        self._names = {topics.full_name(config.kafka.prefix, t): t for t in target.tables}
        self._tables: dict[str, Block] = {}
        self._ends: list[list[Any]] = []
        self._missed = Missed(target.name)
        self._next: dict[tuple[str, int], int] = {}
        self._first: dict[tuple[str, int], int] = {}  # offset of the first message that is buffered
        self._last: dict[tuple[str, str], dict[int, dict[int, OrderKey]]] = {}  # topic, run → partition → source → key
        self._member_s = time.monotonic()  # when the group was last known to count us in
        self._oldest_s = 0.0
        self._flush_s = 0.0
        self.consumer = Consumer(
            {
                **client_options(config, bootstrap),
                "group.id": f"{config.kafka.prefix}sink.{target.name}",
                "group.instance.id": f"{member}-{target.name}",
                "session.timeout.ms": SESSION_MS,
                "max.poll.interval.ms": int(config.store.retry_s * 1000) + 60_000,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "queued.max.messages.kbytes": config.buffers.sink_queue_bytes_max // 1024,
                "fetch.message.max.bytes": config.buffers.fetch_bytes_max,
                "fetch.min.bytes": FETCH_BYTES_MIN,
                "fetch.wait.max.ms": FETCH_WAIT_MS,
            }
        )

    def run(self) -> None:
        """Write until `stopping`; then write what is buffered, commit and leave the group."""
        self.consumer.subscribe(
            sorted(self._names), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )
        try:
            while not self.stopping:
                asked_s = time.monotonic()
                messages = self.consumer.consume(self.config.buffers.sink_messages_max, POLL_S)
                if time.monotonic() - asked_s < MEMBER_S and asked_s - self._member_s < MEMBER_S:
                    self._member_s = asked_s  # no pause: heartbeats went on, and a loss would have been told
                for message in messages:
                    self._take(message)
                self.watch.buffered(
                    sum(t.rows for t in self._tables.values()), sum(t.bytes for t in self._tables.values())
                )
                if self._due() or (self._ends and not messages):  # what is still to come of these runs is little
                    self.flush()
            self.flush()
        except BaseException:
            self._forget()  # leaving the group would try to write it once more
            raise
        finally:
            self.consumer.close()
            log.info(
                "ended: %d rows written, %d rows dropped as repeats, %d messages rejected",
                self.rows_written, self.repeats, self.rejected, extra={"sink": self.target.name},
            )  # fmt: skip

    def _assigned(self, consumer: Any, partitions: Any) -> None:
        self._forget()
        try:
            known = consumer.committed(partitions, timeout=COMMITTED_S) if partitions else []
        except KafkaException as error:  # only the lag needs them; it is known from the first message on
            log.warning("committed offsets could not be read: %s", error, extra={"sink": self.target.name})
            known = []
        self.watch.assigned({(self._names[p.topic], p.partition): max(0, p.offset) for p in known})
        self._missed.begin({(self._names[p.topic], p.partition): p.offset for p in known})

    def _revoked(self, consumer: Any, partitions: Any) -> None:
        self.flush()
        self._forget()
        self.watch.revoked()

    def _lost(self, consumer: Any, partitions: Any) -> None:
        """Forget what is buffered: the partitions are somebody else's by now."""
        self._forget()
        self.watch.revoked()

    def _forget(self) -> None:
        self._tables, self._ends, self._next, self._first, self._last = {}, [], {}, {}, {}

    # -- input -----------------------------------------------------------------------------------------------------

    def _take(self, message: Any) -> None:
        error = message.error()
        if error is not None:
            if error.fatal() or error.code() == KafkaError._FATAL:  # such a consumer brings nothing any more
                raise ServiceError(f"broker: {error}")
            log.warning("broker: %s", error)
            return
        topic = self._names[message.topic()]
        if not self._next and not self._tables:
            self._oldest_s = time.monotonic()
        self._first.setdefault((message.topic(), message.partition()), message.offset())
        self._next[message.topic(), message.partition()] = message.offset() + 1
        missed = self._missed.seen(topic, message.partition(), message.offset())
        if missed is not None:
            self._buffer(topics.LEDGER, missed[1], None, Place(missed[0], topics.LEDGER, message.partition(), -1, 0))
        if topics.schema_of(topic).key == ("all",) and message.partition() != 0:
            self._count(topic, message, None)
            return  # a copy of what partition 0 carries
        try:
            found = batch.decode(topic, message.value(), message.headers(), as_arrow=self.target.convert is None)
        except BatchError as problem:
            self._poison(topic, message, str(problem))
            self._count(topic, message, None)
            return
        self._count(topic, message, found)
        if found.rows is not None:
            self._add(topic, message, found)
        if found.end_ns is not None:
            self._ends.append(
                [self.target.name, found.run_id, topic, message.partition(), found.source, found.sources, found.end_ns]
            )

    def _count(self, topic: str, message: Any, found: Batch | None) -> None:
        rows = found.rows if found is not None else None
        publish_ns = (found.publish_ns if found is not None else 0) or message.timestamp()[1] * 1_000_000
        self.watch.taken(topic, message.partition(), message.offset(), 0 if rows is None else len(rows), publish_ns)

    def _add(self, topic: str, message: Any, found: Batch) -> None:
        rows, arrow = found.rows, found.arrow
        assert rows is not None
        known = self._last_keys(topic, message.partition(), found.run_id)
        bar = known.get(found.source, BEFORE_ALL)
        if key_at(rows, 0) <= bar:
            keep = np.fromiter((key_at(rows, i) > bar for i in range(len(rows))), bool, len(rows))
            self.repeats += int(len(rows) - keep.sum())
            self.watch.repeated(int(len(rows) - keep.sum()))
            rows = rows.take(keep)
            arrow = None if arrow is None else arrow.filter(pa.array(keep))
        if len(rows) == 0:
            return
        known[found.source] = key_at(rows, -1)
        if self.target.convert is not None:
            rows = self.target.convert(topic, rows, found.run_id)
        place = Place(found.run_id, topic, message.partition(), message.offset(), found.source)
        self._buffer(self.target.tables[topic], rows, arrow, place)

    def _last_keys(self, topic: str, partition: int, run_id: str) -> dict[int, OrderKey]:
        """Last order key per source that the store holds of a run; read once per topic and run, for all partitions."""
        if (topic, run_id) not in self._last:
            table, columns = self.target.tables[topic], ", ".join(("toUnixTimestamp64Nano(run_ns)", *ORDER[1:]))
            query = (
                f"SELECT _partition, _source, max(tuple({columns})) FROM {table} "  # noqa: S608 - names are ours
                "WHERE run_id = {run:String} AND _topic = {topic:String} GROUP BY _partition, _source"
            )
            parameters = {"run": run_id, "topic": topic}
            result = self._retrying(
                f"read the last order keys of {topic}", lambda: self.client.query(query, parameters=parameters)
            )
            known = self._last[topic, run_id] = {}
            for p, source, k in result.result_rows:
                known.setdefault(int(p), {})[int(source)] = (int(k[0]), int(k[1]), int(k[2]), int(k[3]))
        return self._last[topic, run_id].setdefault(partition, {})

    def _poison(self, topic: str, message: Any, detail: str) -> None:
        self.rejected += 1
        self.watch.rejected(topic)
        lies = letters.Place(topic, message.partition(), message.offset(), message.timestamp()[1])
        reason, value = letters.NOT_A_BATCH, message.value()
        where = {"topic": topic, "partition": lies.partition, "offset": lies.offset}
        log.warning("message rejected", extra={"sink": self.target.name, "reason": reason, "detail": detail, **where})
        made = letters.letter(lies, stage=self.target.name, reason=reason, detail=detail, value=value)
        self._buffer("rejected", made.row, None, Place(made.run_id, topic, lies.partition, lies.offset, 0))

    def _buffer(self, table: str, rows: Rows, arrow: pa.RecordBatch | None, place: Place) -> None:
        self._tables.setdefault(table, Block(table)).add(rows, arrow, place)

    # -- output ----------------------------------------------------------------------------------------------------

    def _due(self) -> bool:
        if not self._next:
            return False
        store = self.config.store
        full = any(t.rows >= store.rows_max or t.bytes >= store.bytes_max for t in self._tables.values())
        return full or time.monotonic() - self._oldest_s >= wait_s(store.age_max_ms / 1000, self._flush_s)

    def flush(self) -> None:
        """Insert what is buffered, then commit the offsets behind it; raises ServiceError when it is not ours any more."""
        if not self._next:
            return
        started_s = time.monotonic()
        self._write()
        self._flush_s = time.monotonic() - started_s
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in self._next.items()]
        try:
            self.consumer.commit(offsets=offsets, asynchronous=False)
            self._member_s = time.monotonic()
        except KafkaException as error:
            log.warning("offsets were not committed, their rows will be dropped as repeats: %s", error)
        self.watch.flushed(self._oldest_s)
        self._tables, self._ends, self._next, self._first = {}, [], {}, {}

    def _write(self) -> None:
        for name, block in self._tables.items():
            for table in block.tables():
                try:
                    self._insert(name, table)
                except RefusedError:
                    limit = self.config.rejects.store_rows_max
                    write_the_rest(partial(self._insert, name), table, limit, self._set_aside)
        if self._ends:
            names = ["sink", "run_id", "topic", "partition", "source", "sources", "end_ns"]
            ends = self._ends
            insert = partial(self.client.insert, "run_ends", ends, column_names=names)
            self._retrying(f"write {len(ends)} rows of run_ends", self._as_member(insert))

    def _as_member(self, act: Callable[[], Any]) -> Callable[[], Any]:
        def checked() -> Any:
            self._require_membership()
            return act()

        return checked

    def _require_membership(self) -> None:
        """Raise ServiceError when the group has given our partitions to somebody else; asked only after a pause.

        What is committed is where the buffer begins, so it says nothing new to anybody but proves the session.
        """
        begins = [TopicPartition(topic, partition, offset) for (topic, partition), offset in self._first.items()]
        while time.monotonic() - self._member_s >= MEMBER_S and not self.stopping:
            try:
                self.consumer.commit(offsets=begins, asynchronous=False)
                self._member_s = time.monotonic()
            except KafkaException as error:
                code = error.args[0].code()
                if code in OUSTED:
                    raise ServiceError(
                        f"stood still and lost its partitions, nothing of it is written: {error}"
                    ) from error
                if code == KafkaError.REBALANCE_IN_PROGRESS:  # still a member, and partitions are ours until revoked
                    return
                log.warning("the group does not answer, trying again: %s", error, extra={"sink": self.target.name})
                time.sleep(POLL_S)

    def _insert(self, name: str, table: pa.Table) -> None:
        insert = partial(self.client.insert_arrow, name, table, settings={"async_insert": 0})
        with self.watch.inserting(name, table.num_rows):
            self._retrying(f"write {table.num_rows} rows of {name}", self._as_member(insert))
        self.rows_written += table.num_rows

    def _set_aside(self, row: pa.Table, words: str) -> None:
        """Write the letter of a row that the store refuses, at once: what comes behind it makes it look written."""
        made, lies = refused_letter(self.target.name, row, words)
        self.rejected += 1
        self.watch.set_aside(lies.topic, letters.STORE_REFUSED)
        where = {"topic": lies.topic, "partition": lies.partition, "offset": lies.offset}
        log.error("row refused by the store: %s", words, extra={"sink": self.target.name, **where})
        block = Block("rejected")
        block.add(made.row, None, Place(made.run_id, lies.topic, lies.partition, lies.offset, 0))
        for table in block.tables():
            self._insert("rejected", table)

    def _retrying(self, what: str, act: Callable[[], Any]) -> Any:
        """Try until the store has done it or `stopping`; meanwhile nothing is read, so the broker holds what waits."""
        pause_s, deadline = 0.1, time.monotonic() + self.config.store.retry_s
        while True:
            try:
                done = act()
                self.watch.answered()
                return done
            except ANSWERS as error:
                if self.stopping or time.monotonic() > deadline or not _may_pass(error):
                    failure = ServiceError if _may_pass(error) else RefusedError
                    raise failure(f"store: could not {what}, nothing is committed past it: {error}") from error
                self.watch.retrying()
                log.warning("could not %s, trying again in %.1f s: %.200s", what, pause_s, error)
            wake_s = time.monotonic() + pause_s
            while not self.stopping and time.monotonic() < wake_s:
                time.sleep(POLL_S)
            pause_s = min(pause_s * 2, RETRY_S_MAX)


def wait_s(age_max_s: float, flush_s: float) -> float:
    """How long rows wait for company when the last flush took `flush_s`; s.

    >>> wait_s(1.0, 0.1), wait_s(1.0, 0.5), wait_s(1.0, 600.0), wait_s(15.0, 600.0)
    (1.0, 2.0, 5.0, 15.0)
    """
    return max(age_max_s, min(WAIT_S_MAX, WAIT_SHARE * flush_s))


def _may_pass(error: Exception) -> bool:
    """Whether another try can help: the store was absent or too busy, as opposed to having said no."""
    code = re.search(r"[Cc]ode: (\d+)", str(error))
    if code is None:
        return isinstance(error, OSError | HTTPError | OperationalError)
    return int(code[1]) in PASSING or DISK_FULL in str(error)
