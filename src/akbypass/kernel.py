"""How sequential loops are compiled: Numba, cached, without the GIL, bounds checks always on.

The cache lies beside the module, or in NUMBA_CACHE_DIR. With NUMBA_DISABLE_JIT=1 the same code runs as plain Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba as nb

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile a loop over arrays; a read outside of an array raises IndexError instead of returning a neighbour."""
    return cast(F, nb.njit(cache=True, nogil=True, boundscheck=True)(function))
