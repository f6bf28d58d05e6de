"""Commands against a broker and a store that nobody prepared: sink, up, status, down, query, tail, check."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import urllib3
from confluent_kafka import Consumer, Producer, TopicPartition

from akbypass import store_client, transport
from akbypass.cli import stack
from akbypass.cli.look import consumer_lags
from akbypass.config import Config, Kafka
from akbypass.errors import ServiceError
from akbypass.local.stack import Endpoints, Places
from tests.backends import Broker, Store

pytestmark = pytest.mark.services


@dataclass
class Cluster:
    """Servers of the session with a prefix, a database and a home of the test's own."""

    home: Path
    bootstrap: str
    store: str
    prefix: str

    @property
    def config(self) -> Config:
        """What the file says."""
        return Config(kafka=Kafka(bootstrap_servers=self.bootstrap, prefix=self.prefix, partitions=2))

    @property
    def file(self) -> str:
        """Configuration without addresses."""
        path = self.home / "my.yaml"
        path.write_text(f"kafka: {{prefix: {self.prefix}, partitions: 2}}")
        return str(path)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command."""
        env = {**os.environ, "AKBYPASS_HOME": str(self.home)}
        command = [sys.executable, "-m", "akbypass.cli", *arguments]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command to its end: exit code, output, messages."""
        child = self.start(*arguments)
        out, err = child.communicate(timeout=120)
        return child.returncode, out.decode(), err.decode()


@pytest.fixture
def cluster(kafka_server: Broker, store_server: Store, tmp_path: Path) -> Cluster:
    """An empty cluster."""
    name = f"c{secrets.token_hex(4)}"
    return Cluster(tmp_path, kafka_server.bootstrap_servers, f"{store_server.url}/{name}", f"{name}.")


def test_sink_prepares_an_empty_cluster(cluster: Cluster) -> None:
    """`sink` alone makes topics and tables, in the database of the address, and ends in order on SIGTERM."""
    addresses = ("--bootstrap-servers", cluster.bootstrap, "--store-url", cluster.store)
    child = cluster.start("sink", "clickhouse", "--config", cluster.file, *addresses)
    try:
        deadline = time.monotonic() + 60
        while not consumer_lags(cluster.config, cluster.bootstrap):
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    with store_client.connect(Config(), cluster.store) as client:
        assert client.command("SELECT count() FROM latency_windows") == 0


def wait_until_ready(*pages: str) -> None:
    """Wait until every process says that it is ready."""
    deadline = time.monotonic() + 90
    for page in pages:
        while True:
            assert time.monotonic() < deadline
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                if urllib3.request("GET", f"{page}/readyz", retries=False, timeout=5).status == 200:
                    break
            time.sleep(0.2)


def test_up_takes_addresses_and_status_shows_lag(cluster: Cluster) -> None:
    """`up` with addresses starts worker and sink only; `status` shows their health, and readers without anything up."""
    addresses = ("--bootstrap-servers", cluster.bootstrap, "--store-url", cluster.store)
    code, out, err = cluster.run("up", "--config", cluster.file, *addresses)
    try:
        assert code == 0, err
        found = json.loads((cluster.home / "up.json").read_bytes())
        assert set(found["pids"]) == {"worker-0", "sink"}
        assert found["config_path"] == str(cluster.home / "up.yaml")
        assert cluster.bootstrap in out and cluster.store in out
        assert set(found["pages"]) == {"worker-0", "sink", "supervisor"}
        targets = json.loads((cluster.home / "prometheus-targets.json").read_bytes())
        assert {f"http://{t['targets'][0]}" for t in targets} == set(found["pages"].values())
        wait_until_ready(found["pages"]["worker-0"], found["pages"]["sink"])
        code, out, err = cluster.run("status")
        assert code == 0, err
        told = {line.split()[1]: line.split() for line in out.partition("Health")[2].splitlines() if "http://" in line}
        for part in ("worker-0", "sink", "supervisor"):  # │ part │ healthy │ ready │ lag │ oldest checkpoint │ page │
            assert told[part][3:6:2] == ["yes", "yes"] and told[part][11] == found["pages"][part], out
        assert told["worker-0"][7] == "0" and float(told["worker-0"][9]) < 60
        code, out, err = cluster.run("query", "SELECT count() AS n FROM orders", "--format", "jsonl")
        assert (code, out) == (0, '{"n":0}\n'), err
    finally:
        code, out, _ = cluster.run("down")
    assert (code, out) == (0, "down\n")
    code, out, err = cluster.run("status", "--config", str(cluster.home / "up.yaml"))
    assert code == 0, err
    assert "nothing is up on this machine" in out and "Readers" in out


def test_up_that_takes_too_long_leaves_nothing_behind(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the stack is not ready in time `up` fails, and neither supervisor nor servers live on."""
    monkeypatch.setenv("AKBYPASS_HOME", str(cluster.home))
    broker = cluster.home / "kafka" / "server.properties"
    monkeypatch.setattr(stack, "START_S", 0.0)
    wait = stack._wait_until_ready

    def once_the_broker_is_starting(places: Places, child: subprocess.Popen[bytes]) -> Endpoints | None:
        deadline = time.monotonic() + 60
        while not broker.exists():
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        return wait(places, child)

    monkeypatch.setattr(stack, "_wait_until_ready", once_the_broker_is_starting)
    with pytest.raises(ServiceError, match="did not start"):
        stack.up.main([], standalone_mode=False)
    assert [p.pid for p in psutil.Process().children() if "supervise" in p.cmdline()] == []
    wait_until_gone(cluster.home)


def wait_until_gone(home: Path) -> None:
    """Wait until no process works below a directory."""
    deadline = time.monotonic() + 10
    while any(str(p.info["cwd"] or "").startswith(f"{home}/") for p in psutil.process_iter(["cwd"])):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_lag_counts_from_the_oldest_message_without_a_commit(cluster: Cluster) -> None:
    """A group that reads a topic with 3 messages is 3 behind before its first commit and 1 behind after two."""
    config, topic = cluster.config, f"{cluster.prefix}contacts.v1"
    transport.declare_topics(config, cluster.bootstrap, ["contacts"], [])
    producer = Producer(transport.client_options(config, cluster.bootstrap))
    for _ in range(3):
        producer.produce(topic, b"no batch", partition=1)
    producer.flush(10)
    group = {"group.id": f"{cluster.prefix}reader", "enable.auto.commit": False, "auto.offset.reset": "latest"}
    reader = Consumer({**transport.client_options(config, cluster.bootstrap), **group})
    reader.subscribe([topic])
    deadline = time.monotonic() + 30
    while not reader.assignment():
        reader.poll(0.2)
        assert time.monotonic() < deadline
    assert consumer_lags(config, cluster.bootstrap) == [("reader", 3)]
    reader.commit(offsets=[TopicPartition(topic, 1, 2)], asynchronous=False)
    assert consumer_lags(config, cluster.bootstrap) == [("reader", 1)]
    reader.close()
    options = ("--from-beginning", "--seconds", "2", "--config", cluster.file)
    code, out, err = cluster.run("tail", "contacts", *options, "--bootstrap-servers", cluster.bootstrap)
    assert (code, out) == (0, ""), err
    assert [line.partition(":")[0] for line in err.splitlines()] == [f"contacts[1]@{i}" for i in range(3)]


def test_query_says_what_the_store_says(cluster: Cluster, store_server: Store) -> None:
    """A statement that the store refuses ends with code 5 and the store's own words, without a traceback."""
    for sql, words in (("SELEC 1", "SYNTAX_ERROR"), ("SELECT nope", "UNKNOWN_IDENTIFIER")):
        code, out, err = cluster.run("query", sql, "--store-url", f"{store_server.url}/default")
        assert (code, out) == (5, "")
        assert err.startswith("akbypass: store: Code: ") and words in err
        assert "Traceback" not in err and store_server.url not in err


def test_check_refuses_an_old_java(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check` calls Java 11 missing, says that 17 is needed, and ends with code 4."""
    java = cluster.home / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(cluster.home))
    code, out, _ = cluster.run("check")
    assert code == 4
    assert "needs Java 17 or newer, found Java 11" in out
