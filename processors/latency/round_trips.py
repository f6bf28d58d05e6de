"""Measures TCP round trips from a tap between two hosts by Karn's rule; knows no orders and keeps no statistics.

    client ──data [seq, end)──▶ tap ──▶ server        sent: first time that a segment ending at `end` passed
    client ◀──────────── tap ◀──ack A── server        sample: now − sent, for the segment with end == A

A segment is data, SYN or FIN; its end is the sequence number behind it. The first ACK that moves forward takes every
segment with end <= A off its direction's list; the one with end == A gives the sample, so there is at most one sample
an ACK, and none for an ACK that ends inside a segment (what tshark calls tcp.analysis.ack_rtt). No sample when a byte
in [last ACK, A) was seen again (Karn): nobody can tell which copy was answered. A byte that comes behind later ones
counts as seen again: it fills a hole, and the ACK waited for it. Numbers wrap at 2^32 (RFC 9293, 3.4).

A SYN with a new number begins the connection anew. A SYN-ACK with another number than one that was acknowledged is
stray (a server that kept no state answers each repeated SYN so) and ignored.

A RST that acknowledges a SYN answers it as a SYN-ACK does. A delayed ACK is part of the value: it is at least the true
round trip. A list holds OUTSTANDING_MAX segments; when it is full new ones are skipped and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from akbypass import schemas
from akbypass.config import Config, venue_text
from akbypass.kernel import kernel
from akbypass.processors import flow_table
from akbypass.processors.flow_table import OWN, PORTS, FlowTable, halves
from akbypass.rows import NULL_INT64, Array, Rows, address_bytes

SERVER, SERIAL = OWN, OWN + 1  # side of the server (0 is a); number of the flow in order of appearance
SIDE = OWN + 2  # columns of side a, then of side b, as a sender:
HEAD, TAIL, LENGTH, ISN, NEXT, ACKED, AGAIN_LOW, AGAIN_HIGH = range(8)  # list, first number, ends, seen again
SIDE_WIDTH = 8
WIDTH = SIDE + 2 * SIDE_WIDTH
NODE_END, NODE_TS, NODE_RESOLUTION, NODE_SYN, NODE_AFTER, NODE_WIDTH = range(6)  # of an outstanding segment
USED, FREE, SKIPPED, AMBIGUOUS, SERIALS = range(5)  # of `counts`: segments in use or free, first free, counters
OUT_PACKET, OUT_START, OUT_RESOLUTION, OUT_SYN, OUT_TO_SERVER, OUT_KEY, OUT_WIDTH = range(7)
OUTSTANDING_MAX = 64  # segments per direction that wait for their ACK: a 90 KB window of full segments
FIN, SYN, RST, ACK = 1, 2, 4, 16
MASK, HALF, WRAP = 0xFFFFFFFF, 0x80000000, 0x100000000
UNKNOWN = -1
TCP = 6
CHUNK_ROWS = 65_536
FIRST_SEGMENTS = 1_024


@kernel
def _ahead(x: int, y: int) -> int:
    """How far the sequence number x lies ahead of y, negative when behind."""
    distance = (x - y) & MASK
    return distance - WRAP if distance >= HALF else distance


@kernel
def _forget(flows: Any, slot: int, side: int, segments: Any, counts: Any) -> None:
    """Give a direction's segments back and make it as if it had not spoken."""
    at = SIDE + SIDE_WIDTH * side
    while flows[slot, at + LENGTH] > 0:
        _take_first(flows, slot, at, segments, counts)
    for column in range(SIDE_WIDTH):
        flows[slot, at + column] = UNKNOWN
    flows[slot, at + LENGTH] = 0


@kernel
def _take_first(flows: Any, slot: int, at: int, segments: Any, counts: Any) -> None:
    node = flows[slot, at + HEAD]
    flows[slot, at + HEAD] = segments[node, NODE_AFTER]
    flows[slot, at + LENGTH] -= 1
    segments[node, NODE_AFTER] = counts[FREE]
    counts[FREE] = node


@kernel
def _append(flows: Any, slot: int, at: int, segments: Any, counts: Any, segments_max: int) -> int:
    """Add a segment at the end of a direction's list and return its row, -1 when there is no room."""
    node = counts[FREE]
    if flows[slot, at + LENGTH] >= OUTSTANDING_MAX or (node < 0 and counts[USED] >= segments_max):
        counts[SKIPPED] += 1
        return -1
    if node >= 0:
        counts[FREE] = segments[node, NODE_AFTER]
    else:
        node = counts[USED]
        counts[USED] += 1
    segments[node, NODE_AFTER] = -1
    if flows[slot, at + LENGTH] == 0:
        flows[slot, at + HEAD] = node
    else:
        segments[flows[slot, at + TAIL], NODE_AFTER] = node
    flows[slot, at + TAIL] = node
    flows[slot, at + LENGTH] += 1
    return node  # type: ignore[no-any-return]


@kernel
def _server(flows: Any, slot: int, direction: int, flag: int, gateways: Any) -> int:
    """Tell which side is the server: a gateway, else who receives a SYN or sends a SYN-ACK, else the lower port."""
    gateway = flow_table.gateway_side(flows, slot, gateways)
    if gateway >= 0:
        return gateway
    if flag & SYN:
        return direction if flag & ACK else 1 - direction
    port_a, port_b = flows[slot, PORTS] >> 16, flows[slot, PORTS] & 0xFFFF
    if port_a == port_b:
        return 1 - direction
    return 0 if port_a < port_b else 1


@kernel
def _send(flows: Any, slot: int, at: int, seq: int, size: int, segments: Any, counts: Any, segments_max: int) -> int:
    """Take a segment of the sender whose columns begin at `at`; return its row if it waits for an ACK, else -1."""
    end, last = (seq + size) & MASK, flows[slot, at + NEXT]
    if last != UNKNOWN and _ahead(last, seq) > 0:
        again = end if _ahead(last, end) > 0 else last  # bytes [seq, again) were seen before
        acked = flows[slot, at + ACKED]
        if acked == UNKNOWN or _ahead(again, acked) > 0:
            if flows[slot, at + AGAIN_HIGH] == UNKNOWN:
                flows[slot, at + AGAIN_LOW], flows[slot, at + AGAIN_HIGH] = seq, again
            if _ahead(flows[slot, at + AGAIN_LOW], seq) > 0:
                flows[slot, at + AGAIN_LOW] = seq
            if _ahead(again, flows[slot, at + AGAIN_HIGH]) > 0:
                flows[slot, at + AGAIN_HIGH] = again
    if last != UNKNOWN and _ahead(end, last) <= 0:
        return -1
    flows[slot, at + NEXT] = end
    node = _append(flows, slot, at, segments, counts, segments_max)
    if node >= 0:
        segments[node, NODE_END] = end
    return node


@kernel
def _acknowledge(flows: Any, slot: int, at: int, ack: int, segments: Any, counts: Any) -> int:
    """Take an ACK for the sender whose columns begin at `at`; return the row of the segment it measures, else -1.

    The row has just become free and is read before it is used again.
    """
    acked, last = flows[slot, at + ACKED], flows[slot, at + NEXT]
    if (acked != UNKNOWN and _ahead(ack, acked) <= 0) or (last != UNKNOWN and _ahead(ack, last) > HALF // 2):
        return -1  # nothing new, or a number from nowhere
    found = -1
    while flows[slot, at + LENGTH] > 0:
        node = flows[slot, at + HEAD]
        if _ahead(ack, segments[node, NODE_END]) < 0:
            break
        if segments[node, NODE_END] == ack:
            found = node
        _take_first(flows, slot, at, segments, counts)
    flows[slot, at + ACKED] = ack
    if last == UNKNOWN or _ahead(ack, last) > 0:
        flows[slot, at + NEXT] = ack  # what was acknowledged was sent, though not seen
    if flows[slot, at + AGAIN_HIGH] != UNKNOWN:
        if found >= 0 and _ahead(ack, flows[slot, at + AGAIN_LOW]) > 0:
            counts[AMBIGUOUS] += 1
            found = -1
        if _ahead(ack, flows[slot, at + AGAIN_HIGH]) >= 0:
            flows[slot, at + AGAIN_LOW], flows[slot, at + AGAIN_HIGH] = UNKNOWN, UNKNOWN
    return found


@kernel
def _measure(
    flows: Any, heads: Any, meta: Any, flows_max: int, segments: Any, counts: Any, segments_max: int, gateways: Any, ts_ns: Any,
    resolution: Any, src: Any, dst: Any, src_port: Any, dst_port: Any, seq: Any, ack: Any, flags: Any, payload: Any, out: Any,
) -> int:  # fmt: skip
    """Take TCP packets in order, write samples to `out`, return how many."""
    n = 0
    for i in range(len(ts_ns)):
        flag = flags[i]
        direction = flow_table.write_key(flows, src[i], dst[i], src_port[i], dst_port[i])
        slot = flow_table.find(flows, heads)
        opens = flag & (SYN | ACK | RST) == SYN
        if slot >= 0:
            flow_table.touch(flows, meta, slot)
            anew = opens and flows[slot, SIDE + SIDE_WIDTH * direction + ISN] != seq[i]  # the ports are used again
        else:
            old = flow_table.victim(meta, flows_max)
            if old >= 0:
                _forget(flows, old, 0, segments, counts)
                _forget(flows, old, 1, segments, counts)
            slot = flow_table.insert(flows, heads, meta, flows_max)
            flows[slot, SERIAL] = counts[SERIALS]
            counts[SERIALS] += 1
            anew = True
        if anew:
            _forget(flows, slot, 0, segments, counts)
            _forget(flows, slot, 1, segments, counts)
            flows[slot, SERVER] = _server(flows, slot, direction, flag, gateways)
        mine, theirs = SIDE + SIDE_WIDTH * direction, SIDE + SIDE_WIDTH * (1 - direction)
        size = payload[i] + (1 if flag & (SYN | FIN) else 0)
        isn = flows[slot, mine + ISN]
        stray = flag & SYN != 0 and isn not in (UNKNOWN, seq[i]) and flows[slot, mine + ACKED] != UNKNOWN
        if flag & RST == 0 and not stray:
            if flag & SYN and isn != seq[i]:
                _forget(flows, slot, direction, segments, counts)
                flows[slot, mine + ISN] = seq[i]
            if size > 0:
                node = _send(flows, slot, mine, seq[i], size, segments, counts, segments_max)
                if node >= 0:
                    segments[node, NODE_TS], segments[node, NODE_RESOLUTION] = ts_ns[i], resolution[i]
                    segments[node, NODE_SYN] = 1 if flag & SYN else 0
            elif flows[slot, mine + NEXT] == UNKNOWN:
                flows[slot, mine + NEXT] = seq[i]
        if flag & ACK:
            node = _acknowledge(flows, slot, theirs, ack[i], segments, counts)
            if node >= 0:
                out[n, OUT_PACKET], out[n, OUT_START] = i, segments[node, NODE_TS]
                out[n, OUT_RESOLUTION], out[n, OUT_SYN] = segments[node, NODE_RESOLUTION], segments[node, NODE_SYN]
                out[n, OUT_TO_SERVER] = 1 if flows[slot, SERVER] == direction else 0
                out[n, OUT_KEY] = 2 * flows[slot, SERIAL] + flows[slot, SERVER]
                n += 1
    return n


class RoundTrips:
    """The TCP flows of one partition and their segments that wait for an ACK."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._table = FlowTable(WIDTH, config.thresholds.flows_max)
        self._segments_max = 2 * config.thresholds.flows_max
        self._segments: Array = np.zeros((FIRST_SEGMENTS, NODE_WIDTH), np.int64)
        self._counts: Array = np.array([0, -1, 0, 0, 0], np.int64)
        self._gateways = flow_table.gateway_table(config)

    @property
    def counters(self) -> dict[str, int]:
        """Flows that made room, segments that were not followed, samples that Karn's rule dropped (count)."""
        names = {"segments_skipped": SKIPPED, "samples_ambiguous": AMBIGUOUS}
        evicted = int(self._table.meta[flow_table.EVICTED])
        return {"flows_evicted": evicted, **{name: int(self._counts[i]) for name, i in names.items()}}

    def step(self, packets: Rows) -> Rows:
        """Return the samples of these packets as latency rows without ids."""
        tcp = np.flatnonzero((packets["protocol"] == TCP) & (packets["tcp_seq"] != NULL_INT64))
        parts = [self._take(packets.take(tcp[at : at + CHUNK_ROWS])) for at in range(0, len(tcp), CHUNK_ROWS)]
        return Rows.concat([Rows.empty("latency"), *parts])

    def _take(self, packets: Rows) -> Rows:
        self._table.reserve(len(packets))
        self._reserve(len(packets))
        out = np.empty((len(packets), OUT_WIDTH), np.int64)
        table = self._table
        n = _measure(
            table.flows, table.heads, table.meta, table.flows_max, self._segments, self._counts, self._segments_max,
            self._gateways, packets["ts_capture_ns"], packets["ts_resolution_ns"], halves(packets["src_ip"]),
            halves(packets["dst_ip"]), packets["src_port"], packets["dst_port"], packets["tcp_seq"], packets["tcp_ack"],
            packets["tcp_flags"], packets["payload_length"], out,
        )  # fmt: skip
        return self._rows(packets.take(out[:n, OUT_PACKET]), out[:n])

    def _reserve(self, packets: int) -> None:
        needed = min(int(self._counts[USED]) + packets, self._segments_max)
        if needed > len(self._segments):
            grown = np.zeros((max(needed, 2 * len(self._segments)), NODE_WIDTH), np.int64)
            grown[: len(self._segments)] = self._segments
            self._segments = grown

    def _rows(self, answers: Rows, out: Array) -> Rows:
        code = schemas.load("latency").code
        venue, session = self._names(answers, out)
        to_server = out[:, OUT_TO_SERVER] == 1
        return Rows.build(
            "latency", len(answers),
            **{k: answers[k] for k in ("run_ns", "capture_id", "capture_pos", "ts_capture_ns")},
            ts_start_ns=out[:, OUT_START], value_ns=answers["ts_capture_ns"] - out[:, OUT_START],
            kind=np.where(out[:, OUT_SYN] == 1, code("kind", "tcp_handshake"), code("kind", "tcp_rtt")),
            leg=np.where(to_server, code("leg", "to_venue"), code("leg", "to_client")),
            venue=venue, session=session, u_ns=np.maximum(out[:, OUT_RESOLUTION], answers["ts_resolution_ns"]),
            src_ip=answers["dst_ip"], src_port=answers["dst_port"], dst_ip=answers["src_ip"], dst_port=answers["src_port"],
        )  # fmt: skip

    def _names(self, answers: Rows, out: Array) -> tuple[Array, Array]:
        """Venue and session of each sample, written once a flow."""
        _, first, inverse = np.unique(out[:, OUT_KEY], return_index=True, return_inverse=True)
        rows = answers.take(first).to_dicts() if len(first) else []
        venues, sessions = [], []
        for row, to_server in zip(rows, out[first, OUT_TO_SERVER].tolist(), strict=True):
            server, client = ("src", "dst") if to_server else ("dst", "src")
            address, port = row[f"{server}_ip"], row[f"{server}_port"]
            name = self._config.venue_of(address, port)
            venues.append(venue_text(address_bytes(address)) if name is None else name.encode("ascii", "replace"))
            sessions.append(endpoint_text(row[f"{client}_ip"], row[f"{client}_port"]))
        widths = schemas.load("latency").by_name
        made = [np.array(v, widths[k].dtype) for k, v in (("venue", venues), ("session", sessions))]
        return made[0][inverse], made[1][inverse]

    def snapshot(self) -> dict[str, Array]:
        """Copy the state."""
        segments = self._segments[: int(self._counts[USED])].copy()
        return {**self._table.snapshot(), "segments": segments, "counts": self._counts.copy()}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over a snapshot."""
        self._table.restore(state)
        self._counts = state["counts"].copy()
        self._reserve(0)
        self._segments[: len(state["segments"])] = state["segments"]


def endpoint_text(address: str, port: int) -> bytes:
    """Write `address:port`, with brackets round an IPv6 address."""
    return f"[{address}]:{port}".encode() if ":" in address else f"{address}:{port}".encode()
