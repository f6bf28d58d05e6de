"""Orders and verdicts as lines of one trail; the writing is the ClickHouse writer's."""

from __future__ import annotations

import numpy as np

from akbypass import schemas
from akbypass.order import make_ids
from akbypass.rows import Array, Rows
from akbypass.sinks.clickhouse.writer import Target

_SAME = (
    "run_ns", "capture_id", "capture_pos", "sub", "ts_capture_ns", "src_ip", "dst_ip", "src_port", "dst_port",
)  # fmt: skip
_ORDER = (
    "session", "venue", "direction", "msg_seq_num", "cl_ord_id", "orig_cl_ord_id", "order_id", "exec_id", "symbol", "side",
    "price_nanos", "quantity_nanos", "last_price_nanos", "last_quantity_nanos", "account",
)  # fmt: skip
_PROTOCOLS = {1: b"ICMP", 6: b"TCP", 17: b"UDP", 58: b"ICMP"}


def audit_target() -> Target:
    """Every orders and verdicts row becomes a line of the table `audit`."""
    return Target("audit", {"orders": "audit", "verdicts": "audit"}, to_trail)


def to_trail(topic: str, rows: Rows, run_id: str) -> Rows:
    """Convert orders or verdicts rows, one line each."""
    columns = {name: rows[name] for name in _SAME}
    n = len(rows)
    if topic == "orders":
        columns |= {name: rows[name] for name in _ORDER}
        # an order message has no id of its own: its place in the capture is its identity
        ids = make_ids(
            "audit/orders", run_id, *(rows[k] for k in ("run_ns", "capture_id", "capture_pos", "sub", "session"))
        )
        return Rows.build(
            "audit", n, **columns, id=ids, record=b"order", protocol=rows["protocol"], action=_symbols(rows, "kind")
        )
    numbers = rows["protocol"]
    names = (
        np.array([_PROTOCOLS.get(int(p), b"IP/%d" % p) for p in numbers.tolist()], "S16") if n else np.empty(0, "S16")
    )
    return Rows.build(
        "audit", n, **columns, id=rows["id"], record=b"verdict", protocol=names, action=_symbols(rows, "action"),
        rule=rows["rule"], rule_version=rows["rule_version"],
    )  # fmt: skip


def _symbols(rows: Rows, column: str) -> Array:
    """Symbols of an enum column as bytes."""
    symbols = np.array([s.encode() for s in schemas.load(rows.schema.name).by_name[column].symbols], "S16")
    return symbols[rows[column]]
