"""Input rows that bring a topology to a state of a given size, for `bench checkpoint`; deterministic.

Each function yields steps: rows by topic, all of one step above those of the step before in run_ns.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from akbypass import schemas
from akbypass.rows import Array, Rows

STEP_ROWS = 50_000
BEGIN_NS = 1_700_000_000_000_000_000
MAPPED = 0xFFFF << 32  # upper bits of the lower half of an IPv4 address mapped into IPv6
SYN, ACK = 2, 16
MESSAGES_PER_FRAME = 30
ANSWER_NS = 50_000  # after its question
LOT_NANOS = 100 * 10**9

Step = dict[str, Rows]


def flows(count: int, begin_ns: int) -> Iterator[Step]:
    """Handshakes of `count` flows, one a microsecond."""
    for at in range(0, count, STEP_ROWS // 2):
        i = np.arange(at, min(count, at + STEP_ROWS // 2))
        run_ns = begin_ns + at * 1_000 + at // (STEP_ROWS // 2) * 2 * ANSWER_NS + np.arange(len(i)) * 1_000
        both = Rows.concat([_packets(i, run_ns, SYN, False), _packets(i, run_ns + ANSWER_NS, SYN | ACK, True)])
        yield {"packets": both.take(np.argsort(both["run_ns"], kind="stable"))}


def touches(count: int, flows_count: int, begin_ns: int) -> Iterator[Step]:
    """One more packet each of `count` flows spread over all."""
    i = np.arange(count) * (flows_count // count)
    yield {"packets": _packets(i, begin_ns + np.arange(count) * 1_000, ACK, False)}


def _packets(i: Array, run_ns: Array, flags: int, is_answer: bool) -> Rows:
    client, server = _addresses(0x0A000000 + (i >> 6)), _addresses(0xC6336400 + (i & 7))
    client_port, server_port = 1_024 + (i & 63) * 509, np.full(len(i), 4_001)
    ends = [(client, client_port), (server, server_port)]
    (src, src_port), (dst, dst_port) = ends[::-1] if is_answer else ends
    seq, ack = (i * 7_919) % 2**32, (i * 104_729) % 2**32
    return Rows.build(
        "packets", len(i), run_ns=run_ns, ts_capture_ns=run_ns, capture_pos=run_ns - BEGIN_NS, protocol=6, ip_version=4,
        src_ip=src, dst_ip=dst, src_port=src_port, dst_port=dst_port, tcp_flags=flags, wire_length=60,
        tcp_seq=ack if is_answer else seq + (flags == ACK), tcp_ack=seq + 1 if is_answer else ack + 1,
    )  # fmt: skip


def _addresses(v4: Array) -> Array:
    halves = np.zeros((len(v4), 2), ">i8")
    halves[:, 1] = MAPPED | v4
    return halves.view("V16").reshape(-1)


def contacts(count: int, sources: int, begin_ns: int, first: int = 0) -> Iterator[Step]:
    """Contacts of `sources` addresses with `count` destinations, every second one refused."""
    code = schemas.load("contacts").code
    for at in range(first, first + count, STEP_ROWS):
        i = np.arange(at, min(first + count, at + STEP_ROWS))
        run_ns = begin_ns + i * 1_000
        outcome = np.where(i // sources % 2, code("outcome", "refused"), code("outcome", "established"))
        rows = Rows.build(
            "contacts", len(i), run_ns=run_ns, ts_capture_ns=run_ns, capture_pos=run_ns - BEGIN_NS, id=_names("{:016x}", i),
            src_ip=_addresses(0x0A000000 + i % sources), dst_ip=_addresses(0xC6336400 + i // sources), dst_port=80,
            outcome=outcome,
        )  # fmt: skip
        yield {"contacts": rows}


def orders(count: int, begin_ns: int, first: int = 0) -> Iterator[Step]:
    """`count` orders, each sent and acknowledged: they stay open."""
    code = schemas.load("orders").code
    for at in range(first, first + count, STEP_ROWS // 2):
        i = np.repeat(np.arange(at, min(first + count, at + STEP_ROWS // 2)), 2)
        answer = np.arange(len(i)) % 2 == 1
        run_ns = begin_ns + i * 2_000 + answer * 1_000
        rows = Rows.build(
            "orders", len(i), run_ns=run_ns, ts_capture_ns=run_ns, ts_first_ns=run_ns, capture_pos=run_ns - BEGIN_NS,
            session=_names("XNAS/FIRM/{:02d}", i % 16), venue=np.full(len(i), b"XNAS"), side=1 + i % 2,
            cl_ord_id=_names("ORD{:011d}", i), symbol=_names("SYM{:05d}", i % 8_000),
            kind=np.where(answer, code("kind", "ack"), code("kind", "new")),
            direction=np.where(answer, code("direction", "from_venue"), code("direction", "to_venue")),
            price_nanos=10**11 + i % 500 * 10**7, quantity_nanos=np.full(len(i), LOT_NANOS),
            leaves_quantity_nanos=np.where(answer, LOT_NANOS, 0),
        )  # fmt: skip
        yield {"orders": rows}


def market(count: int, books: int, begin_ns: int, first: int = 0) -> Iterator[Step]:
    """`count` resting orders of one feed over `books` symbols, both sides, some fifty prices a side."""
    code, frame_code = schemas.load("market_data").code, schemas.load("feed_frames").code
    step = STEP_ROWS // MESSAGES_PER_FRAME * MESSAGES_PER_FRAME
    for at in range(first, first + count, step):
        i = np.arange(at, min(first + count, at + step))
        frame = (i - first) // MESSAGES_PER_FRAME
        run_ns, n = begin_ns + frame * 10_000, len(i)
        buys = i // books % 2 == 0
        away = (i * 2_654_435_761 % 2**32) % 50 * 10**7
        feed = {"feed": b"XNAS", "venue": b"XNAS", "line": b"A", "session": b"20240102"}
        messages = Rows.build(
            "market_data", n, run_ns=run_ns, ts_capture_ns=run_ns, ts_wire_ns=run_ns - 500, capture_pos=run_ns - BEGIN_NS,
            sub=(i - first) % MESSAGES_PER_FRAME, **{k: np.full(n, v) for k, v in feed.items()}, sequence=i + 1,
            kind=code("kind", "add"), symbol=_names("S{:05d}", i % books), order_ref=i + 1, side=np.where(buys, 1, 2),
            price_nanos=10**11 + np.where(buys, -away, away + 10**7), quantity_nanos=np.full(n, LOT_NANOS),
        )  # fmt: skip
        starts = np.flatnonzero(np.diff(frame, prepend=-1))
        frames = Rows.build(
            "feed_frames", len(starts), **{k: messages[k][starts] for k in ("run_ns", "ts_capture_ns", "capture_pos")},
            **{k: np.full(len(starts), v) for k, v in feed.items()}, kind=frame_code("kind", "data"), first_seq=i[starts] + 1,
            count=np.diff(np.append(starts, n)), protocol=np.full(len(starts), b"itch-5.0/moldudp64"),
        )  # fmt: skip
        yield {"feed_frames": frames, "market_data": messages}


def _names(form: str, numbers: Array) -> Array:
    return np.array([form.format(n).encode() for n in numbers.tolist()])
