"""Where spools lie and who sends what an earlier process left there: one directory per life of a capture.

    <spool.directory>/<name>.<random>/    locked by the process that owns it, gone when all of it was sent

The name is the run, of a group with the number of the capture. What a killed capture left goes out with the next one.
A live capture that goes on with the same name sends what was left first, in front of what is new. A file that is
replayed again throws it away, because that run is sent again from its start.
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
    name: str
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
                log.warning("sending %d messages of %s that an ended process left", publisher.waiting(), left.name)
                while publisher.waiting() and not stopping.wait(WAIT_S):
                    publisher.check()
                sent += not publisher.waiting()
        except ServiceError as error:
            log.error("%s", error)
    return sent


@contextlib.contextmanager
def spooling(
    config: Config, bootstrap: str, name: str, prepare: Callable[[], None] | None = None, *, again: bool = False
) -> Iterator[SpoolPublisher]:
    """A publisher with a spool of its own; meanwhile another thread sends what ended processes left.

    Args:
        config: The configuration.
        bootstrap: The broker, which may be away.
        name: The run and which capture process of it.
        prepare: Called until it raises no ServiceError; nothing goes out before.
        again: The source is read from its start, so that what an earlier process of this name left is not needed.
    """
    home = spool_home(config)
    with _alone(home):
        directory = home / f"{name}.{secrets.token_hex(4)}"
        for left in _leftovers(home, config.spool.segment_bytes):
            if left.name == name and again:
                shutil.rmtree(left.directory)
            elif left.name == name:
                directory = left.directory  # goes out first: what is captured now lies behind it
        made = SpoolPublisher(config, bootstrap, directory, prepare)
    stopping = threading.Event()
    others = threading.Thread(target=send_leftovers, args=(config, bootstrap, stopping), name="akbypass-leftovers")
    with contextlib.closing(made) as publisher:
        others.start()
        try:
            yield publisher
        finally:
            stopping.set()
            others.join()
