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

import numpy as np

from akbypass import batch
from akbypass.batch import Batch, Message
from akbypass.config import Spool
from akbypass.order import OrderKey, key_at

LEVELS = {"packets": 0, "feed_frames": 1, "market_data": 1, "orders": 2, "rejected": 2}  # by topic; any other is 3
ACCOUNTS = 3
WINDOWS_MAX = 1_024  # windows of one capture whose losses are told one by one


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
    """Rows of one capture that were dropped: how many by topic, from where to where in event time (ns), the last key."""

    first_ns: int
    last_ns: int
    last_key: OrderKey
    rows: Counter[str] = field(default_factory=Counter)

    def add(self, other: Lost) -> None:
        """Take another account of the same capture into this one."""
        self.first_ns, self.last_ns = min(self.first_ns, other.first_ns), max(self.last_ns, other.last_ns)
        self.last_key = max(self.last_key, other.last_key)
        self.rows.update(other.rows)


class Tally:
    """What was dropped of one capture and has not been told, by window of event time; old windows become one."""

    def __init__(self) -> None:
        self._by_window: dict[int, Lost] = {}

    def add(self, window: int, lost: Lost) -> None:
        """Take an account of one window."""
        if window in self._by_window:
            self._by_window[window].add(lost)
            return
        self._by_window[window] = lost
        if len(self._by_window) > WINDOWS_MAX:
            first, second, *_ = self._by_window
            self._by_window[second].add(self._by_window.pop(first))

    def take(self) -> list[Lost]:
        """Hand out everything, oldest first."""
        found, self._by_window = list(self._by_window.values()), {}
        return found


def hollow(topic: str, message: Message, window_ns: int) -> tuple[Message | None, int, dict[int, Lost]]:
    """Take the rows out of a message: what is left of it, the capture that it came from, and what was lost by window.

    What is left says how far the source has spoken and the number of its next row, so that readers see the hole at
    once. Nothing is left of a plain record.
    """
    found = batch.decode(topic, message.value, message.headers, as_arrow=True)
    rows = found.rows
    assert rows is not None, "only a message with rows is worth dropping"
    empty = Batch(
        topic, found.run_id, found.source, found.sources, None, found.watermark_ns, found.end_ns, found.sequence, found.publish_ns,
        rows_before=None if found.rows_before is None else found.rows_before + len(rows),
    )  # fmt: skip
    run_ns = rows["run_ns"]
    windows, firsts, counts = np.unique(run_ns // window_ns, return_index=True, return_counts=True)
    lost = {}
    for window, first, count in zip(windows.tolist(), firsts.tolist(), counts.tolist(), strict=True):
        last = first + count - 1
        lost[window] = Lost(int(run_ns[first]), int(run_ns[last]), key_at(rows, last), Counter({topic: count}))
    return next(batch.encode(empty, 1, len(message.value or b"")), None), found.source, lost
