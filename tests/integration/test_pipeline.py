"""The main test: `analyze` and the Kafka pipeline give the same rows, however the work is cut, spread or interrupted."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from akbypass import config as configuration
from akbypass import processors, results, store_client
from akbypass.config import Config
from akbypass.local.stack import Places, Stack
from akbypass.offline import RESULTS
from akbypass.producers.edge import Edge
from akbypass.producers.publish import publish
from akbypass.producers.simulator import simulate
from akbypass.transport import Publisher
from tests.backends import Broker, Store
from tests.support import analyzed, data

pytestmark = pytest.mark.services
CAPTURES = ("simulated", "iex-deep", "fix-4.1")
SCENARIOS = {
    "one worker": {"workers": 1, "rows": 4096, "kill": False},
    "two workers": {"workers": 2, "rows": 100, "kill": False},
    "one row a message": {"workers": 1, "rows": 1, "kill": False},
    "worker killed": {"workers": 1, "rows": 4096, "kill": True},
}


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Config]]:
    """Capture and configuration by name."""
    day = simulate(tmp_path_factory.mktemp("day"), seed=11, seconds=3)
    return {
        "simulated": (day.capture, configuration.load(day.config)),
        "iex-deep": (data("marketdata/sai_test.pcap.gz"), Config()),
        "fix-4.1": (data("orderentry/fix.pcap"), Config()),
    }


@pytest.fixture(scope="module")
def expected(captures: dict[str, tuple[Path, Config]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `analyze` writes, by capture and result."""
    return {n: analyzed(path, config, tmp_path_factory.mktemp("out")) for n, (path, config) in captures.items()}


@pytest.fixture(params=SCENARIOS, ids=lambda name: name.replace(" ", "-"))
def scenario(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """How the pipeline is run."""
    return SCENARIOS[request.param]  # type: ignore[return-value]


def through(path: Path, config: Config, scenario: dict[str, Any], places: Places, servers: tuple[str, str]) -> Any:
    """Bring one capture through a pipeline of its own and return its results from the store."""
    name = f"t{secrets.token_hex(4)}"
    config = config.model_copy(
        update={
            "kafka": config.kafka.model_copy(
                update={"bootstrap_servers": servers[0], "prefix": f"{name}.", "batch_rows_max": scenario["rows"]}
            ),
            "clickhouse": config.clickhouse.model_copy(update={"url": servers[1], "database": name}),
        }
    )
    places.home.mkdir(parents=True, exist_ok=True)
    file = places.home / "config.yaml"
    file.write_text(configuration.dump(config))
    edge = Edge(config, [str(path)], frames_max=500 if scenario["kill"] else 16_384)
    with Stack(places, config, str(file), scenario["workers"]) as stack:
        batches = 0

        def between() -> None:
            nonlocal batches
            batches += 1
            if scenario["kill"]:
                time.sleep(0.4)  # the worker must have taken some of it, and saved some of that
                if batches == 8:
                    os.kill(stack.pid("worker-0"), signal.SIGKILL)

        if scenario["workers"] == 2:
            time.sleep(12)  # both workers have joined their groups, so that each has partitions
        publish(edge, Publisher(config, servers[0]), between)
        with store_client.connect(config, servers[1]) as client:
            results.wait_for_run(client, config, edge.run_id, edge.captures, 90)
            found = results.all_results(client, edge.run_id, RESULTS)
        restarts = stack.endpoints.restarts
    assert (restarts.get("worker-0", 0) > 0) == (scenario["kill"] and batches >= 8)
    return found


@pytest.mark.parametrize("name", CAPTURES)
def test_pipeline_equals_analyze(
    name: str, scenario: dict[str, Any], captures: Any, expected: Any, kafka_server: Broker, store_server: Store, tmp_path: Path
) -> None:  # fmt: skip
    """Every result of the pipeline equals the offline result: same rows, same values, same ids."""
    path, config = captures[name]
    found = through(path, config, scenario, Places(tmp_path), (kafka_server.bootstrap_servers, store_server.url))
    for result in RESULTS:
        assert len(found[result]) == len(expected[name][result]), result
        for got, want in zip(found[result], expected[name][result], strict=True):
            assert got == want, result
    assert sum(len(rows) for rows in expected[name].values()) > 10


def test_topologies_write_into_declared_topics_only() -> None:
    """Every output of a topology is a topic that exists, and every input is written by someone."""
    from akbypass import topics, transport

    known = set(transport.known_topics())
    written = set(topics.CAPTURE_TOPICS)
    for topology in processors.all_topologies():
        assert set(topology.outputs) <= known
        assert set(topology.inputs) <= written, topology.name
        written |= set(topology.outputs)
