"""Claims about live capture: dumpcap on loopback, its errors and its end. Needs dumpcap and the privilege to capture."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from akbypass.config import Config
from akbypass.errors import CaptureError, MissingError
from akbypass.producers.capture import live
from akbypass.producers.edge import Edge

PORT = 29_471


def loopback() -> str:
    """Name of the loopback interface, where dumpcap may capture; else skips, or fails under AKBYPASS_REQUIRE_SERVICES=1."""
    try:
        live.open_live("lo", "udp port 9").close()
    except MissingError as error:
        if os.environ.get("AKBYPASS_REQUIRE_SERVICES") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))
    return "lo"


def send(count: int) -> None:
    """Send datagrams over loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for i in range(count):
            sender.sendto(b"live %d" % i, ("127.0.0.1", PORT))


def test_live_capture_from_start_to_stop() -> None:
    """Frames that pass the filter become packets rows with the kernel's clock; stop() ends the capture in order."""
    edge = Edge(Config(), [], interface=loopback(), capture_filter=f"udp port {PORT}", decoders=lambda c, t: [])
    packets, clocks, last = 0, [], None
    before_ns = time.time_ns()
    for number, last in enumerate(edge):
        if number == 0:
            send(25)
        if "packets" in last.rows:
            packets += len(last.rows["packets"])
            assert set(last.rows["packets"]["dst_port"].tolist()) == {PORT}
            assert before_ns <= int(last.rows["packets"]["ts_capture_ns"][0]) <= time.time_ns()
        if "captures" in last.rows:
            clocks += last.rows["captures"]["clock_source"].tolist()
        if packets >= 25:
            edge.stop()
    assert packets == 25
    assert last is not None
    assert last.end_ns == last.watermark_ns + 1
    assert clocks and set(clocks) == {b"kernel"}
    assert edge.problems == []
    assert edge.totals()["dropped_kernel"] == 0


def test_a_silent_capture_still_moves_its_watermark() -> None:
    """While nothing arrives, the watermark follows the clock."""
    edge = Edge(
        Config(),
        [],
        interface=loopback(),
        capture_filter="udp port 9",
        decoders=lambda c, t: [],
        now_ns=lambda: 5_000_000_000,
    )
    for batch in edge:
        assert (batch.rows, batch.watermark_ns) == ({}, 4_000_000_000)
        break


def test_interface_that_does_not_exist() -> None:
    """An unknown interface is named, with those that exist."""
    loopback()
    with pytest.raises(MissingError, match=r"nosuch0: expected one of the interfaces .*lo"):
        live.open_live("nosuch0")


def test_filter_that_is_wrong() -> None:
    """A wrong filter is shown."""
    with pytest.raises(CaptureError, match=r"expected a capture filter in BPF syntax, found 'bad \('"):
        live.open_live(loopback(), "bad (")


def test_without_dumpcap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An absent dumpcap says which package has it; one that may not be run says how to get the right."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="wireshark-common"):
        live.open_live("lo")
    (tmp_path / "dumpcap").write_text("")
    with pytest.raises(MissingError, match="usermod -aG wireshark"):
        live.open_live("lo")


@pytest.mark.parametrize(
    ("words", "kind", "says"),
    [
        ('dumpcap: You do not have permission to capture on device "lo".', MissingError, "run as root"),
        ("dumpcap: cap_set_proc() fail return: Operation not permitted", MissingError, "setcap"),
        ('dumpcap: There is no device named "x".', MissingError, "one of the interfaces"),
        ('dumpcap: Invalid capture filter "x" for interface', CaptureError, "BPF syntax"),
        ("dumpcap: The moon is full", CaptureError, "The moon is full"),
    ],
)
def test_what_dumpcap_says(words: str, kind: type[Exception], says: str) -> None:
    """dumpcap's complaints become errors that say what to do."""
    found = live.failure("x", "f", f"Capturing on 'x'\n{words}\nmore", CaptureError("empty"))
    assert type(found) is kind
    assert says in str(found)


def test_kernel_drops_of_the_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drops that dumpcap tells only when it ends are counted, and its unasked end is a problem."""
    fake = tmp_path / "dumpcap"
    fake.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "from tests.producers.capture import writer as w\n"
        "frame = w.ethernet(w.ipv4(w.udp(b'x')))\n"
        "sys.stdout.buffer.write(w.section() + w.interface() + w.packet(10**15, frame) + w.statistics(0, 2))\n"
        "print(\"Packets received/dropped on interface 'x': 9/7 (pcap:5/dumpcap:2/flushed:0/ps_ifdrop:0) (56%)\", file=sys.stderr)\n"
        "print('dumpcap: The interface went down', file=sys.stderr)\n"
        "sys.exit(2)\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    edge = Edge(Config(), [], interface="x", decoders=lambda c, t: [])
    rows = [b.rows["captures"] for b in edge if "captures" in b.rows]
    assert edge.totals()["dropped_kernel"] == 7
    assert sum(int(r["dropped_kernel"].sum()) for r in rows) == 7
    assert [p.reason for p in edge.problems] == ["capture_tool"]
    assert "The interface went down" in edge.problems[0].detail


CHILD = """
import sys
from akbypass.config import Config
from akbypass.producers.edge import Edge
edge = Edge(Config(), [], interface="lo", capture_filter="udp port {port}", decoders=lambda c, t: [])
packets = 0
for batch in edge:
    packets += len(batch.rows.get("packets", ()))
    print(edge._lanes[0].reader.source.pid, packets, batch.end_ns is not None, flush=True)
"""


def child() -> subprocess.Popen[str]:
    """A process that captures on loopback and prints dumpcap's pid after each batch."""
    return subprocess.Popen([sys.executable, "-c", CHILD.format(port=PORT)], stdout=subprocess.PIPE, text=True)


def test_interrupt_ends_in_order() -> None:
    """Ctrl-C once: what was captured is delivered, then the end, and no traceback."""
    loopback()
    process = child()
    assert process.stdout is not None
    process.stdout.readline()
    send(3)
    while process.stdout.readline().split()[1] != "3":
        pass
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=20)
    assert rest.splitlines()[-1].split()[1:] == ["3", "True"]
    assert process.returncode == 0


def test_dumpcap_dies_with_us() -> None:
    """A kill -9 of the capturing process ends dumpcap as well."""
    loopback()
    process = child()
    assert process.stdout is not None
    pid = int(process.stdout.readline().split()[0])
    assert "dumpcap" in Path(f"/proc/{pid}/cmdline").read_text()
    process.kill()
    process.communicate(timeout=20)
    gone = threading.Event()
    for _ in range(200):
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().split(")")[1].split()[0] == "Z":
            break
        gone.wait(0.05)
    else:
        pytest.fail(f"dumpcap {pid} outlived its parent")
