"""When a worker saves and what a save costs it: keeps the time spent on checkpoints below a share of one core.

The event loop copies the state of one partition at a time; hashing and sending happen in a thread. Of each save the
pause of the loop and the thread's CPU time count. States that cost more are saved less often, up to a bound that
limits what a restart repeats.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from akbypass import letters
from akbypass.checkpoint import CheckpointStore, Saved
from akbypass.config import Checkpoint
from akbypass.letters import Place
from akbypass.rows import Array
from akbypass.transport import Publisher

log = logging.getLogger("akbypass.worker")


class Pace:
    """The interval between two saves of a partition, for all topologies of a process together.

    >>> pace = Pace(Checkpoint(interval_s=5, interval_max_s=30, share_max=0.05))
    >>> pace.spent("books", 0, 0.2), pace.interval_s()
    (None, 5)
    >>> pace.spent("books", 1, 0.4), pace.interval_s()
    (None, 12.0)
    >>> pace.spent("latency", 0, 9.0), pace.interval_s()
    (None, 30)
    """

    def __init__(self, settings: Checkpoint) -> None:
        self._settings = settings
        self._cost_s: dict[tuple[str, int], float] = {}

    def spent(self, topology: str, partition: int, cost_s: float) -> None:
        """Tell what the last save of a partition cost; seconds."""
        self._cost_s[topology, partition] = cost_s

    def forget(self, topology: str) -> None:
        """Partitions of a topology are others from now on."""
        self._cost_s = {place: cost for place, cost in self._cost_s.items() if place[0] != topology}

    def interval_s(self) -> float:
        """Seconds between two saves of one partition."""
        settings = self._settings
        wanted = round(sum(self._cost_s.values()) / settings.share_max, 6)
        return min(max(settings.interval_s, wanted), settings.interval_max_s)


@dataclass(frozen=True, slots=True)
class Done:
    """A save: what was sent, and the CPU time of the thread that did it (s)."""

    saved: Saved
    cpu_s: float


def write(publisher: Publisher, store: CheckpointStore, arrays: Mapping[str, Array], meta: bytes) -> Done:
    """Save a state behind everything that it has said; for a thread. Raises FencedError, ServiceError.

    `meta` is JSON, made on the event loop together with the copy of the state.
    """
    started_s = time.thread_time()
    publisher.flush()  # what the state has said must be on the broker before the state says so
    saved = store.save(arrays, orjson.Fragment(meta))
    tell_of_foreign(publisher, store)
    return Done(saved, time.thread_time() - started_s)


def check(publisher: Publisher, store: CheckpointStore) -> None:
    """Raise FencedError when another owner has come; for a thread and a partition that has nothing to save."""
    store.check()
    tell_of_foreign(publisher, store)


def tell_of_foreign(publisher: Publisher, store: CheckpointStore) -> None:
    """Set aside what was met in the log of a store and is no record of an owner."""
    topic = store.topic.removeprefix(publisher.config.kafka.prefix)
    for record in sorted(store.foreign, key=lambda r: r.offset):  # a letter below another would pass for a repeat
        place = Place(topic, store.partition, record.offset, record.time_ms)
        detail = f"expected a record of a checkpoint, found {len(record.value)} bytes with the key {record.key!r:.40}"
        made = letters.letter(
            place, stage=store.topology, reason=letters.NOT_A_CHECKPOINT, detail=detail, value=record.value
        )
        letters.send(publisher, made)
        about = {"topology": store.topology, "topic": topic, "partition": place.partition, "offset": place.offset}
        log.warning("message rejected", extra={**about, "reason": letters.NOT_A_CHECKPOINT, "detail": detail})
    store.foreign = []


def leave(publisher: Publisher, store: CheckpointStore) -> None:
    """Tell another version that nothing more comes from here; for a thread."""
    publisher.flush()
    store.leave()
