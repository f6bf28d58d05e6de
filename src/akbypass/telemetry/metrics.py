"""Every metric that a process exports, in one registry; labels name topics, tables and parts, never traffic.

A name says its unit: `_seconds`, `_bytes`, `_rows`, `_messages`, `_packets`; what only grows ends in `_total`.
Metrics of a stage are empty in processes of other stages.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics import MetricWrapperBase

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series beside each counter that says when it began
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)  # CPU, memory and descriptors under their usual names, process_…

DELAYS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
ROWS = (0, 1, 4, 16, 64, 256, 1_024, 2_048, 4_096)  # of one message
BLOCK_ROWS = (1, 16, 256, 1_024, 4_096, 16_384, 65_536, 262_144)  # of one insert


@dataclass(frozen=True)
class Exported:
    """One line of the reference page."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


EXPORTED: list[Exported] = []
M = TypeVar("M", bound=MetricWrapperBase)


def _made(make: Callable[..., M], name: str, meaning: str, *labels: str, **options: object) -> M:
    EXPORTED.append(Exported(f"akbypass_{name}", make.__name__.lower(), labels, meaning))
    return make(f"akbypass_{name}", meaning, labels, registry=REGISTRY, **options)


# -- every process -----------------------------------------------------------------------------------------------------
BUILD_INFO = _made(Gauge, "build_info", "1, with the stage and the version of this process.", "stage", "version")
HEALTHY = _made(Gauge, "healthy", "1 while everything moves that has something to do; as /healthz.")
READY = _made(Gauge, "ready", "1 while the process does its work; as /readyz.")
DEPENDENCY_UP = _made(Gauge, "dependency_up", "1 while broker or store answers this process.", "dependency")
LOG_LINES = _made(Counter, "log_lines_total", "Lines logged.", "level")

# -- what capture and workers publish ----------------------------------------------------------------------------------
PUBLISHED_ROWS = _made(Counter, "published_rows_total", "Rows handed to the producer.", "topic")
PUBLISHED_BYTES = _made(Counter, "published_bytes_total", "Bytes handed to the producer, before compression.", "topic")
PUBLISHED_FILL = _made(
    Histogram, "published_message_rows", "Rows in one published message; 0 for a watermark alone.", "topic", buckets=ROWS
)  # fmt: skip
QUEUE_MESSAGES = _made(Gauge, "publish_queue_messages", "Messages that the broker has not acknowledged yet.")

SPOOL_BYTES = _made(Gauge, "spool_bytes", "Bytes that wait on disk because the broker is away or slow.")
SPOOLED = _made(Counter, "spooled_messages_total", "Messages that went to disk first.")
SPOOL_DROPPED = _made(
    Counter, "spool_dropped_rows_total", "Rows dropped because the broker was away or slow and the spool full.", "topic"
)  # fmt: skip

# -- capture -----------------------------------------------------------------------------------------------------------
CAPTURE_PACKETS = _made(Counter, "capture_packets_total", "Frames read.")
CAPTURE_BYTES = _made(Counter, "capture_bytes_total", "Bytes of these frames on the wire.")
CAPTURE_READ_BYTES = _made(Counter, "capture_read_bytes_total", "Bytes read from files or pipes, before decompression.")
CAPTURE_DROPPED = _made(
    Counter,
    "capture_dropped_packets_total",
    "Frames that became no row, by reason; `intended` is yes where nothing was wanted of them.",
    "reason",
    "intended",
)
CAPTURE_TRUNCATED = _made(Counter, "capture_truncated_packets_total", "Frames captured shorter than they were.")
CAPTURE_FRAGMENTS = _made(Counter, "capture_fragment_packets_total", "IP fragments.")
CAPTURE_FEED = _made(Counter, "capture_feed_messages_total", "Market-data messages decoded.")
CAPTURE_ORDERS = _made(Counter, "capture_order_messages_total", "Order messages decoded.")
CAPTURE_REJECTED = _made(Counter, "capture_rejected_rows_total", "Rows written to `rejected`: what was not decodable.")
CAPTURE_WATERMARK = _made(
    Gauge, "capture_watermark_timestamp_seconds", "Event time up to which everything was published; Unix time."
)
CAPTURE_DELAY = _made(
    Histogram,
    "capture_delay_seconds",
    "Live capture: from a frame's time stamp to its rows in the producer, sampled.",
    buckets=DELAYS_S,
)

# -- readers: topologies and sinks -------------------------------------------------------------------------------------
READ_ROWS = _made(Counter, "read_rows_total", "Rows taken from a topic, repeats included.", "reader", "topic")
READ_FILL = _made(
    Histogram, "read_message_rows", "Rows in one message taken; its count is that of the messages.", "reader", "topic",
    buckets=ROWS,
)  # fmt: skip
HOP_DELAY = _made(
    Histogram, "hop_delay_seconds", "From publishing a message to its taking by this reader.", "reader", "topic",
    buckets=DELAYS_S,
)  # fmt: skip
LAG_MESSAGES = _made(Gauge, "lag_messages", "Messages on the broker that were not taken yet.", "reader", "topic")
LAG_ROWS = _made(
    Gauge, "lag_rows", "The same in rows, by the mean rows of the messages taken lately.", "reader", "topic"
)
LAG_SECONDS = _made(
    Gauge, "lag_seconds", "Age of the oldest message that was not taken yet, at most; 0 for none.", "reader", "topic"
)
ASSIGNED = _made(Gauge, "assigned_partitions", "Partitions of topics that this reader has.", "reader")
REJECTED = _made(Counter, "rejected_messages_total", "Messages that could not be read.", "reader", "topic")
SET_ASIDE = _made(
    Counter, "set_aside_rows_total", "Rows that could be read but not processed, or not any more.", "reader", "topic", "reason"
)  # fmt: skip
LOST = _made(Counter, "lost_messages_total", "Messages that retention took before they were read.", "reader", "topic")
LOST_ROWS = _made(
    Counter, "lost_rows_total", "Rows that never came, by the numbers of those that did.", "reader", "topic"
)
UNBALANCED_ROWS = _made(
    Gauge,
    "unbalanced_rows",
    "Rows (frames without a topic) that the newest runs lost or count twice on the way to a reader; 0 when all is there.",
    "reader",
    "topic",
)

# -- topologies --------------------------------------------------------------------------------------------------------
OUT_ROWS = _made(Counter, "topology_out_rows_total", "Rows that a topology made.", "topology", "topic")
PENDING_ROWS = _made(Gauge, "topology_pending_rows", "Rows taken that wait for other inputs.", "topology", "topic")
PAUSED = _made(Gauge, "topology_paused_inputs", "Inputs held back because they are far ahead.", "topology")
OPEN_RUNS = _made(Gauge, "topology_open_runs", "Runs that have begun and not ended.", "topology")
WATERMARK = _made(
    Gauge,
    "topology_watermark_timestamp_seconds",
    "Event time up to which open runs were taken, the slowest partition; Unix time.",
    "topology",
)
WATERMARK_LAG = _made(
    Gauge,
    "topology_watermark_lag_seconds",
    "Event time between the input that has come furthest and what was taken, the slowest partition.",
    "topology",
)
WAIT = _made(
    Histogram,
    "topology_wait_seconds",
    "From taking a message to the step that takes its rows, the longest of each step.",
    "topology",
    buckets=DELAYS_S,
)
STEP = _made(
    Histogram, "topology_step_seconds", "Time that one step of all partitions takes.", "topology", buckets=DELAYS_S
)
COUNTED = _made(Counter, "topology_counted_total", "What a core set aside or refused, by reason.", "topology", "reason")
STATE_BYTES = _made(Gauge, "state_bytes", "Size of the state in the last checkpoints.", "topology")
CHECKPOINT_SENT = _made(Counter, "checkpoint_sent_bytes_total", "What checkpoints have sent to the broker.", "topology")
CHECKPOINT_AGE = _made(
    Gauge,
    "checkpoint_age_seconds",
    "Time since everything was last known to be saved, the oldest partition.",
    "topology",
)
CHECKPOINT_DURATION = _made(
    Histogram, "checkpoint_duration_seconds", "Time until a checkpoint is durable.", "topology", buckets=DELAYS_S
)

# -- sinks -------------------------------------------------------------------------------------------------------------
STORED_ROWS = _made(Counter, "sink_stored_rows_total", "Rows written to a table.", "sink", "table")
REPEATED_ROWS = _made(Counter, "sink_repeated_rows_total", "Rows dropped because the store has them.", "sink")
INSERT_DURATION = _made(
    Histogram, "sink_insert_duration_seconds", "Time of one insert, tries included.", "sink", "table", buckets=DELAYS_S
)
INSERT_ROWS = _made(Histogram, "sink_insert_rows", "Rows of one insert.", "sink", "table", buckets=BLOCK_ROWS)
STORE_DELAY = _made(
    Histogram,
    "sink_store_delay_seconds",
    "From taking the oldest message of a flush to its commit behind the inserts.",
    "sink",
    buckets=DELAYS_S,
)
RETRIES = _made(Counter, "sink_retries_total", "Requests to the store that failed and were tried again.", "sink")
BUFFERED_ROWS = _made(Gauge, "sink_buffered_rows", "Rows taken that are not inserted yet.", "sink")
BUFFERED_BYTES = _made(Gauge, "sink_buffered_bytes", "Size of these rows.", "sink")

# -- supervisor --------------------------------------------------------------------------------------------------------
PART_UP = _made(Gauge, "part_up", "1 while a part of the embedded stack lives.", "part")
PART_RESTARTS = _made(Counter, "part_restarts_total", "Times that a part was started again.", "part")


@functools.cache
def _published(topic: str) -> tuple[Counter, Counter, Histogram]:
    return PUBLISHED_ROWS.labels(topic), PUBLISHED_BYTES.labels(topic), PUBLISHED_FILL.labels(topic)


def published(topic: str, rows: int, size_bytes: int) -> None:
    """Count one message that was handed to the producer."""
    row_count, byte_count, fill = _published(topic)
    row_count.inc(rows)
    byte_count.inc(size_bytes)
    fill.observe(rows)
