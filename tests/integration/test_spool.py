"""A paced capture through the whole pipeline while its broker is dead, or its spool full: equal to `analyze`, or counted."""

from __future__ import annotations

import os
import secrets
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from akbypass import config as configuration
from akbypass import evidence, results, store_client
from akbypass.cli.stream import publisher_of
from akbypass.config import Config
from akbypass.local.stack import Places, Stack
from akbypass.offline import RESULTS
from akbypass.producers.edge import Edge
from akbypass.producers.publish import publish
from akbypass.producers.simulator import simulate
from tests.backends import Store
from tests.support import analyzed

pytestmark = pytest.mark.services
SECONDS = 6
KEY = ("run_ns", "capture_id", "capture_pos", "sub")
TOPICS = ("packets", "feed_frames", "market_data", "orders", "rejected")


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    """A simulated capture and its configuration."""
    made = simulate(tmp_path_factory.mktemp("day"), seed=12, seconds=SECONDS)
    return made.capture, configuration.load(made.config)


def placed(config: Config, server: Store, home: Path, **parts: dict[str, Any]) -> Config:
    """The configuration with a store and a spool of this test; the broker is embedded."""
    spool = {"directory": str(home / "spool"), "after_ms": 200, "segment_bytes": 1 << 18}
    wanted = {"clickhouse": {"url": server.url, "database": f"o{secrets.token_hex(4)}"}, "spool": spool}
    for name in {*wanted, *parts}:
        part = getattr(config, name)
        chosen = part.model_dump() | wanted.get(name, {}) | parts.get(name, {})
        config = config.model_copy(update={name: type(part).model_validate(chosen)})
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.yaml").write_text(configuration.dump(config))
    return config


def through(
    capture: Path, config: Config, home: Path, between: Callable[[Stack, Edge, Any], None], look: Callable[[Any, str], Any]
) -> Any:  # fmt: skip
    """Replay a capture in its original timing, `between` its batches, and return what `look` finds in the store."""
    edge = Edge(config, [str(capture)], speed=1)
    with Stack(Places(home), config, str(home / "config.yaml")) as stack:
        bootstrap = stack.endpoints.bootstrap_servers
        with publisher_of(edge, config, bootstrap) as publisher:
            publish(edge, publisher, lambda: between(stack, edge, publisher))
            assert publisher.spooled > 0
        with store_client.connect(config, config.clickhouse.url) as client:
            results.wait_for_run(client, config, edge.run_id, edge.captures, 120)
            return look(client, edge.run_id)


def test_results_are_those_of_analyze_when_the_broker_dies(
    day: tuple[Path, Config], store_server: Store, tmp_path: Path
) -> None:
    """The broker is killed a second into the capture and comes back while it runs: every result row is the offline one."""
    capture, base = day
    config = placed(base, store_server, tmp_path / "home")
    killed: list[int] = []

    def between(stack: Stack, edge: Edge, publisher: Any) -> None:
        if not killed and edge.totals()["packets"] > 2_000:
            killed.append(stack.pid("kafka"))
            os.kill(killed[0], signal.SIGKILL)

    found = through(
        capture, config, tmp_path / "home", between, lambda client, run: results.all_results(client, run, RESULTS)
    )
    expected = analyzed(capture, config, tmp_path / "out")
    for result in RESULTS:
        assert found[result] == expected[result], result
    assert sum(len(rows) for rows in found.values()) > 1_000


def test_a_full_spool_drops_counted_rows_and_no_orders(
    day: tuple[Path, Config], store_server: Store, tmp_path: Path
) -> None:
    """With a spool that is too small every row is stored or counted in captures, with the time at which it was lost."""
    capture, base = day
    sizes = {"bytes_max": 4 << 20, "reserve_market_bytes": 1 << 20, "reserve_orders_bytes": 1 << 20}
    spool = {**sizes, "reserve_accounts_bytes": 1 << 19, "segment_bytes": 1 << 18}
    config = placed(
        base, store_server, tmp_path / "home", spool=spool, store={"raw": True}, kafka={"queue_bytes_max": 1 << 20}
    )  # fmt: skip
    stopped: list[int] = []

    def between(stack: Stack, edge: Edge, publisher: Any) -> None:
        packets = edge.totals()["packets"]
        if not stopped and packets > 2_000:
            stopped.append(stack.pid("kafka"))
            os.kill(stopped[0], signal.SIGSTOP)
        if stopped and publisher.dropped["market_data"] > 2_000 and len(stopped) == 1:
            os.kill(stopped[0], signal.SIGCONT)
            stopped.append(0)

    def look(client: Any, run: str) -> Any:
        keys = {t: set(client.query(keys_of(t, run)).result_rows) for t in TOPICS}
        found = results.all_results(client, run, ("captures", "order_events", "latency_windows"))
        return keys, found, evidence.balance_of(client, config, run)

    keys, found, balance = through(capture, config, tmp_path / "home", between, look)
    assert len(stopped) == 2, "the spool was never full"
    expected = analyzed(capture, config, tmp_path / "out")
    assert keys["orders"] == all_keys(capture, config)["orders"]
    assert found["order_events"] == expected["order_events"]
    told = [row for row in found["captures"] if any(row[f"dropped_spool_{t}"] for t in TOPICS)]
    assert [row for row in found["captures"] if row not in told] == expected["captures"]
    for topic, whole in all_keys(capture, config).items():
        lost = whole - keys[topic]
        assert sum(row[f"dropped_spool_{topic}"] or 0 for row in told) == len(lost), topic
        for row in (r for r in told if r[f"dropped_spool_{topic}"]):
            lost -= {key for key in lost if row["ts_start_ns"] <= key[0] < row["ts_end_ns"]}
        assert not lost, topic
    assert balance.state == "balanced", [hop for hop in balance.hops if hop.lost or hop.extra or hop.open]
    assert any(hop.topic == "packets" and hop.drops.get("spool_full") for hop in balance.hops)
    doubted = [window for window in found["latency_windows"] if window["lost_n"]]
    for window in doubted:
        touching = [
            row["dropped_spool_packets"] or 0
            for row in told
            if row["ts_start_ns"] < window["window_end_ns"] and row["ts_end_ns"] > window["window_start_ns"]
        ]
        assert window["kind"].startswith("tcp_") and window["lost_n"] == sum(touching)
    assert doubted


def keys_of(topic: str, run: str) -> str:
    """The query for the order keys that the store holds of a topic."""
    return f"SELECT toUnixTimestamp64Nano(run_ns), capture_id, capture_pos, sub FROM {topic} WHERE run_id = '{run}'"


def all_keys(capture: Path, config: Config) -> dict[str, set[tuple[int, ...]]]:
    """Order keys of every row that the edge makes, by topic."""
    keys: dict[str, set[tuple[int, ...]]] = {t: set() for t in TOPICS}
    counted = Counter[str]()
    for made in Edge(config, [str(capture)]):
        for topic in set(made.rows) & set(TOPICS):
            rows = made.rows[topic]
            keys[topic] |= set(zip(*(rows[k].tolist() for k in KEY), strict=True))
            counted[topic] += len(rows)
    assert all(len(keys[t]) == counted[t] for t in TOPICS)
    return keys
