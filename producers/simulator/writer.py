"""One capture out of many sources of frames: sorted, no two at the same nanosecond, written as a pcap file.

    file     magic[4]=0xA1B23C4D (nanoseconds) major[2] minor[2] zone[4] sigfigs[4] snaplen[4] linktype[4]=1 (Ethernet)
    record   seconds[4] nanoseconds[4] captured[4] wire[4] frame

Little-endian. It is the only part of the simulator, beside the truth and its notes, that touches a disk.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from akbypass.rows import Array

SNAPLEN = 65_535
FILE_HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, SNAPLEN, 1)
SECOND_NS = 1_000_000_000
CHUNK = 1 << 14  # frames joined at once: bounds memory


@dataclass(frozen=True, slots=True)
class Tape:
    """Frames of one source with the times at which the tap sees them, in any order.

    ts_ns   int64   ns since the UNIX epoch
    """

    ts_ns: Array
    frames: list[bytes]


def merge(tapes: list[Tape]) -> tuple[Tape, list[Array]]:
    """Sort all frames by time; returns the capture, and for each source the final times of its frames.

    A tap's card stamps one frame after the other: frames of the same nanosecond are moved apart by 1 ns each.
    """
    wanted = np.concatenate([t.ts_ns for t in tapes])
    order = np.argsort(wanted, kind="stable")
    steps = np.arange(len(wanted))
    settled = np.maximum.accumulate(wanted[order] - steps) + steps
    final = np.empty_like(settled)
    final[order] = settled
    frames = [f for t in tapes for f in t.frames]
    cuts = np.cumsum([len(t.ts_ns) for t in tapes])[:-1]
    return Tape(settled, [frames[i] for i in order.tolist()]), np.split(final, cuts)


def write(path: Path, tape: Tape) -> None:
    """Write a sorted tape as a nanosecond pcap file."""
    lengths = np.fromiter(map(len, tape.frames), np.uint32, len(tape.frames))
    headers = np.empty((len(lengths), 4), "<u4")
    headers[:, 0], headers[:, 1] = tape.ts_ns // SECOND_NS, tape.ts_ns % SECOND_NS
    headers[:, 2] = headers[:, 3] = lengths
    flat = headers.tobytes()
    with path.open("wb") as file:
        file.write(FILE_HEADER)
        for start in range(0, len(lengths), CHUNK):
            stop = min(start + CHUNK, len(lengths))
            file.write(
                b"".join([part for i in range(start, stop) for part in (flat[16 * i : 16 * i + 16], tape.frames[i])])
            )
