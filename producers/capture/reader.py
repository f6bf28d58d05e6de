"""What both capture formats share: one reused buffer, frames out of it, problems with their position; no format.

    reader = open_capture("day.pcap")          # or "-", or gzip; the format is told by its first bytes
    while (frames := reader.read()) is not None:
        ...                                    # valid until the next read(); empty: nothing arrived yet (live only)
    reader.problems                            # what could not be read

A reader delivers every frame in front of damage. Damage inside one record is reported and the record left out;
damage to the framing itself ends the capture there.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from akbypass.producers.capture.source import ByteSource, Problem
from akbypass.producers.frames import FrameBatch
from akbypass.rows import Array

CHUNK_BYTES = 4 << 20  # bytes per read: 0.25 to 4 MiB measured alike, larger ones slower; large ones fill batches
RECORD_BYTES_MAX = 256 * 1024  # a frame; the snapshot length that libpcap and Wireshark allow at most
BLOCK_BYTES_MAX = RECORD_BYTES_MAX + 64 * 1024  # a record with its options
FRAMES_MAX = 16_384  # frames in one batch
PROBLEMS_MAX = 1_000  # problems kept; further ones are counted
WIRE_LENGTH_MAX = (1 << 31) - 1  # what an int column holds; a length above this is nonsense anyway

# Rows of the working arrays that the kernels fill; one column is one frame.
START, CAPTURED, WIRE, POSITION, TIME = range(5)
RESOLUTION, LINK = range(2)

# What a record walk says when it stops.
MORE = 0  # the next record is not whole in the buffer
FULL = 1  # no room for another frame


class Reader:
    """Frames of one capture, batch by batch. Subclasses walk their format's records."""

    def __init__(
        self, source: ByteSource, head: bytes, *, frames_max: int = FRAMES_MAX, chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.problems_total = 0
        self.kernel_drops = 0  # frames that kernel or capture tool dropped, as the capture says so far (count)
        self._frames_max = frames_max
        self._chunk = chunk_bytes
        self._buffer: Array = np.empty(BLOCK_BYTES_MAX + max(chunk_bytes, len(head)), np.uint8)
        self._view = memoryview(self._buffer.data)
        self._wide: Array = np.empty((5, frames_max), np.int64)
        self._narrow: Array = np.empty((2, frames_max), np.int32)
        self._base = 0  # position of the buffer's first byte in the capture
        self._start, self._end = 0, len(head)  # unread bytes in the buffer
        self._buffer[: len(head)] = np.frombuffer(head, np.uint8)
        self._done = False

    @property
    def position(self) -> int:
        """Byte offset of the next record in the decompressed capture; at the end, where reading stopped."""
        return self._base + self._start

    def __iter__(self) -> Iterator[FrameBatch]:
        while (frames := self.read()) is not None:
            yield frames

    def read(self) -> FrameBatch | None:
        """Return the next frames, none of them when a live source is silent, or None at the end."""
        while True:
            n = 0 if self._done else self._walk()
            if n:
                return self._batch(n)
            if self._done:
                self.close()
                return None
            got = self._fill()
            if got is None:
                return self._batch(0)
            if got == 0:
                self._at_end()

    def close(self) -> None:
        """Give back the source."""
        self._done = True
        self.source.close()

    def _walk(self) -> int:
        """Fill the working arrays from whole records in the buffer; return how many frames."""
        raise NotImplementedError

    def _batch(self, n: int) -> FrameBatch:
        wide, narrow = self._wide[:, :n], self._narrow[:, :n]
        return FrameBatch(
            self._buffer, wide[START], wide[CAPTURED], wide[WIRE], wide[POSITION], wide[TIME],
            narrow[RESOLUTION], narrow[LINK],
        )  # fmt: skip

    def _fill(self) -> int | None:
        if self._start:
            left = self._end - self._start
            self._buffer[:left] = self._buffer[self._start : self._end]
            self._base += self._start
            self._start, self._end = 0, left
        room = min(self._chunk, len(self._buffer) - self._end)
        assert room > 0, "a record larger than the buffer must have been refused"
        got = self.source.readinto(self._view[self._end : self._end + room])
        self._end += got or 0
        return got

    def _at_end(self) -> None:
        self._done = True
        self.kernel_drops = max(self.kernel_drops, self.source.dropped)
        if self.source.damage is not None:
            reason, detail = self.source.damage
            self._problem(self._base + self._end, reason, detail)
        elif self._end > self._start:
            self._problem(
                self.position,
                "truncated",
                f"expected a whole record, found its first {self._end - self._start} bytes; cut short?",
            )

    def _problem(self, position: int, reason: str, detail: str, *, fatal: bool = False) -> None:
        self.problems_total += 1
        self._done |= fatal
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(Problem(position, reason, f"{detail}; at byte {position}", self.source.name))
