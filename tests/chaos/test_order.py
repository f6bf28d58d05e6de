"""Batches that come in another order, and twice: two capture points through a relay that shuffles what it may."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from akbypass import config as configuration
from akbypass import results, store_client, transport
from akbypass.config import Config
from akbypass.local.stack import Places, Stack
from akbypass.producers.edge import Edge
from akbypass.producers.publish import publish
from akbypass.transport import Publisher
from tests.backends import Broker, Store
from tests.chaos.day import Day, make_day
from tests.chaos.relay import relay
from tests.chaos.verify import verify

pytestmark = pytest.mark.services
SEEDS = (1,)  # more add time, not another path


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    """A short day, its flows dealt out to two captures."""
    return make_day(tmp_path_factory.mktemp("day"), 3, 4.0, captures=2)


def named(config: Config, broker: Broker, store: Store, name: str) -> Config:
    """The configuration of a pipeline of its own."""
    kafka = config.kafka.model_copy(update={"bootstrap_servers": broker.bootstrap_servers, "prefix": f"{name}."})
    clickhouse = config.clickhouse.model_copy(update={"url": store.url, "database": name})
    return config.model_copy(update={"kafka": kafka, "clickhouse": clickhouse})


@pytest.mark.parametrize("seed", SEEDS)
def test_shuffled_and_repeated_batches_change_nothing(
    seed: int, day: Day, kafka_server: Broker, store_server: Store, tmp_path: Path
) -> None:
    """Sources, partitions and topics in another order and a tenth of all messages twice: the rows of `analyze`."""
    first, second = (named(day.config, kafka_server, store_server, f"o{secrets.token_hex(4)}") for _ in range(2))
    bootstrap = kafka_server.bootstrap_servers
    transport.declare_topics(first, bootstrap, transport.known_topics(), ())
    edge = Edge(first, [str(f) for f in day.captures], frames_max=64)
    publish(edge, Publisher(first, bootstrap))
    file = tmp_path / "config.yaml"
    file.write_text(configuration.dump(second))
    with Stack(Places(tmp_path), second, str(file), 1), store_client.connect(second, store_server.url) as client:
        sent, twice = relay(first, second, bootstrap, seed)
        assert sent > 1_000 and twice > 100
        results.wait_for_run(client, second, day.run_id, edge.captures, 120)
        found = verify(client, day, set())
    assert found.differences == []
    assert found.rows == day.rows
