"""State of a topology partition as chunks and a manifest in a log on the broker (design rule 7); knows no core.

    claim     an owner takes the partition; the record's offset is its epoch
    chunk     at most 128 KiB of the state
    manifest  JSON, written last: the offsets and hashes of all chunks, the input offsets, and its own offset
    handover  another version asks the owner for a last save
    left      an owner says that it publishes no more
    failed    an owner's core failed behind its last manifest; the next owner is to be careful

A save sends the chunks that the log does not hold yet; the manifest names the others where they are. The manifest
before stays whole because nothing is overwritten. A manifest counts only at the offset that it names: an owner that
was replaced without knowing it (a zombie) lands behind its successor's claim, so whatever it writes is void. An owner
that lands elsewhere looks at what came between: a claim ends it, what a zombie left does not. Bytes of a stranger are
void too: whoever meets them passes over and tells of them (`foreign`).
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from akbypass import transport
from akbypass.checkpoint_log import LogReader, LogWriter, Record
from akbypass.config import Config
from akbypass.rows import Array

log = logging.getLogger("akbypass.checkpoint")

CHUNK_BYTES_MAX = 128 * 1024
SMALL_BYTES_MAX = 16 * 1024  # smaller arrays travel together
SLACK_BYTES = 8 * 1024 * 1024  # of chunks out of use in a log before those in use are moved to its end
FORMAT = 2
CLAIM, CHUNK, MANIFEST = b"claim", b"chunk", b"manifest"
HANDOVER, LEFT, FAILED = b"handover", b"left", b"failed"
WORDS: dict[bytes, dict[str, type]] = {  # what each kind of record must say to be one of ours
    CLAIM: {"version": int, "owner": str},
    MANIFEST: {"format": int, "at": int, "chunks": list, "position": int, "sequence": int, "meta": dict},
    HANDOVER: {"version": int},
    LEFT: {"owner": str},
    FAILED: {"owner": str, "error": str},
}
TRIES_MAX = 5  # saves that others may displace one after the other; a zombie displaces one


class FencedError(RuntimeError):
    """Another owner has claimed the partition: what this one would save is void."""


class SupersededError(FencedError):
    """Another version of the topology has taken the partition over."""


class HandoverError(FencedError):
    """Another version asks for the partition; one more save is possible, of a state that does not move on."""


class _DisplacedError(Exception):
    """What was appended lies elsewhere than expected."""


def pack(arrays: Mapping[str, Array]) -> list[memoryview]:
    """Cut named arrays into pieces without copying the large ones; an array that did not change gives equal pieces.

    First the small arrays together, behind a head of all names, types and shapes; then each large one from its start.
    """
    assert all(a.dtype.kind != "O" for a in arrays.values()), "a snapshot holds numbers and bytes only"
    whole = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
    small = [a.tobytes() for a in whole.values() if a.nbytes < SMALL_BYTES_MAX]
    head = orjson.dumps([[name, a.dtype.str, list(a.shape)] for name, a in whole.items()])
    bundle = b"".join([(8 + len(head)).to_bytes(8, "big"), head, *small])
    parts = [memoryview(bundle), *(_bytes_of(a) for a in whole.values() if a.nbytes >= SMALL_BYTES_MAX)]
    return [part[at : at + CHUNK_BYTES_MAX] for part in parts for at in range(0, len(part), CHUNK_BYTES_MAX)]


def unpack(pieces: Sequence[bytes | memoryview]) -> dict[str, Array]:
    """Read what `pack` cut; the arrays are writable copies."""
    data = bytearray().join(pieces)
    at = int.from_bytes(data[:8], "big")
    shapes = [(name, np.dtype(dtype), tuple(shape)) for name, dtype, shape in orjson.loads(data[8:at])]
    sizes = {name: int(np.prod(shape, dtype=np.int64)) * dtype.itemsize for name, dtype, shape in shapes}
    found = {}
    for name, dtype, shape in sorted(shapes, key=lambda s: sizes[s[0]] >= SMALL_BYTES_MAX):  # stable: as they were cut
        found[name] = np.frombuffer(data, np.uint8, sizes[name], at).copy().view(dtype).reshape(shape)
        at += sizes[name]
    return {name: found[name] for name, _, _ in shapes}


def _bytes_of(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


@dataclass
class Checkpoint:
    """A loaded state: named arrays and the manifest's own words (offsets, runs); both empty when there was none.

    `failed` says that a core failed since it was saved.
    """

    arrays: dict[str, Array] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Saved:
    """What one save did: size of the state, and what of it had to be sent (bytes)."""

    state_bytes: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Where a chunk lies; `position` counts the bytes that were ever appended before it."""

    offset: int
    size: int
    hash: str
    position: int


class CheckpointStore:
    """Checkpoints of one partition of one version of a topology, as one owner reads and writes them."""

    def __init__(self, config: Config, writer: LogWriter, topology: str, version: int, partition: int) -> None:
        self.writer, self.topology = writer, topology
        self.topic = transport.checkpoint_topic(config, topology, version)
        self.version, self.partition = version, partition
        self.epoch, self.sequence = 0, 0
        self.saved_s = time.monotonic()  # when the newest manifest was written or loaded
        self._next = 0  # offset of what is appended next
        self._chunks: list[_Chunk] = []
        self._position = 0
        self._low = 0  # offset before which the log was cut off
        self._owner = secrets.token_hex(4)
        self.foreign: list[Record] = []  # what was met that no owner has written; whoever tells of them empties it

    def claim(self) -> None:
        """Become the owner: from here on no other owner's manifest counts."""
        words = {"version": self.version, "owner": self._owner}
        self.epoch = self.writer.append(self.topic, self.partition, [(CLAIM, orjson.dumps(words))])[0]
        self._next = self.epoch + 1

    def load(self, reader: LogReader) -> Checkpoint:
        """Claim the partition and return its newest whole state.

        Raises SupersededError, FencedError when the successor has cut the log off meanwhile, ServiceError.
        """
        behind: list[Record] = []
        manifest = find_manifest(reader, self.partition, self.version, behind)  # does not claim what was taken over
        self.claim()
        last = behind[0].offset if behind else manifest["at"] if manifest else -1
        if last + 1 != self.epoch:  # somebody has written in between, or the log is empty
            behind = []
            manifest = find_manifest(reader, self.partition, self.version, behind)
        self.foreign += [r for r in behind if is_foreign(r)]
        failed = any(r.key == FAILED and not is_foreign(r) for r in behind)
        if manifest is None:
            return Checkpoint(failed=failed)
        state = read_state(reader, self.partition, manifest)
        self._chunks = [_Chunk(*c) for c in manifest["chunks"]]
        self._position, self.sequence = manifest["position"], manifest["sequence"]
        self.saved_s = time.monotonic()
        return Checkpoint(state.arrays, state.meta, failed)

    def save(self, arrays: Mapping[str, Array], meta: Mapping[str, Any] | orjson.Fragment) -> Saved:
        """Write one state durably; when it returns, input offsets up to `meta` (words or JSON) may be acknowledged.

        Raises FencedError when another owner has claimed the partition or asks for it, ServiceError when the broker did
        not answer.
        """
        pieces = pack(arrays)
        hashes = [digest(p) for p in pieces]
        for _ in range(TRIES_MAX):
            try:
                return self._save(pieces, hashes, meta)
            except _DisplacedError:
                self._follow()
        raise FencedError(f"{self.topic}[{self.partition}]: others wrote in between {TRIES_MAX} times")

    def check(self) -> None:
        """Raise FencedError when another owner has claimed the partition or asks for it."""
        if self.writer.end(self.topic, self.partition) > self._next:
            self._follow()

    def _save(self, pieces: list[memoryview], hashes: list[str], meta: Mapping[str, Any] | orjson.Fragment) -> Saved:
        kept = {c.hash: c for c in self._kept(set(hashes), sum(map(len, pieces)))}
        records: list[tuple[bytes, bytes]] = []
        position = self._position
        for piece, name in zip(pieces, hashes, strict=True):
            if name not in kept:
                kept[name] = _Chunk(self._next + len(records), len(piece), name, position)
                records.append((CHUNK, bytes(piece)))
                position += len(piece)
        chunks = [kept[name] for name in hashes]
        records.append((MANIFEST, self._manifest(chunks, meta, self._next + len(records), position)))
        self._append(records)
        self._chunks, self._position, self.saved_s = chunks, position, time.monotonic()
        self.sequence += 1
        self._cut_off()
        return Saved(sum(map(len, pieces)), sum(len(value) for _, value in records))

    def _follow(self) -> None:
        """Take note of what others have appended; raises FencedError unless it may be ignored."""
        with self.writer.reader(self.topic) as reader:
            low, end = reader.bounds(self.partition)
            others = reader.between(self.partition, self._next, end)
        foreign = [record for record in others if is_foreign(record)]
        told = [record for record in others if record not in foreign]
        for record in told:
            if record.key == CLAIM:
                _check_version(self.topic, self.partition, record, self.version)
        if low > self._next or any(record.key == CLAIM for record in told):
            raise FencedError(f"{self.topic}[{self.partition}] has another owner; this one began at {self.epoch}")
        self._next, self.foreign = end, self.foreign + foreign
        if any(record.key == HANDOVER for record in told):
            raise HandoverError(f"{self.topic}[{self.partition}] is asked for by another version")

    def leave(self) -> None:
        """Say that this owner publishes no more."""
        self.writer.append(self.topic, self.partition, [(LEFT, orjson.dumps({"owner": self._owner}))])

    def note_failure(self, error: str) -> None:
        """Tell the next owner that a core failed; for an owner that ends now. Raises ServiceError."""
        words = {"owner": self._owner, "error": error}
        self.writer.append(self.topic, self.partition, [(FAILED, orjson.dumps(words))])

    def _manifest(
        self, chunks: list[_Chunk], meta: Mapping[str, Any] | orjson.Fragment, at: int, position: int
    ) -> bytes:
        words = {
            "format": FORMAT, "version": self.version, "epoch": self.epoch, "owner": self._owner, "sequence": self.sequence + 1,
            "at": at, "position": position, "saved_ns": time.time_ns(), "meta": meta,
            "chunks": [[c.offset, c.size, c.hash, c.position] for c in chunks],
        }  # fmt: skip
        return orjson.dumps(words)

    def _kept(self, wanted: set[str], state_bytes: int) -> Iterator[_Chunk]:
        """Chunks in the log that the new state has as well, without the oldest when the log has become too long.

        What lies between the oldest chunk in use and the end is at most twice the state and some slack; then the
        oldest are sent again, as many bytes as changed by themselves, so that the log can be cut off behind them.
        """
        same = sorted({c for c in self._chunks if c.hash in wanted}, key=lambda c: c.offset)
        changed = state_bytes - sum(c.size for c in same)
        budget = changed if same and self._position - same[0].position > 2 * state_bytes + SLACK_BYTES else 0
        for chunk in same:
            if budget > 0:
                budget -= chunk.size
            else:
                yield chunk

    def _append(self, records: list[tuple[bytes, bytes]]) -> None:
        offsets = self.writer.append(self.topic, self.partition, records)
        if offsets != list(range(self._next, self._next + len(records))):
            raise _DisplacedError
        self._next += len(records)

    def _cut_off(self) -> None:
        """Delete what no manifest from this one on refers to; safe for a successor, who loads this one or a later."""
        low = min((c.offset for c in self._chunks), default=self._next - 1)
        if low > self._low:
            self.writer.delete_before(self.topic, self.partition, low)
            self._low = low


def digest(piece: bytes | memoryview) -> str:
    """Hash by which equal chunks are known and damaged ones found; 128 bits of SHA-256."""
    return hashlib.sha256(piece).hexdigest()[:32]


def read_state(reader: LogReader, partition: int, manifest: Mapping[str, Any]) -> Checkpoint:
    """The state that a manifest names; raises FencedError when its chunks are not there."""
    chunks = [_Chunk(*c) for c in manifest["chunks"]]
    found = reader.at(partition, [c.offset for c in chunks])
    pieces = [found.get(c.offset, b"") for c in chunks]
    for chunk, piece in zip(chunks, pieces, strict=True):
        if digest(piece) != chunk.hash:
            where = f"{reader.topic}[{partition}]@{chunk.offset}"
            raise FencedError(f"{where}: expected a chunk of {chunk.size} bytes, found {len(piece)} others")
    return Checkpoint(unpack(pieces), manifest["meta"])


def find_manifest(
    reader: LogReader, partition: int, version: int | None, behind: list[Record] | None = None
) -> dict[str, Any] | None:
    """The newest manifest that counts; raises SupersededError when another than `version` has claimed the log since.

    Every record behind it is added to `behind`.
    """
    for records in reader.backwards(partition):
        for record in reversed(records):
            if record.key == CLAIM and not is_foreign(record):
                _check_version(reader.topic, partition, record, version)
            elif record.key == MANIFEST and not is_foreign(record):
                manifest: dict[str, Any] = orjson.loads(record.value)
                if manifest["at"] == record.offset and manifest["format"] == FORMAT:
                    return manifest
            if behind is not None:
                behind.append(record)
    return None


def is_foreign(record: Record) -> bool:
    """Whether no owner can have written a record; the bytes of chunks are their manifest's business."""
    if record.key not in WORDS:
        return record.key != CHUNK
    try:
        words = orjson.loads(record.value)
    except orjson.JSONDecodeError:
        return True
    wanted = WORDS[record.key].items()
    return not (isinstance(words, dict) and all(isinstance(words.get(name), kind) for name, kind in wanted))


def load_all(stores: Sequence[CheckpointStore]) -> dict[int, Checkpoint]:
    """Claim and load several partitions of one topology within `checkpoint.load_timeout_s`.

    Those that another version has taken over are left out. Raises ServiceError.
    """
    found: dict[int, Checkpoint] = {}
    if not stores:
        return found
    with stores[0].writer.reader(stores[0].topic) as reader:
        for store in stores:
            try:
                found[store.partition] = store.load(reader)
            except SupersededError as error:
                log.error("%s; this worker leaves it alone", error)
    return found


def _check_version(topic: str, partition: int, record: Record, version: int | None) -> None:
    claimed = orjson.loads(record.value)["version"]
    if version not in (None, claimed):
        raise SupersededError(f"{topic}[{partition}] was taken over by version {claimed} at offset {record.offset}")
