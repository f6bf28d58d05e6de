"""Checkpoints on a real broker: what is sent, what comes back, who may write, and how long the log stays."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from akbypass import checkpoint, transport
from akbypass.checkpoint import (
    CHUNK_BYTES_MAX,
    SLACK_BYTES,
    Checkpoint,
    CheckpointStore,
    FencedError,
    HandoverError,
    SupersededError,
    pack,
    unpack,
)
from akbypass.checkpoint_log import LogReader, LogWriter
from akbypass.config import Config, Kafka
from akbypass.errors import ServiceError
from tests.backends import Broker
from tests.spine.test_progress import TOY

services = pytest.mark.services
PARTITION = 2


class Logs:
    """The logs of one topology on the broker, and owners of one partition."""

    def __init__(self, bootstrap: str) -> None:
        self.config = Config(kafka=Kafka(prefix=f"c{secrets.token_hex(4)}.", partitions=4))
        self.bootstrap = bootstrap
        transport.declare_topics(self.config, bootstrap, [], [TOY])
        self.writer = LogWriter(self.config, bootstrap)
        self.topic = transport.checkpoint_topic(self.config, "toy", 1)

    def reader(self) -> LogReader:
        """A reader with a minute's time."""
        return LogReader(self.config, self.bootstrap, self.topic, 60)

    def owner(self, version: int = 1) -> tuple[CheckpointStore, Checkpoint]:
        """A new owner and what it loaded."""
        store = CheckpointStore(self.config, self.writer, "toy", version, PARTITION)
        with self.reader() as reader:
            return store, store.load(reader)

    def length(self) -> int:
        """Bytes of chunks that the log holds."""
        with self.reader() as reader:
            records = reader.between(PARTITION, *reader.bounds(PARTITION))
        return sum(len(r.value) for r in records if r.key == checkpoint.CHUNK)


@pytest.fixture
def logs(kafka_server: Broker) -> Logs:
    """Logs of their own for each test."""
    return Logs(kafka_server.bootstrap_servers)


def large(seed: int, rows: int = 200_000) -> dict[str, Any]:
    """A state of several large arrays and some small ones."""
    random = np.random.default_rng(seed)
    return {
        "flows": random.integers(0, 1 << 40, (rows, 3)),
        "counts": np.arange(5),
        "text": np.frombuffer(b"some text", np.uint8),
        "empty": np.empty((0, 4), np.int32),
        "names": np.array([b"XNAS", b"XBOS"] * 9_000, "S24"),
    }


def same(found: Checkpoint, expected: dict[str, Any]) -> bool:
    """Whether a loaded state has the same arrays, types and shapes, in the same order."""
    return list(found.arrays) == list(expected) and all(
        a.dtype == found.arrays[n].dtype and np.array_equal(a, found.arrays[n]) for n, a in expected.items()
    )


def test_what_is_packed_comes_back() -> None:
    """Names, types, shapes and values survive; pieces are bounded; the arrays may be written to."""
    state = large(1)
    pieces = pack(state)
    assert max(map(len, pieces)) <= CHUNK_BYTES_MAX
    found = unpack([bytes(p) for p in pieces])
    assert same(Checkpoint(found), state)
    found["flows"][0] = 7


def test_an_array_that_did_not_change_gives_the_same_pieces() -> None:
    """A change in one array, small or large, leaves the pieces of the other large arrays as they were."""
    before, state = {bytes(p) for p in pack(large(1))}, large(1)
    state["text"] = np.frombuffer(b"some longer text", np.uint8)
    state["flows"][0] = 0
    after = {bytes(p) for p in pack(state)}
    assert len(after - before) == 2  # the small ones together, and the first piece of `flows`


@services
def test_a_state_is_loaded_as_it_was_saved(logs: Logs) -> None:
    """The next owner finds arrays and words of the last save; the first one finds nothing."""
    store, nothing = logs.owner()
    assert (nothing.meta, nothing.arrays) == ({}, {})
    store.save(large(1), {"at": 1})
    store.save(large(2), {"at": 2})
    _, found = logs.owner()
    assert found.meta == {"at": 2}
    assert same(found, large(2))


@services
def test_only_changed_chunks_are_sent(logs: Logs) -> None:
    """The second save sends one piece and the manifest; so does the first of the next owner."""
    store, _ = logs.owner()
    state = large(1)
    first = store.save(state, {})
    assert first.sent_bytes > first.state_bytes > 4_800_000
    state["flows"][0] = 1
    assert store.save(state, {}).sent_bytes < CHUNK_BYTES_MAX + 16_384
    successor, found = logs.owner()
    found.arrays["flows"][-1] = 2
    assert successor.save(found.arrays, {}).sent_bytes < CHUNK_BYTES_MAX + 16_384
    assert same(logs.owner()[1], found.arrays)


@services
def test_many_threads_save_through_one_writer(logs: Logs) -> None:
    """Owners of all partitions save at the same time, as topologies of one process do, and none is fenced."""
    owners = [CheckpointStore(logs.config, logs.writer, "toy", 1, p) for p in range(4)]
    with logs.reader() as reader:
        for owner in owners:
            owner.load(reader)

    def many(owner: CheckpointStore) -> None:
        for turn in range(100):
            owner.save({"turn": np.full(20_000, turn)}, {"turn": turn})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(many, owners))
    with logs.reader() as reader:
        assert [o.load(reader).meta for o in owners] == [{"turn": 99}] * 4


@services
def test_a_zombie_cannot_overwrite(logs: Logs) -> None:
    """An owner that was replaced without knowing it learns so from its own save, which nobody will load."""
    zombie, _ = logs.owner()
    zombie.save(large(1), {"at": 1})
    living, _ = logs.owner()
    assert living.epoch > zombie.epoch
    with pytest.raises(FencedError, match="has another owner"):
        zombie.check()
    with pytest.raises(FencedError, match="has another owner"):
        zombie.save(large(2), {"at": "zombie, before the successor has saved"})
    newest, found = logs.owner()  # the one between never saved
    assert found.meta == {"at": 1}
    newest.save(large(3), {"at": 3})
    for late in (zombie, living):
        with pytest.raises(FencedError):
            late.save(large(4), {"at": "zombie"})
    _, found = logs.owner()
    assert found.meta == {"at": 3}
    assert same(found, large(3))


@services
def test_a_zombie_does_not_end_its_successor(logs: Logs) -> None:
    """What a zombie writes behind the successor's claim is void, and the successor goes on behind it."""
    zombie, _ = logs.owner()
    living, _ = logs.owner()
    with pytest.raises(FencedError):
        zombie.save(large(1), {"at": "zombie"})
    living.check()
    living.save(large(2), {"at": 2})
    with pytest.raises(FencedError):
        zombie.save(large(3), {"at": "zombie again"})
    living.save(large(4), {"at": 4})
    _, found = logs.owner()
    assert found.meta == {"at": 4}
    assert same(found, large(4))


@services
def test_a_zombie_that_slept_through_its_successors_claim_is_fenced(logs: Logs) -> None:
    """Also when the log has been cut off behind the claim, so that the zombie cannot find it any more."""
    zombie, _ = logs.owner()
    living, _ = logs.owner()
    living.save(large(1), {"at": 1})
    living.save(large(2), {"at": 2})
    with logs.reader() as reader:
        wait_for_low(reader, living.epoch + 1)
    with pytest.raises(FencedError, match="has another owner"):
        zombie.check()


@services
def test_an_owner_that_is_asked_saves_once_more(logs: Logs) -> None:
    """A request for the partition is told by save and check alike; after it one save more is possible."""
    store, _ = logs.owner()
    logs.writer.append(logs.topic, PARTITION, [(checkpoint.HANDOVER, b'{"version": 2}')])
    with pytest.raises(HandoverError):
        store.save(large(1), {"at": 1})
    store.save(large(2), {"at": 2})
    store.leave()
    _, found = logs.owner()
    assert found.meta == {"at": 2}


@services
def test_an_unfinished_save_leaves_the_one_before(logs: Logs) -> None:
    """Chunks without a manifest, however many, do not hide the last whole state."""
    store, _ = logs.owner()
    store.save(large(1), {"at": 1})
    logs.writer.append(logs.topic, PARTITION, [(checkpoint.CHUNK, b"x" * 1_000)] * 300)
    _, found = logs.owner()
    assert found.meta == {"at": 1}
    assert same(found, large(1))


@services
def test_another_version_fences_for_good(logs: Logs) -> None:
    """After a claim of another version the old one can neither save nor load, and is told who took over."""
    old, _ = logs.owner()
    old.save(large(1), {"at": 1})
    new = CheckpointStore(logs.config, logs.writer, "toy", 1, PARTITION)
    new.version = 2  # claims the log of version 1
    new.claim()
    with pytest.raises(SupersededError, match="taken over by version 2"):
        old.save(large(2), {"at": 2})
    with pytest.raises(SupersededError):
        logs.owner()


@services
@pytest.mark.parametrize("hot_rows", [200_000, 6_000, 1])
def test_a_long_run_of_saves_keeps_the_log_short(logs: Logs, hot_rows: int) -> None:
    """Whether all, a few or one row of a state change each time, the log holds a bounded multiple of the state."""
    store, _ = logs.owner()
    state = large(1)
    longest = sent = 0
    for turn in range(40):
        state["flows"][:hot_rows, 0] = turn
        saved = store.save(state, {"turn": turn})
        sent += saved.sent_bytes
        if turn % 8 == 7:
            longest = max(longest, logs.length())
    bound = 3 * saved.state_bytes + SLACK_BYTES + saved.state_bytes  # deletion runs behind by a save
    assert longest <= bound
    assert hot_rows < 10_000 or sent > 3 * bound
    _, found = logs.owner()
    assert found.meta == {"turn": 39}
    assert same(found, state)


@services
def test_deleted_chunks_leave_the_disk(logs: Logs) -> None:
    """What is cut off is gone from the broker: the first offset of the partition moves past it."""
    store, _ = logs.owner()
    for turn in range(4):
        store.save(large(turn), {})
    with logs.reader() as reader:
        wait_for_low(reader, min(c.offset for c in store._chunks))


def wait_for_low(reader: LogReader, low: int) -> None:
    """Wait until the log begins at an offset."""
    deadline = time.monotonic() + 30
    while reader.bounds(PARTITION)[0] < low and time.monotonic() < deadline:
        time.sleep(0.05)
    assert reader.bounds(PARTITION)[0] >= low > 0


@services
def test_loading_is_bounded(logs: Logs) -> None:
    """A log that cannot be read is an error with its name after the time-out, not a worker that hangs."""
    with LogReader(logs.config, logs.bootstrap, f"{logs.topic}.absent", 1) as reader:
        store = CheckpointStore(logs.config, logs.writer, "toy", 1, PARTITION)
        with pytest.raises(ServiceError, match=r"absent.* within 1 s"):
            store.load(reader)


@services
def test_a_damaged_chunk_is_refused(logs: Logs) -> None:
    """A manifest whose chunks are gone is an error rather than a wrong state."""
    store, _ = logs.owner()
    store.save(large(1), {"at": 1})
    admin = AdminClient({"bootstrap.servers": logs.bootstrap})
    cut = TopicPartition(logs.topic, PARTITION, store._chunks[3].offset)
    for future in admin.delete_records([cut]).values():
        try:
            future.result(30)
        except KafkaException as error:
            pytest.fail(str(error))
    with pytest.raises(FencedError, match="expected a chunk of"):
        logs.owner()
