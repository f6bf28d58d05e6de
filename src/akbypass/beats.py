"""Signs of life of the captures of one run, on partition 0 of the topic `control`; knows no clock and no broker.

Only runs of several captures need them: there others wait for the one that says nothing. A sign of life is a message
without rows: the envelope names run, source and watermark, two headers the capture point and whether the capture has
ended. Readers of `control` rows do not notice it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from akbypass import batch
from akbypass.batch import Batch, BatchError, Message

TOPIC, PARTITION = "control", 0
BEAT_S = 0.25  # shortest time between two signs of one capture
PAUSE_S = 1.0  # longest time between them while a replay waits for a frame's time
POINT, ENDED = "point", "ended"
SPOKEN = "spoken"  # header of a message in which somebody speaks for a silent capture


@dataclass(frozen=True, slots=True)
class Beat:
    """One sign of life; `watermark_ns` is how far the capture has come."""

    run_id: str
    source: int
    sources: int
    watermark_ns: int
    ended: bool
    point: str


def encode(beat: Beat, publish_ns: int) -> Message:
    """Write a sign of life."""
    whole = Batch(TOPIC, beat.run_id, beat.source, beat.sources, None, beat.watermark_ns, publish_ns=publish_ns)
    (message,) = batch.encode(whole, 1, 1 << 16)
    headers = [*message.headers, (POINT, beat.point.encode()), (ENDED, b"%d" % beat.ended)]
    return Message(None, message.value, headers, 0)


def decode(value: bytes | None, headers: Sequence[tuple[str, bytes]] | None) -> Beat | None:
    """Read a sign of life; None for any other message."""
    known = dict(headers or ())
    if POINT not in known or ENDED not in known:
        return None
    try:
        found = batch.decode(TOPIC, value, headers)
    except BatchError:
        return None
    point = known[POINT].decode("utf-8", "replace")
    return Beat(found.run_id, found.source, found.sources, found.watermark_ns, known[ENDED] == b"1", point)
