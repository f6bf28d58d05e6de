"""Sinks on a real broker and a real store: every row once, whatever is repeated, killed or poisoned."""

from __future__ import annotations

import doctest
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from akbypass import store_client, topics, transport
from akbypass.batch import Message
from akbypass.config import ClickHouse, Config, Kafka, Rejects
from akbypass.errors import ServiceError
from akbypass.rows import Rows, address_bytes
from akbypass.sinks.audit.trail import audit_target, to_trail
from akbypass.sinks.clickhouse import block
from akbypass.sinks.clickhouse import writer as module
from akbypass.sinks.clickhouse.migrate import migrate
from akbypass.sinks.clickhouse.writer import Writer, clickhouse_target
from akbypass.transport import Publisher, RunWriter
from tests.backends import Broker, Store

pytestmark = pytest.mark.services
MARCH_NS = 1_772_000_000_000_000_000
MONTH_NS = 31 * 86_400 * 10**9


@dataclass
class Place:
    """A pipeline end of its own: configuration, broker, store client."""

    config: Config
    bootstrap: str
    url: str
    client: Any

    def writer(self, **chosen: Any) -> Writer:
        """A sink of its own client."""
        return Writer(self.config, self.bootstrap, store_client.connect(self.config, self.url), **chosen)

    def ask(self, sql: str) -> Any:
        """First value of a query."""
        return self.client.query(sql).result_rows[0][0]


@pytest.fixture
def place(kafka_server: Broker, store_server: Store) -> Iterator[Place]:
    """Topics and database of one test."""
    name = f"s{secrets.token_hex(4)}"
    config = Config(kafka=Kafka(prefix=f"{name}.", partitions=4), clickhouse=ClickHouse(database=name))
    transport.declare_topics(config, kafka_server.bootstrap_servers, transport.known_topics(), [])
    with store_client.connect(config, store_server.url, database="") as client:
        assert migrate(client, name) > 0
        assert migrate(client, name) == 0
    with store_client.connect(config, store_server.url) as client:
        yield Place(config, kafka_server.bootstrap_servers, store_server.url, client)


def latency(n: int, start: int = 0) -> Rows:
    """Latency rows of four venues, half of them a month later."""
    i = np.arange(start, start + n)
    return Rows.build(
        "latency", n, run_ns=MARCH_NS + i * 1000 + (i >= 150) * MONTH_NS, capture_pos=i, value_ns=i * 10,
        id=np.array([b"%016x" % k for k in i]), venue=np.array([b"V%d" % (k % 4) for k in i]), session=b"",
    )  # fmt: skip


def running(writer: Writer, until: Callable[[], bool], timeout_s: float = 60) -> None:
    """Run a writer until a condition holds, then stop it in order."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            writer.run()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + timeout_s
    while not until() and not failures and time.monotonic() < deadline:
        time.sleep(0.1)
    held = until()
    writer.stopping = True
    thread.join(60)
    assert not failures, failures
    assert held


def test_rows_of_a_repeated_source_are_stored_once(place: Place) -> None:
    """A source that was killed says everything again with other cuts; a new sink without offsets reads all again."""
    publisher = Publisher(place.config, place.bootstrap)
    RunWriter(publisher, "r1", 0, 1).write({"latency": latency(200)}, 0, None)
    RunWriter(publisher, "r1", 0, 1).write({"latency": latency(260)}, 0, 5, ending=["latency"])
    publisher.flush()

    def complete() -> bool:
        return bool(place.ask("SELECT count() FROM run_ends") == 4)

    first = place.writer(target=clickhouse_target(place.config))
    running(first, complete)
    assert (first.rows_written, first.repeats) == (260, 200)
    assert place.ask("SELECT count() FROM latency") == 260  # without FINAL: nothing was inserted twice
    assert place.ask("SELECT sum(value_ns) FROM latency") == sum(range(260)) * 10

    target = clickhouse_target(place.config)
    renamed = type(target)("clickhouse2", target.tables, target.convert)  # another group: no committed offsets
    second = place.writer(target=renamed)
    running(second, lambda: place.ask("SELECT uniqExact(sink) FROM run_ends") == 2)
    assert second.rows_written == 0
    assert place.ask("SELECT count() FROM latency") == 260


def test_a_consumer_that_the_broker_has_shut_out_ends_the_sink(place: Place) -> None:
    """Another one takes the sink's name in its group: the first raises, so that it is started anew, and does not idle."""
    first, second = (place.writer(target=clickhouse_target(place.config)) for _ in range(2))
    failures: list[BaseException] = []

    def run() -> None:
        try:
            first.run()
        except BaseException as error:
            failures.append(error)

    publisher = Publisher(place.config, place.bootstrap)
    RunWriter(publisher, "r1", 0, 1).write({"latency": latency(8)}, 0, None)
    publisher.flush()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while place.ask("SELECT count() FROM latency") != 8 and time.monotonic() < deadline:  # until it has its partitions
        time.sleep(0.1)
    running(second, lambda: bool(failures))
    thread.join(10)
    assert isinstance(failures[0], ServiceError)
    assert "fenced" in str(failures[0])


def test_poison_goes_to_rejected_and_the_stream_goes_on(place: Place) -> None:
    """Bytes that are no message become a rejected row with topic, partition and offset."""
    publisher = Publisher(place.config, place.bootstrap)
    full = topics.full_name(place.config.kafka.prefix, "latency")
    publisher.send(full, 2, Message(None, b"\x00poison", [], 0))
    RunWriter(publisher, "r1", 0, 1).write({"latency": latency(8)}, 0, None)
    publisher.flush()
    writer = place.writer(target=clickhouse_target(place.config))
    running(writer, lambda: place.ask("SELECT count() FROM latency") == 8)
    found = place.client.query("SELECT topic, partition, offset, reason, hex(bytes) FROM rejected").result_rows
    assert found == [("latency", 2, 0, "not_a_batch", b"\x00poison".hex().upper())]
    assert writer.rejected == 1


def test_rows_that_the_store_refuses_are_set_aside_alone(place: Place) -> None:
    """A table that refuses some rows gets all others; each refused one is named, and a restart changes nothing."""
    place.client.command("ALTER TABLE latency ADD CONSTRAINT odd CHECK value_ns NOT IN (70, 1990, 2000)")
    publisher = Publisher(place.config, place.bootstrap)
    RunWriter(publisher, "r1", 0, 1).write({"latency": latency(260)}, 0, 5, ending=["latency"])
    publisher.flush()
    for number in range(2):
        target = clickhouse_target(place.config)
        renamed = type(target)("clickhouse", target.tables, target.convert)
        writer = place.writer(target=renamed, member=f"s{number}")
        running(writer, lambda: place.ask("SELECT count() FROM run_ends") == 4)
        assert writer.rejected == (3 if number == 0 else 0)
    assert place.ask("SELECT count() FROM latency") == 257
    assert place.ask("SELECT sum(value_ns) FROM latency") == sum(range(260)) * 10 - 70 - 1990 - 2000
    query = (
        "SELECT stage, topic, reason, toUnixTimestamp64Nano(run_ns), capture_pos, message_run, message_rows, "
        "JSONExtractInt(toString(bytes), 'value_ns'), position(detail, 'VIOLATED_CONSTRAINT') > 0 FROM rejected FINAL ORDER BY run_ns"
    )
    wanted = [latency(260)["run_ns"][i] for i in (7, 199, 200)]
    assert place.client.query(query).result_rows == [
        ("clickhouse", "latency", "store_refused", run_ns, i, "r1", 1, i * 10, 1)
        for run_ns, i in zip(wanted, (7, 199, 200), strict=True)
    ]


def test_a_table_that_refuses_too_many_rows_ends_the_sink(place: Place) -> None:
    """When more rows are refused than may be set aside, the sink ends and nothing is committed past them."""
    place.client.command("ALTER TABLE latency ADD CONSTRAINT none CHECK value_ns < 0")
    publisher = Publisher(place.config, place.bootstrap)
    RunWriter(publisher, "r1", 0, 1).write({"latency": latency(120)}, 0, None)
    publisher.flush()
    few = place.config.model_copy(update={"rejects": Rejects(store_rows_max=5)})
    client = store_client.connect(place.config, place.url)
    with pytest.raises(ServiceError, match="nothing is committed past it"):
        Writer(few, place.bootstrap, client, clickhouse_target(place.config)).run()
    assert place.ask("SELECT count() FROM latency") == 0
    assert place.ask("SELECT count() FROM rejected") == 5


def test_copies_in_all_partitions_are_stored_once(place: Place) -> None:
    """captures rows go to every partition; the store has each once."""
    publisher = Publisher(place.config, place.bootstrap)
    rows = Rows.build("captures", 3, run_ns=MARCH_NS + np.arange(3), id=np.array([b"a", b"b", b"c"]), source=["x"] * 3)
    RunWriter(publisher, "r1", 0, 1).write({"captures": rows}, 0, 9, ending=["captures"])
    publisher.flush()
    running(
        place.writer(target=clickhouse_target(place.config)), lambda: place.ask("SELECT count() FROM run_ends") == 1
    )
    assert place.ask("SELECT count() FROM captures") == 3


def test_revisions_replace_each_other(place: Place) -> None:
    """A gap that is opened and later settled counts once, as settled."""
    publisher, writer = Publisher(place.config, place.bootstrap), None
    for revision, fate in enumerate(("open", "lost")):
        rows = Rows.build(
            "feed_gaps", 1, run_ns=MARCH_NS + revision, id=b"g", revision=revision, feed=b"F", line=b"A",
            fate=Rows.empty("feed_gaps").schema.code("fate", fate),
        )  # fmt: skip
        RunWriter(publisher, "r1", 0, 1).write({"feed_gaps": rows}, 0, None)
    publisher.flush()
    writer = place.writer(target=clickhouse_target(place.config))
    running(writer, lambda: place.ask("SELECT count() FROM feed_gaps") >= 1 and writer.rows_written == 2)
    assert place.client.query("SELECT id, fate FROM feed_gaps FINAL").result_rows == [("g", "lost")]


def test_what_retention_took_from_a_sink_is_in_the_ledger(place: Place) -> None:
    """Messages deleted between two runs of a sink are counted exactly; the rows behind them are stored."""
    publisher, target = Publisher(place.config, place.bootstrap), clickhouse_target(place.config)
    source = RunWriter(publisher, "r1", 0, 1)
    one_venue = latency(60).with_columns(venue=np.full(60, b"V0"))  # one partition
    partition = topics.partition_of(b"V0", place.config.kafka.partitions)
    source.write({"latency": one_venue.take(slice(0, 10))}, 0, None)
    publisher.flush()
    running(place.writer(target=target), lambda: place.ask("SELECT count() FROM latency") == 10)
    for start in range(10, 60, 10):
        source.write({"latency": one_venue.take(slice(start, start + 10))}, 0, None)
    publisher.flush()
    full = topics.full_name(place.config.kafka.prefix, "latency")
    admin = AdminClient({"bootstrap.servers": place.bootstrap})
    for future in admin.delete_records([TopicPartition(full, partition, 4)]).values():
        future.result(20)  # the first message is stored, three are taken
    running(place.writer(target=target), lambda: place.ask("SELECT count() FROM latency") == 30)
    lost = place.client.query("SELECT stage, topic, number, messages_lost FROM ledger FINAL").result_rows
    assert lost == [("sink.clickhouse", "latency", partition, 3)]


def test_audit_trail_has_orders_and_verdicts(place: Place) -> None:
    """The trail has a line per order message and per verdict, with time, addresses, protocol, action, rule, order."""
    kinds = Rows.empty("orders").schema
    order = Rows.build(
        "orders", 1, run_ns=MARCH_NS, session=b"XNAS/C/V", kind=kinds.code("kind", "new"), cl_ord_id=b"ord1", protocol=b"FIX.4.2",
        src_ip=np.frombuffer(address_bytes("10.0.0.1"), "V16"), dst_ip=np.frombuffer(address_bytes("198.51.100.10"), "V16"),
        ts_capture_ns=MARCH_NS, dst_port=np.array([4001]), price_nanos=np.array([10_500_000_000]),
    )  # fmt: skip
    verdict = Rows.build(
        "verdicts", 1, run_ns=MARCH_NS + 1, id=b"v1", rule=b"Block", action=4, protocol=np.array([6]), rule_version=b"x"
    )  # fmt: skip
    publisher = Publisher(place.config, place.bootstrap)
    RunWriter(publisher, "r1", 0, 1).write({"orders": order, "verdicts": verdict}, 0, None)
    publisher.flush()
    running(place.writer(target=audit_target()), lambda: place.ask("SELECT count() FROM audit") == 2)
    sql = "SELECT record, toString(dst_ip), dst_port, protocol, action, rule, cl_ord_id, price_nanos FROM audit ORDER BY run_ns"
    assert place.client.query(sql).result_rows == [
        ("order", "::ffff:198.51.100.10", 4001, "FIX.4.2", "new", None, "ord1", 10_500_000_000),
        ("verdict", "::", 0, "TCP", "BLOCK", "Block", None, None),
    ]
    assert to_trail("orders", order, "r1")["id"] != to_trail("orders", order, "r2")["id"]


class Failing:
    """A client whose every insert raises."""

    def __init__(self, error: Exception) -> None:
        self.error, self.tries = error, 0

    def insert_arrow(self, *_: Any, **__: Any) -> None:
        """Fail."""
        self.tries += 1
        raise self.error


def flushing(client: Failing) -> Writer:
    """A writer with three rows to insert; it has no broker, and needs none before the commit."""
    writer = Writer(Config(), "127.0.0.1:1", client, clickhouse_target(Config()))
    writer.consumer.close()
    writer._buffer("latency", latency(3), None, block.Place("r", "latency", 0, 0, 0))
    writer._next["latency", 0] = 3
    return writer


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (TypeError("a fault of ours"), TypeError),
        (pa.ArrowInvalid("a fault of ours"), pa.ArrowInvalid),
        (DatabaseError("Received ClickHouse exception, code: 16, server response: Code: 16. no such column"), ServiceError),
        (OperationalError("Code: 60. DB::Exception: no such table"), ServiceError),
    ],
    ids=["type", "arrow", "column", "table"],
)  # fmt: skip
def test_what_cannot_pass_is_not_tried_again(error: Exception, raised: type[Exception]) -> None:
    """A fault of ours ends the sink at the first try, a refusal of the store when it takes not even a block of no rows."""
    client = Failing(error)
    with pytest.raises(raised, match=str(error)[-12:]):
        flushing(client).flush()
    assert client.tries == (2 if raised is ServiceError else 1)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError("no one there"),
        OperationalError("Error: connection refused"),
        DatabaseError("Received ClickHouse exception, code: 241, server response: Code: 241. memory"),
        DatabaseError("Code: 243. DB::Exception: Cannot reserve 1.00 MiB, not enough space. (NOT_ENOUGH_SPACE)"),
        DatabaseError("Code: 1001. std::filesystem error: cannot create directory: No space left on device"),
    ],
    ids=["connection", "driver", "memory", "reserve", "directory"],
)
def test_stopping_ends_the_wait_for_the_store(error: Exception) -> None:
    """A store that is absent, busy or full is tried again until the sink is stopped, which says what was not written."""
    client = Failing(error)
    writer = flushing(client)

    def stop() -> None:
        while client.tries < 2:
            time.sleep(0.01)
        writer.stopping = True

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    with pytest.raises(ServiceError, match="could not write 3 rows of latency, nothing is committed past it"):
        writer.flush()
    thread.join()
    assert 2 <= client.tries <= 4


def test_waiting_for_company_has_a_bound() -> None:
    """An insert that took minutes, as after the store was away, does not make the next rows wait for minutes."""
    tried = doctest.testmod(module)
    assert tried.attempted > 0
    assert tried.failed == 0
