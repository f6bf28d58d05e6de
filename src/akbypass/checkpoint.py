"""State of a topology partition as chunks and a manifest in a compacted topic (design rule 7); knows no core.

    key  "{partition}/{owner}/{slot}/{i}"       value  chunk i of the state, at most 512 KiB
    key  "{partition}/{owner}/{slot}/manifest"  value  JSON, written last: what the chunks are and the input offsets

Slots alternate, so the manifest before stays whole while the next state is written. An owner takes the next epoch;
a manifest of a lower epoch than the highest is a zombie's and is ignored, and its chunks cannot touch ours: the owner
in the key is the epoch with a random suffix, which reaches no state.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from akbypass import transport
from akbypass.config import Config
from akbypass.rows import Array
from akbypass.transport import Publisher

CHUNK_BYTES_MAX = 512 * 1024
FORMAT = 1


def pack(arrays: Mapping[str, Array]) -> bytes:
    """Write named arrays as bytes: a JSON head of names, types and shapes, then the arrays one behind the other."""
    head = [[name, a.dtype.str, list(a.shape)] for name, a in arrays.items()]
    encoded = orjson.dumps(head)
    assert all(a.dtype.kind != "O" for a in arrays.values()), "a snapshot holds numbers and bytes only"
    return b"".join(
        [len(encoded).to_bytes(8, "big"), encoded, *(np.ascontiguousarray(a).tobytes() for a in arrays.values())]
    )


def unpack(data: bytes) -> dict[str, Array]:
    """Read what `pack` wrote; the arrays are writable copies."""
    size = int.from_bytes(data[:8], "big")
    at, found = 8 + size, {}
    for name, dtype, shape in orjson.loads(data[8:at]):
        kind = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        found[name] = np.frombuffer(data, kind, count, at).reshape(shape).copy()
        at += count * kind.itemsize
    return found


@dataclass
class Checkpoint:
    """A loaded state: named arrays and the manifest's own words (offsets, runs)."""

    arrays: dict[str, Array] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)


class CheckpointStore:
    """Checkpoints of one partition of one topology; one owner, one epoch."""

    def __init__(self, config: Config, publisher: Publisher, topology: str, version: int, partition: int) -> None:
        self.publisher = publisher
        self.topic = transport.checkpoint_topic(config, topology)
        self.version, self.partition = version, partition
        self.epoch, self.slot, self.sequence = 0, 0, 0
        self._owner = ""
        self._stale: list[bytes] = []

    def load(self, values: Mapping[bytes, bytes]) -> Checkpoint:
        """Take the next epoch and return the newest whole state, an empty one when there is none.

        `values` are those of this partition, newest by key, as `read_checkpoints` gives them.
        """
        manifests = [orjson.loads(v) for k, v in values.items() if k.endswith(b"/manifest")]
        self.epoch = 1 + max((m["epoch"] for m in manifests), default=0)
        self._owner = f"{self.epoch}.{secrets.token_hex(4)}"
        self._stale = list(values)
        usable = [m for m in manifests if m["format"] == FORMAT and m["version"] == self.version]
        for manifest in sorted(usable, key=lambda m: (m["epoch"], m["sequence"]), reverse=True):
            prefix = f"{self.partition}/{manifest['owner']}/{manifest['slot']}/".encode()
            chunks = [values.get(prefix + b"%d" % i) for i in range(manifest["chunks"])]
            whole = [c for c in chunks if c is not None]
            data = b"".join(whole)
            if len(whole) == len(chunks) and hashlib.blake2b(data, digest_size=16).hexdigest() == manifest["hash"]:
                return Checkpoint(unpack(data), manifest["meta"])
        return Checkpoint()

    def save(self, data: bytes, meta: Mapping[str, Any]) -> None:
        """Write one state durably; when it returns, input offsets up to `meta` may be acknowledged."""
        save_all(self.publisher, [(self, data, meta)])

    def write_chunks(self, data: bytes) -> dict[str, Any]:
        """Queue the chunks of a state into the free slot; returns what a manifest says of them."""
        count = 0
        for start in range(0, len(data), CHUNK_BYTES_MAX):
            key = f"{self._prefix}{count}".encode()
            self.publisher.produce(self.topic, self.partition, data[start : start + CHUNK_BYTES_MAX], key, [])
            count += 1
        return {"chunks": count, "hash": hashlib.blake2b(data, digest_size=16).hexdigest()}

    def write_manifest(self, chunks: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        """Queue the manifest of chunks that are durable, and change slots."""
        self.sequence += 1
        manifest = {
            "format": FORMAT, "version": self.version, "epoch": self.epoch, "owner": self._owner,
            "sequence": self.sequence, "slot": self.slot, **chunks, "meta": dict(meta),
        }  # fmt: skip
        key = f"{self._prefix}manifest".encode()
        self.publisher.produce(self.topic, self.partition, orjson.dumps(manifest), key, [])
        self.slot = 1 - self.slot

    def forget_stale(self) -> None:
        """Delete what earlier epochs left; not before this one has a durable manifest."""
        for key in self._stale:
            self.publisher.produce(self.topic, self.partition, None, key, [])
        self._stale = []

    @property
    def _prefix(self) -> str:
        return f"{self.partition}/{self._owner}/{self.slot}/"


def read_checkpoints(
    config: Config, bootstrap: str, topology: str, partitions: Sequence[int]
) -> dict[int, dict[bytes, bytes]]:
    """Read what was saved for these partitions: newest value by key, by partition."""
    return transport.read_latest(config, bootstrap, transport.checkpoint_topic(config, topology), partitions)


def save_all(publisher: Publisher, states: Sequence[tuple[CheckpointStore, bytes, Mapping[str, Any]]]) -> None:
    """Write the states of several partitions durably, with one wait for each of: what they said, chunks, manifests."""
    publisher.flush()  # what the states have said must be on the broker before the states say so
    chunks = [store.write_chunks(data) for store, data, _ in states]
    publisher.flush()
    for (store, _, meta), written in zip(states, chunks, strict=True):
        store.write_manifest(written, meta)
    publisher.flush()
    for store, _, _ in states:
        store.forget_stale()
