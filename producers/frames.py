"""What capture hands to decoding: frames in a buffer, then packets in it; no I/O, no meaning."""

from __future__ import annotations

from dataclasses import dataclass

from akbypass.rows import Array, Rows


@dataclass(frozen=True, slots=True)
class FrameBatch:
    """Frames that lie in one buffer. Arrays have one entry per frame, in file order.

    buffer          uint8   the bytes; valid only until the reader is asked for the next batch
    start           int64   where the frame's first captured byte lies in `buffer`
    captured_length int64   captured bytes
    wire_length     int64   bytes on the wire
    position        int64   byte offset of the frame's record in the (decompressed) capture
    ts_ns           int64   capture time, ns since the UNIX epoch
    resolution_ns   int32   granularity of ts_ns
    link_type       int32   LINKTYPE_ number
    """

    buffer: Array
    start: Array
    captured_length: Array
    wire_length: Array
    position: Array
    ts_ns: Array
    resolution_ns: Array
    link_type: Array

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True, slots=True)
class PacketBatch:
    """IP packets of one frame batch: their rows, and where each captured transport payload lies.

    packets        Rows of type packets, in order; every row has its order key with sub = 0
    buffer         uint8   as in the frame batch
    payload_start  int64   first byte of the captured transport payload in `buffer`
    payload_end    int64   one behind its last captured byte; equal to payload_start when there is none

    Fragments other than whole datagrams, and protocols other than TCP and UDP, have no payload here.
    """

    packets: Rows
    buffer: Array
    payload_start: Array
    payload_end: Array
