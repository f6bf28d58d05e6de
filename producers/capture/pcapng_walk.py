"""The walk over pcapng blocks and the conversion of their times, as kernels; the formats stand in pcapng.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from akbypass.kernel import kernel
from akbypass.producers.capture.pcap import u32
from akbypass.producers.capture.reader import (
    BLOCK_BYTES_MAX,
    CAPTURED,
    FULL,
    LINK,
    MORE,
    POSITION,
    RECORD_BYTES_MAX,
    RESOLUTION,
    START,
    TIME,
    WIRE,
    WIRE_LENGTH_MAX,
)

SECTION, INTERFACE, OLD_PACKET, SIMPLE_PACKET, STATISTICS, PACKET = 0x0A0D0D0A, 1, 2, 3, 5, 6
SKIPPED_BYTES_MAX = 16 << 20  # a block of no use to us; libpcap's limit for any block
TIME_MAX_NS = 9_000_000_000_000_000_000  # year 2255; keeps order keys clear of their end marks

# Columns of the interface table. A time is units · factor, units / factor, or units · 1e9 / 2^factor ns.
IF_LINK, IF_RULE, IF_FACTOR, IF_OFFSET, IF_RESOLUTION, IF_SNAPSHOT = range(6)
MULTIPLY, DIVIDE, SHIFT, NEVER = range(4)

# Why the walk stopped, beside MORE and FULL. A fatal reason ends the capture, a bad block is left out.
AT_SECTION, AT_CONTROL, AT_LARGE = 2, 3, 4
BLOCK_LENGTH, BLOCK_TRAILER = 5, 6
BAD_INTERFACE, BAD_LENGTH, BAD_TIME = 7, 8, 9


def time_rule(resolution: int) -> tuple[int, int, int]:
    """Rule, factor and granularity (ns, at least 1) of an if_tsresol value."""
    k = resolution & 0x7F
    if resolution & 0x80:
        return SHIFT, k, max(1_000_000_000 >> k, 1)
    if k <= 9:
        return MULTIPLY, 10 ** (9 - k), 10 ** (9 - k)
    return (DIVIDE, 10 ** (k - 9), 1) if k <= 27 else (NEVER, 0, 1)


@kernel
def to_ns(units: Any, rule: Any, factor: Any, offset: Any) -> Any:
    """Convert a time in units (uint64) to ns since the UNIX epoch; −1 when it is out of range."""
    limit = np.uint64(TIME_MAX_NS)
    billion = np.uint64(1_000_000_000)
    low32 = np.uint64(0xFFFFFFFF)
    thirty_two = np.uint64(32)
    ns = np.uint64(0)
    if rule == MULTIPLY:
        if units > limit // np.uint64(factor):
            return -1
        ns = units * np.uint64(factor)
    elif rule == DIVIDE:
        ns = units // np.uint64(factor)
    elif rule == SHIFT:
        whole, part = np.uint64(0), units
        if factor < 64:
            whole = units >> np.uint64(factor)
            part = units & ((np.uint64(1) << np.uint64(factor)) - np.uint64(1))
        if whole > np.uint64(9_000_000_000):
            return -1
        if factor < 32:
            part = (part * billion) >> np.uint64(factor)
        elif factor - 32 < 64:  # a product of up to 94 bits, its high part first
            part = ((part >> thirty_two) * billion + (((part & low32) * billion) >> thirty_two)) >> np.uint64(
                factor - 32
            )
        else:
            part = np.uint64(0)
        ns = whole * billion + part
    if ns > limit:
        return -1
    made = np.int64(ns) + offset
    return made if 0 <= made <= TIME_MAX_NS else -1


@kernel
def walk_pcapng(
    buffer: Any, start: int, end: int, base: int, big: bool, interfaces: Any, known: int, last_ns: int, wide: Any, narrow: Any, n: int
) -> Any:  # fmt: skip
    """Enter the packets in buffer[start:end] as frames from the n-th; return (frames, next start, why it stopped, last time)."""
    room = wide.shape[1]
    while end - start >= 12:
        kind = u32(buffer, start, big)
        if kind == SECTION:
            return n, start, AT_SECTION, last_ns
        length = u32(buffer, start + 4, big)
        if length < 12 or length % 4 != 0 or length > SKIPPED_BYTES_MAX:
            return n, start, BLOCK_LENGTH, last_ns
        if length > BLOCK_BYTES_MAX:
            return n, start, AT_LARGE, last_ns
        if end - start < length:
            return n, start, MORE, last_ns
        if u32(buffer, start + length - 4, big) != length:
            return n, start, BLOCK_TRAILER, last_ns
        if kind in (INTERFACE, STATISTICS):
            return n, start, AT_CONTROL, last_ns
        if kind in (PACKET, OLD_PACKET, SIMPLE_PACKET):
            if n == room:
                return n, start, FULL, last_ns
            header = 12 if kind == SIMPLE_PACKET else 28
            if length < header + 4:
                return n, start, BAD_LENGTH, last_ns
            body = length - header - 4
            interface = 0
            if kind == PACKET:
                interface = u32(buffer, start + 8, big)
            elif kind == OLD_PACKET:
                interface = u32(buffer, start + 8, big) >> 16 if big else u32(buffer, start + 8, big) & 0xFFFF
            if interface >= known:
                return n, start, BAD_INTERFACE, last_ns
            if kind == SIMPLE_PACKET:
                wire = u32(buffer, start + 8, big)
                captured = min(wire, body)
                if interfaces[interface, IF_SNAPSHOT] > 0:
                    captured = min(captured, interfaces[interface, IF_SNAPSHOT])
            else:
                wire = u32(buffer, start + 24, big)
                captured = u32(buffer, start + 20, big)
            if captured > body or captured > RECORD_BYTES_MAX:
                return n, start, BAD_LENGTH, last_ns
            if kind != SIMPLE_PACKET:
                high = np.uint64(u32(buffer, start + 12, big))
                units = (high << np.uint64(32)) | np.uint64(u32(buffer, start + 16, big))
                ns = to_ns(
                    units,
                    interfaces[interface, IF_RULE],
                    interfaces[interface, IF_FACTOR],
                    interfaces[interface, IF_OFFSET],
                )
                if ns < 0:
                    return n, start, BAD_TIME, last_ns
                last_ns = ns
            wide[START, n] = start + header
            wide[CAPTURED, n] = captured
            wide[WIRE, n] = min(wire, WIRE_LENGTH_MAX)
            wide[POSITION, n] = base + start
            wide[TIME, n] = last_ns
            narrow[RESOLUTION, n] = interfaces[interface, IF_RESOLUTION]
            narrow[LINK, n] = interfaces[interface, IF_LINK]
            n += 1
        start += length
    return n, start, MORE, last_ns
