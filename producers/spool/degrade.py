"""What goes first when the spool is full, and the account of it; writes nothing.

    packets                    while the spool has room besides all reserves
    feed_frames, market_data   also into reserve_market_bytes
    orders, rejected           also into reserve_orders_bytes
    captures, ledger, watermarks, ends also into reserve_accounts_bytes: what says that something was dropped goes last

A message that is dropped leaves its watermark, so that readers go on and see a hole instead of waiting.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from akbypass import batch
from akbypass.batch import Batch, Message
from akbypass.config import Spool

LEVELS = {"packets": 0, "feed_frames": 1, "market_data": 1, "orders": 2, "rejected": 2}  # by topic; any other is 3
ACCOUNTS = 3


def limits(spool: Spool) -> tuple[int, int, int, int]:
    """Bytes up to which the spool takes messages of each level."""
    accounts = spool.bytes_max
    orders = accounts - spool.reserve_accounts_bytes
    market = orders - spool.reserve_orders_bytes
    return market - spool.reserve_market_bytes, market, orders, accounts


def level(topic: str, rows: int) -> int:
    """Level of a message of a topic; one without rows is a watermark or an end."""
    return LEVELS.get(topic, ACCOUNTS) if rows else ACCOUNTS


@dataclass
class Lost:
    """Rows of one capture that were dropped: how many by topic, and from where to where in event time (ns)."""

    first_ns: int
    last_ns: int
    rows: Counter[str] = field(default_factory=Counter)

    def add(self, other: Lost) -> None:
        """Take another account of the same capture into this one."""
        self.first_ns, self.last_ns = min(self.first_ns, other.first_ns), max(self.last_ns, other.last_ns)
        self.rows.update(other.rows)


def hollow(topic: str, message: Message) -> tuple[Message | None, int, Lost]:
    """Take the rows out of a message: what is left of it, the capture that it came from, and what was lost.

    What is left says how far the source has spoken and the number of its next row, so that readers see the hole at
    once. Nothing is left of a plain record.
    """
    found = batch.decode(topic, message.value, message.headers, as_arrow=True)
    assert found.rows is not None, "only a message with rows is worth dropping"
    n, run_ns = len(found.rows), found.rows["run_ns"]
    empty = Batch(
        topic, found.run_id, found.source, found.sources, None, found.watermark_ns, found.end_ns, found.sequence, found.publish_ns,
        rows_before=None if found.rows_before is None else found.rows_before + n,
    )  # fmt: skip
    left = next(batch.encode(empty, 1, len(message.value or b"")), None)
    return left, found.source, Lost(int(run_ns[0]), int(run_ns[-1]), Counter({topic: n}))
