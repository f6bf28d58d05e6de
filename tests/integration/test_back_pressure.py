"""A store that is away, or a producer that is blocked, makes its reader wait: memory stays bounded, nothing is lost."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from akbypass import config as configuration
from akbypass import results, store_client, transport
from akbypass.bench import process
from akbypass.config import Buffers, ClickHouse, Config, Kafka, Store
from akbypass.local import jars
from akbypass.local.stack import Places, Stack
from akbypass.local.store import StoreServer
from akbypass.offline import RESULTS
from akbypass.processors import choose
from akbypass.producers.edge import Edge
from akbypass.producers.publish import publish
from akbypass.producers.simulator import simulate
from akbypass.rows import Rows
from akbypass.sinks.clickhouse.migrate import migrate
from akbypass.transport import Publisher, RunWriter
from tests.backends import Broker, probed
from tests.backends import Store as StoreBackend
from tests.support import analyzed

pytestmark = pytest.mark.services
MIB = 1 << 20
ROWS, MESSAGES = 4_096, 400
GROWTH_MIB_MAX = 160  # of a sink that has several times as much in front of it
START_NS = 1_772_000_000_000_000_000
NO_COORDINATOR_YET = (KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE)
SESSION_S = 10.0  # a member that sends no heartbeat for this long is put out of its group


def eventually(condition: Any, timeout_s: float = 120) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)


def latency(number: int) -> Rows:
    """The n-th batch of latency rows, whose bytes do not compress away."""
    i = np.arange(number * ROWS, (number + 1) * ROWS)
    ids = np.array([b"%016x" % (k * 0x9E3779B97F4A7C15 % 2**64) for k in i.tolist()])
    return Rows.build(
        "latency", ROWS, run_ns=START_NS + i, capture_pos=i, id=ids, value_ns=i, venue=b"V", session=ids, cl_ord_id=ids, symbol=ids[::-1]
    )  # fmt: skip


def test_a_sink_without_its_store_reads_no_further(kafka_server: Broker, tmp_path: Path) -> None:
    """With the store stopped, the sink's memory does not grow with what waits on the broker; afterwards all is stored."""
    name = f"b{secrets.token_hex(4)}"
    store = StoreServer(tmp_path / "store")
    with probed():
        url = store.start()
    config = Config(
        kafka=Kafka(prefix=f"{name}.", bootstrap_servers=kafka_server.bootstrap_servers),
        clickhouse=ClickHouse(url=url, database=name), store=Store(bytes_max=4 * MIB), buffers=Buffers(sink_messages_max=8),
    )  # fmt: skip
    (tmp_path / "config.yaml").write_text(configuration.dump(config))
    transport.declare_topics(config, config.kafka.bootstrap_servers, transport.known_topics(), ())
    with store_client.connect(config, url, database="") as client:
        migrate(client, name)
    writer = RunWriter(Publisher(config, config.kafka.bootstrap_servers), "r1", 0, 1)
    writer.write({"latency": latency(0)}, 0, None)
    command = [sys.executable, "-m", "akbypass.cli", "sink", "clickhouse", "--config", str(tmp_path / "config.yaml")]
    with (tmp_path / "sink.log").open("wb") as log:
        sink = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        eventually(lambda: count(config, url) == ROWS)  # it has begun
        store.stop()
        before_mib = process.peak_mib(sink.pid)
        sent = 0
        for number in range(1, MESSAGES):
            writer.write({"latency": latency(number)}, 0, None)
            sent += latency(number).to_arrow().nbytes
        writer.publisher.flush()  # type: ignore[attr-defined]
        assert sent > 2 * GROWTH_MIB_MAX * MIB
        eventually(lambda: b"trying again" in (tmp_path / "sink.log").read_bytes())
        assert sink.poll() is None
        assert process.peak_mib(sink.pid) - before_mib < GROWTH_MIB_MAX
        assert store.start() == url
        eventually(lambda: count(config, url) == ROWS * MESSAGES, 300)
        assert process.peak_mib(sink.pid) - before_mib < GROWTH_MIB_MAX
    finally:
        sink.terminate()
        sink.wait(60)
        store.stop()


def count(config: Config, url: str) -> int:
    """Latency rows in the store."""
    with store_client.connect(config, url) as client:
        return int(client.query("SELECT count() FROM latency").result_rows[0][0])


def throttle(config: Config, client: str, action: str) -> None:
    """Let the broker hold back its answers to what a client writes, or not any more; its reads stay as they are."""
    change = "--add-config=producer_byte_rate=1" if action == "begin" else "--delete-config=producer_byte_rate"
    subprocess.run(
        [
            jars.find_java(None), "-cp", f"{jars.resolve()}/*", "kafka.admin.ConfigCommand", "--bootstrap-server",
            config.kafka.bootstrap_servers, "--alter", change, "--entity-type=clients", f"--entity-name={client}",
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip


def test_a_worker_that_cannot_write_stays_in_its_groups(
    kafka_server: Broker, store_server: StoreBackend, tmp_path: Path
) -> None:
    """The broker holds back a worker's writes for longer than a session: it keeps its place and memory, then goes on."""
    name = f"w{secrets.token_hex(4)}"
    day = simulate(tmp_path / "day", seed=13, seconds=8)
    base = configuration.load(day.config)
    kafka = base.kafka.model_copy(
        update={"prefix": f"{name}.", "bootstrap_servers": kafka_server.bootstrap_servers, "queue_bytes_max": MIB}
    )
    clickhouse = base.clickhouse.model_copy(update={"url": store_server.url, "database": name})
    config = base.model_copy(update={"kafka": kafka, "clickhouse": clickhouse})
    throttled = config.model_copy(update={"kafka": kafka.model_copy(update={"options": {"client.id": name}})})
    (tmp_path / "config.yaml").write_text(configuration.dump(throttled))
    admin = AdminClient({"bootstrap.servers": config.kafka.bootstrap_servers})
    groups = [transport.group_of(config, t) for t in choose(("filtering", "latency", "books"))]

    def members() -> list[list[str]]:
        futures = admin.describe_consumer_groups(groups, request_timeout=30)
        try:
            found = [future.result(30) for future in futures.values()]
        except KafkaException as error:
            assert error.args[0].code() in NO_COORDINATOR_YET
            return [[]]
        return [[m.member_id for m in g.members] if g.state == ConsumerGroupState.STABLE else [] for g in found]

    expected = analyzed(day.capture, config, tmp_path / "out")
    edge = Edge(config, [str(day.capture)])
    with Stack(Places(tmp_path / "home"), throttled, str(tmp_path / "config.yaml")) as stack:
        eventually(lambda: all(members()))
        before, worker = members(), psutil.Process(stack.pid("worker-0"))
        throttle(config, name, "begin")
        publish(edge, Publisher(config, config.kafka.bootstrap_servers))
        memory_mib = []
        until = time.monotonic() + 2 * SESSION_S
        while time.monotonic() < until:
            memory_mib.append(worker.memory_info().rss / MIB)
            time.sleep(0.5)
        with store_client.connect(config, store_server.url) as client:
            stored = client.query("SELECT count() FROM quotes").result_rows[0][0]
            assert stored < len(expected["quotes"]), "the worker was not held back"
            assert members() == before
            assert memory_mib[-1] - memory_mib[len(memory_mib) // 2] < 100
            throttle(config, name, "end")
            results.wait_for_run(client, config, edge.run_id, edge.captures, 120)
            found = results.all_results(client, edge.run_id, RESULTS)
        assert stack.endpoints.restarts == {}
    for result in RESULTS:
        assert found[result] == expected[result], result
