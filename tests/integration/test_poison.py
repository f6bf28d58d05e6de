"""Foreign bytes on every topic, checkpoints included: the stream goes on, results stay, every message is set aside once."""

from __future__ import annotations

import os
import secrets
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from akbypass import batch, processors, results, store_client, topics, transport
from akbypass import config as configuration
from akbypass.batch import Batch
from akbypass.config import Config
from akbypass.local.stack import Places, Stack
from akbypass.offline import RESULTS
from akbypass.order import START_NS
from akbypass.producers.edge import Edge
from akbypass.producers.publish import publish
from akbypass.producers.simulator import simulate
from akbypass.sinks.clickhouse.tables import RAW
from akbypass.transport import Publisher
from tests.backends import Broker, Store
from tests.support import analyzed

pytestmark = pytest.mark.services
POISONED_AFTER = 6  # batches
TOPOLOGIES = processors.all_topologies()


def poisons(topic: str) -> list[bytes | None]:
    """Values that are no message of a topic: no bytes, garbage, another topic's message, a message cut short."""
    if topic == "state":
        return [b"", b"\x00poison", b"[1]", b'{"format":2}', b'{"version":"1","owner":7}']
    other = "captures" if topic != "captures" else "packets"
    foreign, whole = (
        next(iter(batch.encode(Batch(t, "r1", 0, 1, None, START_NS, 1), 10, 70_000))).value or b""
        for t in (other, topic)
    )
    return [None, b"", b"\x00poison\xff" * 9, b'{"a":1}', foreign, whole[:-2] or b"x"]


def poison_everything(config: Config, publisher: Publisher) -> dict[str, int]:
    """Write every poison into every partition of every topic; returns messages by topic and partition."""
    sent: dict[str, int] = {}
    for partition in range(config.kafka.partitions):
        for topic in transport.known_topics():
            for value in poisons(topic):
                publisher.produce(topics.full_name(config.kafka.prefix, topic), partition, value, None, [])
            sent[f"{topic}[{partition}]"] = len(poisons(topic))
        for topology in TOPOLOGIES:
            full = transport.checkpoint_topic(config, topology.name, topology.version)
            for key in (b"claim", b"manifest", b"left", None, b"\xff"):
                for value in poisons("state"):
                    publisher.produce(full, partition, value, key, [])
            sent[f"{full.removeprefix(config.kafka.prefix)}[{partition}]"] = 5 * len(poisons("state"))
    publisher.flush()
    return sent


def test_poison_on_every_topic_changes_nothing(kafka_server: Broker, store_server: Store, tmp_path: Path) -> None:
    """Poison before and in the middle of a run: its results equal `analyze`, and `rejected` names every message."""
    day = simulate(tmp_path / "day", seed=5, seconds=2)
    loaded, name = configuration.load(day.config), f"t{secrets.token_hex(4)}"
    expected = analyzed(day.capture, loaded, tmp_path / "out")
    config = loaded.model_copy(
        update={
            "kafka": loaded.kafka.model_copy(
                update={"bootstrap_servers": kafka_server.bootstrap_servers, "prefix": f"{name}."}
            ),
            "clickhouse": loaded.clickhouse.model_copy(update={"url": store_server.url, "database": name}),
        }
    )
    places = Places(tmp_path / "home")
    places.home.mkdir()
    (places.home / "config.yaml").write_text(configuration.dump(config))
    bootstrap = kafka_server.bootstrap_servers
    transport.declare_topics(config, bootstrap, transport.known_topics(), TOPOLOGIES)
    publisher = Publisher(config, bootstrap)
    sent = [poison_everything(config, publisher)]
    edge, batches = Edge(config, [str(day.capture)], frames_max=400), 0

    def between() -> None:
        nonlocal batches
        batches += 1
        if batches == POISONED_AFTER:
            sent.append(poison_everything(config, publisher))

    with Stack(places, config, str(places.home / "config.yaml")) as stack, store_client.connect(config) as client:
        publish(edge, publisher, between)
        results.wait_for_run(client, config, edge.run_id, edge.captures, 90)
        found = results.all_results(client, edge.run_id, RESULTS)
        assert stack.endpoints.restarts == {}
        os.kill(stack.pid("worker-0"), signal.SIGKILL)  # it reads checkpoints when it starts
        letters = wait_for_letters(client, {place: n * len(sent) for place, n in sent[0].items()})
    assert len(sent) == 2
    assert found == expected
    assert {reason for _, reason, _ in letters} == {"not_a_batch", "not_a_checkpoint"}
    for stage, _, place in letters:
        assert stage in (*(t.name for t in TOPOLOGIES), "clickhouse", "audit"), place


def wait_for_letters(client: Any, sent: dict[str, int]) -> set[tuple[str, str, str]]:
    """Wait until every poison that somebody reads has a letter; returns (stage, reason, place) of each letter.

    Nobody but topologies reads the copies of what goes to all partitions.
    """
    read = {topic for t in TOPOLOGIES for topic in t.inputs}
    wanted: dict[str, int] = {}
    for place, n in sent.items():
        topic, partition = place.rstrip("]").split("[")
        copies = not topic.startswith("state.") and topics.schema_of(topic).key == ("all",)
        if topic.startswith("state.") or topic in read or (topic not in RAW and not (copies and partition != "0")):
            wanted[place] = n
    query = (
        "SELECT concat(topic, '[', toString(partition), ']'), uniqExact(offset), "
        "groupUniqArray(tuple(stage, reason, splitByString(': ', detail)[1])) "
        "FROM rejected FINAL WHERE offset IS NOT NULL GROUP BY 1"
    )
    deadline = time.monotonic() + 60
    while True:
        rows = client.query(query).result_rows
        found = {place: int(n) for place, n, _ in rows}
        if found == wanted or time.monotonic() > deadline:
            assert found == wanted
            return {(str(s), str(r), str(p)) for _, _, letters in rows for s, r, p in letters}
        time.sleep(0.5)
