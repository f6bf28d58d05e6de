"""A/B arbitration: market-data messages of several lines become one stream per feed, in sequence, each message once.

The rule of what is new, a copy, late or lost on all lines is in `sequencing.py`; here messages are attached to it.
It does not recover anything, does not judge quality, and knows no book.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from akbypass.config import Config
from akbypass.kernel import kernel
from akbypass.processors.sequencing import Arbiter, Arbitrated, Event
from akbypass.rows import Array, Rows


@kernel
def _spans(frame_key: Any, message_run: Any, message_capture: Any, message_pos: Any, start: Any, end: Any) -> int:
    """Find each frame's messages, [start, end); both sides are in order. Returns the messages that have no frame."""
    j, orphans, m = 0, 0, len(message_run)
    for i in range(len(frame_key)):
        run, capture, pos = frame_key[i, 0], frame_key[i, 1], frame_key[i, 2]
        while j < m and (
            message_run[j] < run
            or (
                message_run[j] == run
                and (message_capture[j] < capture or (message_capture[j] == capture and message_pos[j] < pos))
            )
        ):
            j += 1
            orphans += 1
        start[i] = j
        while j < m and message_run[j] == run and message_capture[j] == capture and message_pos[j] == pos:
            j += 1
        end[i] = j
    return orphans + m - j


@kernel
def _expand(segments: Any, frame: Any, start: Any, end: Any, sequence: Any, index: Any, counts: Any) -> int:
    """Write the messages of each segment, in order, to `index`; returns how many."""
    n = 0
    for s in range(len(segments)):
        before = n
        first, behind = segments[s, 1], segments[s, 2]
        for j in range(start[frame[s]], end[frame[s]]):
            if first <= sequence[j] < behind:
                index[n] = j
                n += 1
        counts[s] = n - before
    return n


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
        self.arbiter = Arbiter(config)
        self.orphans = 0
        self.held = Rows.empty("market_data")  # messages of frames of which something is held back, frame by frame
        self.held_frames = np.zeros(0, np.int64)  # their frame numbers, ascending
        self.held_ends = np.zeros(0, np.int64)  # where each one's messages end in `held`

    @property
    def counters(self) -> dict[str, int]:
        """Messages not released, by reason (counts): copies, late, before_start, after_close, orphans, …"""
        return {**self.arbiter.counters, "orphans": self.orphans}

    def step(self, frames: Rows, messages: Rows, watermark_ns: int, end: bool) -> Sequenced:
        """Advance to the watermark: rows as `topology.Core.step` gets them, Rows.empty(...) for none.

        Fires timers due below `watermark_ns`; with `end` everything held back is released and open holes are lost,
        with cause_run_ns = watermark_ns.
        """
        n_held, at = len(self.held_frames), len(self.held)
        starts, ends = np.zeros(n_held + len(frames), np.int64), np.zeros(n_held + len(frames), np.int64)
        ends[:n_held] = self.held_ends
        starts[1:n_held] = self.held_ends[:-1]
        key = np.stack([frames[k].astype(np.int64) for k in ("run_ns", "capture_id", "capture_pos")], axis=1)
        columns = (messages["run_ns"], messages["capture_id"], messages["capture_pos"])
        self.orphans += _spans(key, *columns, starts[n_held:], ends[n_held:])
        starts[n_held:] += at
        ends[n_held:] += at
        pool = Rows.concat([self.held, messages]) if at else messages
        judged = self.arbiter.advance(frames, watermark_ns, end)
        made = self._release(pool, starts, ends, judged)
        self._hold(pool, starts, ends, judged.number)
        return made

    def _release(self, pool: Rows, starts: Array, ends: Array, judged: Arbitrated) -> Sequenced:
        segments = judged.segments
        index, counts = np.empty(len(pool), np.int64), np.zeros(len(segments), np.int64)
        frame = self._frame_index(segments[:, 0], judged.number)
        n = _expand(segments, frame, starts, ends, pool["sequence"], index, counts)
        cause = np.repeat(segments[:, 3:6], counts, axis=0)
        released = np.append(0, np.cumsum(counts))
        losses = [e for e in judged.events if e.kind == "lost"]
        late = [e for e in judged.events if e.kind == "late"]
        before = released[np.array([e.before for e in losses], np.int64)]
        return Sequenced(
            pool.take(index[:n]),
            cause[:, 0],
            cause[:, 1].astype(np.int32),
            cause[:, 2],
            Losses(**_columns(losses), before=before),
            Late(**_columns(late)),
        )

    def _frame_index(self, numbers: Array, number: int) -> Array:
        old = np.searchsorted(self.held_frames, numbers)
        return np.where(numbers >= number, numbers - number + len(self.held_frames), old)

    def _hold(self, pool: Rows, starts: Array, ends: Array, number: int) -> None:
        numbers = np.array(self.arbiter.held_numbers(), np.int64)
        at = self._frame_index(numbers, number)
        spans = [np.arange(starts[i], ends[i]) for i in at]
        self.held = pool.take(np.concatenate([np.zeros(0, np.int64), *spans]))
        self.held_frames, self.held_ends = numbers, np.cumsum([len(s) for s in spans], dtype=np.int64)

    def snapshot(self) -> dict[str, Array]:
        """Copy the whole state as named arrays of numbers or bytes."""
        own = {
            "orphans": np.array([self.orphans]), "held_frames": self.held_frames.copy(),
            "held_ends": self.held_ends.copy(), "held": np.frombuffer(self.held.to_ipc(), np.uint8).copy(),
        }  # fmt: skip
        return {**own, **{f"arbiter.{k}": v for k, v in self.arbiter.snapshot().items()}}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over a snapshot."""
        self.orphans = int(state["orphans"][0])
        self.held_frames, self.held_ends = state["held_frames"].copy(), state["held_ends"].copy()
        self.held = Rows.from_ipc("market_data", state["held"].tobytes())
        self.arbiter.restore({k.removeprefix("arbiter."): v for k, v in state.items() if k.startswith("arbiter.")})


def _columns(events: Sequence[Event]) -> dict[str, Array]:
    """What losses and late ranges have in common."""
    return {
        "feed": np.array([e.domain.feed for e in events], "S32"),
        "session": np.array([e.domain.session for e in events], "S16"),
        "first_seq": np.array([e.first for e in events], np.int64),
        "last_seq": np.array([e.end - 1 for e in events], np.int64),
        "run_ns": np.array([e.cause[0] for e in events], np.int64),
        "capture_id": np.array([e.cause[1] for e in events], np.int32),
        "capture_pos": np.array([e.cause[2] for e in events], np.int64),
    }
