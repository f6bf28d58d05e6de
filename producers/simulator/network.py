"""Frames, byte by byte; knows no meaning of a payload, sends nothing.

    Ethernet II   destination[6] source[6] type[2]=0x0800
    IPv4          0x45 tos[1] length[2] id[2] flags+offset[2]=DF ttl[1] protocol[1] checksum[2] source[4] destination[4]
    UDP           source port[2] destination port[2] length[2] checksum[2]                                    (RFC 768)
    TCP           source port[2] destination port[2] seq[4] ack[4] offset[1] flags[1] window[2] checksum[2] urgent[2]
                  options                                                                                    (RFC 9293)

Big-endian. Frames below 60 bytes are padded with zeros, as Ethernet does, so that a reader must trust the IP length.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

import numpy as np

from akbypass.rows import Array

FRAME_BYTES_MIN = 60  # IEEE 802.3 minimum without the check sequence
UDP_HEADERS = 42  # Ethernet, IPv4, UDP
TCP, UDP = 6, 17
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
_ETHERNET_IP = struct.Struct(">6s6sHBBHHHBBH4s4s")
_TCP = struct.Struct(">HHIIBBHHH")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and port."""

    ip: str
    port: int

    @property
    def packed(self) -> bytes:
        """The address, 4 bytes."""
        return ipaddress.IPv4Address(self.ip).packed

    @property
    def mac(self) -> bytes:
        """Hardware address: the group's for multicast (RFC 1112 section 6.4), else a locally administered one."""
        packed = self.packed
        if packed[0] >> 4 == 0xE:
            return b"\x01\x00\x5e" + bytes([packed[1] & 0x7F]) + packed[2:]
        return b"\x02\x00" + packed


def checksum(data: bytes) -> int:
    """Internet checksum (RFC 1071) of big-endian words; an odd tail counts as if a zero byte followed."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _ip(source: Endpoint, target: Endpoint, protocol: int, ident: int, ttl: int, body: bytes) -> bytes:
    fields = (target.mac, source.mac, 0x0800, 0x45, 0, 20 + len(body), ident & 0xFFFF, 0x4000, ttl, protocol)
    header = _ETHERNET_IP.pack(*fields, 0, source.packed, target.packed)
    header = header[:24] + checksum(header[14:]).to_bytes(2, "big") + header[26:]
    return (header + body).ljust(FRAME_BYTES_MIN, b"\0")


def tcp_frame(
    source: Endpoint,
    target: Endpoint,
    *,
    seq: int,
    ack: int,
    flags: int,
    payload: bytes = b"",
    options: bytes = b"",
    ident: int = 0,
    ttl: int = 64,
    window: int = 64_240,
) -> bytes:
    """Write one TCP segment as a frame; sequence numbers wrap at 2^32."""
    offset = (20 + len(options)) // 4 << 4
    fields = (source.port, target.port, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, offset, flags, window)
    segment = _TCP.pack(*fields, 0, 0) + options + payload
    pseudo = source.packed + target.packed + struct.pack(">HH", TCP, len(segment))
    segment = segment[:16] + checksum(pseudo + segment).to_bytes(2, "big") + segment[18:]
    return _ip(source, target, TCP, ident, ttl, segment)


def word_sums(payloads: list[bytes]) -> Array:
    """Sum (int64) of the big-endian 16-bit words of each payload; each must be 2 bytes or longer."""
    padded = [p if len(p) % 2 == 0 else p + b"\0" for p in payloads]
    words = np.frombuffer(b"".join(padded), ">u2").astype(np.int64)
    lengths = np.fromiter((len(p) // 2 for p in padded), np.int64, len(padded))
    return np.add.reduceat(words, np.cumsum(lengths) - lengths) if padded else np.empty(0, np.int64)


def _fold(total: Array) -> Array:
    for _ in range(3):
        total = (total & 0xFFFF) + (total >> 16)
    return total


def udp_frames(source: Endpoint, target: Endpoint, idents: Array, payloads: list[bytes], sums: Array) -> list[bytes]:
    """Write datagrams of one flow as frames; `idents` are IP ids, `sums` the `word_sums` of the payloads.

    Headers of all datagrams are one matrix, because a day has hundreds of thousands of them.
    """
    n = len(payloads)
    length = np.fromiter(map(len, payloads), np.int64, n) + 8
    template = _ETHERNET_IP.pack(
        target.mac, source.mac, 0x0800, 0x45, 0, 0, 0, 0x4000, 16, UDP, 0, source.packed, target.packed
    )
    template += struct.pack(">HHHH", source.port, target.port, 0, 0)
    header = np.tile(np.frombuffer(template, ">u2").astype(np.int64), (n, 1))
    header[:, 8], header[:, 9], header[:, 19] = length + 20, idents & 0xFFFF, length
    header[:, 12] = ~_fold(header[:, 7:17].sum(axis=1)) & 0xFFFF
    addresses = header[:, 13:17].sum(axis=1)
    found = ~_fold(addresses + UDP + length + header[:, 17:20].sum(axis=1) + sums) & 0xFFFF
    header[:, 20] = np.where(found == 0, 0xFFFF, found)  # zero would say that there is no checksum (RFC 768)
    flat = header.astype(">u2").tobytes()
    frames = [flat[i * UDP_HEADERS : (i + 1) * UDP_HEADERS] + p for i, p in enumerate(payloads)]
    return [f if len(f) >= FRAME_BYTES_MIN else f.ljust(FRAME_BYTES_MIN, b"\0") for f in frames]
