"""Ordered bytes of many directions side by side for one scan, and the way back from a byte to its frames; makes no row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from akbypass.producers.decoders import fix_scan as fs
from akbypass.producers.decoders.tcp_flow import AFTER_GAP, CLOSE, IN_SYNC, Direction, Meta
from akbypass.producers.decoders.tcp_stream import Reassembler
from akbypass.rows import Array, Rows

REPEATS_MAX = 64  # ranges of repeated bytes remembered for an unfinished message; more are joined into one

Break = tuple[int, int, int, int, int]


@dataclass(slots=True)
class Piece:
    """A run of bytes of one direction without a break inside."""

    direction: int  # index in Arena.directions
    start: int  # in the arena
    end: int
    offset: int  # of `start` in the stream
    broken: Break | None  # what comes behind it


class Arena:
    """The bytes to scan of every listed direction, in pieces; a chunk is what one segment brought."""

    def __init__(self, streams: Reassembler) -> None:
        self.streams = streams
        self.directions: list[Direction] = []
        self.pieces: list[Piece] = []
        self._chunks: list[tuple[bytes | memoryview, int, int]] = []
        self._last: list[int] = []  # one behind the last chunk of each direction
        at = 0
        for d in sorted(streams.listed, key=lambda one: one.serial):
            d.listed = False
            if not self._postpone(d):
                at = self._add(d, at)
        lengths = [len(data) for data, _, _ in self._chunks]
        self.bytes = np.frombuffer(b"".join([data for data, _, _ in self._chunks]), np.uint8)
        self.starts = np.cumsum([0, *lengths])[:-1] if lengths else np.zeros(0, np.int64)
        self.carriers = np.array([c for _, c, _ in self._chunks], np.int64)
        self.frames = np.array([f for _, _, f in self._chunks], np.int64)

    def _postpone(self, d: Direction) -> bool:
        """Keep new bytes unscanned when they cannot complete what is begun."""
        if d.breaks or d.tail_bytes + sum(len(data) for data, _, _ in d.chunks) >= d.need:
            return False
        for data, carrier, _ in d.chunks:
            d.tail.append((bytes(data), self.streams.meta(carrier)))
            d.tail_bytes += len(data)
        d.chunks = []
        _forget_repeats(d)
        self.streams.settle(d)
        return True

    def _add(self, d: Direction, at: int) -> int:
        keep, base = self.streams.keep, len(self._chunks)
        for data, meta in d.tail:
            keep.append(meta)
            self._chunks.append((data, -len(keep), -len(keep)))
        first, offset, tail = base, d.scan_offset, len(d.tail)
        self._chunks += d.chunks
        for broken in [*d.breaks, None]:
            until = len(self._chunks) if broken is None else base + tail + broken[0]
            size = sum(len(data) for data, _, _ in self._chunks[first:until])
            self.pieces.append(Piece(len(self.directions), at, at + size, offset, broken))
            at, first = at + size, until
            if broken is not None:
                offset = broken[4]
        self.directions.append(d)
        self._last.append(len(self._chunks))
        return at

    def piece_table(self) -> Array:
        """Pieces as the scanner takes them."""
        out = np.zeros((len(self.pieces), 5), np.int64)
        before: Piece | None = None
        for k, piece in enumerate(self.pieces):
            d = self.directions[piece.direction]
            state, skipped = d.state, d.skipped
            if before is not None and before.direction == piece.direction and before.broken is not None:
                state, skipped = (IN_SYNC if before.broken[1] == CLOSE else AFTER_GAP), 0
            out[k] = piece.start, piece.end, state, skipped, d.connection.configured
            before = piece
        return out

    def chunk_at(self, positions: Array) -> Array:
        """Chunk of each position in the arena."""
        return np.searchsorted(self.starts, positions, "right") - 1

    def save(self, said: Array) -> None:
        """Keep in each direction what the scan left open, and how it goes on."""
        for piece, ended in zip(self.pieces, said, strict=True):
            if piece.broken is not None:
                continue
            d, tail = self.directions[piece.direction], int(ended[fs.P_TAIL])
            d.state, d.need, d.skipped = int(ended[fs.P_STATE]), int(ended[fs.P_NEED]), int(ended[fs.P_SKIPPED])
            d.scan_offset = piece.offset + tail - piece.start
            d.tail, d.tail_bytes = [], piece.end - tail
            if tail < piece.end:
                for c in range(int(self.chunk_at(np.array([tail]))[0]), self._last[piece.direction]):
                    data, carrier, _ = self._chunks[c]
                    cut = max(tail - int(self.starts[c]), 0)
                    d.tail.append((bytes(data[cut:]), self.streams.meta(carrier)))
            d.chunks, d.breaks = [], []
            _forget_repeats(d)
            self.streams.settle(d)


def _forget_repeats(d: Direction) -> None:
    if d.repeats:
        d.repeats = [(a, b, -1) for a, b, _ in d.repeats if b > d.scan_offset]
    if len(d.repeats) > REPEATS_MAX:
        d.repeats = [(min(a for a, _, _ in d.repeats), max(b for _, b, _ in d.repeats), -1)]


class Frames:
    """Metas of the frames that an arena names: those of the batch by their index, kept ones by -1, -2, …"""

    COLUMNS = ("run_ns", "capture_id", "capture_pos", "ts_capture_ns", "ts_resolution_ns")

    def __init__(self, packets: Rows, keep: list[Meta]) -> None:
        self._n = len(packets)
        kept = np.array(keep, np.int64).reshape(len(keep), len(self.COLUMNS))
        self._columns = {c: np.concatenate([packets[c], kept[:, i]]) for i, c in enumerate(self.COLUMNS)}

    def __getitem__(self, column: str) -> Array:
        return self._columns[column]

    def rows(self, frames: Array) -> Array:
        """Row in the columns of each frame."""
        return np.where(frames >= 0, frames, self._n - frames - 1)
