"""Edge to Kafka: every batch split over partitions with its watermark, at the end the end marker; no arithmetic."""

from __future__ import annotations

from collections.abc import Callable

from akbypass import topics
from akbypass.producers.edge import Edge
from akbypass.transport import Publisher, RunWriter

MARKED = ("packets", "feed_frames", "market_data", "orders")  # topologies merge these below their watermarks
ENDING = (*topics.CAPTURE_TOPICS, topics.LEDGER)


def publish(edge: Edge, publisher: Publisher, on_batch: Callable[[], None] = lambda: None) -> dict[str, int]:
    """Send a whole run and wait for its delivery; returns rows sent by topic. Raises ServiceError."""
    writers = [RunWriter(publisher, edge.run_id, i, edge.captures) for i in range(edge.captures)]
    for made in edge:
        writers[made.capture_id].write(
            made.rows, made.watermark_ns, made.end_ns, marked=MARKED, ending=ENDING
        )  # fmt: skip
        on_batch()
    publisher.flush()
    return {topic: sum(w.rows_sent[topic] for w in writers) for topic in topics.CAPTURE_TOPICS}
