"""Writes orders rows by hand: one call a message, in the words of a FIX dialogue."""

from __future__ import annotations

from typing import Any

import numpy as np

from akbypass.rows import NULL_INT64, Rows, address_bytes
from tests.processors.wire import FRAME_BYTES, at

CLIENT, VENUE = ("10.0.0.5", 40_000), ("198.51.100.10", 4_001)
UNIT = 1_000_000_000  # prices and quantities are in 1e-9 units
REQUESTS = ("new", "cancel", "replace")


class Dialogue:
    """Collects messages of one or more sessions; `ms` is when the packet that completes the message passes."""

    def __init__(self, session: str = "XNAS/FIRM/XNAS", venue: str = "XNAS") -> None:
        self.rows: list[dict[str, Any]] = []
        self.session, self.venue = session, venue

    def say(
        self, ms: float, kind: str, cl_ord_id: str = "", orig: str = "", *, first_ms: float | None = None, quantity: float | None = None,
        price: float | None = None, last: float | None = None, cum: float | None = None, leaves: float | None = None,
        symbol: str = "ABC", side: str = "buy", poss_dup: bool = False, status: str = "", session: str | None = None,
    ) -> None:  # fmt: skip
        """Add one message; its first byte passes at `first_ms` when that is another packet."""
        to_venue = kind in REQUESTS
        source, target = (CLIENT, VENUE) if to_venue else (VENUE, CLIENT)
        self.rows.append(
            {
                "ts_capture_ns": at(ms), "ts_first_ns": at(ms if first_ms is None else first_ms), "ts_resolution_ns": 1_000,
                "session": (session or self.session).encode(), "venue": self.venue.encode(),
                "direction": "to_venue" if to_venue else "from_venue", "kind": kind, "cl_ord_id": cl_ord_id.encode(),
                "orig_cl_ord_id": orig.encode(), "symbol": symbol.encode(), "side": side, "poss_dup": poss_dup,
                "quantity_nanos": _nanos(quantity), "price_nanos": _nanos(price), "last_quantity_nanos": _nanos(last),
                "cum_quantity_nanos": _nanos(cum), "leaves_quantity_nanos": _nanos(leaves), "ord_status": status.encode(),
                "src_ip": address_bytes(source[0]), "src_port": source[1], "dst_ip": address_bytes(target[0]),
                "dst_port": target[1],
            }
        )  # fmt: skip

    def orders(self) -> Rows:
        """Make the rows; messages of one time share a frame and are numbered in it."""
        n = len(self.rows)
        columns: dict[str, Any] = {name: [row[name] for row in self.rows] for name in self.rows[0]}
        for side in ("src_ip", "dst_ip"):
            columns[side] = np.array(columns[side], "V16")
        schema = Rows.empty("orders").schema
        for name in ("kind", "direction", "side"):
            columns[name] = [schema.code(name, v) for v in columns[name]]
        times = np.array(columns["ts_capture_ns"], np.int64)
        frame = np.cumsum(np.diff(times, prepend=times[0]) != 0)
        sub = [int(i - np.flatnonzero(frame == f)[0]) for i, f in enumerate(frame)]
        return Rows.build("orders", n, run_ns=times, capture_pos=24 + FRAME_BYTES * frame, sub=sub, **columns)


def _nanos(value: float | None) -> int:
    return NULL_INT64 if value is None else round(value * UNIT)
