"""A new version of a topology replays beside the old one and takes over; both are real workers on a real broker."""

from __future__ import annotations

import itertools
import random
import secrets
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from akbypass import topics, transport
from akbypass.config import Config, Kafka
from akbypass.errors import ConfigError
from akbypass.offline import Offline
from akbypass.rows import Rows
from akbypass.takeover.handover import require_own, take_over
from akbypass.topology import Topology
from akbypass.transport import Publisher, RunWriter
from tests.backends import Broker
from tests.integration.test_worker import STEP, Workers, claims, packets, read, verdicts_to
from tests.integration.toy_worker import TOY2
from tests.spine.test_progress import TOY

pytestmark = pytest.mark.services
STEPS = 30
SEED = 20_261_123


class Story:
    """A run that is published step by step, what it must give, and the workers that read it."""

    def __init__(self, bootstrap: str, logs: Path) -> None:
        self.config, self.bootstrap = Config(kafka=Kafka(prefix=f"v{secrets.token_hex(4)}.")), bootstrap
        transport.declare_topics(self.config, bootstrap, transport.known_topics(), [TOY, TOY2])
        self.expected: list[Rows] = []
        run_id = secrets.token_hex(8)
        self._offline = Offline(self.config, (TOY,), run_id, 1, verdicts_to(self.expected))
        self._publisher = Publisher(self.config, bootstrap)
        self._writer = RunWriter(self._publisher, run_id, 0, 1)
        self._pause, self._steps = random.Random(SEED), iter(range(STEPS))
        self.workers = Workers(bootstrap, self.config.kafka.prefix, logs)
        self._pool = ThreadPoolExecutor(1)

    def publish(self, steps: int) -> None:
        """Publish the next steps, at the pace of a live capture."""
        for step in itertools.islice(self._steps, steps):
            rows = packets(step * STEP)
            watermark = int(rows["run_ns"][-1])
            end = watermark + 1 if step == STEPS - 1 else None
            self._offline.feed({"packets": rows}, 0, watermark, end)
            self._writer.write(
                {"packets": rows}, watermark, end, marked=["packets", "orders"], ending=topics.CAPTURE_TOPICS
            )
            self._publisher.flush()
            time.sleep(0.3 + self._pause.random() / 4)

    def claims(self, topology: Topology) -> list[int]:
        """Where the newest claim of each partition of a version lies, -1 without any."""
        return [offset for _, offset in sorted(claims(self.config, self.bootstrap, topology).items())]

    def until_owned(self, topology: Topology, since: list[int] | None = None) -> None:
        """Wait until somebody owns every partition of a version, by claims behind those of `since`."""
        before = [-1] * self.config.kafka.partitions if since is None else since
        while not all(now > then for now, then in zip(self.claims(topology), before, strict=True)):
            time.sleep(0.2)

    def take_over(self, topology: Topology) -> Future[list[str]]:
        """Begin to take over, beside what goes on."""
        return self._pool.submit(take_over, (topology,), self.config, self.bootstrap, 60)

    def verdicts(self) -> tuple[dict[str, Any], int, int]:
        """Rows by id, repeats, and repeats that differ, once every partition has ended."""
        deadline = time.monotonic() + 90
        while True:
            rows, repeats, differ, ends = read(self.config, self.bootstrap)
            if len(ends) == self.config.kafka.partitions**2 or time.monotonic() > deadline:
                assert len(ends) == self.config.kafka.partitions**2
                return rows, repeats, differ
            time.sleep(1)


@pytest.fixture
def story(kafka_server: Broker, tmp_path: Path) -> Story:
    """A story of its own for each test."""
    return Story(kafka_server.bootstrap_servers, tmp_path)


def plain(rows: dict[str, Any]) -> dict[str, Any]:
    """Rows without what tells the versions apart."""
    return {identity: {**row, "rule": ""} for identity, row in rows.items()}


def expected_of(story: Story) -> dict[str, Any]:
    """The offline result, likewise."""
    return plain({row["id"]: row for rows in story.expected for row in rows.to_dicts()})


def test_the_new_version_goes_on_where_the_old_one_stops(story: Story) -> None:
    """No row is missing, none comes twice, sums run on, and behind the first row of version 2 there is none of 1."""
    story.workers.start("w1")
    story.until_owned(TOY)
    story.publish(8)
    taking = story.take_over(TOY2)
    while not taking.done():
        story.publish(1)
    assert taking.result() == ["toy"]
    story.workers.start("w2", "2")
    story.publish(STEPS)
    rows, repeats, _ = story.verdicts()
    assert story.workers.stop() == [0, 0]
    assert repeats == 0
    assert plain(rows) == expected_of(story)
    assert {row["rule"] for row in rows.values()} == {"", "v2"}
    for port in {row["src_port"] for row in rows.values()}:
        flow = sorted((r for r in rows.values() if r["src_port"] == port), key=lambda r: r["run_ns"])
        assert [r["rule"] for r in flow] == sorted(r["rule"] for r in flow)


def test_a_version_that_was_killed_is_taken_over_and_stays_away(story: Story) -> None:
    """Nobody answers: what was published last may come again, and the old version, started again, leaves it alone."""
    story.workers.start("w1")
    story.until_owned(TOY)
    story.publish(16)
    story.workers.kill("w1")
    with pytest.raises(ConfigError, match="version 1 of toy holds its state, this software has version 2"):
        require_own(story.config, story.bootstrap, [TOY2])
    assert story.take_over(TOY2).result(120) == ["toy"]
    require_own(story.config, story.bootstrap, [TOY2])
    assert story.take_over(TOY2).result(60) == []
    story.workers.start("w1")
    story.workers.start("w2", "2")
    story.publish(STEPS)
    rows, _, _ = story.verdicts()
    assert story.workers.stop() == [0, 0]
    assert plain(rows) == expected_of(story)
    last = max(rows.values(), key=lambda row: row["run_ns"])
    assert last["rule"] == "v2"


def test_it_goes_back_the_same_way(story: Story) -> None:
    """The old version takes over from the new one, with the sums of all rows."""
    story.workers.start("w2", "2")
    story.until_owned(TOY2)
    story.publish(12)
    taking = story.take_over(TOY)
    while not taking.done():
        story.publish(1)
    assert taking.result() == ["toy"]
    story.workers.start("w1")
    story.publish(6)
    again = story.take_over(TOY2)
    while not again.done():
        story.publish(1)
    assert again.result() == ["toy"]
    story.workers.end("w2")
    before = story.claims(TOY2)
    story.workers.start("w2", "2")
    story.publish(STEPS)
    rows, repeats, _ = story.verdicts()
    story.until_owned(TOY2, before)  # where others were slow, all was said before it had started
    assert story.workers.stop() == [0, 0]
    assert repeats == 0
    assert plain(rows) == expected_of(story)
