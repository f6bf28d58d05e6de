"""The main test: `analyze` and the Kafka pipeline give the same rows, however the work is cut, spread or interrupted."""

from __future__ import annotations

import os
import secrets
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from akbypass import config as configuration
from akbypass import evidence, processors, results, store_client
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
CAPTURES = ("simulated", "iex-deep", "fix-4.1", "iex-tops")
BATCHES_KILLED = 12  # at least so many batches has a capture of which the worker is killed
KILLED_AFTER = 8  # batches
SCENARIOS = {
    "one worker": {"workers": 1, "rows": 4096, "kill": False},
    "two workers": {"workers": 2, "rows": 100, "kill": False},
    "one row a message": {"workers": 1, "rows": 1, "kill": False},
    "worker killed": {"workers": 1, "rows": 4096, "kill": True},
}
CASES = [  # the fourth capture in one scenario only, to bound the time
    pytest.param(name, scenario, id=f"{how.replace(' ', '-')}-{name}")
    for how, scenario in SCENARIOS.items()
    for name in CAPTURES
    if name != "iex-tops" or how == "one worker"
]


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Config]]:
    """Capture and configuration by name."""
    day = simulate(tmp_path_factory.mktemp("day"), seed=11, seconds=3)
    return {
        "simulated": (day.capture, configuration.load(day.config)),
        "iex-deep": (data("marketdata/sai_test.pcap.gz"), Config()),
        "fix-4.1": (data("orderentry/fix.pcap"), Config()),
        "iex-tops": (data("marketdata/TOPS16.pcapng"), Config()),
    }


@pytest.fixture(scope="module")
def expected(captures: dict[str, tuple[Path, Config]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `analyze` writes, by capture and result."""
    return {n: analyzed(path, config, tmp_path_factory.mktemp("out")) for n, (path, config) in captures.items()}


def frames_of(path: Path, config: Config) -> int:
    """Frames in a capture (count)."""
    edge = Edge(config, [str(path)], topics=[])
    for _ in edge:
        pass
    return edge.totals()["packets"]


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
    frames_max = max(1, frames_of(path, config) // BATCHES_KILLED) if scenario["kill"] else 16_384
    edge = Edge(config, [str(path)], frames_max=frames_max)
    with Stack(places, config, str(file), scenario["workers"]) as stack:
        batches = 0

        def between() -> None:
            nonlocal batches
            batches += 1
            if scenario["kill"]:
                time.sleep(0.4)  # the worker must have taken some of it, and saved some of that
                if batches == KILLED_AFTER:
                    os.kill(stack.pid("worker-0"), signal.SIGKILL)

        if scenario["workers"] == 2:
            time.sleep(12)  # both workers have joined their groups, so that each has partitions
        publish(edge, Publisher(config, servers[0]), between)
        with store_client.connect(config, servers[1]) as client:
            results.wait_for_run(client, config, edge.run_id, edge.captures, 90)
            found = results.all_results(client, edge.run_id, RESULTS)
            ledger = evidence.balance_of(client, config, edge.run_id)
        restarts = stack.endpoints.restarts
    assert (restarts.get("worker-0", 0) > 0) == scenario["kill"]
    assert ledger.state == "balanced", [hop for hop in ledger.hops if hop.open or hop.lost or hop.extra]
    return found


@pytest.mark.parametrize(("name", "scenario"), CASES)
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
