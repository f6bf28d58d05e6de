"""Edge to Kafka: every batch split over partitions with its watermark, at the end the end marker; no arithmetic.

What the publisher dropped of a batch is told in its captures rows, so those and the ledger go last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

from akbypass import topics
from akbypass.producers.edge import Edge, EdgeBatch
from akbypass.producers.heart import Heart
from akbypass.producers.spool.publisher import SpoolPublisher
from akbypass.rows import Rows
from akbypass.transport import Publisher, RunWriter

ROWS = tuple(t for t in topics.CAPTURE_TOPICS if t != "captures")
ACCOUNTS = ("captures", topics.LEDGER)


def publish(
    edge: Edge, publisher: Publisher | SpoolPublisher, on_batch: Callable[[], None] = lambda: None
) -> dict[str, int]:
    """Send a whole run and wait for its delivery; returns rows sent by topic. Raises ServiceError."""
    heart = Heart(edge, publisher)
    writers = [RunWriter(publisher, edge.run_id, i, edge.captures) for i in range(edge.captures)]
    for made in edge:
        writer = writers[made.capture_id]
        writer.write(_only(made, ROWS), made.watermark_ns, made.end_ns, marked=topics.MARKED, ending=ROWS)
        told = _with_lost(edge, publisher, made) if isinstance(publisher, SpoolPublisher) else made
        writer.write(_only(told, ACCOUNTS), made.watermark_ns, made.end_ns, marked=("captures",), ending=ACCOUNTS)
        heart.beat(made.capture_id, made.watermark_ns, made.end_ns is not None)
        on_batch()
    publisher.flush()
    dropped = publisher.dropped if isinstance(publisher, SpoolPublisher) else Counter[str]()
    return {topic: sum(w.rows_sent[topic] for w in writers) - dropped[topic] for topic in topics.CAPTURE_TOPICS}


def _only(made: EdgeBatch, names: Collection[str]) -> dict[str, Rows]:
    return {topic: rows for topic, rows in made.rows.items() if topic in names}


def _with_lost(edge: Edge, publisher: SpoolPublisher, made: EdgeBatch) -> EdgeBatch:
    publisher.always = made.end_ns is not None  # the last word of a capture is not dropped
    has_place = made.end_ns is not None or bool(made.rows.keys() - {topics.LEDGER})
    lost = publisher.take_lost(made.capture_id) if has_place else []
    return edge.with_lost(made, lost) if lost else made
