"""Topic names, keys and the one partitioner that every writer uses; knows no broker."""

from __future__ import annotations

import functools

import numpy as np

from akbypass import schemas
from akbypass.order import CAPTURE_TOPICS as CAPTURE_TOPICS  # noqa: PLC0414 - for all who know topics
from akbypass.order import FNV_PRIME, hash_columns
from akbypass.rows import Array, Rows
from akbypass.schemas import RowSchema

MARKED = ("packets", "feed_frames", "market_data", "orders")  # topologies merge these below their watermarks
LEDGER, LOSS_ALERTS = "ledger", "alerts.loss"  # what every stage writes about its own work
ALERT_TOPICS = ("alerts.security", "alerts.latency", "alerts.feed_quality", LOSS_ALERTS)


def row_type(topic: str) -> str:
    """Row type of a topic: `alerts.security` carries alerts."""
    return topic.split(".", 1)[0]


def schema_of(topic: str) -> RowSchema:
    """Row schema of a topic."""
    return schemas.load(row_type(topic))


@functools.cache
def full_name(prefix: str, topic: str) -> str:
    """Name of the topic on the broker: {prefix}{name}.v{n}."""
    return f"{prefix}{topic}.v{schema_of(topic).version}"


def partition_of(key: bytes, partitions: int) -> int:
    """Partition of one string key, as the column partitioner gives it; pass it explicitly to the producer.

    >>> partition_of(b"XNAS", 4) == int(partition_rows(Rows.build("latency", 1, venue=np.array([b"XNAS"])), 4)[0])
    True
    """
    return int(hash_columns(np.array([key], f"S{max(len(key), 1)}"))[0] % np.uint64(partitions))


def partition_rows(rows: Rows, partitions: int) -> Array:
    """Partition (int64) of each row by its type's key; the caller sends rows of key `all` to every partition."""
    key = rows.schema.key
    count = np.uint64(partitions)
    if key == ("flow",):
        source = hash_columns(rows["src_ip"], rows["src_port"])
        target = hash_columns(rows["dst_ip"], rows["dst_port"])
        return ((((source + target) * FNV_PRIME) >> np.uint64(32)) % count).astype(np.int64)
    assert key != ("all",), f"{rows.schema.name} goes to every partition"
    return (hash_columns(*(rows[k] for k in key)) % count).astype(np.int64)


def split(rows: Rows, partitions: int) -> dict[int, Rows]:
    """Split rows over partitions, each part in the order of the whole; empty parts are left out."""
    if len(rows) == 0:
        return {}
    if rows.schema.key == ("all",):
        return dict.fromkeys(range(partitions), rows)
    where = partition_rows(rows, partitions)
    return {int(p): rows.take(np.flatnonzero(where == p)) for p in np.unique(where)}
