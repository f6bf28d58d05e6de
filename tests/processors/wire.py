"""Writes packets rows by hand: one call a packet, in the words of a protocol diagram."""

from __future__ import annotations

from typing import Any

import numpy as np

from akbypass.rows import NULL_INT64, Rows, address_bytes

FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16}
BASE_NS = 1_700_000_000_000_000_000  # what `ms` counts from; a whole second
FRAME_BYTES = 100  # distance of two records in the made capture


class Wire:
    """Collects packets; `ms` are milliseconds since BASE_NS, endpoints are ("address", port)."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def packet(
        self, ms: float, source: tuple[str, int], target: tuple[str, int], flags: str = "", *, seq: int = 0,
        ack: int | None = None, size: int = 0, protocol: int = 6,
    ) -> None:  # fmt: skip
        """Add one packet; flags as "SA", empty for UDP and ICMP."""
        bits = sum(FLAGS[f] for f in flags)
        self.rows.append(
            {
                "ts_capture_ns": BASE_NS + round(ms * 1_000_000), "src_ip": address_bytes(source[0]), "src_port": source[1],
                "dst_ip": address_bytes(target[0]), "dst_port": target[1], "protocol": protocol, "tcp_flags": bits,
                "tcp_seq": seq % 2**32 if bits else NULL_INT64, "tcp_ack": NULL_INT64 if ack is None else ack % 2**32,
                "payload_length": size, "wire_length": 54 + size, "ts_resolution_ns": 1_000,
            }
        )  # fmt: skip

    def packets(self) -> Rows:
        """Make the rows, in the order in which they were added, with their order keys."""
        n = len(self.rows)
        columns: dict[str, Any] = {name: [row[name] for row in self.rows] for name in self.rows[0]}
        for side in ("src_ip", "dst_ip"):
            columns[side] = np.array(columns[side], "V16")
        run_ns = np.maximum.accumulate(np.array(columns["ts_capture_ns"], np.int64))
        position = 24 + FRAME_BYTES * np.arange(n)
        return Rows.build("packets", n, run_ns=run_ns, capture_pos=position, **columns)


def at(ms: float) -> int:
    """The time `ms` milliseconds after BASE_NS, in ns."""
    return BASE_NS + round(ms * 1_000_000)
