"""The spooling publisher on a broker that is killed, paused and brought back: everything arrives, in order, or is counted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from akbypass import batch, topics, transport
from akbypass import config as configuration
from akbypass.batch import Batch
from akbypass.config import Config
from akbypass.errors import ServiceError
from akbypass.local.kafka import KafkaServer
from akbypass.producers.spool.home import leftovers, send_leftovers, spooling
from akbypass.producers.spool.publisher import SpoolPublisher
from tests.backends import probed
from tests.producers.spool.support import (
    PARTITIONS,
    ROWS,
    START_NS,
    arrived,
    configured,
    kill,
    message,
    taken,
    wait_until,
)

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A broker that tests may kill; started again before each of them."""
    server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    with probed():
        server.start()
    yield server
    server.stop()


@pytest.fixture
def server(broker: KafkaServer) -> KafkaServer:
    """The broker, running."""
    broker.start()
    return broker


def send(publisher: SpoolPublisher, topic: str, numbers: range) -> None:
    """Send each numbered message to every partition."""
    full = topics.full_name(publisher.config.kafka.prefix, topic)
    for number in numbers:
        for partition in range(PARTITIONS):
            publisher.send(full, partition, message(topic, number))


def whole(config: Config, topic: str, messages: int) -> None:
    """Assert that a reader of each partition takes every row once, in order."""
    for partition, batches in arrived(config, topic).items():
        assert taken(batches) == list(range(messages * ROWS)), partition


def test_nothing_is_lost_while_the_broker_is_killed(server: KafkaServer, tmp_path: Path) -> None:
    """Messages go to disk while the broker is dead, then out in order, before newer ones that go directly."""
    config = configured(server, tmp_path)
    with closing(SpoolPublisher(config, server.bootstrap_servers, tmp_path / "own")) as publisher:
        send(publisher, "packets", range(50))
        kill(server)
        send(publisher, "packets", range(50, 400))
        assert publisher.spooling and publisher.spool_bytes > 0
        server.start()
        send(publisher, "packets", range(400, 450))
        wait_until(lambda: not publisher.spooling)
        send(publisher, "packets", range(450, 500))
        publisher.flush()
        assert publisher.waiting() == 0 and not publisher.dropped
    assert not (tmp_path / "own").exists()
    whole(config, "packets", 500)


def test_a_broker_that_hangs_counts_as_away(server: KafkaServer, tmp_path: Path) -> None:
    """A broker that takes nothing and closes nothing lets messages go to disk after `after_ms`; it then catches up."""
    config = configured(server, tmp_path)
    assert server.pid is not None
    with closing(SpoolPublisher(config, server.bootstrap_servers, tmp_path / "own")) as publisher:
        send(publisher, "orders", range(20))
        publisher.flush()
        os.kill(server.pid, signal.SIGSTOP)
        number = 20
        while not publisher.spooling:
            send(publisher, "orders", range(number, number + 1))
            number += 1
        send(publisher, "orders", range(number, number + 50))
        os.kill(server.pid, signal.SIGCONT)
        publisher.flush()
    whole(config, "orders", number + 50)


def test_a_capture_may_begin_before_its_broker(server: KafkaServer, tmp_path: Path) -> None:
    """With the broker away from the start, messages wait on disk until it has been prepared."""
    config = configured(server, tmp_path)
    address, tried = server.bootstrap_servers, threading.Event()
    kill(server)

    def prepare() -> None:
        tried.set()
        if not transport.answers(config, address):
            raise ServiceError("nobody there")

    with spooling(config, address, "r1", prepare) as publisher:
        send(publisher, "packets", range(40))
        assert tried.wait(30) and publisher.waiting() == 40 * PARTITIONS
        server.start()
        publisher.flush()
    whole(config, "packets", 40)


KILLED = """
import os, signal, sys
from pathlib import Path
from akbypass import config as configuration, topics
from akbypass.producers.spool.home import spooling
from tests.producers.spool.support import message

config = configuration.load(sys.argv[1])
full = topics.full_name(config.kafka.prefix, "packets")
with spooling(config, config.kafka.bootstrap_servers, "r1") as publisher:
    for number in range(300):
        for partition in range(4):
            publisher.send(full, partition, message("packets", number))
        if number == 20:
            publisher.flush()
            os.kill(int(sys.argv[2]), signal.SIGSTOP)
    assert publisher.spooling
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_capture_left_is_sent_by_the_next(server: KafkaServer, tmp_path: Path) -> None:
    """After kill -9 of capture and broker, all that was accepted since the broker fell silent is on disk and is sent."""
    config = configured(server, tmp_path / "spool")
    file = tmp_path / "config.yaml"
    file.write_text(configuration.dump(config))
    assert server.pid is not None
    killed = subprocess.run([sys.executable, "-c", KILLED, str(file), str(server.pid)], check=False)
    assert killed.returncode == -signal.SIGKILL
    kill(server)
    server.start()
    (left,) = leftovers(config)
    assert left.name == "r1" and left.bytes > 0
    assert send_leftovers(config, server.bootstrap_servers, threading.Event()) == 1
    assert leftovers(config) == [] and not left.directory.exists()
    whole(config, "packets", 300)


def test_a_file_that_is_replayed_again_throws_its_leftovers_away(server: KafkaServer, tmp_path: Path) -> None:
    """What was left of the same run is not sent, because that run is sent anew; what was left of another one is."""
    config = configured(server, tmp_path)
    address = server.bootstrap_servers
    kill(server)
    for run_id in ("r1", "r2"):
        with closing(SpoolPublisher(config, address, tmp_path / f"{run_id}.old")) as publisher:
            send(publisher, "packets" if run_id == "r1" else "orders", range(10))
            with pytest.raises(ServiceError, match="40 messages were not acknowledged within 1 s; they are kept in"):
                publisher.flush(1)
    server.start()
    assert {left.name for left in leftovers(config)} == {"r1", "r2"}
    with spooling(config, address, "r1", again=True):
        wait_until(lambda: not (tmp_path / "r2.old").exists())
    whole(config, "orders", 10)
    assert not any(arrived(config, "packets").values())


def test_a_live_capture_that_goes_on_sends_what_it_left_first(server: KafkaServer, tmp_path: Path) -> None:
    """A killed live capture of a group starts again: what it left goes out in front of what it captures now."""
    config = configured(server, tmp_path)
    address = server.bootstrap_servers
    kill(server)
    with closing(SpoolPublisher(config, address, tmp_path / "r1-0.old")) as publisher:
        send(publisher, "packets", range(200))
    server.start()
    with spooling(config, address, "r1-0") as publisher:
        send(publisher, "packets", range(200, 250))
        publisher.flush()
    assert not (tmp_path / "r1-0.old").exists()
    whole(config, "packets", 250)


def test_ends_of_several_captures_survive_a_full_spool(server: KafkaServer, tmp_path: Path) -> None:
    """Watermarks that wait for room are kept by capture: one does not displace what another said."""
    config = configured(server, tmp_path, bytes_max=2 << 20)
    full = topics.full_name(config.kafka.prefix, "orders")
    kill(server)
    with closing(SpoolPublisher(config, server.bootstrap_servers, tmp_path / "own")) as publisher:
        number = 0
        while not publisher.dropped["packets"]:
            send(publisher, "packets", range(number, number + 1))
            number += 1
        while publisher.spool_bytes < config.spool.bytes_max - 100:  # to the brim
            publisher.send(full, 0, message("orders", 0, rows=0))
        for source in (0, 1):
            ended = Batch("orders", "r1", source, 2, None, START_NS, START_NS + 1)
            publisher.send(full, 0, next(batch.encode(ended, 1, 1 << 20)))
            publisher.send(full, 1, next(batch.encode(ended, 1, 1 << 20)))
        server.start()
        publisher.flush()
    found = arrived(config, "orders")
    for partition in (0, 1):
        assert {b.source for b in found[partition] if b.end_ns is not None} == {0, 1}


def test_a_full_spool_drops_packets_first_and_orders_last(server: KafkaServer, tmp_path: Path) -> None:
    """Each kind has the room that the reserves leave to it; what is dropped is counted and its watermark still comes."""
    config = configured(
        server, tmp_path, bytes_max=4 << 20, reserve_market_bytes=1 << 20, reserve_orders_bytes=1 << 20, reserve_accounts_bytes=1 << 19
    )  # fmt: skip
    with closing(SpoolPublisher(config, server.bootstrap_servers, tmp_path / "own")) as publisher:
        kill(server)
        sent = 0
        while publisher.dropped["market_data"] < 40 * ROWS:
            for topic in ("packets", "market_data"):
                send(publisher, topic, range(sent, sent + 1))
            send(publisher, "orders", range(sent // 10, sent // 10 + (sent % 10 == 0)))
            sent += 1
        assert publisher.dropped["packets"] > publisher.dropped["market_data"] > 0
        assert publisher.dropped["orders"] == publisher.dropped["captures"] == 0
        assert publisher.spool_bytes <= config.spool.bytes_max
        assert sum((lost.rows for lost in publisher.take_lost(0)), Counter()) == publisher.dropped
        assert publisher.take_lost(0) == []
        server.start()
        publisher.flush()
    whole(config, "orders", (sent + 9) // 10)
    for topic in ("packets", "market_data"):
        found = arrived(config, topic)
        assert sum(len(taken(b)) for b in found.values()) + publisher.dropped[topic] == sent * ROWS * PARTITIONS
        for batches in found.values():
            positions = taken(batches)
            assert positions == sorted(positions)
            assert batches[-1].watermark_ns == batch.decode(topic, message(topic, sent - 1).value, []).watermark_ns


def test_the_command_shows_and_sends_what_was_left(server: KafkaServer, tmp_path: Path) -> None:
    """`akbypass spool show` names run and bytes, `spool send` sends them, and then there is nothing left to show."""
    config = configured(server, tmp_path / "spool")
    file = tmp_path / "config.yaml"
    file.write_text(configuration.dump(config))
    kill(server)
    with closing(SpoolPublisher(config, server.bootstrap_servers, tmp_path / "spool" / "r1.old")) as publisher:
        send(publisher, "packets", range(30))
    server.start()

    def said(verb: str) -> str:
        command = [sys.executable, "-m", "akbypass.cli", "spool", verb, "--config", str(file)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=100).stdout

    size = sum(f.stat().st_size for f in (tmp_path / "spool" / "r1.old").glob("*.spool"))
    assert size > 0
    assert f"{size:,}" in said("show") and "sent 1 spools" in said("send")
    assert "r1" not in said("show")
    whole(config, "packets", 30)
