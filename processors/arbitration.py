"""A/B arbitration: market-data messages of several lines become one stream per feed, in sequence, each message once.

The rule of what is new, a copy, late or lost on all lines is in `sequencing.py`; here messages are attached to it.
It does not recover anything, does not judge quality, and knows no book.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from akbypass.config import Config
from akbypass.rows import Array, Rows


@dataclass(frozen=True, slots=True)
class Losses:
    """Messages lost on all lines of a feed, in the order in which that became known; one entry per range.

    feed S32, session S16     whose
    first_seq, last_seq       the lost range, both inclusive
    run_ns, capture_id, capture_pos   the row that made it known, or the due time of the timer and the row that set it
    before                    how many of `Sequenced.messages` come before it: apply it ahead of messages[before]
    """

    feed: Array
    session: Array
    first_seq: Array
    last_seq: Array
    run_ns: Array
    capture_id: Array
    capture_pos: Array
    before: Array

    def __len__(self) -> int:
        return len(self.first_seq)


@dataclass(frozen=True, slots=True)
class Late:
    """Messages delivered after they had been declared lost; they are not released. One entry per range.

    feed S32, session S16, first_seq, last_seq (inclusive), and the order key of the frame that brought them.
    """

    feed: Array
    session: Array
    first_seq: Array
    last_seq: Array
    run_ns: Array
    capture_id: Array
    capture_pos: Array

    def __len__(self) -> int:
        return len(self.first_seq)


@dataclass(frozen=True, slots=True)
class Sequenced:
    """What one step released.

    messages            market_data rows in release order: per (feed, session) strictly in sequence, each once
    cause_run_ns, cause_capture_id, cause_capture_pos   per message: the frame that released it (its own, or the one
                        that filled the hole in front of it), or the timer (its due time; the frame that set it);
                        cause_run_ns never decreases: it is the message's effective time
    """

    messages: Rows
    cause_run_ns: Array
    cause_capture_id: Array
    cause_capture_pos: Array
    losses: Losses
    late: Late


class Sequencer:
    """Arbitration for one run and one partition, any number of feeds.

    `messages` belong to the frame with their run_ns, capture_id and capture_pos; every message's frame must be among
    the `frames` of the same step (both topics have the key `feed`, so they meet; messages without one are counted in
    `counters["orphans"]` and dropped). A frame says which sequence numbers arrived; messages of it that could not be
    decoded are simply absent.
    """

    def __init__(self, config: Config) -> None:
        self.counters: dict[str, int] = {}

    def step(self, frames: Rows, messages: Rows, watermark_ns: int, end: bool) -> Sequenced:
        """Advance to the watermark: rows as `topology.Core.step` gets them, Rows.empty(...) for none.

        Fires timers due below `watermark_ns`; with `end` everything held back is released and open holes are lost,
        with cause_run_ns = watermark_ns.
        """
        raise NotImplementedError

    def snapshot(self) -> dict[str, Array]:
        """Copy the whole state as named arrays of numbers or bytes."""
        raise NotImplementedError

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over a snapshot."""
        raise NotImplementedError
