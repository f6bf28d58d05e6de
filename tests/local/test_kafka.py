"""The embedded broker through ordinary clients: data, restarts, deaths, and what it says when something is missing."""

from __future__ import annotations

import logging
import os
import signal
import socket
import stat
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from akbypass.errors import MissingError, ServiceError
from akbypass.local import children, jars
from akbypass.local.kafka import KafkaServer
from tests.backends import Broker, probed
from tests.local.processes import Parent, gone


def create_topic(bootstrap: str) -> str:
    """Create a topic with two partitions under a new name."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(name, 2, 1)]).values():
        future.result(30)
    return name


def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    """Produce to partition 1 and wait for every acknowledgement."""
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "compression.type": "lz4"})
    for value in values:
        producer.produce(topic, value, partition=1, on_delivery=delivered)
    assert producer.flush(30) == 0
    assert failed == []


def consume(bootstrap: str, topic: str, count: int, group: str = "") -> list[bytes]:
    """Consume `count` values in a group and commit."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": group or uuid.uuid4().hex, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    values: list[bytes] = []
    deadline = time.monotonic() + 30
    while len(values) < count and time.monotonic() < deadline:
        values += [m.value() for m in consumer.consume(count, 0.2) if m.error() is None]
    consumer.commit(asynchronous=False)
    consumer.close()
    return values


def program(path: Path, text: str) -> None:
    """Write a small program."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.services
def test_messages_come_back_from_a_group_whose_topic_was_created(kafka_server: Broker) -> None:
    """What is produced with every acknowledgement is consumed in order, and the group's commit is kept."""
    topic = create_topic(kafka_server.bootstrap_servers)
    produce(kafka_server.bootstrap_servers, topic, [b"%d" % i for i in range(100)])
    assert consume(kafka_server.bootstrap_servers, topic, 60, "g1")[:60] == [b"%d" % i for i in range(60)]


@pytest.mark.services
def test_a_batch_of_a_megabyte_fits_and_topics_are_never_made_by_accident(kafka_server: Broker) -> None:
    """A message of 1.5 MB is taken; producing to an unknown topic fails instead of creating it."""
    topic = create_topic(kafka_server.bootstrap_servers)
    producer = Producer({"bootstrap.servers": kafka_server.bootstrap_servers, "message.max.bytes": 2_000_000})
    codes: list[int | None] = []
    producer.produce(topic, os.urandom(1_500_000), on_delivery=lambda e, _: codes.append(e and e.code()))
    assert producer.flush(30) == 0
    assert codes == [None]
    known = AdminClient({"bootstrap.servers": kafka_server.bootstrap_servers}).list_topics(timeout=10).topics
    consumer = Consumer({"bootstrap.servers": kafka_server.bootstrap_servers, "group.id": "nobody"})
    with pytest.raises(KafkaException):
        consumer.get_watermark_offsets(TopicPartition("never-created", 0), timeout=5)
    consumer.close()
    assert topic in known
    assert "never-created" not in known


@pytest.mark.services
def test_a_restart_keeps_cluster_port_and_data(tmp_path: Path) -> None:
    """Stopped and started again, the broker has the same identity, address and messages."""
    server = KafkaServer(tmp_path / "k")
    with probed():
        first = server.start()
    try:
        pid = server.pid
        topic = create_topic(first)
        produce(first, topic, [b"a", b"b"])
        cluster = AdminClient({"bootstrap.servers": first}).list_topics(timeout=10).cluster_id
        server.stop()
        assert server.pid is None
        assert server.start() == first
        assert server.pid != pid
        assert AdminClient({"bootstrap.servers": first}).list_topics(timeout=10).cluster_id == cluster
        assert consume(first, topic, 2) == [b"a", b"b"]
        assert server.start() == first, "starting what runs is fine"
        with pytest.raises(ServiceError, match=f"in use by process {os.getpid()}"):
            children.lock(tmp_path / "k", what="the embedded Kafka", wait_s=0.2)
    finally:
        server.stop()


@pytest.mark.services
def test_a_broker_dies_with_its_killed_parent_and_the_next_one_has_its_data(tmp_path: Path) -> None:
    """kill -9 of the parent takes the JVM along, and the lock it left does not stop a restart."""
    with probed():
        jars.find_java()
        jars.resolve()
    parent = Parent("akbypass.local.kafka", "KafkaServer", tmp_path / "k")
    topic = create_topic(parent.address)
    produce(parent.address, topic, [b"kept"])
    parent.kill()
    with KafkaServer(tmp_path / "k") as server:  # at once: it waits for the dying one
        assert gone(parent.server_pid)
        assert consume(server.bootstrap_servers, topic, 1) == [b"kept"]


@pytest.mark.services
def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    """A log directory of another node ends the broker; the error carries its last log lines, and the lock is free."""
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "meta.properties").write_text("version=1\nnode.id=7\ncluster.id=AAAAAAAAAAAAAAAAAAAAAA\n")
    server = KafkaServer(tmp_path)
    with probed():
        jars.find_java()
        jars.resolve()
    with pytest.raises(ServiceError, match=r"(?s)ended while starting, exit code 1.*Stored node id 7"):
        server.start()
    assert server.pid is None
    os.close(children.lock(tmp_path, what="the embedded Kafka", wait_s=0))


def test_children_started_from_a_short_lived_thread_survive_it(tmp_path: Path) -> None:
    """The kernel's death signal follows the starting thread; ours lives as long as the process."""
    import threading

    started: list[subprocess.Popen[bytes]] = []
    thread = threading.Thread(
        target=lambda: started.append(children.spawn(["sleep", "60"], output=tmp_path / "out", cwd=tmp_path))
    )
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert started[0].poll() is None
    children.stop(started[0])
    assert started[0].returncode == -signal.SIGTERM


def test_a_program_that_does_not_exist_ends_with_its_name(tmp_path: Path) -> None:
    """The launcher reports what it could not become."""
    child = children.spawn(["/no/such/program"], output=tmp_path / "out", cwd=tmp_path)
    with pytest.raises(ServiceError, match="/no/such/program: No such file"):
        children.wait_until(lambda: False, child, what="it", logs=[tmp_path / "out"], timeout_s=10)


def test_a_silent_child_is_stopped_at_the_time_limit(tmp_path: Path) -> None:
    """A child that never answers is ended and named."""
    child = children.spawn(["sleep", "60"], output=tmp_path / "out", cwd=tmp_path)
    with pytest.raises(ServiceError, match=r"did not answer within 0 s.*\n.*nothing was logged"):
        children.wait_until(lambda: False, child, what="it", logs=[tmp_path / "out"], timeout_s=0.1)
    assert child.poll() is not None


def test_a_kept_port_that_is_taken_is_changed_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Ports are kept from life to life, unless somebody else listens there now."""
    server = KafkaServer(tmp_path)
    first = server._choose_ports(fresh=False)
    assert server._choose_ports(fresh=False) == first
    with socket.socket() as other, caplog.at_level(logging.WARNING):
        other.bind(("127.0.0.1", first[0]))
        other.listen()
        second = server._choose_ports(fresh=False)
    assert second[0] != first[0]
    assert f"changed from {first[0]}" in caplog.text
    assert server._choose_ports(fresh=False) == second


def test_missing_java_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Java the error says which version is needed and how to get it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(
        MissingError, match=r"needs Java 17 or newer, found no java; install a Java runtime .*JAVA_HOME"
    ):
        KafkaServer(tmp_path / "k").start()
    assert not (tmp_path / "k").exists()


def test_an_old_java_is_named_with_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Java 11 and Java 8 (which calls itself 1.8) are refused with what was found."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    for version, found in (("11.0.2", "Java 11"), ("1.8.0_402", "Java 8")):
        program(tmp_path / "java", f"echo 'openjdk version \"{version}\"' >&2")
        with pytest.raises(MissingError, match=f"found {found} at "):
            jars.find_java(str(tmp_path / "java"))


def test_missing_maven_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without jars and without Maven the error says where the jars would be and how to get Maven."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("AKBYPASS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MissingError, match=r"kafka-4\.3\.0-.* Maven \(mvn\) is not on PATH; install Maven"):
        jars.resolve()


def test_a_download_that_broke_off_is_not_taken_for_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jars appear under their name only when Maven was done; what it said is in the error."""
    monkeypatch.setenv("AKBYPASS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    out = 'for a in "$@"; do case $a in -DoutputDirectory=*) mkdir -p "${a#*=}"; touch "${a#*=}/one.jar";; esac; done'
    program(tmp_path / "mvn", f"{out}; echo connection reset; exit 1")
    with pytest.raises(ServiceError, match=r"(?s)exit code 1:.*connection reset"):
        jars.resolve()
    assert not jars.jar_directory().exists()
    program(tmp_path / "mvn", out.replace("one.jar", "kafka_2.13-4.3.0.jar"))
    assert (jars.resolve() / "kafka_2.13-4.3.0.jar").exists()
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [jars.jar_directory().name]


def test_the_pom_names_the_version_that_the_module_names() -> None:
    """The version in the pom and the name of the cache agree."""
    assert f"<kafka.version>{jars.KAFKA_VERSION}</kafka.version>" in jars.POM.read_text()
