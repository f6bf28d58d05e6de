"""Real servers for tests: in containers where Docker answers, else embedded; the same tests run on both."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import pytest

from akbypass.errors import MissingError, ServiceError

KAFKA_IMAGE = "apache/kafka:4.3.0"
STORE_IMAGE = "clickhouse/clickhouse-server:26.9"
DOCKER_TIMEOUT_S = 3


class Broker(Protocol):
    """A broker that runs."""

    @property
    def bootstrap_servers(self) -> str:
        """Address as host:port."""


class Store(Protocol):
    """A store that runs."""

    @property
    def url(self) -> str:
        """Address as http://user@host:port."""


class Backend(Protocol):
    """Where tests get servers from."""

    name: str

    def kafka(self, directory: Path) -> contextlib.AbstractContextManager[Broker]:
        """Run a broker with its data in a directory."""

    def store(self, directory: Path) -> contextlib.AbstractContextManager[Store]:
        """Run a store with its data in a directory."""


class Embedded:
    """The servers that the product itself starts on a laptop."""

    name = "embedded"

    def kafka(self, directory: Path) -> contextlib.AbstractContextManager[Broker]:
        """Run Kafka as a child."""
        from akbypass.local.kafka import KafkaServer

        return KafkaServer(directory)

    def store(self, directory: Path) -> contextlib.AbstractContextManager[Store]:
        """Run chDB behind ClickHouse's protocol as a child."""
        from akbypass.local.store import StoreServer

        return StoreServer(directory)


@dataclass(frozen=True)
class Address:
    """A server in a container."""

    bootstrap_servers: str = ""
    url: str = ""


class Containers:
    """The official images; their data goes away with them."""

    name = "testcontainers"

    @contextlib.contextmanager
    def kafka(self, directory: Path) -> Iterator[Broker]:
        """Run Kafka's own image; the port is the same inside and out because the broker advertises it."""
        from confluent_kafka.admin import AdminClient
        from testcontainers.core.container import DockerContainer

        from akbypass.local.children import free_ports

        port = free_ports(1)[0]
        settings = {
            "NODE_ID": "1",
            "PROCESS_ROLES": "broker,controller",
            "LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:9093",
            "ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
            "CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
            "OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
            "AUTO_CREATE_TOPICS_ENABLE": "false",
            "MESSAGE_MAX_BYTES": "2097152",
        }
        container = DockerContainer(KAFKA_IMAGE).with_bind_ports(port, port)
        for key, value in settings.items():
            container.with_env(f"KAFKA_{key}", value)
        with container:
            bootstrap = f"127.0.0.1:{port}"
            AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=60)
            yield Address(bootstrap_servers=bootstrap)

    @contextlib.contextmanager
    def store(self, directory: Path) -> Iterator[Store]:
        """Run ClickHouse's own image with its default user open, as the embedded store's is."""
        import urllib3
        from testcontainers.core.container import DockerContainer

        container = DockerContainer(STORE_IMAGE).with_exposed_ports(8123).with_env("CLICKHOUSE_SKIP_USER_SETUP", "1")
        with container:
            url = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(8123)}"
            deadline = time.monotonic() + 60
            while True:
                with contextlib.suppress(urllib3.exceptions.HTTPError):
                    if urllib3.request("GET", f"{url}/ping", retries=False, timeout=2).status == 200:
                        break
                assert time.monotonic() < deadline, f"{STORE_IMAGE} did not answer within 60 s"
                time.sleep(0.1)
            yield Address(url=url)


def docker_answers() -> bool:
    """Whether a Docker daemon answers."""
    try:
        import docker

        client = docker.from_env(timeout=DOCKER_TIMEOUT_S)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except Exception:  # whatever the reason, there is no daemon to use
        return False


def absent(reason: str) -> NoReturn:
    """Skip for want of a service, or fail under AKBYPASS_REQUIRE_SERVICES=1."""
    if os.environ.get("AKBYPASS_REQUIRE_SERVICES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@contextlib.contextmanager
def probed() -> Iterator[None]:
    """Turn what this machine lacks into a skip or a failure."""
    try:
        yield
    except (MissingError, ServiceError) as error:
        absent(str(error))
