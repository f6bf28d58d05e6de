"""A sink that sleeps through its session does not write what another has written meanwhile; real processes and servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from akbypass.config import Store
from akbypass.transport import Publisher, RunWriter
from tests.sinks.test_writer import Place, latency, place
from tests.support import ROOT

__all__ = ["place"]  # a fixture
pytestmark = pytest.mark.services
ROWS = 2_000
PATIENT_MS = 15_000  # longer than a session: the sleeping sink holds rows when it wakes


def start(place: Place, member: str, age_max_ms: int, home: Path) -> subprocess.Popen[bytes]:
    """Start `akbypass sink clickhouse`."""
    config = place.config.model_copy(update={"store": Store(age_max_ms=age_max_ms)})
    file = home / f"{member}.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [sys.executable, "-m", "akbypass.cli", "sink", "clickhouse", "--member", member, "--config", str(file)]
    with (home / f"{member}.log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--bootstrap-servers", place.bootstrap, "--store-url", place.url],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@pytest.mark.parametrize("successor", ["b", "a"])  # another member; the same one, started again elsewhere
def test_a_sink_that_sleeps_through_its_session_writes_nothing_twice(
    successor: str, place: Place, tmp_path: Path
) -> None:
    """Rows that it held are written once, by its successor; counted without FINAL, so by insertion and not by merging.

    A member that was fenced ends when it wakes; it does not ask for ever.
    """
    publisher = Publisher(place.config, place.bootstrap)
    writer = RunWriter(publisher, "r1", 0, 1)
    zombie = start(place, "a", PATIENT_MS, tmp_path)
    try:
        writer.write({"latency": latency(ROWS // 2)}, 0, None)
        publisher.flush()
        wait_until(lambda: place.ask("SELECT count() FROM latency") == ROWS // 2, "the first sink writes")
        writer.write({"latency": latency(ROWS // 2, ROWS // 2)}, 0, None)
        publisher.flush()
        time.sleep(3)  # it has read them and waits for company
        assert place.ask("SELECT count() FROM latency") == ROWS // 2
        os.kill(zombie.pid, signal.SIGSTOP)
        living = start(place, successor, 500, tmp_path)
        writer.write({}, 0, 5, ending=["latency"])
        publisher.flush()
        wait_until(lambda: place.ask("SELECT count() FROM run_ends") == 4, "the second sink takes over")
        assert place.ask("SELECT count() FROM latency") == ROWS
        time.sleep(max(0.0, PATIENT_MS / 1000 - 10))  # what it holds is due when it wakes
        os.kill(zombie.pid, signal.SIGCONT)
        time.sleep(8)
        if successor == "a":  # it is fenced for good; as another member it would go on with new partitions
            assert zombie.wait(60) != 0
        assert place.ask("SELECT count() FROM latency") == ROWS
        living.terminate()
        assert living.wait(60) == 0
    finally:
        zombie.kill()
    assert place.ask("SELECT count() FROM latency") == ROWS
    assert place.ask("SELECT sum(value_ns) FROM latency") == sum(range(ROWS)) * 10
