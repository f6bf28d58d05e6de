"""Messages on disk in the order in which they came, in segment files of one directory; knows no broker, drops nothing.

Records are appended to the newest segment and read from the oldest; a segment is deleted when all of it was released.
A process that is killed leaves at most its last record torn: it is cut off at the next opening. Nothing is forced to
the disk: what was appended survives the process, not a loss of power.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from akbypass.local import children
from akbypass.producers.spool.record import CHECK, LENGTH_MAX, Record, parse

log = logging.getLogger("akbypass.spool")
SUFFIX = ".spool"


class SpoolFullError(OSError):
    """The disk takes no more."""


@dataclass
class _Segment:
    path: Path
    first: int  # number of its first record
    size: int = 0  # bytes of whole records


class SpoolLog:
    """Appends and releases records; one process at a time owns the directory. Raises ServiceError when it is in use."""

    def __init__(self, directory: Path, segment_bytes: int) -> None:
        self.directory, self._segment_bytes = directory, segment_bytes
        self._owner = children.lock(directory, what="the spool", wait_s=0)
        self._lock = threading.Lock()  # of the list; a writer and a reader may be two threads
        self._file: IO[bytes] | None = None
        found = sorted(directory.glob(f"*{SUFFIX}"))
        self._segments = [_Segment(p, int(p.stem), p.stat().st_size) for p in found]
        self.last = 0  # number of the last record; 0 when there was none
        while self._segments and not self._mend(self._segments[-1]):
            self._segments.pop().path.unlink()

    def _mend(self, newest: _Segment) -> bool:
        """Cut a torn record off the newest segment and learn the number of the last one; False when none is whole."""
        whole = 0
        with newest.path.open("r+b") as file:
            while (record := _read(file)) is not None:
                self.last, whole = record.number, file.tell()
            file.truncate(whole)
        newest.size = whole
        return whole > 0

    @property
    def first(self) -> int:
        """Number of the first record of the oldest segment; `last` + 1 when there is none."""
        with self._lock:
            return self._segments[0].first if self._segments else self.last + 1

    @property
    def bytes(self) -> int:
        """Bytes of all segments."""
        with self._lock:
            return sum(s.size for s in self._segments)

    def append(self, record: Record) -> None:
        """Write one record behind all others; raises SpoolFullError when the disk takes no more of it."""
        assert record.number > self.last, "numbers rise"
        if not self._segments or self._file is None or self._segments[-1].size >= self._segment_bytes:
            self._roll(record.number)
        assert self._file is not None
        segment, parts = self._segments[-1], record.parts()
        length = sum(map(len, parts))
        try:
            if os.writev(self._file.fileno(), parts) != length:
                raise OSError("the record was cut short")
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(segment.size)
                self._file.seek(segment.size)
            raise SpoolFullError(f"{segment.path}: {error}") from error
        segment.size += length
        self.last = record.number

    def _roll(self, number: int) -> None:
        if self._file is not None:
            self._file.close()
        path = self.directory / f"{number:020d}{SUFFIX}"
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            self._file = None
            raise SpoolFullError(f"{path}: {error}") from error
        with self._lock:
            self._segments.append(_Segment(path, number))

    def release(self, number: int) -> None:
        """Delete the segments of which every record is below `number`."""
        gone: list[_Segment] = []
        with self._lock:
            while self._segments and self._last_of(0) < number:
                gone.append(self._segments.pop(0))
            if not self._segments and self._file is not None:
                self._file.close()
                self._file = None
        for segment in gone:
            segment.path.unlink(missing_ok=True)

    def _last_of(self, index: int) -> int:
        """Number that no record of a segment is above."""
        return self._segments[index + 1].first - 1 if index + 1 < len(self._segments) else self.last

    def after(self, segment: _Segment | None) -> _Segment | None:
        """The segment behind one, the oldest for None; None when there is none."""
        with self._lock:
            if segment is None:
                return self._segments[0] if self._segments else None
            return next((s for s in self._segments if s.first > segment.first), None)

    def close(self) -> None:
        """Let go of the directory; when nothing is left in it, it goes away."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if not self._segments:
            with contextlib.suppress(OSError):
                (self.directory / "lock").unlink()
                self.directory.rmdir()
        os.close(self._owner)


class SpoolReader:
    """Reads a log from its oldest record on, also while it grows."""

    def __init__(self, source: SpoolLog) -> None:
        self._source = source
        self._segment: _Segment | None = None
        self._file: IO[bytes] | None = None
        self._at = 0
        self.damaged = 0  # segments of which the rest could not be read (count)

    def next(self) -> Record | None:
        """The next record; None when there is none for now."""
        while True:
            if self._segment is not None and self._at < self._segment.size:
                assert self._file is not None
                record = _read(self._file)
                if record is not None:
                    self._at = self._file.tell()
                    return record
                self.damaged += 1
                log.error(
                    "%s: expected a record at byte %d, found other bytes; the rest of this file is lost",
                    self._segment.path,
                    self._at,
                )
                self._at = self._segment.size
            following = self._source.after(self._segment)
            if following is None:
                return None
            self.close()
            self._segment, self._at, self._file = following, 0, following.path.open("rb")

    def rewind(self) -> None:
        """Read from the oldest record again."""
        self.close()
        self._segment, self._at = None, 0

    def close(self) -> None:
        """Close the file that is being read."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _read(file: IO[bytes]) -> Record | None:
    """Read one record; None when what is there is not a whole one."""
    head = file.read(CHECK.size)
    if len(head) < CHECK.size:
        return None
    length, check = CHECK.unpack(head)
    if length > LENGTH_MAX:
        return None
    body = file.read(length)
    if len(body) < length or zlib.crc32(body) != check:
        return None
    return parse(body)
