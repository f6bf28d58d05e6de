"""A publisher that never waits for the broker: what cannot go out at once goes to disk, and from there in order.

    send ──▶ librdkafka ──▶ broker                        while the broker acknowledges in time
    send ──▶ SpoolLog ──▶ sender thread ──▶ librdkafka    once its queue is full, or silent for `spool.after_ms`

Every message has a number. When spooling begins, those without a report are written to disk first, so that all that
is not acknowledged is on disk, in order, and survives the process; newer ones go behind them. It ends when librdkafka
has all of them, so nothing newer overtakes. A segment is deleted when the broker has acknowledged all of it. After an
error that a new producer can mend, everything from the first number without a report goes out again; readers drop the
repeats by order key.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from akbypass import batch, topics, transport
from akbypass.batch import Message
from akbypass.config import Config
from akbypass.errors import ServiceError
from akbypass.producers.spool import degrade
from akbypass.producers.spool.degrade import ACCOUNTS, Lost, Tally
from akbypass.producers.spool.log import SpoolFullError, SpoolLog, SpoolReader
from akbypass.producers.spool.record import Record
from akbypass.telemetry import metrics

log = logging.getLogger("akbypass.spool")
POLL_S = 0.02  # longest wait of the sender for reports when it has nothing to send
STEP_MESSAGES = 64  # messages that the sender hands over before it looks at reports
QUIET_S = 5.0  # shortest time between two reports of what happens
PREPARE_S = 1.0  # pause between two tries to prepare the broker
RENEW_S = 0.5  # pause behind a new producer
RENEWALS_MAX = 20  # new producers without one report in between; more means that another does not help
CAPTURE_ROW_BYTES = 64 * 1024  # room for some captures rows in every partition
HOPELESS = ("MSG_SIZE_TOO_LARGE", "TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED", "_INVALID_ARG")

Place = tuple[str, int, int]  # topic (full name), partition, capture


class SpoolPublisher:
    """Sends messages in the order of `send`, from one thread, and keeps them in `directory` while it must.

    Args:
        config: The configuration.
        bootstrap: The broker, which may be away.
        directory: For this publisher alone; messages that are there already go out first.
        prepare: Called by the sender until it raises no ServiceError; nothing goes out before.
    """

    def __init__(
        self, config: Config, bootstrap: str, directory: Path, prepare: Callable[[], None] | None = None
    ) -> None:
        self.config, self._bootstrap, self._prepare = config, bootstrap, prepare
        self.dropped = Counter[str]()  # rows dropped because the spool was full, by topic
        self.spooled = 0  # messages that went to disk (count)
        self.always = False  # while it is set, accounts (captures rows, watermarks, ends) are taken whatever the limit
        self._names = {topics.full_name(config.kafka.prefix, t): t for t in transport.known_topics()}
        self._limits = degrade.limits(config.spool)
        self._away_s = config.spool.after_ms / 1000
        self._quiet_until_s = 0.0
        self._log = SpoolLog(directory, config.spool.segment_bytes)
        self._reader = SpoolReader(self._log)
        self._changed = threading.Condition()
        self._open: dict[int, tuple[float, Record | None]] = {}  # in librdkafka: since when (s), None when on disk
        self._held: dict[Place, Message] = {}  # newest watermark for which there was no room
        self._window_ns = config.thresholds.window_ms * 1_000_000
        self._lost: dict[int, Tally] = {}  # by capture, not yet told
        self._next: Record | None = None  # read from disk, but librdkafka had no room
        self._sent = self._log.first - 1  # last number that librdkafka was given
        self._last = self._log.last  # last number that was accepted
        self._spooling = self._last > self._sent or prepare is not None
        self._renewals, self._idle_renewals, self._renew_wanted = 0, 0, False  # producers made; without a report; next
        self._failure: str | None = None
        self._stopping = threading.Event()
        self._producer = self._make_producer()
        self._sender = threading.Thread(target=self._run, name="akbypass-spool", daemon=True)
        self._sender.start()

    def _make_producer(self) -> Any:
        # waits for ever; librdkafka would complain of every try to connect, we say once that the broker is away
        options = transport.producer_options(self.config, self._bootstrap)
        return Producer({**options, "delivery.timeout.ms": 0, "reconnect.backoff.max.ms": 1_000, "log_level": 2})

    # -- the capture's side ----------------------------------------------------------------------------------------

    def send(self, topic: str, partition: int, message: Message) -> None:
        """Take one message for a full topic name; never waits. Raises ServiceError when sending has failed for good."""
        with self._changed:
            self.check()
            self._settle()
            self._accept(topic, partition, message)

    def _accept(self, topic: str, partition: int, message: Message) -> bool:
        """Send, spool or drop; returns whether it was taken whole."""
        record = Record(self._last + 1, topic, partition, message.key, message.value, message.headers)
        if not self._spooling:
            if self._oldest_s() <= self._away_s and self._produce(record, on_disk=False):
                self._last = self._sent = record.number
                return True
            self._begin()
        level = degrade.level(self._names[topic], message.rows)
        room = self._limits[level] - self._log.bytes
        if (record.size() <= room or (level == ACCOUNTS and self.always)) and self._append(record):
            self._last = record.number
            if self._held:
                self._held.pop((topic, partition, self._source(topic, message)), None)  # what this one says is newer
            return True
        self._drop(topic, partition, message)
        return False

    def _append(self, record: Record) -> bool:
        try:
            self._log.append(record)
        except SpoolFullError as error:
            log.error("the spool's disk is full: %s", error)
            return False
        self.spooled += 1
        metrics.SPOOLED.inc()
        return True

    def _source(self, topic: str, message: Message) -> int:
        """The capture that a message comes from."""
        return batch.decode(self._names[topic], message.value, message.headers, as_arrow=True).source

    def _drop(self, topic: str, partition: int, message: Message) -> None:
        """Count the rows of a message and keep what it says about its source."""
        if not message.rows:
            self._held[topic, partition, self._source(topic, message)] = message
            return
        if not self.dropped:
            log.error("the spool is full; rows are dropped and counted, packets first")
        name = self._names[topic]
        left, source, lost = degrade.hollow(name, message, self._window_ns)
        self.dropped[name] += message.rows
        metrics.SPOOL_DROPPED.labels(name).inc(message.rows)
        if name in topics.CAPTURE_TOPICS:  # of the ledger, a later statement says all that an earlier one said
            for window, account in lost.items():
                self._lost.setdefault(source, Tally()).add(window, account)
        if left is not None:
            self._held[topic, partition, source] = left

    def _settle(self) -> None:
        """Write the watermarks that were held for want of room, once there is some."""
        while self._held:
            place, message = next(iter(self._held.items()))
            del self._held[place]
            if not self._accept(place[0], place[1], message):
                return

    def take_lost(self, capture: int) -> list[Lost]:
        """Hand out what was dropped of a capture since the last call; nothing while rows about it might be dropped too."""
        with self._changed:
            room = self._limits[ACCOUNTS] - self._log.bytes
            if capture not in self._lost or (self._spooling and room < CAPTURE_ROW_BYTES and not self.always):
                return []
            return self._lost.pop(capture).take()

    def waiting(self) -> int:
        """Messages that the broker has not acknowledged (count)."""
        with self._changed:
            return len(self._open) + self._last - self._sent + len(self._held)

    @property
    def spool_bytes(self) -> int:
        """Bytes on disk."""
        return self._log.bytes

    @property
    def spooling(self) -> bool:
        """Whether messages go to disk at present."""
        return self._spooling

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until the broker has acknowledged everything; raises ServiceError after `timeout_s` (s), with all of it on disk."""
        timeout_s = self.config.kafka.delivery_timeout_s + 10 if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._open or self._last > self._sent or self._held:
                self.check()
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    waiting = len(self._open) + self._last - self._sent
                    raise ServiceError(
                        f"{waiting} messages were not acknowledged within {timeout_s:.0f} s; they are kept in "
                        f"{self._log.directory}, and the next `akbypass capture` or `akbypass spool send` sends them"
                    )
                self._changed.wait(min(left_s, 0.5))

    def close(self) -> None:
        """Stop sending; what the broker has not acknowledged stays on disk."""
        self._stopping.set()
        self._sender.join()
        with self._changed:
            self.always = True
            self._settle()
            if self._open and not self._spooling:
                self._begin()
            if not self._open and self._last == self._sent:
                self._log.release(self._last + 1)
        self._reader.close()
        self._log.close()
        _abandon(self._producer)
        del self._producer

    def check(self) -> None:
        """Raise ServiceError when sending has failed for good."""
        if self._failure is not None:
            raise ServiceError(
                f"a message could not be delivered: {self._failure}; unsent ones stay in {self._log.directory}"
            )

    # -- both sides, with the lock held ----------------------------------------------------------------------------

    def _oldest_s(self) -> float:
        """How long the oldest message without a report has waited since librdkafka was given it (s)."""
        return time.monotonic() - next(iter(self._open.values()))[0] if self._open else 0.0

    def _begin(self) -> None:
        """From now on messages go to disk, behind those that librdkafka has and the broker has not acknowledged."""
        self._spooling = True
        self._say("the broker is away or slow; messages are kept in %s", self._log.directory)
        for number, (since_s, record) in self._open.items():
            if record is not None and self._append(record):
                self._open[number] = (since_s, None)

    def _say(self, text: str, *values: object) -> None:
        """Log, but not every change of a broker that is at its limit."""
        if time.monotonic() >= self._quiet_until_s:
            log.warning(text, *values)
            self._quiet_until_s = time.monotonic() + QUIET_S

    def _produce(self, record: Record, *, on_disk: bool) -> bool:
        """Hand one message to librdkafka; False when its queue is full."""
        report = functools.partial(self._delivered, self._renewals, record.number)
        self._open[record.number] = (time.monotonic(), None if on_disk else record)
        try:
            self._producer.produce(
                record.topic, record.value, record.key, partition=record.partition, headers=record.headers or None, on_delivery=report
            )  # fmt: skip
        except BufferError:
            del self._open[record.number]
            return False
        return True

    # -- the sender's side -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._prepare is not None and not self._stopping.is_set():
                self._try_to_prepare()
            while not self._stopping.is_set():
                moved = self._step()
                self._producer.poll(0 if moved else POLL_S)
                with self._changed:
                    if not self._spooling and self._oldest_s() > self._away_s:
                        self._begin()
                    self._log.release(next(iter(self._open), self._sent + 1))
                    self._settle()
                    self._changed.notify_all()
                if self._renew_wanted:
                    self._renew()
        except Exception as error:  # whatever it is: nobody would see a sender that ended
            log.exception("the sender failed")
            self._failure = str(error)

    def _try_to_prepare(self) -> None:
        assert self._prepare is not None
        try:
            self._prepare()
            self._prepare = None
        except ServiceError as error:
            log.warning("%s", error)
            self._stopping.wait(PREPARE_S)

    def _step(self) -> bool:
        """Hand over some messages from disk; returns whether there may be more that can go now."""
        if not self._spooling:
            return False
        for _ in range(STEP_MESSAGES):
            record = self._next or self._reader.next()
            with self._changed:
                if record is None:
                    record = self._reader.next()  # one may have come meanwhile; with the lock held none can
                if record is None:
                    self._spooling = self._oldest_s() > self._away_s / 2  # not at once again
                    if not self._spooling:
                        self._say("nothing waits on disk any more")
                    return False
                self._next = None
                if record.number <= self._sent:
                    continue
                if not self._produce(record, on_disk=True):
                    self._next = record
                    return False
                self._sent = record.number
        return True

    def _delivered(self, renewals: int, number: int, error: Any, message: object) -> None:
        with self._changed:
            if renewals != self._renewals:
                return  # of a producer that was given up
            if error is None:
                self._open.pop(number, None)
                self._idle_renewals = 0
            elif error.name() in HOPELESS:
                self._failure = str(error)
            else:
                self._renew_wanted = True
                log.warning("a message was not delivered, sending from it on again: %s", error)

    def _renew(self) -> None:
        """Send everything from the first message without a report again, with another producer."""
        with self._changed:
            if not self._spooling:
                self._begin()
            self._renew_wanted = False
            self._renewals, self._idle_renewals = self._renewals + 1, self._idle_renewals + 1
            if self._idle_renewals > RENEWALS_MAX or any(record is not None for _, record in self._open.values()):
                self._failure = (
                    f"{self._idle_renewals} producers in a row delivered nothing, or the spool's disk is full"
                )
                return
            self._sent = next(iter(self._open), self._sent + 1) - 1
            self._open.clear()
            self._next = None
            self._reader.rewind()
            old, self._producer = self._producer, self._make_producer()
        _abandon(old)
        self._stopping.wait(RENEW_S)


def _abandon(producer: Any) -> None:
    """Let a producer forget what it has not delivered; it would be kept alive by it."""
    producer.purge()
    producer.poll(0)
