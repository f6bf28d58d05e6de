"""What a process says of itself: health, lag, pages, logs, metrics and signals, without broker or store."""

from __future__ import annotations

import doctest
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from akbypass.errors import EXIT_FORCED, ServiceError
from akbypass.sinks.clickhouse.watch import SinkWatch
from akbypass.telemetry import logs, metrics, reference
from akbypass.telemetry.health import Health, Part
from akbypass.telemetry.probes import Probe
from akbypass.telemetry.readers import Reader
from akbypass.telemetry.server import CONNECTIONS_MAX, TelemetryServer
from tests.support import ROOT

SECOND_NS = 1_000_000_000
LABELS = {
    "stage", "version", "dependency", "level", "topic", "reason", "intended", "reader", "topology", "sink", "table", "part",
}  # fmt: skip


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """Now (s)."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """A clock at 100 s."""
    return Clock()


def part_of(clock: Clock, behind: int | None) -> tuple[Part, Health]:
    """A ready part before which messages lie, in a process that is patient for 10 s."""
    health = Health(stalled_s=10)
    health.begun = True
    part = Part("books", clock)
    part.ready = True
    health.parts.append(part)
    part.lies_before(behind)
    return part, health


# -- health ------------------------------------------------------------------------------------------------------------


def test_a_part_that_stands_still_before_messages_is_unhealthy(clock: Clock) -> None:
    """With lag it is healthy for 10 s after its last move and not longer; a move makes it healthy again."""
    part, health = part_of(clock, 5)
    clock.now_s += 9
    assert health.report()["healthy"]
    clock.now_s += 1
    report = health.report()
    assert (report["healthy"], report["ready"]) == (False, True)
    assert report["reasons"] == ["books has not moved for 10 s"]
    part.moved()
    assert health.report()["healthy"]


def test_a_part_with_nothing_to_read_is_healthy_for_ever(clock: Clock) -> None:
    """Lag 0 is healthy; patience begins when lag is first seen, not with the last message before the silence."""
    part, health = part_of(clock, 0)
    clock.now_s += 1_000
    assert health.report()["healthy"]
    part.lies_before(1)
    clock.now_s += 9
    assert health.report()["healthy"]
    clock.now_s += 2
    assert not health.report()["healthy"]


def test_waiting_for_a_store_is_unready_and_no_reason_to_restart(clock: Clock) -> None:
    """A part that knows whom it waits for, and one whose broker is away, is healthy and not ready."""
    part, health = part_of(clock, 5)
    part.held = "store"
    clock.now_s += 1_000
    report = health.report()
    assert (report["healthy"], report["ready"], report["reasons"]) == (True, False, ["books waits for the store"])
    part.held = ""
    clock.now_s += 1_000
    assert not health.report()["healthy"]
    health.dependencies["broker"] = lambda: False
    report = health.report()
    assert (report["healthy"], report["ready"], report["reasons"]) == (True, False, ["broker does not answer"])


def test_a_part_that_never_gets_its_partitions_is_unhealthy(clock: Clock) -> None:
    """A start that hangs (no assignment, lag unknown to it) is unready at once and unhealthy after the patience."""
    health = Health(stalled_s=10)
    part = Part("books", clock)
    health.parts.append(part)
    report = health.report()
    assert (report["healthy"], report["ready"]) == (True, False)
    clock.now_s += 5
    part.lies_before(0)  # nothing is assigned, so nothing is seen before it
    clock.now_s += 6
    assert not health.report()["healthy"]


def test_what_was_taken_and_not_saved_is_unhealthy(clock: Clock) -> None:
    """A part that has read everything and then hangs shows in what it should have saved; waiting for a store does not."""
    part, health = part_of(clock, 0)

    class Late(Part):
        def overdue_s(self) -> float:
            """As late as the patience."""
            return 10

    late = Late("clickhouse", clock)
    late.ready = True
    late.lies_before(0)
    health.parts.append(late)
    assert health.report()["reasons"] == ["clickhouse is 10 s late with saving"]
    late.held = "store"
    assert health.report()["healthy"]
    assert part.overdue_s() == 0


def test_a_process_that_has_not_begun_is_not_ready() -> None:
    """Between the first page and the first part nobody should send anything here."""
    report = Health(stalled_s=10).report()
    assert (report["healthy"], report["ready"], report["reasons"]) == (True, False, ["starting"])


def test_a_process_that_drains_is_not_ready(clock: Clock) -> None:
    """After SIGTERM nobody should send anything here."""
    _, health = part_of(clock, 0)
    health.stopping = True
    assert health.report()["reasons"] == ["stopping"]


# -- lag ---------------------------------------------------------------------------------------------------------------


def value(name: str, **labels: str) -> float:
    """One exported value."""
    found = metrics.REGISTRY.get_sample_value(name, labels)
    assert found is not None, (name, labels)
    return found


def test_lag_in_messages_rows_and_seconds() -> None:
    """Two partitions, one behind by 3 messages of 40 rows each whose last taken was published 7 s ago."""
    reader = Reader("lagging", ["packets", "orders"])
    now_ns = time.time_ns()
    reader.assigned({("packets", 0): 10, ("packets", 1): 20, ("orders", 0): 5})
    reader.taken("packets", 0, 10, 40, now_ns - 7 * SECOND_NS)
    reader.measure({("packets", 0): (0, 14), ("packets", 1): (0, 20), ("orders", 0): (0, 5)}, now_ns)
    assert value("akbypass_lag_messages", reader="lagging", topic="packets") == 3
    assert value("akbypass_lag_rows", reader="lagging", topic="packets") == 120
    assert value("akbypass_lag_seconds", reader="lagging", topic="packets") == 7
    assert value("akbypass_lag_seconds", reader="lagging", topic="orders") == 0
    assert (reader.behind, reader.details()["lag_messages"]) == (3, 3)


def test_lag_of_seconds_begins_when_it_begins() -> None:
    """After an hour of silence a new message is seconds old, not an hour."""
    reader = Reader("silent", ["packets"])
    now_ns = time.time_ns()
    reader.assigned({("packets", 0): 0})
    reader.taken("packets", 0, 0, 1, now_ns - 3_600 * SECOND_NS)
    reader.measure({("packets", 0): (0, 1)}, now_ns - 2 * SECOND_NS)
    reader.measure({("packets", 0): (0, 2)}, now_ns)
    assert value("akbypass_lag_seconds", reader="silent", topic="packets") == 2


def test_what_retention_took_is_no_lag() -> None:
    """A partition whose every message expired before it was read has nothing left to read."""
    reader = Reader("expired", ["packets"])
    reader.assigned({("packets", 0): 0})
    reader.measure({("packets", 0): (1_000, 1_000)}, time.time_ns())
    assert reader.behind == 0


def test_an_input_that_is_held_back_counts_as_lag_and_not_as_standing_still() -> None:
    """Messages of a paused partition show in the lag; health looks at the others."""
    reader = Reader("paused", ["packets", "orders"])
    reader.assigned({("packets", 0): 0, ("orders", 0): 0})
    reader.paused = frozenset({("packets", 0)})
    reader.measure({("packets", 0): (0, 9), ("orders", 0): (0, 0)}, time.time_ns())
    assert (reader.behind, reader.details()["lag_messages"]) == (0, 9)
    assert value("akbypass_lag_messages", reader="paused", topic="packets") == 9


def test_counters_of_a_reader() -> None:
    """Rows, messages, fill and the delay of the hop."""
    reader = Reader("counting", ["packets"])
    for offset, rows in enumerate((0, 300, 4_096)):
        reader.taken("packets", 0, offset, rows, time.time_ns() - SECOND_NS // 5)
    labels = {"reader": "counting", "topic": "packets"}
    assert value("akbypass_read_rows_total", **labels) == 4_396
    assert value("akbypass_read_message_rows_count", **labels) == 3
    assert value("akbypass_read_message_rows_bucket", **labels, le="1024.0") == 2
    assert value("akbypass_hop_delay_seconds_bucket", **labels, le="0.1") == 0
    assert value("akbypass_hop_delay_seconds_bucket", **labels, le="60.0") == 3


def test_a_sink_is_late_from_its_oldest_row_on() -> None:
    """Rows that wait to be inserted make a sink late; a flush does not leave it so."""
    watch = SinkWatch("late", ["latency"])
    watch.buffered(0, 0)
    assert watch.overdue_s() == 0
    watch.buffered(3, 100)
    time.sleep(0.02)
    watch.buffered(9, 300)
    assert watch.overdue_s() >= 0.02
    assert value("akbypass_sink_buffered_rows", sink="late") == 9
    watch.flushed(time.monotonic() - 1)
    assert watch.overdue_s() == 0
    assert value("akbypass_sink_buffered_bytes", sink="late") == 0
    assert value("akbypass_sink_store_delay_seconds_sum", sink="late") >= 1


# -- pages -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(clock: Clock) -> Iterator[TelemetryServer]:
    """Pages of a process with one ready part."""
    _, health = part_of(clock, 5)
    found = TelemetryServer(health, "127.0.0.1", 0)
    yield found
    found.close()


def ask(server: TelemetryServer, path: str) -> tuple[int, bytes]:
    """Status and body of a page."""
    answer = urllib3.request("GET", server.url + path, retries=False, timeout=5)
    return answer.status, answer.data


def test_pages_say_health_readiness_and_metrics(server: TelemetryServer, clock: Clock) -> None:
    """200 while good, 503 with the reason in JSON while not, Prometheus text at /metrics, 404 elsewhere."""
    assert ask(server, "/healthz")[0] == ask(server, "/readyz")[0] == 200
    clock.now_s += 11
    status, body = ask(server, "/healthz")
    assert (status, json.loads(body)["reasons"]) == (503, ["books has not moved for 11 s"])
    assert ask(server, "/readyz")[0] == 200
    server.health.stopping = True
    assert ask(server, "/readyz")[0] == 503
    status, body = ask(server, "/metrics?x=1")
    families = {f.name: f for f in text_string_to_metric_families(body.decode())}
    assert status == 200
    assert [s.value for s in families["akbypass_healthy"].samples] == [0]
    assert "process_cpu_seconds" in families
    assert ask(server, "/")[0] == 404


def test_silent_clients_do_not_use_the_pages_up(server: TelemetryServer) -> None:
    """Connections beyond the limit are closed at once, and a place is free again when one goes."""
    address = server.server_address[:2]
    silent = [socket.create_connection(address) for _ in range(CONNECTIONS_MAX)]  # type: ignore[arg-type]
    time.sleep(0.2)
    with socket.create_connection(address) as one_more:  # type: ignore[arg-type]
        one_more.settimeout(5)
        assert one_more.recv(1) == b""
    for connection in silent:
        connection.close()
    deadline = time.monotonic() + 10
    while True:
        try:
            assert ask(server, "/healthz")[0] == 200
            break
        except urllib3.exceptions.HTTPError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_port_that_is_taken_is_named(server: TelemetryServer) -> None:
    """A second process on the same port says which one."""
    port = server.server_address[1]
    with pytest.raises(ServiceError, match=f"expected to listen on 127.0.0.1:{port}"):
        TelemetryServer(server.health, "127.0.0.1", int(port))


def test_a_probe_tells_each_change_once(caplog: pytest.LogCaptureFixture) -> None:
    """A dependency that goes away and comes back is logged twice, however often it is asked; the gauge follows."""
    answers = iter([None, OSError(), OSError(), OSError(), None])
    done: list[bool] = []

    def answer() -> None:
        try:
            found = next(answers)
        except StopIteration:
            done.append(True)
            return
        if found is not None:
            raise found

    probe = Probe("oracle", answer, every_s=0.01)
    with caplog.at_level(logging.WARNING):
        probe.start()
        deadline = time.monotonic() + 10
        while not done:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        probe.stop()
    assert [r.getMessage() for r in caplog.records] == ["the oracle does not answer", "the oracle answers again"]
    assert caplog.records[0].__dict__["reason"] == "OSError"
    assert value("akbypass_dependency_up", dependency="oracle") == 1


# -- metrics -----------------------------------------------------------------------------------------------------------


def test_the_reference_page_is_that_of_the_code() -> None:
    """docs/reference/telemetry.md is what `make docs` writes: each exported metric with kind, labels, unit, meaning."""
    assert (ROOT / "docs/reference/telemetry.md").read_text() == reference.page()


def test_what_the_guide_asks_for_exists() -> None:
    """Every metric that docs/how-to/monitor.md names is exported, with the labels that it groups by."""
    text = (ROOT / "docs/how-to/monitor.md").read_text()
    exported = {m.name: m for m in metrics.EXPORTED}
    named = re.findall(r"akbypass_\w+", text)
    assert len(named) > 10
    for name in named:
        assert re.sub(r"_(bucket|sum|count)$", "", name) in exported, name
    for labels, name in re.findall(r"by \(([\w, ]+)\) \((?:\w+\()?(akbypass_\w+)", text):
        wanted = set(labels.split(", ")) - {"le"}
        assert wanted <= set(exported[re.sub(r"_bucket$", "", name)].labels), name


def test_every_exported_metric_is_on_the_page() -> None:
    """The registry holds what the page lists and the usual process_… metrics, nothing else."""
    listed = {m.name.removesuffix("_total") for m in metrics.EXPORTED}
    found = {family.name for family in metrics.REGISTRY.collect()}
    assert {name for name in found if not name.startswith("process_")} == listed


def test_names_have_units_and_labels_carry_no_traffic() -> None:
    """Every name ends in a known unit, counters in _total, and every label is one of parts, topics, tables, reasons."""
    for metric in metrics.EXPORTED:
        assert reference.unit(metric)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert set(metric.labels) <= LABELS, metric.name
        assert metric.meaning.endswith(".")


def test_examples() -> None:
    """Examples in docstrings give what they say."""
    for module in (logs, reference):
        tried = doctest.testmod(module)
        assert tried.attempted and not tried.failed


# -- logs --------------------------------------------------------------------------------------------------------------

CHATTER = """
import logging, threading, warnings
from akbypass.telemetry import logs
logs.setup("worker")
logging.getLogger("akbypass.worker").info("run ended", extra={"run_id": "ab12", "topic": "packets", "partition": 3, "detail": "AAPL"})
logging.getLogger("akbypass.worker").debug("not said")
logging.getLogger("aiokafka.conn").warning("lost %s", "broker-1/10.1.2.3:9092 at [2001:db8::7]:9092")
logging.getLogger("aiokafka.conn").info("not said")
logging.getLogger("faust.app").error("sasl.password=hunter2 of kafka://me:hunter2@[::1]:9092 at 12:34:56")
def fail():
    raise ValueError("planted at 192.0.2.9")
thread = threading.Thread(target=fail); thread.start(); thread.join()
fail()
"""


def chatter(log_format: str) -> list[str]:
    """Lines of a process that logs and fails."""
    done = subprocess.run(
        [sys.executable, "-c", CHATTER], env={"PYTHONPATH": str(ROOT / "src"), logs.FORMAT_VARIABLE: log_format},
        capture_output=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout == b""
    return done.stderr.decode().splitlines()


def test_json_lines_have_fields_and_no_addresses() -> None:
    """Our lines, those of libraries and uncaught exceptions are JSON objects with the same fields and no secrets."""
    lines = [json.loads(line) for line in chatter("json")]
    assert lines[0].pop("ts").endswith("Z")
    assert lines[0] == {
        "level": "INFO", "stage": "worker", "logger": "akbypass.worker", "message": "run ended", "run_id": "ab12",
        "topic": "packets", "partition": 3,
    }  # fmt: skip
    assert lines[1]["message"] == "lost broker-1/<address> at [<address>]:9092"
    assert lines[2]["message"] == "sasl.password=… of kafka://…@[<address>]:9092 at 12:34:56"
    assert [line["message"] for line in lines[3:]] == ["uncaught exception"] * 2
    assert all("ValueError: planted at <address>" in line["exception"] for line in lines[3:])


def test_text_lines_say_the_same() -> None:
    """Without the option lines are text, one an event, fields behind the words."""
    lines = chatter("text")
    assert lines[0].endswith("INFO akbypass.worker run ended run_id=ab12 topic=packets partition=3")
    assert not any("hunter2" in line or "10.1.2.3" in line for line in lines)


# -- signals -----------------------------------------------------------------------------------------------------------

LIVING = """
import sys, time
from akbypass.telemetry import logs
from akbypass.telemetry.shutdown import Shutdown
logs.setup("worker")
shutdown = Shutdown(float(sys.argv[1]))
asked = []
if sys.argv[2] != "early":
    shutdown.on_stop(lambda: asked.append(1))
print("up", flush=True)
while not asked:
    time.sleep(0.01)
print("asked", flush=True)
time.sleep(0 if sys.argv[2] == "quick" else 600)
shutdown.done()
print("done", flush=True)
"""


def living(drain_s: float, story: str) -> subprocess.Popen[str]:
    """A process that is up."""
    env = {"PYTHONPATH": str(ROOT / "src"), logs.FORMAT_VARIABLE: "json"}
    child = subprocess.Popen(
        [sys.executable, "-c", LIVING, str(drain_s), story], env=env, cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None and child.stdout.readline() == "up\n"
    return child


def ended(child: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, the rest of its output, its log."""
    out, err = child.communicate(timeout=60)
    return child.returncode, out, err


def test_the_first_signal_drains() -> None:
    """SIGTERM asks, the process ends by itself with 0."""
    child = living(30, "quick")
    child.send_signal(signal.SIGTERM)
    assert ended(child) == (0, "asked\ndone\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(number: signal.Signals) -> None:
    """A process that does not end is ended by the next signal with its own code, and says so in its log."""
    child = living(600, "slow")
    child.send_signal(number)
    assert child.stdout is not None and child.stdout.readline() == "asked\n"
    child.send_signal(signal.SIGTERM)
    code, _, err = ended(child)
    assert code == EXIT_FORCED, err
    assert "a second signal" in json.loads(err)["message"]


def test_draining_is_bounded() -> None:
    """A process that drains for too long ends by itself with its own code."""
    child = living(0.3, "slow")
    child.send_signal(signal.SIGTERM)
    code, _, err = ended(child)
    assert code == EXIT_FORCED, err
    assert "more than 0.3 s" in json.loads(err)["message"]


def test_a_signal_before_there_is_work_just_ends() -> None:
    """Before the work has begun there is nothing to drain: 0."""
    child = living(30, "early")
    child.send_signal(signal.SIGTERM)
    assert ended(child) == (0, "", "")
