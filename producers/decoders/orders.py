"""FIX order entry: packets in, orders and rejected rows out; one capture in order, no I/O, no clock.

    packets ──▶ tcp_stream (bytes in order) ──▶ fix_arena (side by side) ──▶ fix_scan (messages) ──▶ here (rows)

A row bears the order key of the frame that completes its message; `sub` counts the messages of one frame. A message
that cannot be trusted becomes a rejected row and the scanner goes on behind it. What it deliberately does not do:
repeating groups (the first occurrence of a tag counts), session-level validation, decompression, decryption.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from akbypass.config import Config
from akbypass.producers.decoders import fix
from akbypass.producers.decoders import fix_scan as fs
from akbypass.producers.decoders.fix_arena import Arena, Frames, Piece
from akbypass.producers.decoders.order_map import FROM_VENUE, SESSION_BYTES, TO_VENUE, Roles, kinds, sides
from akbypass.producers.decoders.tcp_flow import CLOSE, GAP, JOINING, SKIPPING, Direction
from akbypass.producers.decoders.tcp_stream import Reassembler, gateway_key
from akbypass.producers.frames import PacketBatch
from akbypass.rows import Array, Rows, address_bytes, address_text

REJECTED_BYTES_MAX = 1_024  # bytes of a message kept in its rejected row
_CL_ORD_ID, _SENDER, _TARGET = (fix.TEXT_AT[c] for c in ("cl_ord_id", "sender_comp_id", "target_comp_id"))
assert _TARGET.start == _SENDER.stop  # compared as one range

Complaint = tuple[int, str, str, bytes, Direction]  # frame, reason, detail, bytes, direction


class OrderDecoder:
    """Decodes the FIX of one capture, batch by batch.

    >>> decoder = OrderDecoder(Config())
    >>> decoder.counters["messages_total"]
    0
    """

    def __init__(self, config: Config) -> None:
        gateways = frozenset(
            gateway_key(address_bytes(e.ip_address), port)
            for e in config.exchanges if "FIX" in e.protocol.upper() for port in e.ports
        )  # fmt: skip
        self.streams = Reassembler(gateways, config.thresholds)
        self.roles = Roles(config)
        self.counters = {"messages_total": 0, "rejected_total": 0, "skipped_bytes_total": 0, "flows_dropped_total": 0}

    def decode(self, batch: PacketBatch) -> dict[str, Rows]:
        """Return `orders` and `rejected` rows of one batch, sorted by order key; without rows a name is absent."""
        self.streams.feed(batch)
        return self._scan(batch.packets)

    def finish(self, run_ns: int, capture_id: int, capture_pos: int) -> dict[str, Rows]:
        """Return what the end of the capture settles, under the order key given; unfinished messages are rejected."""
        key = {"run_ns": run_ns, "capture_id": capture_id, "capture_pos": capture_pos}
        packets = Rows.build("packets", 1, **key, ts_capture_ns=run_ns, ts_resolution_ns=1)
        self.streams.finish(packets)
        return self._scan(packets)

    def _scan(self, packets: Rows) -> dict[str, Rows]:
        if not self.streams.listed:
            return {}
        arena = Arena(self.streams)
        if not arena.pieces:
            return {}
        pieces = arena.piece_table()
        found = fix.scan(arena.bytes, pieces)
        frames = Frames(packets, self.streams.keep)
        orders, complaints = self._orders(arena, found, frames)
        complaints += self._broken(arena, found.said)
        self.counters["skipped_bytes_total"] += int(np.maximum(found.said[:, fs.P_SKIPPED] - pieces[:, 3], 0).sum())
        self.counters["flows_dropped_total"] = self.streams.flows_dropped
        arena.save(found.said)
        out = {"orders": orders, "rejected": self._rejected(complaints, frames)}
        self.counters["messages_total"] += len(orders)
        self.counters["rejected_total"] += len(out["rejected"])
        return {name: rows for name, rows in out.items() if len(rows)}

    # -- orders ----------------------------------------------------------------------------------------------------------

    def _orders(self, arena: Arena, found: fix.Found, frames: Frames) -> tuple[Rows, list[Complaint]]:
        table = found.table
        direction = np.array([p.direction for p in arena.pieces], np.int64)[table[:, fs.PIECE]]
        delivered = arena.frames[arena.chunk_at(table[:, fs.SETTLED])]
        good = np.flatnonzero(table[:, fs.VERDICT] == fs.OK)
        self._roles(arena, found, good[np.argsort(delivered[good], kind="stable")], direction)
        session, fits = _sessions(arena.directions, found, good, direction[good])
        complaints = [
            (int(delivered[i]), *self._explained(arena, table[i]), arena.directions[int(direction[i])])
            for i in np.flatnonzero(table[:, fs.VERDICT] != fs.OK).tolist()
        ]
        for i in good[~fits].tolist():
            _, detail, data = self._explained(arena, table[i])
            detail = f"expected at most {SESSION_BYTES} bytes of venue/sender/target, found more{detail}"
            d = arena.directions[int(direction[i])]
            complaints.append((int(delivered[i]), fix.REASONS[fs.TOO_LONG], detail, data, d))
        good, session = good[fits], session[fits]
        order = np.argsort(delivered[good], kind="stable")
        good, session = good[order], session[order]
        rows = self._rows(arena, found, frames, good, direction[good], delivered[good])
        return rows.with_columns(session=session), complaints

    def _roles(self, arena: Arena, found: fix.Found, index: Array, direction: Array) -> None:
        """Decide the roles of connections whose first message this is."""
        new = np.array([d.connection.client is None for d in arena.directions])
        if not new.any():
            return
        index = index[new[direction[index]]]
        types = found.strings("message_type", index).tolist()
        for d, message_type in zip((arena.directions[k] for k in direction[index].tolist()), types, strict=True):
            if d.connection.client is None:
                self.roles.decide(d.connection, d.key, message_type)

    def _rows(
        self, arena: Arena, found: fix.Found, frames: Frames, index: Array, direction: Array, delivered: Array
    ) -> Rows:
        table = found.table[index]
        begin, last = arena.chunk_at(table[:, fs.BEGIN]), arena.chunk_at(table[:, fs.END] - 1)
        at, first = frames.rows(delivered), frames.rows(arena.carriers[begin])
        columns: dict[str, Any] = {name: found.strings(name, index) for name in fix.TEXT_AT}
        for name in (*fix.DECIMALS.values(), *fix.COUNTS.values(), *fix.INSTANTS.values()):
            columns[name] = found.numbers(name, index)
        codes = np.maximum(found.numbers("exec_trans_type", index), 0)
        columns["kind"] = kinds(
            columns["message_type"], columns["exec_type"], columns["ord_status"], codes, table[:, fs.VERSION]
        )
        columns["side"] = sides(found.numbers("side", index))
        columns["poss_dup"] = found.numbers("poss_dup", index) == ord("Y")
        columns |= _ends(arena.directions, direction)
        return Rows.build(
            "orders", len(index), **columns,
            run_ns=frames["run_ns"][at], capture_id=frames["capture_id"][at], capture_pos=frames["capture_pos"][at],
            ts_capture_ns=frames["ts_capture_ns"][at], ts_resolution_ns=frames["ts_resolution_ns"][at],
            ts_first_ns=frames["ts_capture_ns"][first], capture_pos_first=frames["capture_pos"][first],
            segments=last - begin + 1, sub=_rank(delivered), protocol=fix.PROTOCOLS[table[:, fs.VERSION]],
            retransmitted=_repeated(arena, table, direction, delivered),
        )  # fmt: skip

    # -- rejected --------------------------------------------------------------------------------------------------------

    def _explained(self, arena: Arena, row: Array) -> tuple[str, str, bytes]:
        piece, begin = arena.pieces[int(row[fs.PIECE])], int(row[fs.BEGIN])
        data = arena.bytes[begin : min(int(row[fs.END]), begin + REJECTED_BYTES_MAX)].tobytes()
        where = _where(arena.directions[piece.direction], piece.offset + begin - piece.start)
        if row[fs.VERDICT] == fs.OK:
            return "", where, data
        return fix.REASONS[int(row[fs.VERDICT])], fix.explain(row, data) + where, data

    def _broken(self, arena: Arena, said: Array) -> Iterable[Complaint]:
        for piece, ended in zip(arena.pieces, said, strict=True):
            if piece.broken is not None:
                d = arena.directions[piece.direction]
                what = _loss(d, piece, ended)
                if what is not None:
                    reason, detail = what
                    tail = int(ended[fs.P_TAIL])
                    data = arena.bytes[tail : min(piece.end, tail + REJECTED_BYTES_MAX)].tobytes()
                    yield piece.broken[3], reason, detail + _where(d, piece.offset + tail - piece.start), data, d

    def _rejected(self, complaints: list[Complaint], frames: Frames) -> Rows:
        if not complaints:
            return Rows.empty("rejected")
        complaints.sort(key=lambda c: c[0])
        delivered = np.array([c[0] for c in complaints], np.int64)
        at, n = frames.rows(delivered), len(complaints)
        return Rows.build(
            "rejected", n, run_ns=frames["run_ns"][at], capture_id=frames["capture_id"][at],
            capture_pos=frames["capture_pos"][at], ts_capture_ns=frames["ts_capture_ns"][at], sub=_rank(delivered),
            stage=np.full(n, b"decode", "S16"), topic=np.full(n, b"orders", "S32"),
            reason=np.array([c[1].encode() for c in complaints], "S48"), detail=[c[2] for c in complaints],
            bytes=[c[3] for c in complaints], **_addresses([c[4].key for c in complaints]),
        )  # fmt: skip


def _loss(d: Direction, piece: Piece, ended: Array) -> tuple[str, str] | None:
    """Reason and detail of what is lost where a piece breaks off; None when nothing is."""
    assert piece.broken is not None
    _, cause, missing, _, _ = piece.broken
    state, left = int(ended[fs.P_STATE]), piece.end - int(ended[fs.P_TAIL])
    lost = f"{missing} bytes missing, {left} bytes of an unfinished message dropped"
    if cause == GAP:
        return "stream_gap", f"expected the next bytes, found {lost}"
    if cause != CLOSE:
        return ("stream_limit", f"expected room for the stream, found none: {lost}") if missing + left else None
    if state == JOINING:
        skipped = int(ended[fs.P_SKIPPED]) + left
        if skipped == 0 or (d.connection.configured and int(ended[fs.P_SKIPPED]) > fs.NOT_FIX_BYTES_MAX):
            return None
        return (
            "not_fix" if d.connection.configured else "stream_gap"
        ), f"expected 8=FIX, found {skipped} bytes without it"
    if state == SKIPPING or left == 0:
        return None
    return "incomplete_message", f"expected {int(ended[fs.P_NEED])} bytes of a message or more, found {left}"


def _where(d: Direction, offset: int) -> str:
    ends = (f"{address_text(d.key[a : a + 16])} port {int.from_bytes(d.key[a + 16 : a + 18], 'big')}" for a in (0, 18))
    return f"; at byte {offset} of stream {' -> '.join(ends)}"


def _sessions(directions: list[Direction], found: fix.Found, index: Array, direction: Array) -> tuple[Array, Array]:
    """Session of each message, and whether it fits its column; made once for a run of messages with the same parties."""
    n = len(index)
    out, fits = np.zeros(n, f"S{SESSION_BYTES}"), np.ones(n, bool)
    if n == 0:
        return out, fits
    parties = found.text[index, _SENDER.start : _TARGET.stop]
    new = np.ones(n, bool)
    new[1:] = (direction[1:] != direction[:-1]) | (parties[1:] != parties[:-1]).any(axis=1)
    starts = np.flatnonzero(new)
    senders = found.strings("sender_comp_id", index[starts]).tolist()
    targets = found.strings("target_comp_id", index[starts]).tolist()
    made = []
    for k, sender, target in zip(direction[starts].tolist(), senders, targets, strict=True):
        d = directions[k]
        parts = (sender, target) if d.key == d.connection.client else (target, sender)
        made.append(b"/".join((d.connection.venue, *parts)))
    repeat = np.diff(np.append(starts, n))
    fits = np.repeat([len(m) <= SESSION_BYTES for m in made], repeat)
    return np.repeat(np.array(made).astype(f"S{SESSION_BYTES}"), repeat), fits


def _repeated(arena: Arena, table: Array, direction: Array, delivered: Array) -> Array:
    """Whether bytes of each message were seen again before it was complete."""
    out = np.zeros(len(table), bool)
    for k, d in enumerate(arena.directions):
        if d.repeats:
            mine = np.flatnonzero(direction == k)
            shift = np.array([p.offset - p.start for p in arena.pieces], np.int64)[table[mine, fs.PIECE]]
            begin, end = table[mine, fs.BEGIN] + shift, table[mine, fs.END] + shift
            for a, b, frame in d.repeats:
                out[mine] |= (begin < b) & (end > a) & (delivered[mine] >= frame)
    return out


def _ends(directions: list[Direction], direction: Array) -> dict[str, Array]:
    """Addresses, venue and way of each message, from its direction."""
    ends = _addresses([d.key for d in directions])
    ends["venue"] = np.array([d.connection.venue for d in directions], "S16")
    ways = [TO_VENUE if d.key == d.connection.client else FROM_VENUE for d in directions]
    ends["direction"] = np.array(ways, np.int8)
    return {name: values[direction] for name, values in ends.items()}


def _addresses(keys: list[bytes]) -> dict[str, Array]:
    raw = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), 36)
    out = {}
    for at, side in ((0, "src"), (18, "dst")):
        out[f"{side}_ip"] = np.ascontiguousarray(raw[:, at : at + 16]).view("V16").reshape(-1)
        ports = np.ascontiguousarray(raw[:, at + 16 : at + 18]).view(">u2").reshape(-1)
        out[f"{side}_port"] = ports.astype(np.int32)
    return out


def _rank(values: Array) -> Array:
    """Number equal neighbours from 0."""
    n = len(values)
    if n == 0:
        return np.zeros(0, np.int32)
    new = np.ones(n, bool)
    new[1:] = values[1:] != values[:-1]
    starts = np.flatnonzero(new)
    return (np.arange(n) - np.repeat(starts, np.diff(np.append(starts, n)))).astype(np.int32)
