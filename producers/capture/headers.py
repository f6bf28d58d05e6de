"""Frames become packets rows: one pass over link, IP and transport headers; never looks into a payload but to hash it.

Rows have their order key (run_ns is the running maximum of the capture's times, sub is 0). Frames that carry no IP or
come from an unknown kind of link are counted by the caller from `status`; malformed ones also become rejected rows.
Fragments keep their row; their payload is not whole and so is not offered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from akbypass.kernel import kernel
from akbypass.order import FNV_OFFSET, FNV_PRIME, START_NS
from akbypass.producers.capture import layers
from akbypass.producers.capture.layers import (
    COPY,
    IPV4,
    LINK_UNKNOWN,
    NONE,
    PACKET,
    TCP,
    TCP_HEADER_LENGTH,
    TCP_SHORT,
    UDP,
    UDP_LENGTH,
    UDP_SHORT,
    be16,
    be32,
    ipv4_layer,
    ipv6_layer,
    link_layer,
    octet,
    tcp_options,
)
from akbypass.producers.frames import FrameBatch, PacketBatch
from akbypass.rows import NULL_INT32, NULL_INT64, Array, Rows

# Columns by NumPy type; the kernel fills one matrix per type, whose rows become the columns without a copy.
NARROW = (
    "capture_id", "sub", "ts_resolution_ns", "src_port", "dst_port", "protocol", "ip_version", "vlan_id", "vlan_inner_id",
    "wire_length", "captured_length", "ip_id", "ip_ttl", "ip_fragment_offset", "tcp_flags", "tcp_window", "tcp_mss",
    "tcp_window_scale", "payload_length", "payload_captured",
)  # fmt: skip
WIDE = (
    "run_ns", "capture_pos", "ts_capture_ns", "tcp_seq", "tcp_ack", "tcp_sack_left", "tcp_sack_right", "tcp_ts_val",
    "tcp_ts_ecr", "payload_hash",
)  # fmt: skip
FLAGS = ("ip_more_fragments", "tcp_sack_permitted")
(
    _CAPTURE, _SUB, _RESOLUTION, _SRC_PORT, _DST_PORT, _PROTOCOL, _VERSION, _VLAN, _VLAN_INNER, _WIRE, _CAPTURED, _ID,
    _TTL, _OFFSET, _FLAGS, _WINDOW, _MSS, _SCALE, _PAYLOAD, _PAYLOAD_CAPTURED,
) = range(len(NARROW))  # fmt: skip
(_RUN, _POS, _TS, _SEQ, _ACK, _SACK_LEFT, _SACK_RIGHT, _TS_VAL, _TS_ECR, _HASH) = range(len(WIDE))
_MORE, _PERMITTED = range(len(FLAGS))
_IPV4_MAPPED = 0xFF  # bytes 10 and 11 of an IPv4 address inside an IPv6 one
REJECTED_BYTES_MAX = 1_024

REASONS = {  # of a malformed frame: the rejected row's reason, and what was expected
    layers.LINK_SHORT: ("link_header_short", "a whole link header"),
    layers.VLAN_DEPTH: ("vlan_depth", f"at most {layers.VLAN_TAGS_MAX} VLAN tags"),
    layers.IP_SHORT: ("ip_header_short", "a whole IP header"),
    layers.IP_VERSION: ("ip_version", "the IP version that the link header announced"),
    layers.IP_HEADER_LENGTH: ("ip_header_length", "an IPv4 header length of 20 bytes or more"),
    layers.IP_TOTAL_LENGTH: ("ip_total_length", "an IPv4 total length of its header's length or more"),
    layers.EXTENSION_SHORT: ("ip_extension_short", "IPv6 extension headers within the payload length"),
    layers.EXTENSION_COUNT: ("ip_extension_count", f"at most {layers.EXTENSIONS_MAX} IPv6 extension headers"),
    TCP_SHORT: ("tcp_header_short", "a whole TCP header within the datagram"),
    TCP_HEADER_LENGTH: ("tcp_header_length", "a TCP header length of 20 bytes or more"),
    UDP_SHORT: ("udp_header_short", "a whole UDP header within the datagram"),
    UDP_LENGTH: ("udp_length", "a UDP length of 8 or more"),
}


@dataclass(frozen=True, slots=True)
class ParsedFrames:
    """What became of one frame batch.

    packets   the packets, with their payloads
    run_ns    int64  of every frame, the dropped ones too
    status    int8   of every frame: layers.COPY, PACKET, NOT_IP, LINK_UNKNOWN, or a malformed one's reason
    rejected  Rows of type rejected: the malformed frames
    """

    packets: PacketBatch
    run_ns: Array
    status: Array
    rejected: Rows


class HeaderParser:
    """Headers of one capture; keeps the running maximum of its times and nothing else."""

    def __init__(self, capture_id: int, run_ns: int = START_NS) -> None:
        self.capture_id = capture_id
        self.run_ns = run_ns  # of the last frame

    def parse(self, frames: FrameBatch, copies: Array | None = None) -> ParsedFrames:
        """Make the packets rows of a frame batch, without `copies` (bool).

        They own their memory, the payload bounds refer to the batch's buffer.
        """
        n = len(frames)
        narrow, wide = np.empty((len(NARROW), n), np.int32), np.empty((len(WIDE), n), np.int64)
        flags, addresses = np.empty((len(FLAGS), n), np.bool_), np.empty((2, n, 16), np.uint8)
        payload, run_ns, status = np.empty((2, n), np.int64), np.empty(n, np.int64), np.empty(n, np.int8)
        m = parse_frames(
            frames.buffer, frames.start, frames.captured_length, frames.wire_length, frames.position, frames.ts_ns,
            frames.resolution_ns, frames.link_type, np.zeros(n, np.bool_) if copies is None else copies,
            self.capture_id, self.run_ns,
            narrow, wide, flags, addresses, payload, run_ns, status,
        )  # fmt: skip
        if n:
            self.run_ns = int(run_ns[-1])
        columns: dict[str, Array] = {name: narrow[i, :m] for i, name in enumerate(NARROW)}
        columns |= {name: wide[i, :m] for i, name in enumerate(WIDE)}
        columns |= {name: flags[i, :m] for i, name in enumerate(FLAGS)}
        columns |= {name: addresses[i, :m].view("V16").reshape(m) for i, name in enumerate(("src_ip", "dst_ip"))}
        rows = Rows.build("packets", m, **columns)
        packets = PacketBatch(rows, frames.buffer, payload[0, :m], payload[1, :m])
        return ParsedFrames(packets, run_ns, status, self._rejected(frames, run_ns, status))

    def _rejected(self, frames: FrameBatch, run_ns: Array, status: Array) -> Rows:
        bad = np.flatnonzero(status > LINK_UNKNOWN)
        if not len(bad):
            return Rows.empty("rejected")
        reasons, details, pieces = [], [], []
        for i in bad.tolist():
            reason, expected = REASONS[int(status[i])]
            start, captured, wire = int(frames.start[i]), int(frames.captured_length[i]), int(frames.wire_length[i])
            reasons.append(reason.encode())
            details.append(
                f"expected {expected}, found none in {captured} captured of {wire} bytes; in the frame of byte {frames.position[i]}"
            )
            pieces.append(frames.buffer[start : start + min(captured, REJECTED_BYTES_MAX)].tobytes())
        return Rows.build(
            "rejected", len(bad), run_ns=run_ns[bad], capture_id=self.capture_id, capture_pos=frames.position[bad],
            ts_capture_ns=frames.ts_ns[bad], stage=np.array([b"capture"]).repeat(len(bad)),
            topic=np.array([b"packets"]).repeat(len(bad)), reason=np.array(reasons), detail=details, bytes=pieces,
        )  # fmt: skip


@kernel
def fnv1a(payload: Any) -> Any:
    """Hash bytes by 64-bit FNV-1a, as a signed number."""
    h = FNV_OFFSET
    for b in payload:
        h = (h ^ np.uint64(b)) * FNV_PRIME
    return np.int64(h)


@kernel
def parse_frames(
    buffer: Any, start: Any, captured: Any, wire: Any, position: Any, ts: Any, resolution: Any, link: Any,
    copies: Any, capture_id: int, last_run_ns: int,
    narrow: Any, wide: Any, flags: Any, addresses: Any, payload: Any, run_ns: Any, status: Any,
) -> int:  # fmt: skip
    """Fill the columns of the packets rows and each frame's run_ns and status; returns the number of packets."""
    m = 0
    highest = last_run_ns
    for i in range(len(start)):
        highest = max(highest, ts[i])
        run_ns[i] = highest
        if copies[i]:
            status[i] = COPY
            continue
        frame = buffer[start[i] : start[i] + captured[i]]
        n = len(frame)
        state, at, ether_type, outer, inner = link_layer(frame, link[i])
        if state != PACKET:
            status[i] = state
            continue
        if ether_type == IPV4:
            state, protocol, ident, ttl, offset, more, data, end = ipv4_layer(frame, at, wire[i])
        else:
            state, protocol, ident, ttl, offset, more, data, end = ipv6_layer(frame, at, wire[i])
        if state != PACKET:
            status[i] = state
            continue
        seen = min(end, n)  # end of what was captured of the datagram
        src_port, dst_port, tcp_flags, window, header_end = 0, 0, 0, NONE, data
        seq, ack = NONE, NONE
        mss, scale, permitted, left, right, value, echo = NONE, NONE, False, NONE, NONE, NONE, NONE
        length = max(end - data, 0)
        if offset == 0 and (protocol in (TCP, UDP)):
            if seen >= data + 4:
                src_port, dst_port = be16(frame, data), be16(frame, data + 2)
            if protocol == TCP:
                if end < data + 20 and not more:
                    status[i] = TCP_SHORT
                    continue
                header_end = data + 20
                if seen >= data + 8:
                    seq = be32(frame, data + 4)
                if seen >= data + 14:
                    header_end = data + (octet(frame, data + 12) >> 4) * 4
                    tcp_flags = octet(frame, data + 13)
                    if tcp_flags & 0x10:
                        ack = be32(frame, data + 8)
                    if header_end < data + 20:
                        status[i] = TCP_HEADER_LENGTH
                        continue
                    if header_end > end and not more:
                        status[i] = TCP_SHORT
                        continue
                if seen >= data + 16:
                    window = be16(frame, data + 14)
                if header_end > data + 20:
                    mss, scale, permitted, left, right, value, echo = tcp_options(
                        frame, data + 20, min(header_end, seen)
                    )
            else:
                if end < data + 8 and not more:
                    status[i] = UDP_SHORT
                    continue
                header_end = data + 8
                if seen >= data + 6 and not more:
                    udp = be16(frame, data + 4)  # 0 stands for a jumbogram
                    if 0 < udp < 8:
                        status[i] = UDP_LENGTH
                        continue
                    if udp > 0:
                        end = min(end, data + udp)
            length = max(end - header_end, 0)
        first = min(header_end, n)
        last = first
        if offset == 0 and not more and (protocol in (TCP, UDP)):
            last = max(min(end, n), first)
        status[i] = PACKET

        narrow[_CAPTURE, m], narrow[_SUB, m], narrow[_RESOLUTION, m] = capture_id, 0, resolution[i]
        narrow[_SRC_PORT, m], narrow[_DST_PORT, m], narrow[_PROTOCOL, m] = src_port, dst_port, protocol
        narrow[_VERSION, m] = 4 if ether_type == IPV4 else 6
        narrow[_VLAN, m] = outer if outer != NONE else NULL_INT32
        narrow[_VLAN_INNER, m] = inner if inner != NONE else NULL_INT32
        narrow[_WIRE, m], narrow[_CAPTURED, m] = wire[i], captured[i]
        narrow[_ID, m] = ident if ident != NONE else NULL_INT32
        narrow[_TTL, m], narrow[_OFFSET, m], narrow[_FLAGS, m] = ttl, offset, tcp_flags
        narrow[_WINDOW, m] = window if window != NONE else NULL_INT32
        narrow[_MSS, m] = mss if mss != NONE else NULL_INT32
        narrow[_SCALE, m] = scale if scale != NONE else NULL_INT32
        narrow[_PAYLOAD, m], narrow[_PAYLOAD_CAPTURED, m] = length, last - first
        wide[_RUN, m], wide[_POS, m], wide[_TS, m] = highest, position[i], ts[i]
        wide[_SEQ, m] = seq if seq != NONE else NULL_INT64
        wide[_ACK, m] = ack if ack != NONE else NULL_INT64
        wide[_SACK_LEFT, m] = left if left != NONE else NULL_INT64
        wide[_SACK_RIGHT, m] = right if right != NONE else NULL_INT64
        wide[_TS_VAL, m] = value if value != NONE else NULL_INT64
        wide[_TS_ECR, m] = echo if echo != NONE else NULL_INT64
        wide[_HASH, m] = fnv1a(frame[first:last])
        flags[_MORE, m], flags[_PERMITTED, m] = more, permitted
        if ether_type == IPV4:
            for side in range(2):
                for j in range(10):
                    addresses[side, m, j] = 0
                addresses[side, m, 10] = _IPV4_MAPPED
                addresses[side, m, 11] = _IPV4_MAPPED
                for j in range(4):
                    addresses[side, m, 12 + j] = frame[at + 12 + side * 4 + j]
        else:
            for side in range(2):
                for j in range(16):
                    addresses[side, m, j] = frame[at + 8 + side * 16 + j]
        payload[0, m], payload[1, m] = start[i] + first, start[i] + last
        m += 1
    return m
