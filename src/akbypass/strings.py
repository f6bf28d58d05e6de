"""Strings between NUL-padded columns and Arrow's offsets and bytes, or codes and their dictionary; knows no row type.

Our strings are printable ASCII and end at their first NUL. Packing writes `?` for any other byte; unpacking refuses
what would not come back: offsets that fall or leave the data, a string wider than its column, a byte above 126.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from akbypass.kernel import kernel

Array = np.ndarray[Any, np.dtype[Any]]
QUESTION_MARK = np.uint8(ord("?"))
BYTE_MAX = np.uint8(126)  # last printable ASCII byte
CODES_MAX = 127  # values that a dictionary of int8 codes can have
SLOTS = 512  # of the table that finds them; a power of two


@kernel
def _pack(matrix: Any, offsets: Any, data: Any) -> int:
    at = 0
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            byte = matrix[i, j]
            if byte == 0:
                break
            data[at] = byte if byte <= BYTE_MAX else QUESTION_MARK
            at += 1
        offsets[i + 1] = at
    return at


@kernel
def _unpack(offsets: Any, data: Any, matrix: Any) -> int:
    for i in range(matrix.shape[0]):
        start, end = offsets[i], offsets[i + 1]
        if start < 0 or end < start or end > data.shape[0]:
            return -2
        if end - start > matrix.shape[1]:
            return int(end - start)
        for j in range(end - start):
            byte = data[start + j]
            if byte > BYTE_MAX:
                return -3
            matrix[i, j] = byte
    return -1


@kernel
def _same(words: Any, i: int, k: int) -> bool:
    for j in range(words.shape[1]):  # noqa: SIM110  # a kernel
        if words[i, j] != words[k, j]:
            return False
    return True


@kernel
def _encode(words: Any, codes: Any, firsts: Any, slots: Any) -> int:
    found = 0
    for i in range(words.shape[0]):
        if i > 0 and _same(words, i, i - 1):
            codes[i] = codes[i - 1]
            continue
        key = 0
        for j in range(words.shape[1]):
            key = (key >> 7) ^ words[i, j]
        key ^= key >> 32
        key ^= key >> 16
        slot = (key ^ (key >> 8)) & (slots.shape[0] - 1)
        while slots[slot] >= 0 and not _same(words, i, firsts[slots[slot]]):
            slot = (slot + 1) & (slots.shape[0] - 1)
        if slots[slot] < 0:
            if found == firsts.shape[0]:
                return -1
            slots[slot], firsts[found] = found, i
            found += 1
        codes[i] = slots[slot]
    return found


def encode(array: Array) -> tuple[Array, Array] | None:
    """Turn a column of strings (n, dtype S) into codes (n, int8) and the values they stand for; None when too many.

    The width of the column is a multiple of four bytes.
    """
    n, width = len(array), array.dtype.itemsize
    words = np.ascontiguousarray(array).view(np.int64 if width % 8 == 0 else np.int32).reshape(n, -1)
    codes, firsts, slots = np.empty(n, np.int8), np.empty(CODES_MAX, np.int64), np.full(SLOTS, -1, np.int16)
    found = _encode(words, codes, firsts, slots)
    return None if found < 0 else (codes, array.take(firsts[:found]))


def pack(array: Array) -> tuple[Array, Array]:
    """Turn a column of strings (n, dtype S) into offsets (n + 1, int32) and bytes (uint8)."""
    n, width = len(array), array.dtype.itemsize
    matrix = np.ascontiguousarray(array).view(np.uint8).reshape(n, width)
    offsets, data = np.zeros(n + 1, np.int32), np.empty(n * width, np.uint8)
    size = _pack(matrix, offsets, data)
    return offsets, data[:size]


def unpack(offsets: Array, data: Array, width: int) -> Array:
    """Turn offsets (n + 1, int32) and bytes into a column of strings (n, dtype S{width}).

    Raises ValueError for what `pack` does not write.
    """
    n = len(offsets) - 1
    matrix = np.zeros((n, width), np.uint8)
    found = _unpack(offsets, data, matrix)
    if found >= 0:
        raise ValueError(f"expected at most {width} bytes, found {found}")
    if found < -1:
        raise ValueError("expected offsets within the data" if found == -2 else "expected ASCII, found another byte")
    return matrix.view(f"S{width}").reshape(n)
