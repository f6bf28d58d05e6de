"""Where spools lie and who sends what an earlier process left there: one directory per life of a capture.

    <spool.directory>/<run_id>.<random>/    locked by the process that owns it, gone when all of it was sent

What a killed capture left goes out with the next one. What it left of the same run (a file that is replayed again) is
thrown away instead, because that run is sent again from its start.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from akbypass.config import Config
from akbypass.errors import ServiceError
from akbypass.local import children
from akbypass.local.stack import Places
from akbypass.producers.spool.log import SpoolLog
from akbypass.producers.spool.publisher import SpoolPublisher

log = logging.getLogger("akbypass.spool")
WAIT_S = 0.2


def spool_home(config: Config) -> Path:
    """Directory of all spools of this configuration."""
    return Path(config.spool.directory) if config.spool.directory else Places.default().home / "spool"


@dataclass(frozen=True)
class Leftover:
    """Messages that a process which has ended left on disk."""

    directory: Path
    run_id: str
    bytes: int


def leftovers(config: Config) -> list[Leftover]:
    """What ended processes left, oldest first; those in use are skipped."""
    home = spool_home(config)
    with _alone(home):
        return _leftovers(home, config.spool.segment_bytes)


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Hold the lock of all spools, so that nobody takes a new directory for one that was left."""
    held = children.lock(home, what="the list of spools")
    try:
        yield
    finally:
        os.close(held)


def _leftovers(home: Path, segment_bytes: int) -> list[Leftover]:
    found = []
    for directory in sorted((d for d in home.iterdir() if d.is_dir()), key=lambda d: d.stat().st_mtime):
        with contextlib.suppress(ServiceError):  # in use
            kept = SpoolLog(directory, segment_bytes)
            if kept.bytes:
                found.append(Leftover(directory, directory.name.partition(".")[0], kept.bytes))
            kept.close()
    return found


def send_leftovers(config: Config, bootstrap: str, stopping: threading.Event) -> int:
    """Send what ended processes left, one after the other, until `stopping`; returns how many directories were sent."""
    sent = 0
    for left in leftovers(config):
        try:
            with contextlib.closing(SpoolPublisher(config, bootstrap, left.directory)) as publisher:
                log.warning(
                    "sending %d messages of run %s that an ended process left", publisher.waiting(), left.run_id
                )
                while publisher.waiting() and not stopping.wait(WAIT_S):
                    publisher.check()
                sent += not publisher.waiting()
        except ServiceError as error:
            log.error("%s", error)
    return sent


@contextlib.contextmanager
def spooling(
    config: Config, bootstrap: str, run_id: str, prepare: Callable[[], None] | None = None
) -> Iterator[SpoolPublisher]:
    """A publisher with a spool of its own; meanwhile another thread sends what ended processes left."""
    home = spool_home(config)
    with _alone(home):
        for left in _leftovers(home, config.spool.segment_bytes):
            if left.run_id == run_id:
                shutil.rmtree(left.directory)
        made = SpoolPublisher(config, bootstrap, home / f"{run_id}.{secrets.token_hex(4)}", prepare)
    stopping = threading.Event()
    others = threading.Thread(target=send_leftovers, args=(config, bootstrap, stopping), name="akbypass-leftovers")
    with contextlib.closing(made) as publisher:
        others.start()
        try:
            yield publisher
        finally:
            stopping.set()
            others.join()
