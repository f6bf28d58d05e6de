"""What a capture tells metrics and health: its counters as they grow, no stand-still while it waits for its time."""

from __future__ import annotations

from pathlib import Path

from akbypass.config import Config
from akbypass.producers.edge import Edge
from akbypass.producers.watch import CaptureWatch
from akbypass.telemetry.metrics import REGISTRY
from tests.producers.capture import writer as w

T = 1_700_000_000 * 10**9


def counted(name: str, **labels: str) -> float:
    """One counter."""
    return REGISTRY.get_sample_value(f"akbypass_capture_{name}", labels) or 0.0


def test_counters_grow_by_what_was_read(tmp_path: Path) -> None:
    """Two captures one after the other: packets, bytes, drops by reason with whether they were intended, the watermark."""
    good, arp, short = w.ethernet(w.ipv4(w.udp(b"good"))), w.ethernet(bytes(28), 0x0806), w.ethernet(b"\x45")
    file = tmp_path / "file"
    file.write_bytes(w.pcap([(T + i * 1_000, frame) for i, frame in enumerate([good, good, arp, short])]))
    names = {"packets_total": 4, "bytes_total": 2 * len(good) + len(arp) + len(short)}
    before = {name: counted(name) for name in names}
    not_ip = counted("dropped_packets_total", reason="not_ip", intended="yes")
    malformed = counted("dropped_packets_total", reason="malformed", intended="no")
    for salt in ("a", "b"):
        edge = Edge(Config(), [str(file)], frames_max=1, salt=salt)
        watch = CaptureWatch(edge)
        for _ in edge:
            watch.update()
        watch.tell()
        watch.tell()  # nothing has grown since
    assert {name: counted(name) - before[name] for name in names} == {name: 2 * n for name, n in names.items()}
    assert counted("dropped_packets_total", reason="not_ip", intended="yes") - not_ip == 2
    assert counted("dropped_packets_total", reason="malformed", intended="no") - malformed == 2
    assert counted("watermark_timestamp_seconds") == (T + 3_000) / 1e9


def test_a_replay_that_waits_does_not_stand_still(tmp_path: Path) -> None:
    """Time in which nothing is due does not count; time in which a batch is due does."""
    file = tmp_path / "file"
    file.write_bytes(w.pcap([(T, w.ethernet(w.ipv4(w.udp(b"good"))))]))
    edge = Edge(Config(), [str(file)])
    now_s = 1_000.0
    watch = CaptureWatch(edge, monotonic=lambda: now_s)
    now_s += 50
    assert watch.stalled_s() == 50
    edge.is_waiting = True
    now_s += 50
    assert watch.stalled_s() == 0
    edge.is_waiting = False
    now_s += 5
    assert watch.stalled_s() == 5
