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

import numpy as np

from akbypass.errors import CaptureError
from akbypass.producers.capture import pcapng_walk as walk
from akbypass.producers.capture.reader import BLOCK_BYTES_MAX, FULL, MORE, Reader
from akbypass.producers.capture.source import ByteSource, read_head
from akbypass.rows import Array

SECTION_MAGIC = struct.pack("<I", walk.SECTION)  # a palindrome: the same in both byte orders
BYTE_ORDER_MAGIC = 0x1A2B3C4D
SECTION_BYTES_MIN = 28
INTERFACES_MAX = 4_096  # per section; Wireshark writes one per device
OPTION_END, OPTION_RESOLUTION, OPTION_OFFSET, OPTION_IF_DROP, OPTION_OS_DROP = 0, 9, 14, 5, 7

REASONS = {
    walk.BLOCK_LENGTH: ("block_length", "expected a block of 12 bytes or more, a multiple of 4, found a length of {length}; the rest cannot be read"),
    walk.BLOCK_TRAILER: ("block_trailer", "expected the block's length {length} repeated at its end, found another; the rest cannot be read"),
    walk.BAD_INTERFACE: ("interface_unknown", "expected a packet of an interface described before, found another; packet left out"),
    walk.BAD_LENGTH: ("record_length", "expected a captured length within the block of {length} bytes, found a larger one; packet left out"),
    walk.BAD_TIME: ("time_range", "expected a time between 1970 and 2255, found another; packet left out"),
}  # fmt: skip


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
            n, self._start, status, self._last_ns = walk.walk_pcapng(
                self._buffer, self._start, self._end, self._base, self._order == ">", self._interfaces, self._known,
                self._last_ns, self._wide, self._narrow, n,
            )  # fmt: skip
            if status in (MORE, FULL) or not self._handle(status, n):
                break
        return n

    def _handle(self, status: int, n: int) -> bool:
        # Deal with the block at which the walk stopped; False when the frames before it must be delivered first.
        if status == walk.AT_SECTION:
            return self._section()
        kind, length = struct.unpack_from(f"{self._order}II", self._view, self._start)
        if status in REASONS:
            reason, detail = REASONS[status]
            self._problem(
                self.position,
                reason,
                detail.format(length=length),
                fatal=status in (walk.BLOCK_LENGTH, walk.BLOCK_TRAILER),
            )
        elif status == walk.AT_LARGE:
            if kind in (walk.INTERFACE, walk.PACKET, walk.OLD_PACKET, walk.SIMPLE_PACKET):
                detail = f"expected a block up to {BLOCK_BYTES_MAX} bytes, found {length}; block left out"
                self._problem(self.position, "record_length", detail, fatal=kind == walk.INTERFACE)
            self._skip = length
            return True
        elif kind == walk.INTERFACE:
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
            reason, detail = REASONS[walk.BLOCK_TRAILER]
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
        row = [0, walk.MULTIPLY, 1_000, 0, 1_000, 0]  # microseconds unless said otherwise
        if length >= 20:
            row[walk.IF_LINK], row[walk.IF_SNAPSHOT] = struct.unpack_from(
                f"{self._order}HxxI", self._view, self._start + 8
            )
        else:
            self._problem(
                self.position, "block_length", f"expected 20 bytes of interface or more, found {length}", fatal=True
            )
        for code, value in self._options(self._start + 16, self._start + length - 4):
            if code == OPTION_RESOLUTION and len(value) == 1:
                row[walk.IF_RULE], row[walk.IF_FACTOR], row[walk.IF_RESOLUTION] = walk.time_rule(value[0])
            elif code == OPTION_OFFSET and len(value) == 8:
                row[walk.IF_OFFSET] = self._offset_ns(struct.unpack(f"{self._order}q", value)[0])
        self._interfaces[self._known] = row
        self._known += 1

    def _offset_ns(self, seconds: int) -> int:
        if abs(seconds) * 1_000_000_000 <= walk.TIME_MAX_NS:
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
