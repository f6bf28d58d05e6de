"""Several capture processes of one run: merged as one, with one that falls silent and comes back, and replays of that."""

from __future__ import annotations

import secrets
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from akbypass import config as configuration
from akbypass import processors, recorded, rerun, results, store_client, topics
from akbypass.config import Silence
from akbypass.local.stack import Places, Stack
from akbypass.offline import RESULTS, Offline
from akbypass.producers.edge import Edge, Group
from akbypass.producers.publish import publish
from akbypass.producers.simulator import simulate
from akbypass.rejected import ID
from akbypass.rows import Rows
from akbypass.transport import Publisher
from tests.backends import Broker, Store
from tests.integration.replaying import offline_rows, replayed
from tests.support import ROOT

pytestmark = pytest.mark.services
FROM_TOPOLOGIES = tuple(name for name in RESULTS if name not in ("captures", "rejected"))
BATCHES = 44  # of the capture that goes on
STOPS_AFTER, RESUMES_AT = 4, 34  # batches of the silent one, and of the other when it comes back
BATCH_S = 0.3
UDP = 17


def split_by_protocol(day: Path, out: Path) -> list[str]:
    """Two captures of one day as two taps would see it: market data on UDP, everything else."""
    content, at = day.read_bytes(), 24
    parts = [bytearray(content[:24]), bytearray(content[:24])]
    while at < len(content):
        (captured,) = struct.unpack_from("<I", content, at + 8)
        is_udp = content[at + 16 + 12 : at + 16 + 14] == b"\x08\x00" and content[at + 16 + 23] == UDP
        parts[0 if is_udp else 1] += content[at : at + 16 + captured]
        at += 16 + captured
    paths = [out / "udp.pcap", out / "other.pcap"]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(part)
    return [str(path) for path in paths]


class Line:
    """Two captures of a simulated day, and a pipeline of one's own for them."""

    def __init__(self, out: Path, servers: tuple[str, str], seed: int) -> None:
        day = simulate(out / "day", seed=seed, seconds=4)
        loaded, name = configuration.load(day.config), f"g{secrets.token_hex(4)}"
        kafka = loaded.kafka.model_copy(update={"bootstrap_servers": servers[0], "prefix": f"{name}."})
        store = loaded.clickhouse.model_copy(update={"url": servers[1], "database": name})
        silence = Silence(after_s=1.5, end_after_s=60)
        self.config = loaded.model_copy(update={"kafka": kafka, "clickhouse": store, "silence": silence})
        self.bootstrap, self.group = servers[0], name
        self.places, self.files = Places(out / "home"), split_by_protocol(day.capture, out)
        self.places.home.mkdir()
        self.file = self.places.home / "config.yaml"
        self.file.write_text(configuration.dump(self.config))

    def edge(self, member: int, **chosen: Any) -> Edge:
        """One member of the group."""
        return Edge(self.config, [self.files[member]], group=Group(self.group, member, 2), **chosen)

    def batches(self, member: int, count: int) -> int:
        """Frames in a batch, for so many batches."""
        edge = Edge(self.config, [self.files[member]], topics=[])
        for _ in edge:
            pass
        return max(1, edge.totals()["packets"] // count)

    def analyzed(self) -> dict[str, list[dict[str, Any]]]:
        """What the cores give when both captures are merged without a broker."""
        collected: dict[str, list[Rows]] = {}
        run_id = self.edge(0).run_id
        run = Offline(
            self.config, processors.all_topologies(), run_id, 2,
            lambda topic, rows: collected.setdefault(topics.row_type(topic), []).append(rows),
        )  # fmt: skip
        for member in (1, 0):
            for made in self.edge(member):
                run.feed(made.rows, made.capture_id, made.watermark_ns, made.end_ns)
        return {name: offline_rows(name, collected.get(name, [])) for name in RESULTS}

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """Start one command."""
        command = [sys.executable, "-m", "akbypass.cli", *arguments, "--config", str(self.file)]
        return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def own(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without the accounts that captures state themselves."""
    return [row for row in rows if row.get("stage") != "capture"]


def nameless(rows: list[dict[str, Any]]) -> list[str]:
    """What rows say beside ids, which name the run."""
    said = [{k: v for k, v in row.items() if k != "evidence" and not ID.fullmatch(str(v))} for row in own(rows)]
    return sorted(repr(row) for row in said)


@pytest.fixture
def line(kafka_server: Broker, store_server: Store, tmp_path: Path) -> Line:
    """A line of its own."""
    return Line(tmp_path, (kafka_server.bootstrap_servers, store_server.url), 23)


def test_two_processes_capture_one_run(line: Line) -> None:
    """`capture --group` in two processes gives what both captures give when they are merged in one."""
    members = [
        line.command("capture", file, "--group", line.group, "--member", str(i), "--of", "2")
        for i, file in enumerate(line.files)
    ]
    with Stack(line.places, line.config, str(line.file)), store_client.connect(line.config) as client:
        for member in members:
            said, _ = member.communicate(timeout=120)
            assert member.returncode == 0, said
        run_id = line.edge(0).run_id
        results.wait_for_run(client, line.config, run_id, 2, 90)
        found = results.all_results(client, run_id, RESULTS)
        assert client.query("SELECT count() FROM control").result_rows == [(0,)]
    assert found == line.analyzed()
    assert {row["capture_id"] for row in found["captures"]} == {0, 1}


def test_members_of_a_group_are_named_whole(line: Line) -> None:
    """Half a group, and several files for one member, are refused with what is expected."""
    for arguments, expected in (
        (["--group", "g", "--member", "0"], "expected --group, --member and --of together"),
        (["--group", "g", "--member", "2", "--of", "2"], "a member below 2, found 2"),
    ):
        done = line.command("capture", line.files[0], *arguments)
        said, _ = done.communicate(timeout=60)
        assert (done.returncode, expected in said) == (2, True), said
    done = line.command("capture", *line.files, "--group", "g", "--member", "0", "--of", "2")
    said, _ = done.communicate(timeout=60)
    assert (done.returncode, "expected one capture for a member of a group, found 2 files" in said) == (2, True), said


def capture_with_silence(line: Line) -> None:
    """Publish both members at once; the second one hangs for a while in the middle of its run."""
    resume, failures = threading.Event(), list[BaseException]()
    counts = [0, 0]

    def between(member: int) -> None:
        counts[member] += 1
        if member == 0:
            threading.Event().wait(BATCH_S)
            if counts[0] == RESUMES_AT:
                resume.set()
        elif counts[1] == STOPS_AFTER:
            assert resume.wait(120)

    def run(member: int) -> None:
        try:
            edge = line.edge(member, frames_max=line.batches(member, BATCHES if member == 0 else 20))
            publish(edge, Publisher(line.config, line.bootstrap), lambda: between(member))
        except BaseException as error:
            failures.append(error)
            resume.set()

    threads = [threading.Thread(target=run, args=(member,)) for member in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def test_a_silent_point_and_replays_of_the_log(line: Line) -> None:
    """A capture hangs: the others go on, what it brings is late, and any replay of the recorded log gives the same rows."""
    with Stack(line.places, line.config, str(line.file)) as stack, store_client.connect(line.config) as client:
        capture_with_silence(line)
        run_id = line.edge(0).run_id
        results.wait_for_run(client, line.config, run_id, 2, 120)
        found = results.all_results(client, run_id, RESULTS)
        control = client.query("SELECT kind, capture_id FROM control FINAL ORDER BY run_ns, sub").result_rows
        late = client.query(
            "SELECT stage, topic, toInt64(sum(message_rows)) FROM rejected FINAL WHERE reason = 'late' AND message_run = {r:String} "
            "GROUP BY stage, topic ORDER BY stage, topic", parameters={"r": run_id},
        ).result_rows  # fmt: skip
        balance = line.command("reconcile", run_id)
        said, _ = balance.communicate(timeout=120)
        assert balance.returncode == 0, said
        again = line.command("rejected", "replay", run_id)
        said, _ = again.communicate(timeout=120)
        assert again.returncode == 0, said
        results.wait_for_run(client, line.config, rerun.new_run_id(run_id, ""), 2, 120)
        with_late = results.all_results(client, rerun.new_run_id(run_id, ""), RESULTS)
        assert results.all_results(client, run_id, RESULTS) == found
        balance = line.command("reconcile", rerun.new_run_id(run_id, ""))
        said, _ = balance.communicate(timeout=120)
        assert balance.returncode == 0, said
        assert stack.endpoints.restarts == {}
    assert control[0] == ("point_silent", 1)
    assert control[-1] == ("point_back", 1)
    assert {kind for kind, _ in control} == {"point_silent", "point_late", "point_back"}
    whole = line.analyzed()
    assert all(n > 0 for _, _, n in late)
    assert {topic for _, topic, _ in late} >= {"packets", "orders"}
    assert any(found[name] != whole[name] for name in FROM_TOPOLOGIES)

    for name in FROM_TOPOLOGIES:
        assert nameless(with_late[name]) == nameless(whole[name]), name

    names = (*topics.CAPTURE_TOPICS, "control")
    log = list(recorded.of_run(line.config, line.bootstrap, run_id, names))
    assert any(message.spoken for message in log)
    for seed, rows_max in ((1, 7), (2, 100), (3, 4_096)):
        again = replayed(line.config, log, seed, rows_max)
        for name in FROM_TOPOLOGIES:
            assert again[name] == own(found[name]), (name, seed)
    mended = replayed(line.config, [message for message in log if not message.spoken], 4, 500)
    for name in FROM_TOPOLOGIES:
        assert mended[name] == own(whole[name]), name
