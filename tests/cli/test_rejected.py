"""`akbypass rejected` on a real broker and store: counts, filters, one record with its place."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from akbypass import config as configuration
from akbypass import recorded, rejected, rerun, store_client, topics, transport
from akbypass.config import ClickHouse, Config, Kafka
from akbypass.errors import ConfigError
from akbypass.rows import Rows
from akbypass.sinks.clickhouse.migrate import migrate
from akbypass.sinks.clickhouse.writer import Writer, clickhouse_target
from akbypass.transport import Publisher, RunWriter
from tests.backends import Broker, Store
from tests.sinks.test_writer import MARCH_NS, running
from tests.support import ROOT

POISON = b"\x00poison" + bytes(range(40))


@dataclass
class Desk:
    """A broker's topics and a database of one test, and the command line on them."""

    config: Config
    client: Any
    file: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `akbypass rejected …`."""
        command = [sys.executable, "-m", "akbypass.cli", "rejected", *arguments, "--config", str(self.file)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)

    def lines(self, *arguments: str) -> list[dict[str, Any]]:
        """Records that `rejected list --format jsonl` prints."""
        done = self.run("list", "--format", "jsonl", "--rows", "1000", *arguments)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def sink(self, wanted: int) -> None:
        """Let the sink work until the store has so many records."""
        writer = Writer(
            self.config, self.config.kafka.bootstrap_servers, store_client.connect(self.config), clickhouse_target(self.config)
        )  # fmt: skip
        query = "SELECT count() FROM rejected FINAL"
        running(writer, lambda: bool(self.client.query(query).result_rows[0][0] == wanted))


@pytest.fixture
def desk(kafka_server: Broker, store_server: Store, tmp_path: Path) -> Iterator[Desk]:
    """An empty desk."""
    name = f"l{secrets.token_hex(4)}"
    config = Config(
        kafka=Kafka(prefix=f"{name}.", partitions=4, bootstrap_servers=kafka_server.bootstrap_servers),
        clickhouse=ClickHouse(database=name, url=store_server.url),
    )
    transport.declare_topics(config, kafka_server.bootstrap_servers, transport.known_topics(), [])
    with store_client.connect(config, database="") as client:
        migrate(client, name)
    (tmp_path / "config.yaml").write_text(configuration.dump(config))
    with store_client.connect(config) as client:
        yield Desk(config, client, tmp_path / "config.yaml")


@pytest.mark.services
def test_list_and_show(desk: Desk) -> None:
    """Letters and capture rejects are counted by reason and filtered; show prints fields, place and bytes."""
    publisher = Publisher(desk.config, desk.config.kafka.bootstrap_servers)
    publisher.produce(topics.full_name(desk.config.kafka.prefix, "latency"), 2, POISON, None, [])
    captured = Rows.build(
        "rejected", 3, run_ns=MARCH_NS, capture_pos=[100, 200, 300], ts_capture_ns=MARCH_NS, stage=b"decode",
        topic=b"market_data", reason=b"message_shorter_than_type", detail=["x"] * 3, bytes=[b"abc"] * 3,
        id=[b"%016x" % i for i in range(3)],
    )  # fmt: skip
    seen = Rows.build(
        "captures", 1, run_ns=MARCH_NS, id=b"c", point=b"tap-1", source=["/data/day.pcap"], ts_start_ns=MARCH_NS
    )
    RunWriter(publisher, "run1", 0, 1).write({"rejected": captured, "captures": seen}, 0, None)
    publisher.flush()
    desk.sink(4)

    table = desk.run("list").stdout
    assert "message_shorter_than_type" in table
    assert "not_a_batch" in table
    assert len(desk.lines()) == 4
    assert [r["topic"] for r in desk.lines("--reason", "not_a_batch")] == ["latency"]
    assert len(desk.lines("--run", "run1")) == len(desk.lines("--stage", "decode")) == 3
    assert [r["stage"] for r in desk.lines("--since", "1h")] == ["clickhouse"]
    assert len(desk.lines("--until", "2026-06-01")) == 3
    assert desk.lines("--topic", "orders") == []

    letter = desk.lines("--reason", "not_a_batch")[0]
    assert (letter["partition"], letter["offset"], letter["bytes"]) == (2, 0, POISON.hex())
    shown = desk.run("show", letter["id"]).stdout
    assert f"On Kafka: latency[2]@0 of {desk.config.kafka.prefix}latency.v1; still there, {len(POISON)} bytes" in shown
    assert "0000  00 70 6f 69 73 6f 6e" in shown
    captured_one = desk.run("show", f"{1:016x}").stdout
    assert "In the capture: /data/day.pcap (capture point tap-1), the record at byte 200" in captured_one

    assert desk.run("show", "f" * 16).returncode == desk.run("show", "x").returncode == 2
    assert "expected a rejected record" in desk.run("show", "f" * 16).stderr


@pytest.mark.services
def test_replay_of_a_run_that_the_broker_has_in_part(desk: Desk) -> None:
    """Rows keep places and keys under the new run; what retention took is told, and an unknown run is no run."""
    publisher = Publisher(desk.config, desk.config.kafka.bootstrap_servers)
    writer = RunWriter(publisher, "run1", 0, 1)
    names = np.array([b"%016x" % i for i in range(6)])
    seen = [
        Rows.build(
            "captures", 3, run_ns=MARCH_NS + i, capture_pos=[0, 1, 2], source=["s"] * 3, id=names[3 * i : 3 * i + 3]
        )
        for i in range(2)
    ]
    for rows in seen:
        writer.write({"captures": rows}, 0, None)
        publisher.flush()
    full = topics.full_name(desk.config.kafka.prefix, "captures")
    with recorded.reader(desk.config, desk.config.kafka.bootstrap_servers) as consumer:
        ends = {p: consumer.get_watermark_offsets(TopicPartition(full, p), 10)[1] for p in range(4)}
    held = {p: n for p, n in ends.items() if n}
    assert set(held.values()) == {2}

    done = desk.run("replay", "run1")
    assert done.returncode == 0, done.stderr
    again = list(
        recorded.of_run(desk.config, desk.config.kafka.bootstrap_servers, rerun.new_run_id("run1", ""), ["captures"])
    )
    assert {m.partition for m in again} == set(held)
    first = [m.batch.rows for m in again if m.partition == min(held)]
    for sent, rows in zip(first, seen, strict=True):
        assert sent is not None
        assert (sent["run_ns"] == rows["run_ns"]).all()
        assert not set(sent["id"].tolist()) & set(rows["id"].tolist())

    admin = AdminClient({"bootstrap.servers": desk.config.kafka.bootstrap_servers})
    for future in admin.delete_records([TopicPartition(full, p, 1) for p in held]).values():
        future.result(30)
    done = desk.run("replay", "run1", "--as", "second")
    assert done.returncode == 9
    assert f"{3 * len(held)} of captures" in done.stderr
    assert desk.run("replay", "run2").returncode == 2


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 999_910), ("2h", 992_800), ("1970-01-12T13:46:40", 1_000_000), ("1970-01-12T14:46:40+01:00", 1_000_000)],
)
def test_times(text: str, seconds: int) -> None:
    """Ages count back from now, ISO 8601 is UTC without an offset."""
    assert rejected.parse_time(text, 10**15) == seconds * 10**9


def test_a_wrong_time_says_what_is_expected() -> None:
    """Anything else is an error with both forms."""
    with pytest.raises(ConfigError, match="expected a time as 15m or 2026-11-22T12:00, found 'noon'"):
        rejected.parse_time("noon", 0)


def test_hex_dump_has_every_byte_once() -> None:
    """Sixteen bytes a line with their offsets; read back they are the same bytes."""
    data = bytes(range(256)) + b"end"
    read = b"".join(bytes.fromhex(line[6:53]) for line in rejected.hex_dump(data))
    assert read == data
    assert [line[:4] for line in rejected.hex_dump(data)][-1] == "0100"
