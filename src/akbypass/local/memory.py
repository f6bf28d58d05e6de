"""Keeps glibc from holding memory back for every thread that once allocated; does nothing elsewhere."""

from __future__ import annotations

import ctypes

M_ARENA_MAX = -8  # malloc.h
ARENAS = 2  # of the default 8 a core; measured on the worker, whose consumers are threads of their own


def limit_arenas() -> None:
    """Bound the allocator's arenas of this process; call before threads start."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, ARENAS)
