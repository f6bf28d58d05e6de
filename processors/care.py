"""What a worker does when a core fails or rows come late: notes it, is careful the next time, tells of what was set aside.

The first failure ends the worker, because the state is void then; the note lies behind the last checkpoint. Who starts
from that checkpoint copies the state before every step for a while, so that rows at which the core fails again can be
found and set aside (quarantine). After a time without failure that ends, because the copies cost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from akbypass import letters
from akbypass.checkpoint import Checkpoint, CheckpointStore
from akbypass.errors import ServiceError
from akbypass.letters import Place
from akbypass.order import key_at
from akbypass.progress import Late, Progress
from akbypass.quarantine import SetAside
from akbypass.rows import Rows
from akbypass.telemetry.metrics import SET_ASIDE
from akbypass.topology import CoreError
from akbypass.transport import Publisher

log = logging.getLogger("akbypass.worker")


class Stepped(Protocol):
    """One partition of a topology."""

    number: int
    progress: Progress
    store: CheckpointStore


class Care:
    """The care that one topology's worker takes of its cores; used by the event loop alone."""

    def __init__(self, publisher: Publisher, topology: str) -> None:
        self.publisher, self.topology = publisher, topology
        self._until_s: float | None = None

    def restored(self, partitions: Mapping[int, Stepped], kept: Mapping[int, Checkpoint]) -> None:
        """Be careful with all partitions when a core of one has failed: rows that go to all come to the others too.

        So one is again who starts from a state that was saved with care, perhaps in front of the rows set aside.
        """
        self._set(partitions, any(found.failed or found.meta.get("careful", False) for found in kept.values()))

    def relax(self, partitions: Mapping[int, Stepped]) -> None:
        """End the care when nothing has failed for a while."""
        if self._until_s is not None and time.monotonic() > self._until_s:
            self._set(partitions, False)

    def _set(self, partitions: Mapping[int, Stepped], careful: bool) -> None:
        self._until_s = time.monotonic() + self.publisher.config.rejects.careful_s if careful else None
        for partition in partitions.values():
            partition.progress.places = partition.progress.partition.careful = careful
        if careful:
            log.warning("a core has failed; its state is copied before every step", extra={"topology": self.topology})

    @contextmanager
    def stepping(self, partition: Stepped) -> Iterator[None]:
        """Note a failure within, which ends the worker; afterwards tell of what was set aside."""
        try:
            yield
        except CoreError as error:
            self._note(partition, error)
            raise
        cores = partition.progress.partition
        if cores.aside:
            aside, cores.aside = cores.aside, []
            self._until_s = time.monotonic() + self.publisher.config.rejects.careful_s
            for found in aside:
                self._tell(partition, found)

    def tell_late(self, place: Place, value: bytes | None, late: Sequence[Late]) -> None:
        """Tell of the rows of one message that came too late."""
        for found in late:
            count, first, last = len(found.rows), int(found.rows["run_ns"][0]), int(found.rows["run_ns"][-1])
            detail = (
                f"expected rows above what was said for capture {found.source} while it was silent, "
                f"found {count} below, from {first} to {last} ns"
            )
            made = letters.letter(
                place, stage=self.topology, reason=letters.LATE, detail=detail, value=value, message_run=found.run_id,
                message_rows=count,
            )  # fmt: skip
            letters.send(self.publisher, made)
            SET_ASIDE.labels(self.topology, place.topic, letters.LATE).inc(count)
            about = {
                "topology": self.topology,
                "topic": place.topic,
                "partition": place.partition,
                "run_id": found.run_id,
            }
            log.warning("%d rows of capture %d came too late", count, found.source, extra=about)

    def _note(self, partition: Stepped, error: CoreError) -> None:
        try:
            partition.store.note_failure(str(error))
        except ServiceError as failure:  # without the note the next failure is a first one again
            log.error("the failure could not be noted: %s", failure, extra={"topology": self.topology})

    def _tell(self, partition: Stepped, found: SetAside) -> None:
        about = {"topology": self.topology, "partition": partition.number, "run_id": found.run_id}
        if not found.rows:
            detail = f"from {found.at_ns} ns on nothing of the run is taken: {found.error}"
            made = letters.run_letter(
                stage=self.topology, partition=partition.number, reason=letters.CORE_GIVEN_UP, detail=detail,
                run_id=found.run_id, at_ns=found.at_ns,
            )  # fmt: skip
            letters.send(self.publisher, made)
            log.error("run given up, its core fails: %s", found.error, extra=about)
        for topic, rows in found.rows.items():
            SET_ASIDE.labels(self.topology, topic, letters.CORE_FAILED).inc(len(rows))
            for i in range(len(rows)):
                self._tell_row(partition, found, topic, rows.take(slice(i, i + 1)))
            log.error("%d rows of %s set aside, the core fails at them: %s", len(rows), topic, found.error, extra=about)

    def _tell_row(self, partition: Stepped, found: SetAside, topic: str, row: Rows) -> None:
        key = key_at(row, 0)
        offset, event = partition.progress.place_of(topic, found.run_id, key) or (-1, None)
        time_ms = round(event.message.timestamp * 1000) if event is not None else 0
        detail = f"the core of {self.topology} fails at the row {key}: {found.error}"
        made = letters.row_letter(
            Place(topic, partition.number, offset, time_ms), stage=self.topology, reason=letters.CORE_FAILED, detail=detail,
            run_id=found.run_id, row=row,
        )  # fmt: skip
        letters.send(self.publisher, made)
