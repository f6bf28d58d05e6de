"""pcap files: records of one link type and one time resolution; knows no packet headers.

    file header (24 bytes)                                  record header (16 bytes, 24 in the modified format)
    0  magic a1b2c3d4 (µs), a1b23c4d (ns), a1b2cd34 (mod.)  0  seconds since the UNIX epoch
    4  major version 2, minor version 4                     4  µs or ns within the second
    8  reserved (8 bytes)                                   8  captured length
    16 snapshot length                                      12 length on the wire
    20 link type (low 26 bits), FCS length                  16 (modified: interface, protocol, type, padding)

All in the byte order of the machine that wrote it, which the magic tells.
Specification: draft-ietf-opsawg-pcap, sections 4 and 5; the modified format is Kuznetzov's, read by libpcap.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from akbypass.errors import CaptureError
from akbypass.kernel import kernel
from akbypass.producers.capture.reader import (
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
from akbypass.producers.capture.source import ByteSource

HEADER_BYTES = 24
RECORD_HEADER_BYTES, MODIFIED_HEADER_BYTES = 16, 24
MAGICS = {  # magic: ns per unit of the second's part, bytes of a record header
    0xA1B2C3D4: (1_000, RECORD_HEADER_BYTES),
    0xA1B23C4D: (1, RECORD_HEADER_BYTES),
    0xA1B2CD34: (1_000, MODIFIED_HEADER_BYTES),
}
VERSION_MAJOR = 2
LINK_TYPE_MASK = 0x03FFFFFF  # the bits above hold the length of a frame check sequence
BAD_LENGTH = 2  # the walk met a captured length above RECORD_BYTES_MAX


@kernel
def u32(buffer: Any, at: Any, big: bool) -> Any:
    """Read four bytes as an unsigned number."""
    a, b, c, d = np.int64(buffer[at]), np.int64(buffer[at + 1]), np.int64(buffer[at + 2]), np.int64(buffer[at + 3])
    if big:
        return (a << 24) | (b << 16) | (c << 8) | d
    return (d << 24) | (c << 16) | (b << 8) | a


@kernel
def walk_pcap(
    buffer: Any,
    start: int,
    end: int,
    base: int,
    big: bool,
    header: int,
    unit_ns: int,
    link: int,
    wide: Any,
    narrow: Any,
) -> Any:
    """Enter the records in buffer[start:end] as frames; return (frames, next start, why it stopped)."""
    n = 0
    room = wide.shape[1]
    while end - start >= header:
        if n == room:
            return n, start, FULL
        captured = u32(buffer, start + 8, big)
        if captured > RECORD_BYTES_MAX:
            return n, start, BAD_LENGTH
        if end - start - header < captured:
            return n, start, MORE
        wide[START, n] = start + header
        wide[CAPTURED, n] = captured
        wide[WIRE, n] = min(u32(buffer, start + 12, big), WIRE_LENGTH_MAX)
        wide[POSITION, n] = base + start
        wide[TIME, n] = u32(buffer, start, big) * 1_000_000_000 + u32(buffer, start + 4, big) * unit_ns
        narrow[RESOLUTION, n] = unit_ns
        narrow[LINK, n] = link
        n += 1
        start += header + captured
    return n, start, MORE


def order_of(magic: bytes) -> str | None:
    """Byte order of a pcap file by its magic, in the notation of struct; None when it is not one."""
    return next((o for o in "<>" if len(magic) == 4 and struct.unpack(o + "I", magic)[0] in MAGICS), None)


class PcapReader(Reader):
    """Frames of a pcap file, whose header is in `head`."""

    def __init__(self, source: ByteSource, head: bytes, **limits: int) -> None:
        super().__init__(source, head, **limits)
        if len(head) < HEADER_BYTES:
            raise CaptureError(
                f"{source.name}: expected {HEADER_BYTES} bytes of pcap header, found {len(head)}; cut short?"
            )
        order = order_of(head[:4])
        assert order is not None, "the caller has looked at the magic"
        magic, major, minor, snapshot, link = struct.unpack(f"{order}IHH8xII", head[:HEADER_BYTES])
        if major != VERSION_MAJOR:
            raise CaptureError(
                f"{source.name}: expected pcap version {VERSION_MAJOR}, found {major}.{minor}; at byte 4"
            )
        self.snapshot_length, self.link_type = snapshot, link & LINK_TYPE_MASK
        self._big = order == ">"
        self._unit_ns, self._header = MAGICS[magic]
        self._start = HEADER_BYTES

    def _walk(self) -> int:
        n, self._start, status = walk_pcap(
            self._buffer, self._start, self._end, self._base, self._big, self._header, self._unit_ns,
            self.link_type, self._wide, self._narrow,
        )  # fmt: skip
        if status == BAD_LENGTH:
            found = u32(self._buffer, self._start + 8, self._big)
            detail = f"expected a captured length up to {RECORD_BYTES_MAX}, found {found}; the rest cannot be read"
            self._problem(self.position, "record_length", detail, fatal=True)
        return int(n)
