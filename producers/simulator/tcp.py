"""A TCP connection as frames: handshake, data, acknowledgements, retransmissions, end; carries what it is given.

The tap is near the client, so an acknowledgement by the server is seen one way there and back later, one by the
client after its own reaction alone. No frame is lost before the tap: a retransmission is seen twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from akbypass.producers.simulator.draws import Draws
from akbypass.producers.simulator.network import ACK, FIN, PSH, SYN, Endpoint, tcp_frame
from akbypass.producers.simulator.writer import Tape

SYN_OPTIONS = bytes.fromhex("020405b4 01 01 0402 01 030307".replace(" ", ""))  # MSS 1460, SACK permitted, scale 7
SERVER_NS = (55_000, 85_000)  # from the tap to the server and back
CLIENT_NS = (9_000, 22_000)  # from the tap to the client and back


@dataclass(slots=True)
class Segment:
    """Data as the tap sees it at ts_ns; `again_ns` is when it is seen once more because it was lost behind the tap."""

    ts_ns: int
    to_server: bool
    payload: bytes
    again_ns: int | None = None


class _Side:
    """One end of a connection."""

    def __init__(self, endpoint: Endpoint, ttl: int, draws: Draws) -> None:
        self.endpoint, self.ttl = endpoint, ttl
        self.next, self.acked, self.ident = draws.below(1 << 32), 0, draws.below(1 << 15)

    def frame(
        self, other: _Side, flags: int, payload: bytes = b"", seq: int | None = None, options: bytes = b""
    ) -> bytes:
        """Write a segment to the other side; without a `seq` it is the next one and moves on."""
        self.ident += 1
        if seq is None:
            seq = self.next
            self.next += len(payload) + (1 if flags & (SYN | FIN) else 0)
        where = (self.endpoint, other.endpoint)
        return tcp_frame(
            *where,
            seq=seq,
            ack=self.acked,
            flags=flags,
            payload=payload,
            options=options,
            ident=self.ident,
            ttl=self.ttl,
        )


def converse(
    client: Endpoint, server: Endpoint, *, opened_ns: int, closed_ns: int, segments: list[Segment], draws: Draws
) -> tuple[Tape, list[int]]:
    """Write a whole connection; returns its frames, and for each segment the index of the frame that first carries it.

    All segments must lie after the handshake, which takes 0.1 ms, and before closed_ns.
    """
    us, them = _Side(client, 64, draws), _Side(server, 58, draws)
    ts, frames = [opened_ns], [us.frame(them, SYN, options=SYN_OPTIONS)]
    them.acked = us.next
    ts.append(ts[-1] + draws.between(*SERVER_NS))
    frames.append(them.frame(us, SYN | ACK, options=SYN_OPTIONS))
    us.acked = them.next
    ts.append(ts[-1] + draws.between(*CLIENT_NS))
    frames.append(us.frame(them, ACK))
    events = []  # (time, segment, what happens)
    for k, segment in enumerate(segments):
        events.append((segment.ts_ns, k, "data"))
        if segment.again_ns is not None:
            events.append((segment.again_ns, k, "again"))
        got = segment.ts_ns if segment.again_ns is None else segment.again_ns
        events.append((got + draws.between(*(SERVER_NS if segment.to_server else CLIENT_NS)), k, "ack"))
    start, index = [0] * len(segments), [0] * len(segments)
    for when, k, what in sorted(events, key=itemgetter(0, 1)):
        segment = segments[k]
        sender, receiver = (us, them) if segment.to_server else (them, us)
        if what == "data":
            start[k], index[k] = sender.next, len(frames)
            frames.append(sender.frame(receiver, PSH | ACK, segment.payload))
        elif what == "again":
            frames.append(sender.frame(receiver, PSH | ACK, segment.payload, seq=start[k]))
        else:
            receiver.acked = max(receiver.acked, start[k] + len(segment.payload))
            frames.append(receiver.frame(sender, ACK, seq=receiver.next))
        ts.append(when)
    ts.append(closed_ns)
    frames.append(us.frame(them, FIN | ACK))
    them.acked = us.next
    ts.append(ts[-1] + draws.between(*SERVER_NS))
    frames.append(them.frame(us, FIN | ACK))
    us.acked = them.next
    ts.append(ts[-1] + draws.between(*CLIENT_NS))
    frames.append(us.frame(them, ACK))
    return Tape(np.array(ts, np.int64), frames), index
