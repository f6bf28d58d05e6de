"""Which publisher a capture gets: one that waits for the broker, or one that goes on and spools."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from akbypass import transport
from akbypass.config import Config
from akbypass.telemetry import metrics


@contextlib.contextmanager
def publisher_of(edge: Any, config: Config, bootstrap: str) -> Iterator[Any]:
    """A publisher for an edge, topics declared; with a spool where waiting for the broker would lose frames or time.

    A file that is read as fast as it goes, and standard input, lose nothing by waiting.
    """
    from akbypass.producers.spool.home import spooling

    def prepare() -> None:
        transport.declare_topics(config, bootstrap, transport.known_topics(), ())

    if edge.interface is None and edge.speed is None:
        prepare()
        publisher = transport.Publisher(config, bootstrap)
        metrics.QUEUE_MESSAGES.set_function(publisher.waiting)
        yield publisher
        return
    there = transport.answers(config, bootstrap)
    if there:
        prepare()
    again = edge.interface is None
    with spooling(config, bootstrap, edge.name, None if there else prepare, again=again) as spooled:
        metrics.QUEUE_MESSAGES.set_function(spooled.waiting)
        metrics.SPOOL_BYTES.set_function(lambda: spooled.spool_bytes)
        yield spooled
