"""An independent writer of frames, pcap and pcapng for tests, from the specifications alone; shares no code with the readers."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence

US, NS, MODIFIED = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34


# -- frames --------------------------------------------------------------------------------------------------------


def ethernet(payload: bytes, ether_type: int = 0x0800) -> bytes:
    """Ethernet II frame."""
    return bytes.fromhex("020000000001020000000002") + struct.pack(">H", ether_type) + payload


def vlan(payload: bytes, vlan_id: int, inner_type: int = 0x0800, priority: int = 5) -> bytes:
    """802.1Q tag body, to stand behind EtherType 8100, 88a8 or 9100."""
    return struct.pack(">HH", priority << 13 | vlan_id, inner_type) + payload


def ipv4(
    payload: bytes, protocol: int = 17, *, src: str = "10.0.0.1", dst: str = "10.0.0.2", options: bytes = b"", ident: int = 7,
    ttl: int = 61, flags: int = 0, offset: int = 0, total: int | None = None, version: int = 4, words: int | None = None,
) -> bytes:  # fmt: skip
    """IPv4 datagram; `flags` 1 is more fragments, `offset` counts bytes."""
    header_words = 5 + len(options) // 4 if words is None else words
    length = 20 + len(options) + len(payload) if total is None else total
    return (
        struct.pack(">BBHHHBBH", version << 4 | header_words, 0, length, ident, flags << 13 | offset // 8, ttl, protocol, 0)
        + ipaddress.ip_address(src).packed + ipaddress.ip_address(dst).packed + options + payload
    )  # fmt: skip


def ipv6(
    payload: bytes, next_header: int = 17, *, src: str = "2001:db8::1", dst: str = "2001:db8::2", hops: int = 59,
    length: int | None = None,
) -> bytes:  # fmt: skip
    """IPv6 datagram; extension headers are part of the payload."""
    head = struct.pack(">IHBB", 6 << 28, len(payload) if length is None else length, next_header, hops)
    return head + ipaddress.ip_address(src).packed + ipaddress.ip_address(dst).packed + payload


def extension(next_header: int, payload: bytes, units: int = 0) -> bytes:
    """IPv6 hop-by-hop, routing or destination header of (units + 1) · 8 bytes."""
    return bytes([next_header, units]) + bytes(6 + units * 8) + payload


def udp(payload: bytes, src: int = 4000, dst: int = 5000, length: int | None = None) -> bytes:
    """UDP datagram."""
    return struct.pack(">HHHH", src, dst, 8 + len(payload) if length is None else length, 0) + payload


def tcp(
    payload: bytes, *, src: int = 4000, dst: int = 5000, seq: int = 1, ack: int = 2, flags: int = 0x18, window: int = 512,
    options: bytes = b"", words: int | None = None,
) -> bytes:  # fmt: skip
    """TCP segment; options must be padded to four bytes."""
    header_words = 5 + len(options) // 4 if words is None else words
    return struct.pack(">HHIIBBHHH", src, dst, seq, ack, header_words << 4, flags, window, 0, 0) + options + payload


def cooked(payload: bytes, ether_type: int = 0x0800) -> bytes:
    """Linux cooked frame, version 1."""
    return struct.pack(">HHH8sH", 0, 1, 6, bytes(8), ether_type) + payload


def cooked2(payload: bytes, ether_type: int = 0x0800) -> bytes:
    """Linux cooked frame, version 2."""
    return struct.pack(">HHIHBB8s", ether_type, 0, 3, 1, 0, 6, bytes(8)) + payload


# -- pcap ----------------------------------------------------------------------------------------------------------


def pcap_header(order: str = "<", magic: int = NS, link: int = 1, snap: int = 262144) -> bytes:
    """pcap file header."""
    return struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snap, link)


def pcap_record(ns: int, frame: bytes, order: str = "<", magic: int = NS, wire: int | None = None) -> bytes:
    """pcap record."""
    part = ns % 1_000_000_000 // (1 if magic == NS else 1_000)
    head = struct.pack(order + "IIII", ns // 1_000_000_000, part, len(frame), len(frame) if wire is None else wire)
    return head + (bytes(8) if magic == MODIFIED else b"") + frame


def pcap(frames: Sequence[tuple[int, bytes]], order: str = "<", magic: int = NS, link: int = 1) -> bytes:
    """Whole pcap file of (time in ns, frame)."""
    return pcap_header(order, magic, link) + b"".join(pcap_record(ns, f, order, magic) for ns, f in frames)


# -- pcapng --------------------------------------------------------------------------------------------------------


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """pcapng block; the body is padded."""
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def options(items: Sequence[tuple[int, bytes]], order: str = "<") -> bytes:
    """pcapng options with their end."""
    made = b"".join(struct.pack(order + "HH", c, len(v)) + v + bytes(-len(v) % 4) for c, v in items)
    return made + bytes(4) if items else b""


def section(order: str = "<") -> bytes:
    """Section header."""
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link: int = 1, order: str = "<", resolution: int | None = None, offset: int | None = None, snap: int = 0) -> bytes:  # fmt: skip
    """Interface description."""
    items = [(2, b"eth0")] + ([(9, bytes([resolution]))] if resolution is not None else [])
    items += [(14, struct.pack(order + "q", offset))] if offset is not None else []
    return block(1, struct.pack(order + "HHI", link, 0, snap) + options(items, order), order)


def packet(units: int, frame: bytes, number: int = 0, order: str = "<", wire: int | None = None, captured: int | None = None) -> bytes:  # fmt: skip
    """Enhanced packet; its time counts the interface's units."""
    size = len(frame) if captured is None else captured
    head = struct.pack(
        order + "IIIII", number, units >> 32, units & 0xFFFFFFFF, size, len(frame) if wire is None else wire
    )
    return block(6, head + frame + bytes(-len(frame) % 4) + options([(1, b"a comment")], order), order)


def old_packet(units: int, frame: bytes, number: int = 0, order: str = "<") -> bytes:
    """Obsolete packet block."""
    head = struct.pack(order + "HHIIII", number, 0xFFFF, units >> 32, units & 0xFFFFFFFF, len(frame), len(frame))
    return block(2, head + frame, order)


def simple_packet(frame: bytes, order: str = "<", wire: int | None = None) -> bytes:
    """Simple packet block."""
    return block(3, struct.pack(order + "I", len(frame) if wire is None else wire) + frame, order)


def statistics(number: int, if_drop: int, os_drop: int = 0, order: str = "<") -> bytes:
    """Interface statistics."""
    items = [
        (4, struct.pack(order + "Q", 99)),
        (5, struct.pack(order + "Q", if_drop)),
        (7, struct.pack(order + "Q", os_drop)),
    ]
    return block(5, struct.pack(order + "III", number, 0, 0) + options(items, order), order)
