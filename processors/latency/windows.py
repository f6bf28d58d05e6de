"""Statistics of delays in windows of event time, and the alert on a venue's target; measures nothing itself.

A window is [k·window, (k+1)·window) since the epoch, by run_ns, and closes at its end: one row for each stream with
samples in it. Streams are venue and kind, and for order kinds also venue, session and kind.

    percentile p   nearest rank: the value at place ceil(p·n) of the n values in order
    jitter         J += (|difference to the last value of the stream| − J) / 16 (RFC 3550, 6.4.1), over all windows
    lost_n         samples above VALUES_MAX, and the packets or orders that were lost in the window
    over_target_n  samples with value − u > target
    latency        of a venue: median order_ack of the window, else median tcp_rtt (preset order_ack_median)
    alert          fires when latency − u > target, resolves when latency + u <= target; in between it stays
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from akbypass import __version__, schemas
from akbypass.config import Config
from akbypass.kernel import kernel
from akbypass.order import hash_columns, make_id, restrict
from akbypass.processors.latency.correlator import CLOCK_SOURCE
from akbypass.processors.latency.metrics import LATENCY_MODELS
from akbypass.processors.losses import Losses
from akbypass.rows import NULL_INT64, Array, Rows

_SCHEMA = schemas.load("latency_windows")
KINDS = _SCHEMA.by_name["kind"].symbols
TCP_RTT, TCP_HANDSHAKE, ORDER_ACK = (KINDS.index(k) for k in ("tcp_rtt", "tcp_handshake", "order_ack"))
WITH_TARGET = (ORDER_ACK, TCP_RTT)  # the kinds that a venue's target is about
PER_MILLE = {"p50_ns": 500, "p90_ns": 900, "p99_ns": 990, "p999_ns": 999}
JITTER_GAIN = 16.0
VALUES_MAX = 1 << 20  # samples kept per stream and window; further ones count as lost: 8 MB
STREAMS_MAX = 65_536  # streams whose jitter is remembered; those silent for longest go first

StreamKey = tuple[bytes, bytes, int]  # venue, session or b"", kind


@kernel
def _smooth(values: Any, jitter: float, last: int, known: bool) -> float:
    for i in range(len(values)):
        if known:
            jitter += (abs(float(values[i] - last)) - jitter) / JITTER_GAIN
        last, known = values[i], True
    return jitter


@dataclass(slots=True)
class Stream:
    """One stream: its jitter over all windows (ns), and its samples in the open window."""

    jitter: float = 0.0
    last: int | None = None
    window: int = -1  # in which it had its last sample
    n: int = 0
    u_ns: int = 0
    over_n: int = 0
    capture_id: int = 0
    capture_pos: int = 0
    values: list[Array] = field(default_factory=list)

    def add(self, rows: Rows, target_ns: int | None, window: int) -> None:
        """Take samples, at least one, in order."""
        values, u_ns = rows["value_ns"], rows["u_ns"]
        known = self.last is not None
        self.jitter = float(_smooth(values, self.jitter, self.last or 0, known))
        room = VALUES_MAX - self.n
        if room > 0:
            self.values.append(values[:room])
        self.n += len(values)
        self.last, self.window = int(values[-1]), window
        self.u_ns = max(self.u_ns, int(u_ns.max()))
        if target_ns is not None:
            self.over_n += int((values - u_ns > target_ns).sum())
        self.capture_id, self.capture_pos = int(rows["capture_id"][-1]), int(rows["capture_pos"][-1])

    def close(self) -> Array:
        """Return the open window's values in ascending order and begin the next one."""
        values = np.sort(np.concatenate(self.values))
        self.n = self.u_ns = self.over_n = 0
        self.values = []
        return values


class LatencyWindowsCore:
    """latency, captures → latency_windows, alerts.latency, for one run and one partition."""

    def __init__(self, config: Config, run_id: str, partition: int) -> None:
        self._run_id = run_id
        self._window_ns = config.thresholds.window_ms * 1_000_000
        self._preferred = [KINDS.index(k) for k in LATENCY_MODELS[config.thresholds.latency_model]]
        self._targets: dict[bytes, int] = {}  # venue → ns
        for e in config.exchanges:
            if e.latency_target_us is not None:
                self._targets.setdefault(e.name.encode("ascii", "replace"), round(e.latency_target_us * 1_000))
        self._window: int | None = None  # the open one's number since the epoch
        self._streams: dict[StreamKey, Stream] = {}
        self._losses = Losses()
        self._firing: dict[bytes, list[Any]] = {}  # venue → [alert id, revision]
        self.counters = {"streams_dropped": 0, "samples_dropped": 0}

    def step(self, inputs: Mapping[str, Rows], watermark_ns: int, end: bool) -> dict[str, Rows]:
        """Take delays and close the windows that end below the watermark."""
        rows = restrict(inputs, "latency", "latency")
        self._losses.take(restrict(inputs, "captures", "captures"))
        windows: list[dict[str, Any]] = []
        alerts: list[dict[str, Any]] = []
        numbers = rows["run_ns"] // self._window_ns
        for number in np.unique(numbers).tolist():
            if self._window is not None and number > self._window:
                self._close(self._end_ns(), windows, alerts)
            self._window = number
            first, last = np.searchsorted(numbers, [number, number + 1])
            self._take(rows.take(slice(first, last)), number)
        if self._window is not None and (end or self._end_ns() < watermark_ns):
            self._close(min(self._end_ns(), watermark_ns), windows, alerts)
        return {"latency_windows": _rows("latency_windows", windows), "alerts.latency": _rows("alerts", alerts)}

    def _end_ns(self) -> int:
        assert self._window is not None
        return (self._window + 1) * self._window_ns

    def _take(self, rows: Rows, window: int) -> None:
        of_orders = (rows["kind"] != TCP_RTT) & (rows["kind"] != TCP_HANDSHAKE)
        self._group(rows, hash_columns(rows["venue"], rows["kind"]), False, window)
        orders = rows.take(of_orders)
        self._group(orders, hash_columns(orders["venue"], orders["session"], orders["kind"]), True, window)

    def _group(self, rows: Rows, hashes: Array, by_session: bool, window: int) -> None:
        _, inverse = np.unique(hashes, return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        for index in np.split(order, np.flatnonzero(np.diff(inverse[order])) + 1):
            if not len(index):
                continue
            part = rows.take(index)
            session = bytes(part["session"][0]) if by_session else b""
            key = (bytes(part["venue"][0]), session, int(part["kind"][0]))
            self._streams.setdefault(key, Stream()).add(part, self._target(key), window)

    def _target(self, key: StreamKey) -> int | None:
        return self._targets.get(key[0]) if key[2] in WITH_TARGET else None

    def _close(self, run_ns: int, windows: list[dict[str, Any]], alerts: list[dict[str, Any]]) -> None:
        """Write the open window's rows in the order of their streams, then the alerts of the venues with a target."""
        medians: dict[tuple[bytes, int], dict[str, Any]] = {}
        for key in sorted(k for k, s in self._streams.items() if s.n):
            row = self._row(key, self._streams[key], run_ns)
            windows.append(row)
            if not key[1]:
                medians[key[0], key[2]] = row
        for venue in sorted(self._targets):
            judged = next((medians[venue, k] for k in self._preferred if (venue, k) in medians), None)
            if judged is not None:
                alerts.extend(self._judge(venue, judged))
        self._window = None
        self._forget()

    def _row(self, key: StreamKey, stream: Stream, run_ns: int) -> dict[str, Any]:
        start_ns, n, target = self._end_ns() - self._window_ns, stream.n, self._target(key)
        row = {
            "run_ns": run_ns, "capture_id": stream.capture_id, "capture_pos": stream.capture_pos,
            "id": make_id("latency_windows", self._run_id, *key, start_ns), "window_start_ns": start_ns,
            "window_end_ns": self._end_ns(), "venue": key[0], "session": key[1], "kind": key[2], "jitter_ns": stream.jitter,
            "u_ns": stream.u_ns, "target_ns": NULL_INT64 if target is None else target, "over_target_n": stream.over_n,
            "clock_source": CLOCK_SOURCE, "decoder_version": __version__.encode(),
        }  # fmt: skip
        values = stream.close()
        kept = len(values)
        self.counters["samples_dropped"] += n - kept
        ranks = {name: int(values[-(-share * kept // 1_000) - 1]) for name, share in PER_MILLE.items()}
        return (
            row
            | ranks
            | {"min_ns": int(values[0]), "max_ns": int(values[-1]), "n": kept, "lost_n": n - kept + self._lost(key[2])}
        )

    def _lost(self, kind: int) -> int:
        """Rows lost in the open window that a delay of this kind is made of (count)."""
        topic, end_ns = "packets" if kind in (TCP_RTT, TCP_HANDSHAKE) else "orders", self._end_ns()
        first, last = (np.array([ns]) for ns in (end_ns - self._window_ns, end_ns - 1))
        return int(self._losses.touching(topic, first, last, last)[0])

    def _judge(self, venue: bytes, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Fire or resolve the alert of a venue by its window; one id for an episode."""
        target, median, u_ns = self._targets[venue], row["p50_ns"], row["u_ns"]
        open_alert = self._firing.get(venue)
        if open_alert is None and median - u_ns > target:
            identity = make_id("latency_windows", self._run_id, "latency_target", venue, row["window_start_ns"])
            self._firing[venue] = [identity, 0]
            return [_alert(venue, row, target, identity, 0, "firing")]
        if open_alert is not None and median + u_ns <= target:
            identity, revision = self._firing.pop(venue)
            return [_alert(venue, row, target, identity, revision + 1, "resolved")]
        return []

    def _forget(self) -> None:
        excess = len(self._streams) - STREAMS_MAX
        if excess > 0:
            oldest = sorted(self._streams, key=lambda k: (self._streams[k].window, k))[:excess]
            self.counters["streams_dropped"] += excess
            for key in oldest:
                del self._streams[key]

    def snapshot(self) -> dict[str, Array]:
        """Copy the state: the streams' values one behind the other, the rest as text."""
        streams = []
        for (venue, session, kind), s in self._streams.items():
            kept = sum(map(len, s.values))
            plain = [s.jitter, s.last, s.window, s.n, s.u_ns, s.over_n, s.capture_id, s.capture_pos]
            streams.append([venue.decode("latin-1"), session.decode("latin-1"), kind, kept, *plain])
        firing = [[v.decode("latin-1"), i.decode(), r] for v, (i, r) in self._firing.items()]
        text = orjson.dumps([self._window, streams, firing, self.counters])
        values = [part for s in self._streams.values() for part in s.values]
        return {
            "windows": np.frombuffer(text, np.uint8),
            "values": np.concatenate([np.empty(0, np.int64), *values]),
            **self._losses.snapshot(),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over a snapshot."""
        self._losses.restore(state)
        self._window, streams, firing, self.counters = orjson.loads(state["windows"].tobytes())
        self._streams, at = {}, 0
        for venue, session, kind, kept, *plain in streams:
            stream = self._streams[venue.encode("latin-1"), session.encode("latin-1"), kind] = Stream(*plain)
            stream.values = [state["values"][at : at + kept].copy()] if kept else []
            at += kept
        self._firing = {v.encode("latin-1"): [i.encode(), r] for v, i, r in firing}


def _alert(
    venue: bytes, row: dict[str, Any], target_ns: int, identity: bytes, revision: int, state: str
) -> dict[str, Any]:
    code, kind = schemas.load("alerts").code, KINDS[row["kind"]]
    value, u, threshold = row["p50_ns"] / 1_000, row["u_ns"] / 1_000, target_ns / 1_000
    says = "is above" if state == "firing" else "is back within"
    return {
        "run_ns": row["run_ns"], "capture_id": row["capture_id"], "capture_pos": row["capture_pos"], "id": identity,
        "revision": revision, "ts_capture_ns": row["run_ns"], "topology": b"latency", "kind": b"latency_target",
        "entity": venue, "severity": code("severity", "warning"), "state": code("state", state), "value": value,
        "threshold": threshold, "unit": b"us",
        "description": f"{venue.decode()}: median {kind} of the window, {value:g} us +- {u:g} us over {row['n']} samples, "
        f"{says} the target of {threshold:g} us",
        "evidence": [row["id"].decode()],
    }  # fmt: skip


def _rows(name: str, made: list[dict[str, Any]]) -> Rows:
    if not made:
        return Rows.empty(name)
    columns = {column: [row[column] for row in made] for column in made[0]}
    return Rows.build(name, len(made), **columns)
