"""Writes FIX messages and cuts them into TCP segments; reads none, and does not know what an order is.

    8=BeginString|9=BodyLength|35=MsgType|49=Sender|56=Target|34=MsgSeqNum|52=SendingTime| fields |10=CheckSum|

| is the byte 0x01. BodyLength counts the bytes from 35= to the | before 10=; CheckSum is the sum of all bytes before
10=, modulo 256, in three digits. Source: FIX 4.2, 4.4 and FIXT 1.1 session layer, "Standard header and trailer".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from akbypass.producers.simulator.day import SECOND
from akbypass.producers.simulator.tcp import Segment

SPLIT_NS = 27_000  # between the two halves of a message that is cut
Field = tuple[int, object]


@dataclass(eq=False, slots=True)
class Message:
    """One message: when the tap sees its first byte, which way it goes, its type and its own fields in order.

    joins     it shares a frame with the message before it in the same direction
    cut       part of the frame's payload after which it is cut into two segments; 0 for no cut
    again_ns  when its frame is seen once more, having been lost behind the tap; None for never
    """

    ts_ns: int
    to_venue: bool
    kind: str
    fields: list[Field] = field(default_factory=list)
    joins: bool = False
    cut: float = 0.0
    again_ns: int | None = None


def stamp(ts_ns: int, digits: int) -> str:
    """Write a UTCTimestamp with this many digits of a second, cut and not rounded."""
    whole = datetime.fromtimestamp(ts_ns // SECOND, UTC).strftime("%Y%m%d-%H:%M:%S")
    return f"{whole}.{ts_ns % SECOND:09d}"[: len(whole) + 1 + digits]


def encode(begin: str, fields: list[Field]) -> bytes:
    """Write one message; `fields` begin with 35.

    >>> encode("FIX.4.2", [(35, "0"), (34, 2)]).replace(b"\\x01", b"|")
    b'8=FIX.4.2|9=10|35=0|34=2|10=164|'
    """
    body = "".join(f"{tag}={value}\x01" for tag, value in fields)
    whole = f"8={begin}\x019={len(body)}\x01{body}".encode("ascii")
    return whole + f"10={sum(whole) % 256:03d}\x01".encode("ascii")


@dataclass(slots=True)
class Dialogue:
    """A session's messages as segments; `first` and `last` are, per message, the segments of its first and last byte."""

    segments: list[Segment]
    first: dict[Message, int]
    last: dict[Message, int]


def cut_into_segments(messages: list[Message], payloads: list[bytes]) -> Dialogue:
    """Lay messages, sorted by time, into TCP segments."""
    made = Dialogue([], {}, {})
    k = 0
    while k < len(messages):
        group = [k]
        while group[-1] + 1 < len(messages) and messages[group[-1] + 1].joins:
            group.append(group[-1] + 1)
        whole = b"".join(payloads[i] for i in group)
        head = messages[k]
        cut = int(len(whole) * head.cut)
        base, at = len(made.segments), 0
        for i in group:
            made.first[messages[i]] = base + int(cut > 0 and at >= cut)
            at += len(payloads[i])
            made.last[messages[i]] = base + int(cut > 0 and at > cut)
        made.segments.append(Segment(head.ts_ns, head.to_venue, whole[: cut or None], head.again_ns))
        if cut:
            made.segments.append(Segment(head.ts_ns + SPLIT_NS, head.to_venue, whole[cut:]))
        k = group[-1] + 1
    return made
