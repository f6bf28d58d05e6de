"""Where the bytes of a capture come from: a file, gzip in it, standard input; knows nothing of their format.

A source is read into the caller's buffer. What is damaged ends it and is told in `damage`; positions are the
reader's business, because they count decompressed bytes. Files are never mapped: reading 1 MiB at a time into one
buffer was 2 to 3 times faster and keeps memory flat.
"""

from __future__ import annotations

import os
import stat
import sys
import zlib
from dataclasses import dataclass
from typing import Protocol

from akbypass.errors import CaptureError

STDIN = "-"
GZIP_MAGIC = b"\x1f\x8b"
PIECE_BYTES = 1 << 16  # compressed bytes asked for at once; bounds what one step of zlib holds back
FOREIGN = {  # magics of what people hand to us instead, with what helps
    b"\x28\xb5\x2f\xfd": "Zstandard data; decompress it first (zstd -dc FILE | … -)",
    b"\xfd7zX": "xz data; decompress it first (xz -dc FILE | … -)",
    b"BZh": "bzip2 data; decompress it first (bzip2 -dc FILE | … -)",
    b"\x04\x22\x4d\x18": "LZ4 data; decompress it first (lz4 -dc FILE | … -)",
    b"PK\x03\x04": "a ZIP archive; unpack it first",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a capture that could not be read: where, why, and what was expected and found.

    `position` is a byte offset in the decompressed capture; `source` is the file or interface.
    """

    position: int
    reason: str
    detail: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}: {self.detail}"


class ByteSource(Protocol):
    """What a capture reader reads from.

    `lookahead` tells that a read never waits for something to happen; `damage` is (reason, detail) once the bytes
    ended otherwise than at their end; `dropped` counts frames that a capture tool says it lost; `bytes_read` counts
    bytes taken from the file or pipe, before decompression.
    """

    @property
    def name(self) -> str: ...
    @property
    def lookahead(self) -> bool: ...
    @property
    def damage(self) -> tuple[str, str] | None: ...
    @property
    def dropped(self) -> int: ...
    @property
    def bytes_read(self) -> int: ...

    def readinto(self, view: memoryview) -> int | None:
        """Fill `view` from its start; return the bytes written, 0 at the end, None while there is nothing yet."""
        ...

    def close(self) -> None:
        """Give back the file or process; may be called twice."""
        ...


class FileSource:
    """Bytes of an open file descriptor, behind the head that was already taken from it."""

    dropped = 0

    def __init__(self, name: str, descriptor: int, *, lookahead: bool) -> None:
        self.name = name
        self.lookahead = lookahead
        self.damage: tuple[str, str] | None = None
        self.bytes_read = 0
        self._descriptor = descriptor
        self._head = b""

    def look(self, count: int) -> bytes:
        """Return the first bytes; they will be read again."""
        self._head = read_head(self, count)
        return self._head

    def readinto(self, view: memoryview) -> int | None:
        """Read once; an error of the device ends the capture and is told in `damage`."""
        if self._head:
            n = min(len(self._head), len(view))
            view[:n], self._head = self._head[:n], self._head[n:]
            return n
        try:
            n = os.readv(self._descriptor, [view])
        except OSError as error:
            self.damage = ("read_error", f"the system says {error.strerror}")
            return 0
        self.bytes_read += n
        return n

    def close(self) -> None:
        """Close the descriptor; standard input stays open."""
        if self._descriptor > 2:
            os.close(self._descriptor)
            self._descriptor = -1


class GzipSource:
    """Decompressed bytes of gzip data, of several members as well; zero bytes behind the last one are padding."""

    dropped = 0

    def __init__(self, inner: FileSource) -> None:
        self.name, self.lookahead = inner.name, inner.lookahead
        self.damage: tuple[str, str] | None = None
        self._inner = inner
        self._member: zlib._Decompress | None = zlib.decompressobj(wbits=31)
        self._left = memoryview(b"")
        self._piece = bytearray(PIECE_BYTES)
        self._ended = False
        self._held = False  # zlib may hold output of bytes that it has already taken
        self._careful = False  # damage is near: go byte by byte, because zlib withholds what a failing step had made

    def readinto(self, view: memoryview) -> int | None:
        """Decompress at most len(view) bytes, so that a bomb cannot fill memory."""
        while not self._ended:
            if not self._left and not self._held and not self._more():
                break
            before = self._member.copy() if self._member is not None and not self._careful else None
            try:
                out = self._step(len(view))
            except zlib.error as error:
                if before is not None:
                    self._member, self._careful = before, True
                    continue
                self.damage, self._ended = ("gzip_corrupt", f"expected gzip data, found other bytes: {error}"), True
                break
            if out:
                view[: len(out)] = out
                return len(out)
        return 0

    @property
    def bytes_read(self) -> int:
        """Compressed bytes read."""
        return self._inner.bytes_read

    def _more(self) -> bool:
        n = self._inner.readinto(memoryview(self._piece)) or 0
        if n:
            self._left = memoryview(self._piece)[:n]
            return True
        self._ended = True
        self.damage = self._inner.damage
        if self.damage is None and self._member is not None:
            self.damage = ("gzip_truncated", "expected the end of the gzip data, found the end of the file; cut short?")
        return False

    def _step(self, most: int) -> bytes:
        if self._member is None:  # between members
            self._left = memoryview(bytes(self._left).lstrip(b"\0"))
            self._member = zlib.decompressobj(wbits=31) if self._left else None
            return b""
        fed = self._left[:1] if self._careful else self._left
        out = self._member.decompress(fed, most)
        ended = self._member.eof
        taken = len(fed) - len(self._member.unused_data if ended else self._member.unconsumed_tail)
        self._left = self._left[taken:]
        self._held = len(out) == most and not ended
        if ended:
            self._member = None
        return out

    def close(self) -> None:
        """Close the compressed file."""
        self._inner.close()


def read_head(source: ByteSource, most: int) -> bytes:
    """Read until `most` bytes are there or the source has ended."""
    head = bytearray(most)
    have = 0
    while have < most:
        n = source.readinto(memoryview(head)[have:])
        if n == 0:
            break
        have += n or 0
    return bytes(head[:have])


def open_source(name: str) -> ByteSource:
    """Open a file, or standard input for `-`; gzip is recognised by its first bytes.

    Raises:
        CaptureError: The file cannot be opened.
    """
    raw = _open_file(name)
    return GzipSource(raw) if raw.look(len(GZIP_MAGIC)) == GZIP_MAGIC else raw


def _open_file(name: str) -> FileSource:
    if name == STDIN:
        return FileSource(name, sys.stdin.fileno(), lookahead=False)
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise CaptureError(
            f"{name}: expected a capture file, found none: {getattr(error, 'strerror', error)}"
        ) from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        os.close(descriptor)
        raise CaptureError(f"{name}: expected a capture file, found a directory; name its files")
    return FileSource(name, descriptor, lookahead=stat.S_ISREG(mode))
