"""Who else is on the wire: one scanner, and clients that only do their work; the rogue trader is among the stories.

The scanner probes every port of a list on every host: most answer with RST, some not at all, one is open.
Its first probe of each host is refused, so that it stands out whether contacts are counted by host or by port.
"""

from __future__ import annotations

import numpy as np

from akbypass.producers.simulator import tcp
from akbypass.producers.simulator.day import BEGIN_NS, MS, SECOND, VENUES, Plan
from akbypass.producers.simulator.draws import Draws
from akbypass.producers.simulator.network import ACK, RST, SYN, Endpoint, tcp_frame
from akbypass.producers.simulator.tcp import SYN_OPTIONS, Segment
from akbypass.producers.simulator.writer import Tape

SCANNER = "192.168.1.66"
HOSTS = (*(v.gateway.ip for v in VENUES), *(f"198.51.100.{n}" for n in range(41, 47)))
PORTS = (80, 21, 22, 23, 25, 53, 110, 135, 139, 143, 443, 445, 993, 1433, 3306, 3389, 5432, 5900, 8080, 9001)
OPEN = ("198.51.100.44", 8080)  # the one port that answers
PROBE_NS = 1_200_000  # between two probes
CLIENTS = tuple(f"192.168.1.{n}" for n in range(31, 36))
SERVERS = (Endpoint("198.51.100.61", 443), Endpoint("198.51.100.62", 443), Endpoint("198.51.100.63", 8443))


def scan(plan: Plan) -> Tape:
    """Write the SYN scan."""
    draws = Draws(plan.seed, "scan")
    ts_ns, ts, frames = plan.scan_ns, [], []
    for n, port in enumerate(PORTS):
        for host in HOSTS:
            ts_ns += PROBE_NS + draws.below(200_000)
            us, them = Endpoint(SCANNER, draws.between(33_000, 60_000)), Endpoint(host, port)
            seq, ident = draws.below(1 << 32), draws.below(1 << 16)
            ts.append(ts_ns)
            frames.append(
                tcp_frame(us, them, seq=seq, ack=0, flags=SYN, options=SYN_OPTIONS[:4], ident=ident, window=1_024)
            )
            back = ts_ns + draws.between(*tcp.SERVER_NS)
            if (host, port) == OPEN:
                ts += [back, back + 40_000]
                frames.append(
                    tcp_frame(them, us, seq=7_777, ack=seq + 1, flags=SYN | ACK, options=SYN_OPTIONS[:4], ttl=58)
                )
                frames.append(tcp_frame(us, them, seq=seq + 1, ack=0, flags=RST, window=0, ident=ident + 1))
            elif n == 0 or draws.unit() < 0.65:
                ts.append(back)
                frames.append(tcp_frame(them, us, seq=0, ack=seq + 1, flags=RST | ACK, ttl=58, window=0))
    return Tape(np.array(ts, np.int64), frames)


def clients(plan: Plan) -> list[Tape]:
    """Write connections that succeed, and one that is refused, which makes nobody a scanner."""
    draws = Draws(plan.seed, "clients")
    tapes = []
    for k in range(max(4, int(plan.seconds))):
        us = Endpoint(CLIENTS[k % len(CLIENTS)], 45_000 + k % 10_000)
        opened_ns = BEGIN_NS + 20 * MS + int((plan.seconds * SECOND - 200 * MS) * draws.unit())
        closed_ns = opened_ns + draws.between(60 * MS, 120 * MS)
        segments = [Segment(opened_ns + MS, True, draws.rng.bytes(draws.between(100, 600)))]
        for n in range(draws.between(1, 5)):
            segments.append(Segment(opened_ns + 2 * MS + n * 30_000, False, draws.rng.bytes(draws.between(200, 1_400))))
        made, _ = tcp.converse(
            us, draws.choice(SERVERS), opened_ns=opened_ns, closed_ns=closed_ns, segments=segments, draws=draws
        )
        tapes.append(made)
    us, them, ts_ns = Endpoint(CLIENTS[0], 44_444), Endpoint(SERVERS[0].ip, 8_081), BEGIN_NS + 40 * MS
    refused = [tcp_frame(us, them, seq=99, ack=0, flags=SYN, options=SYN_OPTIONS)]
    refused.append(tcp_frame(them, us, seq=0, ack=100, flags=RST | ACK, ttl=58, window=0))
    tapes.append(Tape(np.array([ts_ns, ts_ns + 61_000], np.int64), refused))
    return tapes
