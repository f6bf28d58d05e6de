"""Frames that a SPAN port mirrors twice: the same bytes again within a set time at one point; counts nothing itself.

A frame is known by its length on the wire and a keyed hash of its captured bytes (SipHash-2-4; Aumasson and Bernstein,
2012): the key is drawn anew in every process, so nobody can make a frame that hides another. Each frame is held against
the newest like it among the FRAMES_MAX before, so a third copy counts as well while each follows the last in time.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from akbypass.kernel import kernel
from akbypass.producers.frames import FrameBatch
from akbypass.rows import Array

FRAMES_MAX = 65_536  # remembered; a power of two
STEPS_MAX = 64  # along one chain; frames of other hashes that share it
HASH, TIME, LENGTH, BEFORE = range(
    4
)  # columns of what is remembered of a frame; BEFORE: number of the one in its chain


class Duplicates:
    """Finds the copies among the frames of one capture, which come in order.

    Args:
        window_ns: A frame is a copy when one like it was captured at most so long before or after (ns).
        key: 16 bytes.
    """

    def __init__(self, window_ns: int, key: bytes | None = None) -> None:
        self._window_ns = window_ns
        self._key = np.frombuffer(os.urandom(16) if key is None else key, np.uint64)
        self._seen = np.zeros((FRAMES_MAX, 4), np.int64)
        self._heads = np.full(FRAMES_MAX, -1, np.int64)  # number of the newest frame of each chain
        self._count = 0

    def find(self, frames: FrameBatch) -> Array:
        """Whether each frame is a copy of an earlier one (bool)."""
        copies = np.zeros(len(frames), np.bool_)
        self._count = _find(
            frames.buffer, frames.start, frames.captured_length, frames.wire_length, frames.ts_ns, self._window_ns,
            self._key, self._seen, self._heads, self._count, copies,
        )  # fmt: skip
        return copies


@kernel
def _find(
    buffer: Any, start: Any, captured: Any, wire: Any, ts: Any, window_ns: int, key: Any, seen: Any, heads: Any,
    count: int, copies: Any,
) -> int:  # fmt: skip
    """Fill `copies`; returns how many frames came so far."""
    for i in range(len(start)):
        digest = siphash(buffer[start[i] : start[i] + captured[i]], key[0], key[1])
        chain = np.int64(digest & np.uint64(FRAMES_MAX - 1))
        mark = np.int64(digest)
        number = heads[chain]
        for _ in range(STEPS_MAX):
            if number < 0 or number < count - FRAMES_MAX:
                break
            known = seen[number & (FRAMES_MAX - 1)]
            if known[HASH] == mark and known[LENGTH] == wire[i]:
                copies[i] = abs(ts[i] - known[TIME]) <= window_ns
                break
            number = known[BEFORE]
        at = count & (FRAMES_MAX - 1)
        seen[at, HASH], seen[at, TIME], seen[at, LENGTH], seen[at, BEFORE] = mark, ts[i], wire[i], heads[chain]
        heads[chain] = count
        count += 1
    return count


@kernel
def siphash(data: Any, k0: Any, k1: Any) -> Any:
    """SipHash-2-4 of bytes under a key of two words, as uint64."""
    a, b = k0 ^ np.uint64(0x736F6D6570736575), k1 ^ np.uint64(0x646F72616E646F6D)
    c, d = k0 ^ np.uint64(0x6C7967656E657261), k1 ^ np.uint64(0x7465646279746573)
    n = len(data)
    whole = n - n % 8
    for at in range(0, whole + 8, 8):
        word = np.uint64(n & 0xFF) << np.uint64(56) if at == whole else np.uint64(0)
        for j in range(min(8, n - at)):
            word |= np.uint64(data[at + j]) << np.uint64(8 * j)
        d ^= word
        a, b, c, d = _rounds(a, b, c, d, 2)
        a ^= word
    a, b, c, d = _rounds(a, b, c ^ np.uint64(0xFF), d, 4)
    return a ^ b ^ c ^ d


@kernel
def _rounds(a: Any, b: Any, c: Any, d: Any, count: int) -> Any:
    for _ in range(count):
        a += b
        c += d
        b, d = _turned(b, 13) ^ a, _turned(d, 16) ^ c
        a = _turned(a, 32)
        c += b
        a += d
        b, d = _turned(b, 17) ^ c, _turned(d, 21) ^ a
        c = _turned(c, 32)
    return a, b, c, d


@kernel
def _turned(x: Any, bits: int) -> Any:
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))
