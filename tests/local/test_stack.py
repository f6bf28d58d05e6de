"""The supervisor: it restarts what dies, knows its own process from another's, and one address names one database."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from akbypass import store_client
from akbypass.config import ClickHouse, Config
from akbypass.errors import ConfigError, ServiceError
from akbypass.local import stack as module
from akbypass.local.stack import Endpoints, Places, Stack
from tests.backends import probed


def wait_for(what: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Places of this test's own."""
    return Places(tmp_path)


def sleeper() -> subprocess.Popen[bytes]:
    """A process that is none of ours."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


def test_data_of_another_format_is_not_used(places: Places) -> None:
    """Data of an older version, which had no mark, is named before anything starts; `reset` makes room for new data."""
    (places.kafka / "data").mkdir(parents=True)
    with pytest.raises(ServiceError, match=r"expected data of format 3, found format 1 .*akbypass reset"):
        Stack(places, Config(), workers=0).start()
    module.reset(places)
    assert not list(places.home.iterdir())
    module.require_format(places)
    (places.kafka / "data").mkdir(parents=True)
    module.require_format(places)
    places.format.write_text("4\n")
    with pytest.raises(ServiceError, match="found format 4"):
        module.require_format(places)


@pytest.mark.services
def test_embedded_servers_that_are_killed_come_back_with_their_data(places: Places) -> None:
    """After kill -9 of the store and of the broker both answer at their old addresses with what they held."""
    stack = Stack(places, Config(), workers=0)
    with probed():
        points = stack.start()
    try:
        with store_client.connect(Config(), points.store_url) as client:
            client.command("CREATE TABLE kept (a Int64) ENGINE = MergeTree ORDER BY a")
            client.command("INSERT INTO kept VALUES (1), (2)")
        before = dict(points.pids)
        for name in ("store", "kafka"):
            os.kill(before[name], signal.SIGKILL)
        wait_for(lambda: (stack.check(), points.restarts.get("store") == points.restarts.get("kafka") == 1)[1])
        assert all(points.pids[name] not in (0, before[name]) for name in ("store", "kafka"))
        with store_client.connect(Config(), points.store_url) as client:
            assert client.command("SELECT sum(a) FROM kept") == 3
        topics = AdminClient({"bootstrap.servers": points.bootstrap_servers}).list_topics(timeout=10).topics
        assert "akbypass.rejected.v1" in topics
        found = Endpoints.read(places)
        assert found is not None and (found.pids["store"], found.restarts["store"]) == (points.pids["store"], 1)
    finally:
        stack.stop()
    assert Endpoints.read(places) is None


class Mortal:
    """A server that is dead whenever somebody looks."""

    pid: int | None = None

    def start(self) -> str:
        """Answer at the address of an empty Endpoints, and die."""
        return ""

    def stop(self) -> None:
        """Nothing is left to stop."""


def test_a_server_that_keeps_dying_is_given_up(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """After RESTARTS_MAX restarts in a row `check` raises ServiceError with the part's name."""
    monkeypatch.setattr(module, "WATCH_S", 0.01)
    stack = Stack(places, Config())
    stack._servers, stack._logs = {"store": Mortal()}, {"store": ()}
    stack._watcher.start()
    stack._watcher.join(10)
    with pytest.raises(ServiceError, match="store ended 5 times"):
        stack.check()
    assert stack.endpoints.restarts == {"store": module.RESTARTS_MAX}


class Late(Mortal):
    """A server that is killed while it starts, the first time."""

    starts = 0

    def start(self) -> str:
        """Fail once, then run."""
        self.starts += 1
        if self.starts == 1:
            raise ServiceError("the embedded store ended while starting")
        self.pid = os.getpid()
        return ""


def test_a_server_that_is_killed_while_it_starts_is_started_again(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that fails is one more end, not the end of everything."""
    monkeypatch.setattr(module, "WATCH_S", 0.01)
    stack, server = Stack(places, Config()), Late()
    stack._servers, stack._logs = {"store": server}, {"store": ()}
    stack._watcher.start()
    wait_for(lambda: server.pid is not None, 10)
    stack.check()
    assert server.starts == 2
    stack._servers = {}
    stack.stop()


def test_another_process_under_the_same_number_is_not_up(places: Places) -> None:
    """A file that names a living process with another start time, or a zombie, means that nothing is up."""
    Endpoints.of_this_process("").write(places)
    assert Endpoints.read(places) is not None
    Endpoints(os.getpid(), Endpoints.of_this_process("").supervisor_started_s - 60).write(places)
    assert Endpoints.read(places) is None
    child = sleeper()
    found = Endpoints(child.pid, time.time())
    assert found.supervisor() is not None
    child.kill()
    wait_for(lambda: found.supervisor() is None, 10)  # not reaped: a zombie
    assert child.returncode is None
    child.wait()


def test_down_signals_no_stranger(places: Places) -> None:
    """`down` finds nothing up when the number of the supervisor belongs to another process, and leaves that alone."""
    child = sleeper()
    try:
        Endpoints(child.pid, time.time() - 3600).write(places)
        command = [sys.executable, "-m", "akbypass.cli", "down"]
        done = subprocess.run(
            command, env={**os.environ, "AKBYPASS_HOME": str(places.home)}, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, b"nothing is up\n")
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def test_the_path_of_the_address_names_the_database() -> None:
    """The path wins over clickhouse.database, an address in use over the configured one; other paths are refused."""
    config = Config(clickhouse=ClickHouse(url="http://h:8123/one", database="two"))
    assert store_client.database_of(config) == "one"
    assert store_client.database_of(config, "https://h/three/") == "three"
    assert store_client.database_of(config, "http://h:8123") == "two"
    name = secrets.token_hex(2)
    with pytest.raises(ConfigError, match=f"found 'a-{name}'"):
        store_client.database_of(config, f"http://h/a-{name}")
