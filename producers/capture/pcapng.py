"""pcapng files: sections, interfaces with their own clocks, packets and drop counts; knows no packet headers.

    block   0 type   4 total length (a multiple of 4)   8 body …   total length − 4: total length again

    0A0D0D0A  section header       8 byte-order magic 1A2B3C4D, 12 version 1.x, 16 section length; begins anew
    1         interface            8 link type (2), 12 snapshot length, 16 options (9 resolution, 14 offset in s)
    2         packet (obsolete)    8 interface (2), 10 drops, 12 time high, 16 low, 20 captured, 24 wire, 28 bytes
    3         simple packet        8 wire, 12 bytes; of interface 0, without a time
    5         interface statistics 8 interface, 12 time, 20 options (5 dropped by interface, 7 by operating system)
    6         enhanced packet      8 interface, 12 time high, 16 low, 20 captured, 24 wire, 28 bytes
    other     skipped

Every section has its own byte order and its own interfaces. A time is a count of units since the UNIX epoch, a unit
is 10^-k or 2^-k seconds; it becomes whole ns, rounded down, without floating point. A simple packet has no time and
takes that of the packet before it. Specification: draft-ietf-opsawg-pcapng, sections 3 and 4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from akbypass.errors import CaptureError
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
    Reader,
)
from akbypass.producers.capture.source import ByteSource, read_head
from akbypass.rows import Array

SECTION, INTERFACE, OLD_PACKET, SIMPLE_PACKET, STATISTICS, PACKET = 0x0A0D0D0A, 1, 2, 3, 5, 6
SECTION_MAGIC = struct.pack("<I", SECTION)  # a palindrome: the same in both byte orders
BYTE_ORDER_MAGIC = 0x1A2B3C4D
SECTION_BYTES_MIN = 28
SKIPPED_BYTES_MAX = 16 << 20  # a block of no use to us; libpcap's limit for any block
INTERFACES_MAX = 4_096  # per section; Wireshark writes one per device
TIME_MAX_NS = 9_000_000_000_000_000_000  # year 2255; keeps order keys clear of their end marks
OPTION_END, OPTION_RESOLUTION, OPTION_OFFSET, OPTION_IF_DROP, OPTION_OS_DROP = 0, 9, 14, 5, 7

# Columns of the interface table. A time is units · factor, units / factor, or units · 1e9 / 2^factor ns.
IF_LINK, IF_RULE, IF_FACTOR, IF_OFFSET, IF_RESOLUTION, IF_SNAPSHOT = range(6)
MULTIPLY, DIVIDE, SHIFT, NEVER = range(4)

# Why the walk stopped, beside MORE and FULL. A fatal reason ends the capture, a bad block is left out.
AT_SECTION, AT_CONTROL, AT_LARGE = 2, 3, 4
BLOCK_LENGTH, BLOCK_TRAILER = 5, 6
BAD_INTERFACE, BAD_LENGTH, BAD_TIME = 7, 8, 9
REASONS = {
    BLOCK_LENGTH: ("block_length", "expected a block of 12 bytes or more, a multiple of 4, found a length of {length}; the rest cannot be read"),
    BLOCK_TRAILER: ("block_trailer", "expected the block's length {length} repeated at its end, found another; the rest cannot be read"),
    BAD_INTERFACE: ("interface_unknown", "expected a packet of an interface described before, found another; packet left out"),
    BAD_LENGTH: ("record_length", "expected a captured length within the block of {length} bytes, found a larger one; packet left out"),
    BAD_TIME: ("time_range", "expected a time between 1970 and 2255, found another; packet left out"),
}  # fmt: skip


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


class PcapngReader(Reader):
    """Frames of a pcapng file, whose first bytes are in `head`."""

    def __init__(self, source: ByteSource, head: bytes, **limits: int) -> None:
        head += read_head(source, max(SECTION_BYTES_MIN - len(head), 0))
        super().__init__(source, head, **limits)
        self._order = "<"
        self._interfaces: Array = np.zeros((16, 6), np.int64)
        self._known = 0
        self._last_ns = 0
        self._skip = 0  # bytes of a large block still to be passed over
        self._drops: dict[int, int] = {}  # by interface, of this section
        self._drops_before = 0  # of the sections before
        fault = self._section_fault()
        if fault is not None:
            raise CaptureError(f"{source.name}: expected a pcapng section header, found {fault}; at byte 0")

    def _walk(self) -> int:
        n = 0
        while not self._done:
            if self._skip and not self._pass_over():
                break
            n, self._start, status, self._last_ns = walk_pcapng(
                self._buffer, self._start, self._end, self._base, self._order == ">", self._interfaces, self._known,
                self._last_ns, self._wide, self._narrow, n,
            )  # fmt: skip
            if status in (MORE, FULL) or not self._handle(status, n):
                break
        return n

    def _handle(self, status: int, n: int) -> bool:
        # Deal with the block at which the walk stopped; False when the frames before it must be delivered first.
        if status == AT_SECTION:
            return self._section()
        kind, length = struct.unpack_from(f"{self._order}II", self._view, self._start)
        if status in REASONS:
            reason, detail = REASONS[status]
            self._problem(
                self.position, reason, detail.format(length=length), fatal=status in (BLOCK_LENGTH, BLOCK_TRAILER)
            )
        elif status == AT_LARGE:
            if kind in (INTERFACE, PACKET, OLD_PACKET, SIMPLE_PACKET):
                detail = f"expected a block up to {BLOCK_BYTES_MAX} bytes, found {length}; block left out"
                self._problem(self.position, "record_length", detail, fatal=kind == INTERFACE)
            self._skip = length
            return True
        elif kind == INTERFACE:
            self._interface(length)
        elif n:
            return False  # statistics stand between frames: drops count from there on
        else:
            self._statistics(length)
        self._start += length
        return True

    def _pass_over(self) -> bool:
        step = min(self._skip, self._end - self._start)
        self._start += step
        self._skip -= step
        return self._skip == 0

    def _at_end(self) -> None:
        if self._skip and self.source.damage is None:
            self._problem(
                self.position, "truncated", f"expected {self._skip} more bytes of a block, found the end; cut short?"
            )
            self._done = True
        super()._at_end()

    # -- sections and interfaces -----------------------------------------------------------------------------------

    def _section_fault(self) -> str | None:
        # What is wrong with the section header at the start of the buffer's unread bytes; takes over its byte order.
        if self._end - self._start < SECTION_BYTES_MIN:
            return f"only {self._end - self._start} of its {SECTION_BYTES_MIN} bytes; cut short?"
        magic = bytes(self._view[self._start + 8 : self._start + 12])
        order = next((o for o in "<>" if struct.unpack(o + "I", magic)[0] == BYTE_ORDER_MAGIC), None)
        if order is None:
            return f"the byte-order magic {magic.hex()}"
        length, major = struct.unpack_from(f"{order}4xI4xH", self._view, self._start)
        if major != 1:
            return f"version {major}"
        if length < SECTION_BYTES_MIN or length % 4 or length > BLOCK_BYTES_MAX:
            return f"a length of {length}"
        self._order = order
        return None

    def _section(self) -> bool:
        left = self._end - self._start
        if left < SECTION_BYTES_MIN:
            return False
        before = self._order
        fault = self._section_fault()
        if fault is not None:
            self._problem(
                self.position,
                "section_header",
                f"expected a section header, found {fault}; the rest cannot be read",
                fatal=True,
            )
            return True
        length = struct.unpack_from(f"{self._order}4xI", self._view, self._start)[0]
        if left < length:
            self._order = before
            return False
        if struct.unpack_from(f"{self._order}I", self._view, self._start + length - 4)[0] != length:
            reason, detail = REASONS[BLOCK_TRAILER]
            self._problem(self.position, reason, detail.format(length=length), fatal=True)
            return True
        self._known = 0
        self._drops_before, self._drops = self.kernel_drops, {}
        self._start += length
        return True

    def _interface(self, length: int) -> None:
        if self._known == INTERFACES_MAX:
            self._problem(
                self.position,
                "interface_count",
                f"expected at most {INTERFACES_MAX} interfaces, found more",
                fatal=True,
            )
            return
        if self._known == len(self._interfaces):
            self._interfaces = np.concatenate([self._interfaces, np.zeros_like(self._interfaces)])
        row = [0, MULTIPLY, 1_000, 0, 1_000, 0]  # microseconds unless said otherwise
        if length >= 20:
            row[IF_LINK], row[IF_SNAPSHOT] = struct.unpack_from(f"{self._order}HxxI", self._view, self._start + 8)
        else:
            self._problem(
                self.position, "block_length", f"expected 20 bytes of interface or more, found {length}", fatal=True
            )
        for code, value in self._options(self._start + 16, self._start + length - 4):
            if code == OPTION_RESOLUTION and len(value) == 1:
                row[IF_RULE], row[IF_FACTOR], row[IF_RESOLUTION] = time_rule(value[0])
            elif code == OPTION_OFFSET and len(value) == 8:
                row[IF_OFFSET] = self._offset_ns(struct.unpack(f"{self._order}q", value)[0])
        self._interfaces[self._known] = row
        self._known += 1

    def _offset_ns(self, seconds: int) -> int:
        if abs(seconds) * 1_000_000_000 <= TIME_MAX_NS:
            return seconds * 1_000_000_000
        self._problem(
            self.position, "time_range", f"expected an offset within 285 years, found {seconds} s; taken as 0"
        )
        return 0

    def _statistics(self, length: int) -> None:
        if length < 24:
            self._problem(
                self.position, "block_length", f"expected 24 bytes of statistics or more, found {length}; left out"
            )
            return
        interface = struct.unpack_from(f"{self._order}I", self._view, self._start + 8)[0]
        drops = 0
        for code, value in self._options(self._start + 20, self._start + length - 4):
            if code in (OPTION_IF_DROP, OPTION_OS_DROP) and len(value) == 8:
                drops += struct.unpack(f"{self._order}Q", value)[0]
        if interface < self._known and drops < 1 << 62:
            self._drops[interface] = max(drops, self._drops.get(interface, 0))
            self.kernel_drops = self._drops_before + sum(self._drops.values())

    def _options(self, at: int, end: int) -> Iterator[tuple[int, bytes]]:
        while at + 4 <= end:
            code, length = struct.unpack_from(f"{self._order}HH", self._view, at)
            at += 4
            if code == OPTION_END:
                return
            if at + length > end:
                self._problem(
                    self.position,
                    "option_length",
                    f"expected an option within its block, found {length} bytes; options left out",
                )
                return
            yield code, bytes(self._view[at : at + length])
            at += (length + 3) & ~3


def time_rule(resolution: int) -> tuple[int, int, int]:
    """Rule, factor and granularity (ns, at least 1) of an if_tsresol value."""
    k = resolution & 0x7F
    if resolution & 0x80:
        return SHIFT, k, max(1_000_000_000 >> k, 1)
    if k <= 9:
        return MULTIPLY, 10 ** (9 - k), 10 ** (9 - k)
    return (DIVIDE, 10 ** (k - 9), 1) if k <= 27 else (NEVER, 0, 1)
