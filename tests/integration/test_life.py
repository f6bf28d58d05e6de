"""Processes on real servers: how they end, what their pages say, and what their logs do not."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import urllib3
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from prometheus_client.parser import text_string_to_metric_families

from akbypass import config as configuration
from akbypass import results, store_client, topics, transport
from akbypass.config import Config, Kafka
from akbypass.errors import EXIT_FORCED, EXIT_STOPPED
from akbypass.local.children import free_ports
from akbypass.local.kafka import KafkaServer
from akbypass.local.store import StoreServer
from akbypass.offline import RESULTS, Offline
from akbypass.processors import all_topologies
from akbypass.producers.edge import Edge
from akbypass.producers.simulator import simulate
from akbypass.rows import Rows
from akbypass.telemetry.logs import FORMAT_VARIABLE
from akbypass.transport import Publisher, RunWriter
from tests.backends import Broker, Store, probed
from tests.integration.test_worker import STEP, packets, read
from tests.spine.test_progress import TOY
from tests.support import ROOT, analyzed

pytestmark = pytest.mark.services
DAY_S = 8.0
SPEED = 0.8  # of the replay: slow enough to be interrupted


def wait_for(what: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until something holds and return it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)
    return found


def page(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """Status and report of a page; (0, {}) when nobody answers."""
    try:
        answer = urllib3.request("GET", f"http://127.0.0.1:{port}{path}", retries=False, timeout=5)
    except urllib3.exceptions.HTTPError:
        return 0, {}
    return answer.status, json.loads(answer.data)


Values = list[tuple[str, dict[str, str], float]]


def metrics(port: int) -> Values:
    """Every exported value with its name and labels; none when nobody answers."""
    try:
        text = urllib3.request("GET", f"http://127.0.0.1:{port}/metrics", retries=False, timeout=5).data.decode()
    except urllib3.exceptions.HTTPError:
        return []
    return [(s.name, s.labels, s.value) for f in text_string_to_metric_families(text) for s in f.samples]


def total(found: Values, name: str, **labels: str) -> float:
    """Sum of a metric over all labels but these."""
    return sum(v for n, given, v in found if n == f"akbypass_{name}" and labels.items() <= given.items())


class Processes:
    """Processes of one pipeline by name, each with its page and its log."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.ports: dict[str, int] = {}

    def start(self, name: str, *arguments: str, module: str = "akbypass.cli") -> int:
        """Start one; returns the port of its page."""
        self.ports[name] = free_ports(1)[0]
        given = [*arguments, *(["--telemetry-port"] if module == "akbypass.cli" else []), str(self.ports[name])]
        env = {**os.environ, FORMAT_VARIABLE: "json", "AKBYPASS_HOME": str(self.home)}
        with (self.home / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", module, *given]
            self.running[name] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, cwd=ROOT, env=env)
        return self.ports[name]

    def ready(self, name: str) -> bool:
        """Whether one is ready; it must not have ended."""
        assert self.running[name].poll() is None, self.log(name)
        return page(self.ports[name], "/readyz")[0] == 200

    def end(self, name: str, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal one and return its exit code."""
        self.running[name].send_signal(number)
        return self.running.pop(name).wait(60)

    def log(self, name: str) -> str:
        """What one has logged, all its lives together."""
        return (self.home / f"{name}.log").read_text()

    def close(self) -> None:
        """Leave nothing behind."""
        for child in self.running.values():
            child.kill()
            child.wait()


@pytest.fixture
def processes(tmp_path: Path) -> Any:
    """Processes of one test."""
    found = Processes(tmp_path)
    yield found
    found.close()


class Toy:
    """A run through the running-sum topology, with what must come of it."""

    def __init__(self, processes: Processes, bootstrap: str) -> None:
        self.processes, self.bootstrap = processes, bootstrap
        self.config = Config(kafka=Kafka(prefix=f"g{secrets.token_hex(4)}."))
        transport.declare_topics(self.config, bootstrap, transport.known_topics(), [TOY])
        run_id = secrets.token_hex(8)
        self.expected: list[Rows] = []
        self._offline = Offline(self.config, (TOY,), run_id, 1, self._keep)
        self.publisher = Publisher(self.config, bootstrap)
        self._writer = RunWriter(self.publisher, run_id, 0, 1)
        self._at = 0

    def _keep(self, topic: str, rows: Rows) -> None:
        if topic == "verdicts":
            self.expected.append(rows)

    def start(self, story: str = "sums", drain_s: float = 20) -> None:
        """Start the worker and wait until it is ready."""
        arguments = (self.bootstrap, self.config.kafka.prefix, story, str(drain_s))
        self.processes.start("w0", *arguments, module="tests.integration.living_worker")
        wait_for(lambda: self.processes.ready("w0"))

    def feed(self, *, last: bool = False) -> None:
        """Publish one step of packets."""
        rows = packets(self._at)
        self._at += STEP
        watermark = int(rows["run_ns"][-1])
        end = watermark + 1 if last else None
        self._offline.feed({"packets": rows}, 0, watermark, end)
        self._writer.write(
            {"packets": rows}, watermark, end, marked=["packets", "orders"], ending=topics.CAPTURE_TOPICS
        )

    def result(self) -> tuple[bool, int]:
        """Whether every row is there, when the run has ended, and how many were made twice."""
        self.publisher.flush()
        wait_for(lambda: len(read(self.config, self.bootstrap)[3]) == self.config.kafka.partitions**2)
        rows_by_id, repeats, _, _ = read(self.config, self.bootstrap)
        return rows_by_id == {row["id"]: row for rows in self.expected for row in rows.to_dicts()}, repeats

    def left(self) -> dict[tuple[str, int], int]:
        """Messages of each partition of packets that are not committed."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        group = transport.group_of(self.config, TOY)
        answer = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(10)
        places = [p for p in answer.topic_partitions if "packets" in p.topic]
        latest = {TopicPartition(p.topic, p.partition): OffsetSpec.latest() for p in places}
        ends = {(p.topic, p.partition): f.result(10).offset for p, f in admin.list_offsets(latest).items()}
        return {(p.topic, p.partition): ends[p.topic, p.partition] - p.offset for p in places}


def test_a_worker_that_is_asked_to_end_repeats_nothing(kafka_server: Broker, processes: Processes) -> None:
    """Two SIGTERM in the middle of a run: exit code 0, no row is made twice, everything taken is committed."""
    toy = Toy(processes, kafka_server.bootstrap_servers)
    toy.start()
    for step in range(12):
        toy.feed(last=step == 11)
        time.sleep(0.4)
        if step in (4, 8):
            assert processes.end("w0") == 0, processes.log("w0")
            toy.start()
    assert toy.result() == (True, 0)
    assert processes.end("w0") == 0
    left = toy.left()
    assert len(left) == toy.config.kafka.partitions and set(left.values()) == {0}
    assert processes.log("w0").count('"drained"') == 3


def test_without_a_broker_draining_ends_in_time_and_loses_nothing(processes: Processes, tmp_path: Path) -> None:
    """The broker stands still: the worker is unready but healthy, SIGTERM ends it after its bound with its own code."""
    with probed():
        broker = KafkaServer(tmp_path / "kafka")
        broker.start()
    try:
        toy = Toy(processes, broker.bootstrap_servers)
        toy.start(drain_s=3)
        for _ in range(4):
            toy.feed()
            time.sleep(0.4)
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP)
        port = processes.ports["w0"]
        wait_for(lambda: "broker does not answer" in page(port, "/readyz")[1].get("reasons", ()))
        assert (page(port, "/readyz")[0], page(port, "/healthz")[0]) == (503, 200)
        assert processes.end("w0") == EXIT_FORCED
        assert "draining took more than 3 s" in processes.log("w0")
        os.kill(broker.pid, signal.SIGCONT)
        toy.start()
        toy.feed(last=True)
        assert toy.result()[0]
        assert processes.end("w0") == 0
    finally:
        broker.stop()


def test_a_worker_that_hangs_is_unhealthy(kafka_server: Broker, processes: Processes) -> None:
    """A core that never comes back: the process lives, no offset moves and nothing is saved; /healthz says 503 and why."""
    toy = Toy(processes, kafka_server.bootstrap_servers)
    toy.start("hangs", drain_s=1)
    port = processes.ports["w0"]
    assert page(port, "/healthz")[0] == 200
    for _ in range(3):
        toy.feed()
        toy.publisher.flush()
        time.sleep(0.2)
    report = wait_for(lambda: (found := page(port, "/healthz"))[0] == 503 and found[1])
    assert re.fullmatch(r"toy (has not moved for|is) \d+ s( late with saving)?", report["reasons"][0])
    assert processes.running["w0"].poll() is None
    assert processes.end("w0") == EXIT_FORCED


# -- the whole line ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config, dict[str, Any]]:
    """A simulated day: its capture, its configuration and what `analyze` makes of it."""
    made = simulate(tmp_path_factory.mktemp("day"), seed=7, seconds=DAY_S)
    config = configuration.load(made.config)
    return made.capture, config, analyzed(made.capture, config, tmp_path_factory.mktemp("out"))


class Line:
    """A pipeline of its own on given servers."""

    def __init__(self, processes: Processes, config: Config, servers: tuple[str, str]) -> None:
        name = f"l{secrets.token_hex(4)}"
        self.processes = processes
        self.config = config.model_copy(
            update={
                "kafka": config.kafka.model_copy(update={"bootstrap_servers": servers[0], "prefix": f"{name}."}),
                "clickhouse": config.clickhouse.model_copy(update={"url": servers[1], "database": name}),
            }
        )
        self.file = str(processes.home / "config.yaml")
        Path(self.file).write_text(configuration.dump(self.config))

    def start(self, *names: str) -> None:
        """Start worker and sink, and wait until they are ready."""
        commands = {"worker": ("process",), "sink": ("sink",)}
        for name in names:
            self.processes.start(name, *commands[name], "--config", self.file)
        for name in names:
            wait_for(lambda name=name: self.processes.ready(name), 90)  # type: ignore[misc]

    def capture(self, file: Path, *options: str) -> None:
        """Start a capture."""
        self.processes.start("capture", "capture", str(file), "--config", self.file, *options)

    def stored(self, file: Path) -> Any:
        """What the store has of the capture's run, when it is complete."""
        edge = Edge(self.config, [str(file)])
        with store_client.connect(self.config) as client:
            results.wait_for_run(client, self.config, edge.run_id, edge.captures, 90)
            return results.all_results(client, edge.run_id, RESULTS)


def test_every_stage_may_be_asked_to_end_in_the_middle(
    day: Any, kafka_server: Broker, store_server: Store, processes: Processes
) -> None:
    """SIGTERM to capture, worker and sink within a run, then again from there: the stored rows equal `analyze`."""
    file, config, expected = day
    line = Line(processes, config, (kafka_server.bootstrap_servers, store_server.url))
    line.start("worker", "sink")
    line.capture(file, "--speed", str(SPEED))
    wait_for(lambda: page(processes.ports["capture"], "/healthz")[0] == 200)
    wait_for(lambda: total(metrics(processes.ports["worker"]), "topology_out_rows_total") > 0, 90)
    assert processes.end("capture") == EXIT_STOPPED, processes.log("capture")
    assert processes.end("worker") == 0, processes.log("worker")
    assert processes.end("sink") == 0, processes.log("sink")
    line.start("worker", "sink")
    line.capture(file)
    assert processes.running.pop("capture").wait(120) == 0
    found = line.stored(file)
    for result in RESULTS:
        assert found[result] == expected[result], result
    assert (processes.end("worker"), processes.end("sink")) == (0, 0)


def test_pages_and_logs_tell_of_a_run(
    day: Any, kafka_server: Broker, store_server: Store, processes: Processes
) -> None:
    """Counters equal what was captured, made and stored; lag is 0; neither pages nor logs name an address or a symbol."""
    file, config, expected = day
    line = Line(processes, config, (kafka_server.bootstrap_servers, store_server.url))
    line.start("worker", "sink")
    line.capture(file, "--speed", "4")
    ports = processes.ports
    wait_for(lambda: total(metrics(ports["capture"]), "capture_packets_total") > 0)
    during = metrics(ports["capture"])
    assert total(during, "published_rows_total", topic="packets") > 0
    assert total(during, "capture_watermark_timestamp_seconds") > 0
    assert processes.running.pop("capture").wait(120) == 0
    found = line.stored(file)
    wait_for(lambda: page(ports["worker"], "/healthz")[1]["parts"][0]["lag_messages"] == 0)
    wait_for(lambda: total(metrics(ports["worker"]), "lag_messages") == 0)
    worker, sink = metrics(ports["worker"]), metrics(ports["sink"])
    edge = Edge(line.config, [str(file)])
    rows = {"packets": 0, "orders": 0}
    offline = Offline(line.config, all_topologies(), edge.run_id, 1, lambda topic, rows: None)
    for made in edge:
        rows = {t: n + (len(made.rows[t]) if t in made.rows else 0) for t, n in rows.items()}
        offline.feed(made.rows, made.capture_id, made.watermark_ns, made.end_ns)
    counted = dict(offline.counters)
    assert total(worker, "read_rows_total", reader="filtering", topic="packets") == rows["packets"]
    assert total(worker, "read_rows_total", reader="latency", topic="orders") == rows["orders"]
    for topic in ("verdicts", "latency", "quotes", "feed_gaps", "arbitrage"):
        made_rows = total(worker, "topology_out_rows_total", topic=topic)
        assert made_rows == total(worker, "published_rows_total", topic=topic) >= len(expected[topic]) > 0, topic
        assert made_rows == total(sink, "sink_stored_rows_total", sink="clickhouse", table=topic), topic
    assert total(sink, "sink_stored_rows_total", sink="audit") == rows["orders"] + total(
        worker, "topology_out_rows_total", topic="verdicts"
    )
    assert (
        total(worker, "hop_delay_seconds_count", reader="books")
        == total(worker, "read_message_rows_count", reader="books")
        > 0
    )
    assert total(worker, "checkpoint_duration_seconds_count", topology="books") > 0
    assert counted and counted == {
        k: total(worker, "topology_counted_total", topology=k[0], reason=k[1]) for k in counted
    }
    assert (total(worker, "healthy"), total(worker, "ready"), total(sink, "ready")) == (1, 1, 1)
    texts = [urllib3.request("GET", f"http://127.0.0.1:{ports[p]}/metrics").data.decode() for p in ("worker", "sink")]
    assert (processes.end("worker"), processes.end("sink")) == (0, 0)
    for name in ("worker", "sink"):
        lines = [json.loads(entry) for entry in processes.log(name).splitlines()]
        assert lines and all({"ts", "level", "stage", "logger", "message"} <= set(entry) for entry in lines)
        texts.append(processes.log(name))
    symbols = {row["symbol"] for row in found["quotes"]} - {None, ""}
    assert symbols
    for text in texts:
        assert not re.search(r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b", text)
        assert not [symbol for symbol in symbols if re.search(rf"\b{re.escape(symbol)}\b", text)]


def test_a_sink_without_its_store_waits_and_goes_on(
    day: Any, kafka_server: Broker, processes: Processes, tmp_path: Path
) -> None:
    """The store goes away in the middle of a run: unready with the reason, healthy; it comes back: every row is there."""
    file, config, expected = day
    with probed():
        store = StoreServer(tmp_path / "store")
        url = store.start()
    try:
        line = Line(processes, config, (kafka_server.bootstrap_servers, url))
        line.start("worker", "sink")
        line.capture(file, "--speed", "4")
        wait_for(lambda: total(metrics(processes.ports["sink"]), "sink_stored_rows_total") > 0, 90)
        store.stop()
        port = processes.ports["sink"]
        wait_for(lambda: "clickhouse waits for the store" in page(port, "/readyz")[1].get("reasons", ()))
        assert (page(port, "/readyz")[0], page(port, "/healthz")[0]) == (503, 200)
        assert total(metrics(port), "sink_retries_total", sink="clickhouse") > 0
        assert store.start() == url
        wait_for(lambda: processes.ready("sink"))
        found = line.stored(file)
        for result in RESULTS:
            assert found[result] == expected[result], result
        assert (processes.end("worker"), processes.end("sink")) == (0, 0)
    finally:
        store.stop()
