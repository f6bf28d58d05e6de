"""From packets to ordered bytes of the TCP connections that speak FIX; reads no message and makes no row.

Which connections those are is told by structure, never by port:

    SYN seen            the first five bytes of either side are "8=FIX", else the connection is forgotten
    joined in midstream a segment begins with "8=FIX", or ends with a checksum field (SOH 1 0 = d d d SOH)
    configured gateway  always followed, so that what is spoken there instead of FIX is reported

A packet of any other connection costs one dictionary look-up. Everything kept is bounded: bytes a direction
(`tcp_flow`), bytes in all, connections, SYNs remembered; the oldest goes first. Bounds on bytes in all are enforced
between batches, so a batch may exceed them by its own size.
"""

from __future__ import annotations

import numpy as np

from akbypass.config import Thresholds
from akbypass.producers.decoders.tcp_flow import IN_SYNC, START, Connection, Direction, Meta, reverse_key
from akbypass.producers.frames import PacketBatch
from akbypass.rows import Array, Rows
from akbypass.schemas import NULL_INT64

FIN, SYN, RST, ACK = 1, 2, 4, 16
TCP = 6
SOH = 1
MARK = b"8=FIX"  # how a FIX message begins
TRAILER_BYTES = 8  # SOH 1 0 = d d d SOH


class Reassembler:
    """Follows the FIX connections of one capture, in order.

    After `feed`, `listed` holds the directions with news for the scanner, and `keep` the metas of frames from
    earlier batches: a frame index of -k means keep[k - 1].
    """

    def __init__(self, gateways: frozenset[bytes], limits: Thresholds) -> None:
        self._bytes_max = limits.reassembly_bytes_max  # kept over all connections
        self._flows_max = limits.reassembly_flows_max  # connections, and as many SYNs: a flood must not cost memory
        self.gateways = gateways  # address and port (18 bytes) of configured FIX gateways
        self.directions: dict[bytes, Direction] = {}
        self.closed: dict[bytes, None] = {}  # connections that ended, oldest first
        self.syns: dict[bytes, tuple[int, bool]] = {}  # sequence number, from the client
        self.holders: dict[Direction, None] = {}  # directions that keep bytes, oldest first
        self.kept_bytes = 0
        self.listed: list[Direction] = []
        self.keep: list[Meta] = []
        self.flows_met = 0
        self.flows_dropped = 0
        self._run_ns: Array = np.empty(0, np.int64)
        self._packets = Rows.empty("packets")

    def feed(self, batch: PacketBatch) -> None:
        """Take the packets of one batch; what was fed before must have been scanned and settled."""
        self._begin(batch.packets)
        index = _candidates(batch.packets)
        if len(index) == 0:
            return
        packets, view = batch.packets, batch.buffer.data
        start, end = batch.payload_start[index], batch.payload_end[index]
        rows = zip(
            index.tolist(), _keys(packets, index).tolist(), packets["tcp_seq"][index].tolist(),
            (packets["tcp_flags"][index] & (FIN | SYN | RST)).tolist(), packets["payload_length"][index].tolist(),
            start.tolist(), end.tolist(), _may_begin(batch.buffer, start, end).tolist(), strict=True,
        )  # fmt: skip
        get, listed, gateways = self.directions.get, self.listed, self.gateways
        for i, key, seq, control, length, a, b, hint in rows:
            d = get(key)
            if d is not None and d.plain and seq == d.next_seq and not control and b - a == length:
                d.chunks.append((view[a:b], i, i))
                d.next_seq = (seq + length) & 0xFFFFFFFF
                d.offset += length
                if not d.listed:
                    d.listed = True
                    listed.append(d)
            elif (
                control or d is not None or hint or key in self.syns
                or (gateways and (key[:18] in gateways or key[18:] in gateways))
            ):  # fmt: skip
                self._slow(i, key, seq, control, length, view[a:b], hint)

    def finish(self, packets: Rows) -> None:
        """End every connection at the one row of `packets`."""
        self._begin(packets)
        for d in self.directions.values():
            if d.connection.is_fix:
                self._end(d, 0)

    def settle(self, d: Direction) -> None:
        """Count what a scanned direction still keeps."""
        kept = d.tail_bytes + d.held_bytes
        self.kept_bytes += kept - d.accounted
        d.accounted = kept
        if kept:
            self.holders.setdefault(d)
        else:
            self.holders.pop(d, None)

    def _begin(self, packets: Rows) -> None:
        self._packets, self._run_ns = packets, packets["run_ns"]
        self.listed, self.keep = [], []
        if len(packets) == 0:
            return
        while self.kept_bytes > self._bytes_max:
            d = next(iter(self.holders))
            d.forget(0)
            d.plain = d.connection.is_fix
            self._list(d)
            self.kept_bytes -= d.accounted
            d.accounted = 0
            del self.holders[d]

    def _list(self, d: Direction) -> None:
        if not d.listed:
            d.listed = True
            self.listed.append(d)

    def meta(self, i: int) -> Meta:
        """Order key and capture time of a frame."""
        if i < 0:
            return self.keep[-i - 1]
        p = self._packets
        return (
            int(p["run_ns"][i]), int(p["capture_id"][i]), int(p["capture_pos"][i]), int(p["ts_capture_ns"][i]),
            int(p["ts_resolution_ns"][i]),
        )  # fmt: skip

    # -- the long way: anything but the next bytes of a known FIX connection ---------------------------------------------

    def _slow(self, i: int, key: bytes, seq: int, control: int, length: int, data: memoryview, hint: bool) -> None:
        if control & SYN:
            self._syn(i, key, seq)
            seq = (seq + 1) & 0xFFFFFFFF
        d = self.directions.get(key)
        if length:
            if d is None:
                d = self._meet(i, key, seq, data, hint)
            if d is not None:
                self._segment(d, i, seq, data, length)
        if control & (FIN | RST):
            self._over(i, key, bool(control & RST))

    def _syn(self, i: int, key: bytes, seq: int) -> None:
        client = not int(self._packets["tcp_flags"][i]) & ACK
        d = self.directions.get(key)
        if d is not None:
            if d.isn == seq:
                return
            if not client:
                if d.next_seq < 0:
                    d.start(seq, START if d.connection.configured else IN_SYNC)
                return
            for one in d.connection.directions:
                if d.connection.is_fix:
                    self._end(one, i)
            self._drop(d.connection)
        known = self.syns.pop(key, None)
        if client and known is not None and known[0] != seq:
            self.syns.pop(reverse_key(key), None)  # answered an earlier SYN
        self.syns[key] = (seq, client)
        if len(self.syns) > self._flows_max:
            del self.syns[next(iter(self.syns))]

    def _meet(self, i: int, key: bytes, seq: int, data: memoryview, hint: bool) -> Direction | None:
        """Decide from the first payload whether a connection is worth following."""
        other = reverse_key(key)
        configured = bool(self.gateways) and (key[:18] in self.gateways or key[18:] in self.gateways)
        syn, answer = self.syns.get(key), self.syns.get(other)
        begins = MARK.startswith(bytes(data[: len(MARK)])) and len(data) > 0
        ends = hint and _is_trailer(bytes(data[-TRAILER_BYTES:]))
        early = syn is not None and seq != (syn[0] + 1) & 0xFFFFFFFF  # not the first bytes: they may still come
        if not (configured or begins or ends or early):
            self.syns.pop(key, None)
            self.syns.pop(other, None)
            return None
        connection = Connection(key, configured, self.flows_met)
        self.flows_met += 1
        connection.is_fix = configured or (ends and syn is None)
        state = START if configured else IN_SYNC
        for d, known in zip(connection.directions, (syn, answer), strict=True):
            self.directions[d.key] = d
            d.plain = connection.is_fix
            if known is not None:
                d.start(known[0], state)
                connection.syn_key = d.key if known[1] else reverse_key(d.key)
            self.syns.pop(d.key, None)
        if len(self.directions) > 2 * self._flows_max:
            self._evict(i)
        return connection.directions[0]

    def _segment(self, d: Direction, i: int, seq: int, data: memoryview, length: int) -> None:
        run_ns = int(self._run_ns[i])
        d.segment(seq, data, length, i, self.meta)
        if d.held:
            d.drain(i, run_ns, self.keep)
            while d.overfull(run_ns):
                d.give_up(i, run_ns, self.keep, all_holes=False)
            if d.finished and not d.held:
                d.close(i, run_ns, self.keep)
        self._list(d)
        if not d.connection.is_fix:
            self._recognise(d)
        d.plain = d.connection.is_fix and not d.held

    def _recognise(self, d: Direction) -> None:
        """Compare the first bytes of the stream; the side that speaks first decides for both."""
        first = b"".join(data for data, _ in d.tail)
        for data, _, _ in d.chunks:
            if len(first) >= len(MARK):
                break
            first += data
        if not MARK.startswith(first[: len(MARK)]):
            self._abandon(d.connection)
        elif len(first) >= len(MARK):
            d.connection.is_fix = True
            for one in d.connection.directions:
                one.plain = not one.held

    def _abandon(self, connection: Connection) -> None:
        """Forget a connection that does not speak FIX."""
        self._drop(connection)
        for d in connection.directions:
            d.chunks, d.breaks, d.tail, d.tail_bytes, d.held, d.held_bytes = [], [], [], 0, [], 0

    def _over(self, i: int, key: bytes, reset: bool) -> None:
        self.syns.pop(key, None)
        d = self.directions.get(key)
        if d is None:
            if reset:
                self.syns.pop(reverse_key(key), None)
            return
        run_ns, connection = int(self._run_ns[i]), d.connection
        if not connection.is_fix:
            self._abandon(connection)
            return
        d.finished = True
        for one in connection.directions:
            # A FIN may overtake what it follows; the other side's FIN, or a reset, says that nothing is to come.
            if (reset or one.finished) and (reset or one is not d or not one.held):
                one.close(i, run_ns, self.keep)
                one.plain = True
                self._list(one)
        if reset or all(one.finished for one in connection.directions):
            self.closed[connection.directions[0].key] = None

    def _end(self, d: Direction, i: int) -> None:
        d.close(i, int(self._run_ns[i]), self.keep)
        self._list(d)

    def _drop(self, connection: Connection) -> None:
        for d in connection.directions:
            self.directions.pop(d.key, None)
            self.holders.pop(d, None)
            self.kept_bytes -= d.accounted
            d.accounted = 0
        self.closed.pop(connection.directions[0].key, None)

    def _evict(self, i: int) -> None:
        key = next(iter(self.closed), None) or next(iter(self.directions))
        connection = self.directions[key].connection
        for d in connection.directions:
            d.forget(i)
            self._list(d)
        self._drop(connection)
        self.flows_dropped += 1


def _candidates(packets: Rows) -> Array:
    """Rows of TCP packets that carry payload or change the connection."""
    control = packets["tcp_flags"] & (FIN | SYN | RST) != 0
    tcp = (packets["protocol"] == TCP) & (packets["tcp_seq"] != NULL_INT64)
    return np.flatnonzero(tcp & (control | (packets["payload_length"] > 0)))


def _keys(packets: Rows, index: Array) -> Array:
    """Source address and port, destination address and port, as 36 bytes each."""
    out = np.empty((len(index), 36), np.uint8)
    for at, address, port in ((0, "src_ip", "src_port"), (18, "dst_ip", "dst_port")):
        out[:, at : at + 16] = packets[address][index].view(np.uint8).reshape(-1, 16)
        out[:, at + 16 : at + 18] = packets[port][index].astype(">u2").view(np.uint8).reshape(-1, 2)
    return out.view("V36").reshape(-1)


def _may_begin(buffer: Array, start: Array, end: Array) -> Array:
    """Whether a payload begins with the mark's first byte or ends as a message does."""
    out = np.zeros(len(start), bool)
    some = np.flatnonzero(end > start)
    out[some] = (buffer[start[some]] == MARK[0]) | (buffer[end[some] - 1] == SOH)
    return out


def _is_trailer(last: bytes) -> bool:
    return len(last) == TRAILER_BYTES and last[:4] == b"\x0110=" and last[4:7].isdigit() and last[7] == SOH


def gateway_key(address: bytes, port: int) -> bytes:
    """Address (16 bytes) and port as they stand in a direction's key."""
    return address + port.to_bytes(2, "big")
