"""Which format a capture has, told by its first bytes and never by its name; opens the reader for it."""

from __future__ import annotations

from akbypass.errors import CaptureError
from akbypass.producers.capture.pcap import HEADER_BYTES, PcapReader, order_of
from akbypass.producers.capture.pcapng import SECTION_MAGIC, PcapngReader
from akbypass.producers.capture.reader import Reader
from akbypass.producers.capture.source import FOREIGN, ByteSource, open_source, read_head

SHOWN_BYTES = 16  # of what was found instead


def open_capture(name: str, **limits: int) -> Reader:
    """Open a capture file, or standard input for `-`; `limits` are frames_max and chunk_bytes of the reader.

    Raises:
        CaptureError: There is no such file, or it is no capture at all.
    """
    return open_reader(open_source(name), **limits)


def open_reader(source: ByteSource, **limits: int) -> Reader:
    """Open the reader for the format of a source's first bytes; closes the source when it raises CaptureError."""
    try:
        head = read_head(source, HEADER_BYTES)
        if order_of(head[:4]) is not None:
            return PcapReader(source, head, **limits)
        if head[:4] == SECTION_MAGIC:
            return PcapngReader(source, head, **limits)
        raise CaptureError(f"{source.name}: expected a pcap or pcapng capture, found {_described(source, head)}")
    except CaptureError:
        source.close()
        raise


def _described(source: ByteSource, head: bytes) -> str:
    if source.damage is not None:
        return f"{source.damage[0]}: {source.damage[1]}"
    if not head:
        return "nothing: it is empty"
    foreign = next((what for magic, what in FOREIGN.items() if head.startswith(magic)), None)
    if foreign is not None:
        return foreign
    shown = head[:SHOWN_BYTES]
    if all(b in b"\t\r\n" or 32 <= b < 127 for b in shown):
        return f"text that begins with {shown.decode('ascii')!r}"
    return f"the bytes {shown.hex(' ')}"
