"""The ledger on a real broker and store: a whole run balances, and every row that is taken away is found where it was."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from akbypass import batch, evidence, results, store_client, topics
from akbypass import config as configuration
from akbypass.cli.reconcile import reconcile
from akbypass.config import Config
from akbypass.errors import EXIT_UNBALANCED
from akbypass.local.stack import Places, Stack
from akbypass.producers.edge import Edge
from akbypass.producers.publish import publish
from akbypass.producers.simulator import simulate
from akbypass.reconcile import Balance, rows_lost
from akbypass.sinks.clickhouse.reconciler import Reconciler
from akbypass.telemetry.metrics import UNBALANCED_ROWS
from akbypass.transport import Publisher
from tests.backends import Broker, Store

pytestmark = pytest.mark.services
WAIT_S = 90
LOST = "packets"  # the topic whose messages retention takes


@dataclass
class Line:
    """A pipeline of its own that runs, and its capture."""

    stack: Stack
    config: Config
    capture: Path
    file: Path
    client: Any

    def edge(self, salt: str) -> Edge:
        """The capture as a run of its own, in many small batches."""
        return Edge(self.config, [str(self.capture)], salt=salt, frames_max=200)

    def publish(self, edge: Edge) -> str:
        """Publish a run and return its identity."""
        publish(edge, Publisher(self.config, self.config.kafka.bootstrap_servers))
        return edge.run_id

    def wait(self, run_id: str) -> None:
        """Wait until a run is stored."""
        results.wait_for_run(self.client, self.config, run_id, 1, WAIT_S)

    def balance(self, run_id: str) -> Balance:
        """The balance of a run."""
        return evidence.balance_of(self.client, self.config, run_id)

    def reconcile(self, *arguments: str) -> Result:
        """Run the command."""
        return CliRunner().invoke(reconcile, [*arguments, "--config", str(self.file)])


@pytest.fixture(scope="module")
def line(kafka_server: Broker, store_server: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """One pipeline for all claims."""
    day = simulate(tmp_path_factory.mktemp("day"), seed=7, seconds=3)
    name, config = f"l{secrets.token_hex(4)}", configuration.load(day.config)
    kafka = {"bootstrap_servers": kafka_server.bootstrap_servers, "prefix": f"{name}."}
    config = config.model_copy(
        update={
            "kafka": config.kafka.model_copy(update=kafka),
            "clickhouse": config.clickhouse.model_copy(update={"url": store_server.url, "database": name}),
        }
    )
    places = Places(tmp_path_factory.mktemp("home"))
    file = places.home / "config.yaml"
    file.write_text(configuration.dump(config))
    with Stack(places, config, str(file)) as stack, store_client.connect(config, store_server.url) as client:
        yield Line(stack, config, day.capture, file, client)


def test_a_whole_run_balances_until_rows_are_deleted(line: Line) -> None:
    """Every hop of a run holds and the command ends with 0; rows deleted by hand are found in their table, all of them."""
    run_id = line.publish(line.edge("whole"))
    line.wait(run_id)
    whole = line.balance(run_id)
    assert whole.state == "balanced", whole
    assert {hop.kind for hop in whole.hops} == {"captured", "published", "taken", "stored"}
    assert sum(hop.expected for hop in whole.hops if hop.kind == "taken") > 10_000
    told = line.reconcile(run_id)
    assert (told.exit_code, "balanced" in told.output) == (0, True), told.output

    where = f"run_id = '{run_id}' AND value_ns % 7 = 0"
    gone = line.client.query(f"SELECT count() FROM latency FINAL WHERE {where}").result_rows[0][0]
    line.client.command(f"ALTER TABLE latency DELETE WHERE {where} SETTINGS mutations_sync = 2")
    assert gone > 0
    assert rows_lost([line.balance(run_id)]) == {("stored", "latency", "clickhouse"): gone}
    told = line.reconcile(run_id, "--json")
    assert told.exit_code == EXIT_UNBALANCED
    (shown,) = orjson.loads(told.output)["runs"]
    assert [(h["topic"], h["lost"]) for h in shown["hops"] if h["lost"]] == [("latency", gone)]
    reconciler = Reconciler(line.config, line.client)
    for _ in range(3):
        reconciler.look()  # in doubt, judged, not judged again
    alerts = [a for a in results.fetch(line.client, "alerts", run_id) if a["kind"] == "loss"]
    assert [(a["entity"], a["value"], a["state"]) for a in alerts] == [
        ("latency stored at clickhouse", float(gone), "firing")
    ]
    assert UNBALANCED_ROWS.labels("clickhouse", "latency")._value.get() == gone
    assert f"latency rows in the store (clickhouse): {gone:,} lost" in " ".join(line.reconcile().output.split())


def messages(line: Line, partition: int) -> list[Any]:
    """All messages of a partition of the topic that retention takes."""
    options = {"group.id": secrets.token_hex(4), "enable.partition.eof": True, "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": line.config.kafka.bootstrap_servers, **options})
    full, found = topics.full_name(line.config.kafka.prefix, LOST), []
    consumer.assign([TopicPartition(full, partition, 0)])
    while (message := consumer.poll(20)) is not None and message.error() is None:
        found.append(message)
    consumer.close()
    return found


def rows_in(found: list[Any]) -> int:
    """Rows in messages (count)."""
    batches = (batch.decode(LOST, m.value(), m.headers()) for m in found)
    return sum(len(made.rows) for made in batches if made.rows is not None)


def test_what_retention_took_is_found_exactly(line: Line) -> None:
    """Messages deleted from the broker before the worker had them: rows and messages are counted, and an alert says so."""
    full, partitions = topics.full_name(line.config.kafka.prefix, LOST), line.config.kafka.partitions
    first = line.publish(line.edge("before"))
    line.wait(first)
    line.stack.remove("worker-0")  # in order: it has saved how far it came
    starts = {p: messages(line, p)[-1].offset() + 1 for p in range(partitions)}
    run_id = line.publish(line.edge("after"))
    sent = {p: [m for m in messages(line, p) if m.offset() >= starts[p]] for p in range(partitions)}
    victim = max(sent, key=lambda p: rows_in(sent[p]))
    half = next(i for i in range(len(sent[victim])) if rows_in(sent[victim][:i]) * 2 > rows_in(sent[victim]))
    gone = sent[victim][:half]
    rows = rows_in(gone)
    assert len(gone) > 3
    assert rows > 100
    admin = AdminClient({"bootstrap.servers": line.config.kafka.bootstrap_servers})
    for future in admin.delete_records([TopicPartition(full, victim, gone[-1].offset() + 1)]).values():
        future.result(20)
    assert line.balance(run_id).state == "open"
    assert line.balance(run_id).holds  # what nobody has read yet is under way

    line.stack.add("worker-0", ["process", "--member", "worker-0"])
    line.wait(run_id)
    readers = ("filtering", "latency")
    found = line.balance(run_id)
    assert rows_lost([found]) == {("taken", LOST, reader): rows for reader in readers}
    assert {hop.told for hop in found.hops if hop.lost} == {rows}  # the readers knew it from the numbers of the rows
    assert line.balance(first).state == "balanced"
    taken = Counter({(r.stage, r.partition, r.topic): r.messages for r in evidence.retention(line.client)})
    assert taken == {(reader, victim, LOST): len(gone) for reader in readers}
    alerts = results.fetch(line.client, "alerts", run_id)
    assert {(a["topology"], a["value"]) for a in alerts if a["kind"] == "loss"} == {(r, float(rows)) for r in readers}
    assert line.reconcile(first).exit_code == 0
    assert line.reconcile().exit_code == EXIT_UNBALANCED  # of which runs the messages were, nobody knows
