"""Lets this software's version of a topology take over from the version that runs, without a row lost or twice.

    1  replay beside it, from the beginning of what the broker holds, until close to it
    2  ask its owner for a last save; it saves, publishes no more and says so (an owner that is gone is not waited for)
    3  claim its log, so that nobody can save there any more
    4  replay to that last save, and write it down as a checkpoint of this version

Offsets, accounts and numbers of rows are taken over as they are, so this version's first row is the one behind the
other's last. It starts no worker: the workers of this version find their checkpoint and go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from akbypass import accounts, transport
from akbypass.checkpoint import (
    CLAIM,
    HANDOVER,
    LEFT,
    Checkpoint,
    CheckpointStore,
    SupersededError,
    find_manifest,
    read_state,
)
from akbypass.checkpoint_log import LogReader, LogWriter
from akbypass.config import Config
from akbypass.errors import ConfigError, ServiceError
from akbypass.takeover.replay import Replay
from akbypass.topology import Topology

NEAR_S = 5.0  # a replay that needs less than this to where the other version stands is close
ASK_AGAIN_S = 0.5
Tell = Callable[[str], None]


def versions(config: Config, bootstrap: str, topology: Topology) -> list[int]:
    """Versions of a topology that have a log on the broker, this software's excepted."""
    stem = transport.checkpoint_topic(config, topology.name, 0).removesuffix("0")
    try:
        listed = AdminClient(transport.client_options(config, bootstrap)).list_topics(timeout=30).topics
    except KafkaException as error:
        raise ServiceError(f"broker {bootstrap}: {error}; is it running?") from error
    found = [name.removeprefix(stem) for name in listed if name.startswith(stem)]
    return sorted(int(v) for v in found if v.isdecimal() and int(v) != topology.version)


def running_version(config: Config, writer: LogWriter, bootstrap: str, topology: Topology) -> int | None:
    """The other version that has state which nobody has taken over; None when there is none."""
    for version in reversed(versions(config, bootstrap, topology)):
        with writer.reader(transport.checkpoint_topic(config, topology.name, version)) as reader:
            if any(_stands(reader, p, version) for p in range(config.kafka.partitions)):
                return version
    return None


def _stands(reader: LogReader, partition: int, version: int) -> bool:
    """Whether a version has owned a partition, saved or not, and nobody has taken it over."""
    try:
        low, high = reader.bounds(partition)
        return find_manifest(reader, partition, version) is not None or low < high
    except SupersededError:
        return False


def require_own(config: Config, bootstrap: str, topologies: Sequence[Topology]) -> None:
    """Raise ConfigError when another version of a topology has state: two versions must not publish side by side."""
    writer = LogWriter(config, bootstrap)
    for topology in topologies:
        other = running_version(config, writer, bootstrap, topology)
        if other is not None:
            raise ConfigError(
                f"version {other} of {topology.name} holds its state, this software has version {topology.version}: "
                f"run `akbypass takeover {topology.name}` first"
            )


def take_over(
    topologies: Sequence[Topology], config: Config, bootstrap: str, wait_s: float, tell: Tell = lambda text: None
) -> list[str]:
    """Take over every topology that another version runs; returns their names.

    `wait_s` is how long owners that are alive may take for their last save. Raises ServiceError.
    """
    writer, taken = LogWriter(config, bootstrap), []
    for topology in topologies:
        other = running_version(config, writer, bootstrap, topology)
        if other is not None:
            Handover(topology, other, config, bootstrap, writer, tell).run(wait_s)
            taken.append(topology.name)
    return taken


class Handover:
    """From one version of one topology to this software's, all partitions."""

    def __init__(
        self, topology: Topology, version: int, config: Config, bootstrap: str, writer: LogWriter, tell: Tell
    ) -> None:
        self.topology, self.version, self.config, self.bootstrap = topology, version, config, bootstrap
        self.writer, self.tell = writer, tell
        self.topic = transport.checkpoint_topic(config, topology.name, version)
        self._replays: dict[int, Replay] = {}

    def run(self, wait_s: float) -> None:
        """Do all four steps for every partition that the other version still holds."""
        with self.writer.reader(self.topic) as reader:
            held = [p for p in range(self.config.kafka.partitions) if _stands(reader, p, self.version)]
        try:
            for partition in held:
                self._approach(partition)
            asked = {p: self.writer.append(self.topic, p, [(HANDOVER, self._words())])[0] for p in held}
            self._wait(asked, wait_s)
            for partition in held:
                self._conclude(partition)
        finally:
            for replay in self._replays.values():
                replay.close()

    def _words(self) -> bytes:
        return orjson.dumps({"version": self.topology.version, "owner": "takeover"})

    def _approach(self, partition: int) -> None:
        replay = self._replays[partition] = Replay(self.topology, self.config, self.bootstrap, partition)
        while True:
            started_s = time.monotonic()
            manifest = self._newest(partition)
            if manifest is None:  # its owner has only begun
                return
            replay.reach(manifest["meta"])
            self.tell(
                f"{self.topology.name}[{partition}]: replayed {replay.messages:,} messages beside version {self.version}"
            )
            if time.monotonic() - started_s < NEAR_S:
                return

    def _newest(self, partition: int) -> dict[str, Any] | None:
        with self.writer.reader(self.topic) as reader:
            return find_manifest(reader, partition, None)

    def _wait(self, asked: dict[int, int], wait_s: float) -> None:
        """Wait until every owner has said that it publishes no more; one that does not answer is taken for gone."""
        deadline = time.monotonic() + wait_s
        while asked and time.monotonic() < deadline and self._has_members():
            with self.writer.reader(self.topic) as reader:
                asked = {p: at for p, at in asked.items() if not _has_left(reader, p, at)}
            time.sleep(ASK_AGAIN_S if asked else 0)
        if asked:
            self.tell(f"{self.topology.name}: nobody owns {sorted(asked)}; what was published last may come again")

    def _has_members(self) -> bool:
        group = f"{self.config.kafka.prefix}{self.topology.name}.v{self.version}"
        admin = AdminClient(transport.client_options(self.config, self.bootstrap))
        try:
            return bool(admin.describe_consumer_groups([group])[group].result(30).members)
        except KafkaException:  # there is no such group
            return False

    def _conclude(self, partition: int) -> None:
        """Fence the other version, reach its last save and write it down as ours."""
        self.writer.append(self.topic, partition, [(CLAIM, self._words())])
        own = CheckpointStore(self.config, self.writer, self.topology.name, self.topology.version, partition)
        own.claim()
        manifest = self._newest(partition)
        if manifest is not None:
            with self.writer.reader(self.topic) as reader:
                theirs = read_state(reader, partition, manifest)
            replay, meta = self._replays[partition], manifest["meta"]
            replay.reach(meta)
            own.save({**replay.arrays(meta["released"]), **_accounts(theirs)}, meta)
        self.tell(
            f"{self.topology.name}[{partition}]: version {self.topology.version} goes on where {self.version} stopped"
        )


def _accounts(theirs: Checkpoint) -> dict[str, Any]:
    """What the other version has counted, run by run."""
    return {name: array for name, array in theirs.arrays.items() if name.endswith(f"/{accounts.NAME}")}


def _has_left(reader: LogReader, partition: int, since: int) -> bool:
    records = reader.between(partition, since, reader.bounds(partition)[1])
    return any(record.key == LEFT for record in records)
