"""Dicts of many small values as a few arrays, for snapshots: what Python does per entry would stop the event loop.

It knows no core; the order of the entries, which in these dicts means age, is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import accumulate

import numpy as np

from akbypass.rows import Array


def pack_texts(name: str, texts: Collection[bytes]) -> dict[str, Array]:
    """Byte strings of any length and content as two arrays: NAME.bytes and NAME.lengths.

    >>> {k: v.tolist() for k, v in pack_texts("ids", [b"A", b"", b"BC"]).items()}
    {'ids.lengths': [1, 0, 2], 'ids.bytes': [65, 66, 67]}
    """
    lengths = np.fromiter(map(len, texts), np.uint32, len(texts))
    return {f"{name}.lengths": lengths, f"{name}.bytes": np.frombuffer(b"".join(texts), np.uint8)}


def unpack_texts(name: str, state: Mapping[str, Array]) -> list[bytes]:
    """The byte strings again.

    >>> unpack_texts("ids", pack_texts("ids", [b"A", b"", b"BC"]))
    [b'A', b'', b'BC']
    """
    whole, lengths = state[f"{name}.bytes"].tobytes(), state[f"{name}.lengths"].tolist()
    return [whole[end - n : end] for n, end in zip(lengths, accumulate(lengths), strict=True)]
