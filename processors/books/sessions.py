"""What happens between two messages of a feed: a loss on all lines, or the end of a session; when, in order.

An end may overtake messages: it takes effect when the last message before it was released or lost. What either does
to a book is `state.py`'s; nothing here looks at one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from akbypass.processors.arbitration import Sequenced
from akbypass.processors.books.state import BookState
from akbypass.rows import Array, Rows
from akbypass.schemas import load

END_OF_SESSION = load("feed_frames").code("kind", "end_of_session")


class Cause(NamedTuple):
    """What makes a quote appear: its order key without `sub`."""

    run_ns: int
    capture_id: int
    capture_pos: int


class Event(NamedTuple):
    """Something rare between two messages: `before` messages come first; a loss, or the end of a session."""

    before: int
    cause: Cause
    is_end: bool
    feed: Array
    session: Array
    seq: int  # last lost sequence number; of an end: the number behind the last message


def words_of(array: Array) -> Array:
    """Read strings as rows of integers, for comparing."""
    array = np.ascontiguousarray(array)
    return array.view(np.int64).reshape(len(array), array.dtype.itemsize // 8)


def cause_of(done: Sequenced, i: int) -> Cause:
    """Return what released message i."""
    return Cause(int(done.cause_run_ns[i]), int(done.cause_capture_id[i]), int(done.cause_capture_pos[i]))


def losses_of(done: Sequenced) -> list[Event]:
    """Return the losses of a step in order."""
    losses = done.losses
    feeds, sessions = words_of(losses.feed), words_of(losses.session)
    return [
        Event(
            int(losses.before[k]),
            Cause(int(losses.run_ns[k]), int(losses.capture_id[k]), int(losses.capture_pos[k])),
            False, feeds[k], sessions[k], int(losses.last_seq[k]),
        )
        for k in range(len(losses))
    ]  # fmt: skip


class SessionEnds:
    """Ends of sessions that were announced and are not reached yet, at most one a feed."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Array, Array, int]] = []  # feed, session, next sequence number

    def events(self, frames: Rows, done: Sequenced, state: BookState) -> list[Event]:
        """Return the ends of sessions whose last message has been released; the others wait in `waiting`."""
        waiting: list[tuple[Array, Array, int, Cause | None]] = [(*end, None) for end in self.waiting]
        index = np.flatnonzero((frames["kind"] == END_OF_SESSION) & (frames["first_seq"] >= 0))
        feeds, sessions = words_of(frames["feed"][index]), words_of(frames["session"][index])
        for k, i in enumerate(index.tolist()):
            seen = Cause(*(int(frames[c][i]) for c in Cause._fields))
            waiting.append((feeds[k], sessions[k], int(frames["first_seq"][i]), seen))
        self.waiting, events = [], []
        for feed, session, seq, known in waiting:
            event = _end(feed, session, seq, known, done, state)
            if event is not None:
                events.append(event)
            else:  # one a feed: a later session's end takes the place of one that never came
                self.waiting = [e for e in self.waiting if not (e[0] == feed).all()] + [(feed, session, seq)]
        return events

    def snapshot(self) -> Array:
        """Copy the ends that wait."""
        rows = [np.concatenate([feed, session, [seq]]) for feed, session, seq in self.waiting]
        return np.array(rows, np.int64).reshape(len(rows), 7)

    def restore(self, rows: Array) -> None:
        """Take over a snapshot."""
        self.waiting = [(row[:4].copy(), row[4:6].copy(), int(row[6])) for row in rows]


def _end(feed: Array, session: Array, seq: int, seen: Cause | None, done: Sequenced, state: BookState) -> Event | None:
    """Return the end at the later of: seen in a frame (None: in an earlier step), last message released or lost."""
    number = state.feed_number(feed)
    known = number >= 0 and state.is_in_session(number, session)
    reached: tuple[int, Cause] | None = None
    if not known or state.reached(number) < seq - 1:
        found = [(e.before, e.cause) for e in losses_of(done) if _same(e, feed, session) and e.seq >= seq - 1]
        last = np.flatnonzero(
            (done.messages["sequence"] >= seq - 1)
            & (words_of(done.messages["feed"]) == feed).all(axis=1)
            & (words_of(done.messages["session"]) == session).all(axis=1)
        )
        found += [(i + 1, cause_of(done, i)) for i in last[:1].tolist()]
        if not found:
            return None
        reached = min(found)
    if seen is not None and (reached is None or seen > reached[1]):
        reached = int(np.searchsorted(done.cause_run_ns, seen.run_ns, "right")), seen
    assert reached is not None, "an end waits only while it is not reached"
    return Event(*reached, True, feed, session, seq)


def _same(event: Event, feed: Array, session: Array) -> bool:
    return bool((event.feed == feed).all() and (event.session == session).all())
