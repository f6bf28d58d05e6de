"""Link, IP and transport headers of one frame, as kernels; reads headers and nothing behind them.

    Ethernet (1)      0 destination  6 source  12 EtherType
    802.1Q / 802.1ad  0 priority and VLAN (12 bits)  2 EtherType          after EtherType 8100, 88a8, 9100
    Linux cooked (113)  14 EtherType, header of 16     Linux cooked v2 (276)  0 EtherType, header of 20
    raw IP (12, 14, 101; 228 IPv4; 229 IPv6)           loopback (0 host order, 108 network order)  0 address family
    IPv4   0 version, header words  2 total length  4 identification  6 flags, offset/8  8 TTL  9 protocol  12, 16 addresses
    IPv6   0 version  4 payload length  6 next header  7 hop limit  8, 24 addresses  40 extension headers
    TCP    0, 2 ports  4 sequence  8 acknowledgement  12 header words  13 flags  14 window  20 options
    UDP    0, 2 ports  4 length

All in network byte order. Specifications: IEEE 802.3, 802.1Q-2018 section 9; RFC 791, 8200 section 4, 4302 (AH),
9293 section 3, 768; LINKTYPE_LINUX_SLL, _SLL2, _NULL, _LOOP of the tcpdump group.

A kernel receives the slice of one frame's captured bytes, so that no slip can read a neighbour, and checks before it
reads. The frame may be cut by the snapshot length: `wire` is its true length. A header that contradicts itself or the
uncut frame is malformed; one that is merely cut is not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from akbypass.kernel import kernel

# What became of a frame; what follows LINK_UNKNOWN is malformed.
COPY, PACKET, NOT_IP, LINK_UNKNOWN = -1, 0, 1, 2
(
    LINK_SHORT, VLAN_DEPTH, IP_SHORT, IP_VERSION, IP_HEADER_LENGTH, IP_TOTAL_LENGTH, EXTENSION_SHORT, EXTENSION_COUNT,
    TCP_SHORT, TCP_HEADER_LENGTH, UDP_SHORT, UDP_LENGTH,
) = range(3, 15)  # fmt: skip

ETHERNET, COOKED, COOKED2, NULL, LOOP = 1, 113, 276, 0, 108
RAW, RAW_BSD, RAW_ANY, RAW_IPV4, RAW_IPV6 = 12, 14, 101, 228, 229
IPV4, IPV6 = 0x0800, 0x86DD
VLAN_TYPES = (0x8100, 0x88A8, 0x9100)
VLAN_TAGS_MAX = 8  # two are kept; no network stacks more than four
EXTENSIONS_MAX = 16  # IPv6 extension headers followed; RFC 8504 lets a node refuse more than eight
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, NO_NEXT, DESTINATION = 0, 43, 44, 51, 59, 60
TCP, UDP = 6, 17
FAMILY_INET = 2
FAMILIES_INET6 = (10, 24, 28, 30)  # of Linux and the BSDs
NONE = -1  # a field that is not there


@kernel
def octet(frame: Any, at: Any) -> Any:
    """Read one byte as a signed number, so that arithmetic stays in integers."""
    return np.int64(frame[at])


@kernel
def be16(frame: Any, at: Any) -> Any:
    """Read two bytes, network order."""
    return (octet(frame, at) << 8) | octet(frame, at + 1)


@kernel
def be32(frame: Any, at: Any) -> Any:
    """Read four bytes, network order."""
    return (octet(frame, at) << 24) | (octet(frame, at + 1) << 16) | (octet(frame, at + 2) << 8) | octet(frame, at + 3)


@kernel
def link_layer(frame: Any, link: Any) -> Any:
    """Find the network header: returns (status, its start, EtherType, outer VLAN, inner VLAN)."""
    n = len(frame)
    at = 0
    ether_type = 0
    if link in (ETHERNET, COOKED):
        at = 14 if link == ETHERNET else 16
        if n < at:
            return LINK_SHORT, 0, 0, NONE, NONE
        ether_type = be16(frame, at - 2)
    elif link == COOKED2:
        at = 20
        if n < at:
            return LINK_SHORT, 0, 0, NONE, NONE
        ether_type = be16(frame, 0)
    elif link in (NULL, LOOP):
        at = 4
        if n < at:
            return LINK_SHORT, 0, 0, NONE, NONE
        family = be32(frame, 0)
        if family > 0xFFFF:  # host order of a little-endian machine
            family = (family >> 24) | ((family >> 8) & 0xFF00)
        if family == FAMILY_INET:
            ether_type = IPV4
        elif family in FAMILIES_INET6:
            ether_type = IPV6
    elif link in (RAW, RAW_BSD, RAW_ANY, RAW_IPV4, RAW_IPV6):
        if n < 1:
            return LINK_SHORT, 0, 0, NONE, NONE
        ether_type = IPV6 if link == RAW_IPV6 or (link != RAW_IPV4 and octet(frame, 0) >> 4 == 6) else IPV4
    else:
        return LINK_UNKNOWN, 0, 0, NONE, NONE
    outer, inner, tags = NONE, NONE, 0
    while ether_type in VLAN_TYPES:
        if n < at + 4:
            return LINK_SHORT, 0, 0, NONE, NONE
        if tags == VLAN_TAGS_MAX:
            return VLAN_DEPTH, 0, 0, NONE, NONE
        if tags == 0:
            outer = be16(frame, at) & 0x0FFF
        elif tags == 1:
            inner = be16(frame, at) & 0x0FFF
        ether_type = be16(frame, at + 2)
        tags += 1
        at += 4
    status = PACKET if ether_type in (IPV4, IPV6) else NOT_IP
    return status, at, ether_type, outer, inner


@kernel
def ipv4_layer(frame: Any, at: Any, wire: Any) -> Any:
    """Read an IPv4 header at `at`.

    Returns (status, protocol, identification, TTL, fragment offset, more fragments, start of the transport header,
    end of the datagram by its own length: may lie behind what was captured).
    """
    n = len(frame)
    bad = (0, 0, 0, 0, False, 0, 0)
    if n < at + 20:
        return (IP_SHORT, *bad)
    if octet(frame, at) >> 4 != 4:
        return (IP_VERSION, *bad)
    header = (octet(frame, at) & 0x0F) * 4
    if header < 20:
        return (IP_HEADER_LENGTH, *bad)
    if wire < at + header:
        return (IP_SHORT, *bad)
    total = be16(frame, at + 2)
    if total == 0:  # segmentation offload: the card will cut it, the true length is the frame's
        total = max(wire - at, header)
    if total < header:
        return (IP_TOTAL_LENGTH, *bad)
    word = be16(frame, at + 6)
    return (
        PACKET, octet(frame, at + 9), be16(frame, at + 4), octet(frame, at + 8), (word & 0x1FFF) * 8, (word & 0x2000) != 0,
        at + header, at + total,
    )  # fmt: skip


@kernel
def ipv6_layer(frame: Any, at: Any, wire: Any) -> Any:
    """Read an IPv6 header at `at` and its extension headers; returns as ipv4_layer does, without an identification."""
    n = len(frame)
    bad = (0, NONE, 0, 0, False, 0, 0)
    if n < at + 40:
        return (IP_SHORT, *bad)
    if octet(frame, at) >> 4 != 6:
        return (IP_VERSION, *bad)
    kind = octet(frame, at + 6)
    hops = octet(frame, at + 7)
    length = be16(frame, at + 4)
    if length == 0 and kind != NO_NEXT:  # segmentation offload, or a jumbogram: the true length is the frame's
        length = max(wire - at - 40, 0)
    end = at + 40 + length
    at += 40
    offset, more, headers = 0, False, 0
    while kind in (HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION):
        if headers == EXTENSIONS_MAX:
            return (EXTENSION_COUNT, *bad)
        if end < at + 8:
            return (EXTENSION_SHORT, *bad)
        if n < at + 8:  # cut by the snapshot length: what follows is unknown
            return PACKET, kind, NONE, hops, offset, more, n, end
        size = 8
        if kind == AUTHENTICATION:
            size = (octet(frame, at + 1) + 2) * 4
        elif kind != FRAGMENT:
            size = (octet(frame, at + 1) + 1) * 8
        if end < at + size:
            return (EXTENSION_SHORT, *bad)
        was_fragment = kind == FRAGMENT
        kind = octet(frame, at)
        if was_fragment:
            word = be16(frame, at + 2)
            offset, more = word & 0xFFF8, (word & 1) != 0
        at += size
        headers += 1
        if offset > 0:
            break  # the rest is a piece of the datagram, not headers
    return PACKET, kind, NONE, hops, offset, more, at, end


@kernel
def tcp_options(frame: Any, at: Any, end: Any) -> Any:
    """Read the TCP options in frame[at:end]; the first that is wrong or cut ends them.

    Returns (MSS, window scale, SACK permitted, SACK left, SACK right, TSval, TSecr); NONE for what is not there.
    """
    mss, scale, permitted, left, right, value, echo = NONE, NONE, False, NONE, NONE, NONE, NONE
    while at < end:
        kind = octet(frame, at)
        if kind == 0:
            break
        if kind == 1:
            at += 1
            continue
        if at + 2 > end:
            break
        size = octet(frame, at + 1)
        if size < 2 or at + size > end:
            break
        if kind == 2 and size == 4:
            mss = be16(frame, at + 2)
        elif kind == 3 and size == 3:
            scale = octet(frame, at + 2)
        elif kind == 4 and size == 2:
            permitted = True
        elif kind == 5 and size >= 10 and left == NONE:
            left, right = be32(frame, at + 2), be32(frame, at + 6)
        elif kind == 8 and size == 10:
            value, echo = be32(frame, at + 2), be32(frame, at + 6)
        at += size
    return mss, scale, permitted, left, right, value, echo
