"""FIX messages and TCP packets made by hand for the tests of the order decoder; shares no code with it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from akbypass.config import Config
from akbypass.producers.decoders.orders import OrderDecoder
from akbypass.producers.frames import PacketBatch
from akbypass.rows import Rows

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
T0 = 1_700_000_000_000_000_000  # ns since the UNIX epoch
CLIENT, VENUE = ("192.0.2.10", 40_000), ("198.51.100.10", 4_001)


def seal(text: str | bytes, begin: str = "FIX.4.2") -> bytes:
    """Put BeginString, BodyLength and CheckSum round `35=D|…|`, with | for SOH."""
    body = (text.encode("latin-1") if isinstance(text, str) else text).replace(b"|", b"\x01")
    head = f"8={begin}\x019={len(body)}\x01".encode()
    return head + body + f"10={sum(head + body) % 256:03d}\x01".encode()


def order(n: int, **more: str) -> bytes:
    """New order number n from CLIENT."""
    fields = {
        "35": "D",
        "34": str(n),
        "49": "BUY",
        "56": "XV",
        "52": "20231114-22:13:20.123",
        "11": f"ID{n}",
        "55": "ABC",
    }
    return seal("".join(f"{k}={v}|" for k, v in (fields | {k.removeprefix("t"): v for k, v in more.items()}).items()))


@dataclass(frozen=True)
class Segment:
    """One TCP packet. `cut` bytes of the payload are not captured."""

    seq: int
    data: bytes = b""
    flags: int = ACK
    src: tuple[str, int] = CLIENT
    dst: tuple[str, int] = VENUE
    cut: int = 0
    at_ns: int | None = None


def back(segment: Segment) -> Segment:
    """Turn a segment round."""
    return Segment(segment.seq, segment.data, segment.flags, segment.dst, segment.src, segment.cut, segment.at_ns)


def stream(data: bytes, size: int, seq: int = 1_001, syn: bool = True) -> list[Segment]:
    """Cut bytes into segments of a size, behind a SYN."""
    head = [Segment((seq - 1) % 2**32, flags=SYN)] if syn else []
    parts = [Segment((seq + i) % 2**32, data[i : i + size]) for i in range(0, len(data), size)]
    return head + parts


def packed(address: str) -> bytes:
    """Sixteen bytes of an address."""
    ip = ipaddress.ip_address(address)
    return ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed


def batch(segments: Sequence[Segment], first: int = 0) -> PacketBatch:
    """Make a packet batch; packet n lies at byte 100·n of the capture and 1 µs after packet n - 1."""
    n = len(segments)
    pieces, start, end, at = [], [], [], 3
    for s in segments:
        shown = s.data[: len(s.data) - s.cut]
        pieces.append(b"\x01\x01\x01" + shown)
        start.append(at)
        end.append(at + len(shown))
        at += len(shown) + 3
    number = np.arange(first, first + n)
    ts = np.array([T0 + 1_000 * int(i) if s.at_ns is None else s.at_ns for i, s in zip(number, segments, strict=True)])
    rows = Rows.build(
        "packets", n, run_ns=ts, capture_pos=100 * number, ts_capture_ns=ts, ts_resolution_ns=1, protocol=6,
        src_ip=np.frombuffer(b"".join(packed(s.src[0]) for s in segments), "V16"),
        dst_ip=np.frombuffer(b"".join(packed(s.dst[0]) for s in segments), "V16"),
        src_port=[s.src[1] for s in segments], dst_port=[s.dst[1] for s in segments], tcp_seq=[s.seq for s in segments],
        tcp_flags=[s.flags for s in segments], payload_length=[len(s.data) for s in segments],
        payload_captured=[len(s.data) - s.cut for s in segments],
    )  # fmt: skip
    buffer = np.frombuffer(b"".join(pieces) + b"\x01\x01\x01", np.uint8)
    return PacketBatch(rows, buffer, np.array(start, np.int64), np.array(end, np.int64))


@dataclass(frozen=True)
class Decoded:
    """Rows of a whole run as dictionaries."""

    orders: list[dict[str, object]]
    rejected: list[dict[str, object]]

    def column(self, name: str) -> list[object]:
        """One column of the orders."""
        return [row[name] for row in self.orders]

    def reasons(self) -> list[object]:
        """Reasons of the rejected rows."""
        return [row["reason"] for row in self.rejected]


def decode(
    segments: Sequence[Segment], step: int = 1 << 30, config: Config | None = None, finish: bool = True
) -> Decoded:
    """Run a decoder over the segments, `step` packets a batch; every batch's buffer is overwritten after use."""
    decoder = OrderDecoder(config or Config())
    out: dict[str, list[dict[str, object]]] = {"orders": [], "rejected": []}
    parts = []
    for first in range(0, len(segments), step):
        made = batch(segments[first : first + step], first)
        buffer = made.buffer.copy()
        parts.append(decoder.decode(PacketBatch(made.packets, buffer, made.payload_start, made.payload_end)))
        buffer[:] = 0xEE
    if finish:
        parts.append(decoder.finish(T0 + 1_000_000 * (len(segments) + 1), 0, 100 * len(segments)))
    keys = {"orders": (-1, -1), "rejected": (-1, -1)}
    for part in parts:
        for name, rows in part.items():
            for row in rows.to_dicts():
                key = (row["capture_pos"], row["sub"])
                assert key > keys[name], "rows come in order"
                keys[name] = key
                out[name].append(row)
    return Decoded(**out)
