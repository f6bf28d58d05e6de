"""What the capture tests share: read a capture whole, by way of a file, in chunks of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from akbypass.producers.capture.formats import open_capture
from akbypass.producers.capture.headers import HeaderParser
from akbypass.producers.capture.reader import Reader
from akbypass.rows import Rows

Frame = tuple[int, int, int, int, int, int, bytes]  # position, ns, resolution, link, captured, wire, bytes


def frames_of(path: Path, **limits: int) -> tuple[list[Frame], Reader]:
    """All frames of a capture as plain values, and its reader."""
    reader = open_capture(str(path), **limits)
    found: list[Frame] = []
    for batch in reader:
        for i in range(len(batch)):
            start, size = int(batch.start[i]), int(batch.captured_length[i])
            found.append(
                (
                    int(batch.position[i]), int(batch.ts_ns[i]), int(batch.resolution_ns[i]), int(batch.link_type[i]), size,
                    int(batch.wire_length[i]), batch.buffer[start : start + size].tobytes(),
                )
            )  # fmt: skip
    return found, reader


def rows_of(path: Path, **limits: int) -> tuple[Rows, Rows, list[int], list[bytes]]:
    """All packets rows, rejected rows, the status of every frame, and the payload of every packet."""
    reader, parser = open_capture(str(path), **limits), HeaderParser(0)
    packets, rejected, status, payloads = [Rows.empty("packets")], [Rows.empty("rejected")], [], []
    for batch in reader:
        parsed = parser.parse(batch)
        packets.append(parsed.packets.packets)
        rejected.append(parsed.rejected)
        status += parsed.status.tolist()
        bounds = zip(parsed.packets.payload_start.tolist(), parsed.packets.payload_end.tolist(), strict=True)
        payloads += [batch.buffer[a:b].tobytes() for a, b in bounds]
    return Rows.concat(packets), Rows.concat(rejected), status, payloads


def same_rows(one: Rows, other: Rows) -> bool:
    """Whether every column is equal."""
    return all(np.array_equal(one[name], other[name]) for name in one.columns)
