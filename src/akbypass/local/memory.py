"""Keeps long-running processes small and steady: bounds glibc's arenas, gives large blocks back, tames the collector."""

from __future__ import annotations

import ctypes
import gc

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # malloc.h
ARENAS = 2  # instead of 8 a core: the worker's consumers are threads of their own
MMAP_BYTES = 4 * 1024 * 1024  # larger blocks go back to the system at once; unset, the limit grows with use
GC_OBJECTS = 50_000  # new objects before the collector looks; batches hold few objects and no cycles


def settle_memory() -> None:
    """Set up this process; call once everything is imported and before threads start."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc only
        mallopt(M_ARENA_MAX, ARENAS)
        mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, 20, 20)
