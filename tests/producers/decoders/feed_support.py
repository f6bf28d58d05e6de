"""What feed tests share: packets written by hand with `struct`, and captures through the real reader; expects nothing."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from akbypass.config import Config
from akbypass.producers.capture.formats import open_capture
from akbypass.producers.capture.headers import HeaderParser
from akbypass.producers.decoders.feed import FeedDecoder
from akbypass.producers.frames import PacketBatch
from akbypass.producers.protocols import Protocols
from akbypass.rows import Rows, address_bytes

GROUP, PORT = "233.54.12.1", 26_477
SECOND_NS = 1_000_000_000
NEW_YORK_2023_08_22_NS = 1_692_676_800 * SECOND_NS  # midnight in New York, 04:00 UTC
OPEN_NS = NEW_YORK_2023_08_22_NS + 34_200 * SECOND_NS  # 09:30
OPEN_STAMP = 34_200 * SECOND_NS

CONFIGURED = Config.model_validate(
    {
        "feeds": [
            {
                "name": "XNAS",
                "venue": "XNAS",
                "protocol": "itch-5.0/moldudp64",
                "lines": {"A": f"{GROUP}:{PORT}", "B": f"233.54.12.129:{PORT}"},
            }
        ]
    }
)


def mold(
    messages: Sequence[bytes], sequence: int = 1, session: bytes = b"000010059B", count: int | None = None
) -> bytes:
    """Write a MoldUDP64 packet."""
    head = session + struct.pack(">QH", sequence, len(messages) if count is None else count)
    return head + b"".join(struct.pack(">H", len(m)) + m for m in messages)


def iex(
    messages: Sequence[bytes], sequence: int = 1, protocol: int = 0x8004, channel: int = 1, session: int = 1_286_602_752,
    offset: int = 0, sent_ns: int = OPEN_NS,
) -> bytes:  # fmt: skip
    """Write an IEX-TP segment."""
    blocks = b"".join(struct.pack("<H", len(m)) + m for m in messages)
    counts = (len(blocks), len(messages), offset, sequence, sent_ns)
    return struct.pack("<BBHIIHHQQq", 1, 0, protocol, channel, session, *counts) + blocks


def itch(letter: str, body: bytes = b"", locate: int = 5, stamp: int = OPEN_STAMP) -> bytes:
    """Write an ITCH 5.0 message."""
    return letter.encode() + struct.pack(">HH", locate, 2) + stamp.to_bytes(6, "big") + body


def add(
    ref: int = 7, side: bytes = b"B", shares: int = 100, symbol: bytes = b"MSFT    ", price: int = 1_234_500
) -> bytes:
    """Write an ITCH add order."""
    return itch("A", struct.pack(">QcI8sI", ref, side, shares, symbol, price))


def delete(ref: int = 7) -> bytes:
    """Write an ITCH order delete."""
    return itch("D", struct.pack(">Q", ref))


def level(symbol: bytes = b"UNH     ", size: int = 82, price: int = 3_441_400, letter: bytes = b"8") -> bytes:
    """Write a DEEP price level update."""
    return letter + struct.pack("<Bq8sIq", 1, OPEN_NS - 5_000, symbol, size, price)


def batch(
    payloads: Sequence[bytes], targets: Iterable[tuple[str, int]] | None = None, wire: Sequence[int] | None = None,
    ts_ns: int | Sequence[int] = OPEN_NS, first: int = 0, protocol: int = 17, fragment: bool = False,
) -> PacketBatch:  # fmt: skip
    """Make a packet batch of UDP payloads, with bytes of 0xA5 between them that no decoder may read."""
    where = list(targets) if targets is not None else [(GROUP, PORT)] * len(payloads)
    starts, pieces, at = [], [], 0
    for payload in payloads:
        pieces += [b"\xa5" * 9, payload]
        starts.append(at + 9)
        at += 9 + len(payload)
    start = np.array(starts, np.int64)
    end = start + np.array([len(p) for p in payloads], np.int64)
    n = len(payloads)
    times = np.full(n, ts_ns, np.int64) if isinstance(ts_ns, int) else np.array(ts_ns, np.int64)
    lengths = np.array(wire if wire is not None else end - start, np.int32)
    rows = Rows.build(
        "packets", n, run_ns=times, ts_capture_ns=times, ts_resolution_ns=1, capture_pos=24 + 100 * (first + np.arange(n)),
        protocol=protocol, ip_version=4, payload_length=lengths, wire_length=lengths + 42, ip_more_fragments=fragment,
        dst_ip=np.frombuffer(b"".join(address_bytes(a) for a, _ in where), "V16"), dst_port=np.array([p for _, p in where]),
    )  # fmt: skip
    buffer = np.frombuffer(b"".join([*pieces, b"\xa5" * 9]), np.uint8).copy()
    return PacketBatch(rows, buffer, start, end)


def decode(payloads: Sequence[bytes], config: Config | None = None, **options: Any) -> dict[str, Rows]:
    """Decode payloads as one batch with a fresh decoder."""
    return FeedDecoder(config or Config()).decode(batch(payloads, **options))


def decode_file(path: Path, protocols: Protocols | None = None, **limits: int) -> dict[str, Rows]:
    """Decode a capture from its file; topics without rows are empty."""
    decoder, parser = FeedDecoder(Config(), protocols), HeaderParser(0)
    parts: dict[str, list[Rows]] = {name: [Rows.empty(name)] for name in ("feed_frames", "market_data", "rejected")}
    for frames in open_capture(str(path), **limits):
        for name, rows in decoder.decode(parser.parse(frames).packets).items():
            parts[name].append(rows)
    return {name: Rows.concat(rows) for name, rows in parts.items()}


def plain(rows: Rows) -> list[dict[str, object]]:
    """Rows as dictionaries of what is known."""
    return [{k: v for k, v in row.items() if v is not None} for row in rows.to_dicts()]
