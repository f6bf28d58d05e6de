"""How connection attempts end, against dialogues written by hand and one recorded scan."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from akbypass.config import Config, FilterRule, parse
from akbypass.processors.filtering.topology import TOPOLOGY
from akbypass.rows import Rows
from tests.processors.captures import Dissected, packets_of, tshark_of
from tests.processors.support import assert_cut_invariant, drive
from tests.processors.wire import BASE_NS, Wire, at

CLIENT, SERVER, OTHER = ("10.0.0.5", 40_000), ("10.0.0.9", 443), ("10.0.0.7", 41_000)
SECOND = 1_000


def contacts(wire: Wire, config: Config | None = None, end_ms: float | None = None) -> list[tuple[Any, ...]]:
    """(source, target port, outcome, start ms, outcome ms) of each contact, in order."""
    end_ns = None if end_ms is None else at(end_ms)
    made = drive(TOPOLOGY, config or Config(), {"packets": wire.packets()}, end_ns=end_ns)["contacts"]
    return [_short(row) for row in made.to_dicts()]


def _short(row: dict[str, Any]) -> tuple[Any, ...]:
    assert row["duration_ns"] == row["ts_capture_ns"] - row["ts_start_ns"]
    times = tuple((row[k] - BASE_NS) / 1e6 for k in ("ts_start_ns", "ts_capture_ns"))
    return (f"{row['src_ip']}:{row['src_port']}", row["dst_port"], row["outcome"], *times)


def test_a_syn_ack_establishes() -> None:
    """SYN, SYN-ACK, ACK and data are one contact, established when the SYN-ACK passes."""
    wire = Wire()
    wire.packet(0, CLIENT, SERVER, "S", seq=100)
    wire.packet(2, SERVER, CLIENT, "SA", seq=500, ack=101)
    wire.packet(3, CLIENT, SERVER, "A", seq=101, ack=501)
    wire.packet(4, CLIENT, SERVER, "PA", seq=101, ack=501, size=10)
    assert contacts(wire) == [("10.0.0.5:40000", 443, "established", 0, 2)]


def test_a_reset_refuses() -> None:
    """A RST from the other side refuses; one from the initiator itself answers nothing."""
    wire = Wire()
    wire.packet(0, CLIENT, SERVER, "S", seq=100)
    wire.packet(1, SERVER, CLIENT, "RA", ack=101)
    wire.packet(2, OTHER, SERVER, "S", seq=7)
    wire.packet(3, OTHER, SERVER, "R", seq=8)
    assert contacts(wire) == [("10.0.0.5:40000", 443, "refused", 0, 1), ("10.0.0.7:41000", 443, "open", 2, 3.000001)]


def test_silence_is_unanswered_at_its_due_time() -> None:
    """An attempt without answer ends 3,000 ms after its first SYN, whatever passes then; retransmissions do not renew it."""
    wire = Wire()
    wire.packet(0, CLIENT, SERVER, "S", seq=100)
    wire.packet(1_000, CLIENT, SERVER, "S", seq=100)
    wire.packet(3_000, SERVER, CLIENT, "SA", seq=1, ack=101)  # the due time itself is too late
    wire.packet(3_001, CLIENT, SERVER, "S", seq=100)  # still the same attempt
    made = drive(TOPOLOGY, Config(), {"packets": wire.packets()})["contacts"]
    assert [_short(r) for r in made.to_dicts()] == [("10.0.0.5:40000", 443, "unanswered", 0, 3_000)]
    assert int(made["run_ns"][0]) == at(3_000) and int(made["capture_pos"][0]) == 24  # its cause is the first SYN


def test_timers_fire_in_order_and_the_end_leaves_open() -> None:
    """Attempts come due in the order of their SYNs; what is not due when the run ends is open at its end."""
    wire = Wire()
    wire.packet(0, CLIENT, SERVER, "S", seq=1)
    wire.packet(500, OTHER, SERVER, "S", seq=1)
    wire.packet(2_000, ("10.0.0.8", 42_000), SERVER, "S", seq=1)
    assert contacts(wire, end_ms=4_000) == [
        ("10.0.0.5:40000", 443, "unanswered", 0, 3_000),
        ("10.0.0.7:41000", 443, "unanswered", 500, 3_500),
        ("10.0.0.8:42000", 443, "open", 2_000, 4_000),
    ]


def test_a_new_number_is_a_new_attempt() -> None:
    """After an outcome a SYN with another number is a new contact, from either side."""
    wire = Wire()
    wire.packet(0, CLIENT, SERVER, "S", seq=100)
    wire.packet(1, SERVER, CLIENT, "RA", ack=101)
    wire.packet(2, CLIENT, SERVER, "S", seq=100)  # a repetition
    wire.packet(3, CLIENT, SERVER, "S", seq=900)
    wire.packet(4, SERVER, CLIENT, "SA", seq=5, ack=901)
    wire.packet(5, SERVER, CLIENT, "S", seq=77)
    wire.packet(6, CLIENT, SERVER, "RA", ack=78)
    assert contacts(wire) == [
        ("10.0.0.5:40000", 443, "refused", 0, 1),
        ("10.0.0.5:40000", 443, "established", 3, 4),
        ("10.0.0.9:443", 40_000, "refused", 5, 6),
    ]


def test_an_ack_of_the_syn_proves_the_answer() -> None:
    """When the SYN-ACK was not captured an ACK of the SYN's number establishes, an unrelated ACK does not."""
    wire = Wire()
    wire.packet(0, CLIENT, SERVER, "S", seq=2**32 - 1)  # the next number wraps to 0
    wire.packet(1, SERVER, CLIENT, "A", seq=1, ack=3_000_000)
    wire.packet(2, SERVER, CLIENT, "PA", seq=1, ack=0, size=5)
    assert contacts(wire) == [("10.0.0.5:40000", 443, "established", 0, 2)]


def test_midstream_is_reported_once_and_finds_the_initiator() -> None:
    """Without a SYN the higher port counts as initiator, the receiver of a SYN-ACK, or who talks to a gateway."""
    config = parse("exchanges: [{name: X, ip_address: 10.0.0.9, ports: [50001]}]")
    wire = Wire()
    wire.packet(0, SERVER, CLIENT, "A", seq=1, ack=1)
    wire.packet(1, CLIENT, SERVER, "PA", seq=1, ack=1, size=9)
    wire.packet(2, ("10.0.0.9", 50_001), CLIENT, "A", seq=1, ack=1)  # the gateway has the higher port
    wire.packet(3, ("10.0.0.1", 60_000), ("10.0.0.2", 80), "SA", seq=1, ack=1)
    assert contacts(wire, config) == [
        ("10.0.0.5:40000", 443, "midstream", 0, 0),
        ("10.0.0.5:40000", 50_001, "midstream", 2, 2),
        ("10.0.0.2:80", 60_000, "midstream", 3, 3),
    ]


def test_a_contact_carries_the_rule_of_its_first_packet() -> None:
    """Rule and action are those of the SYN, not of the answer."""
    rules = [FilterRule.model_validate({"name": "Out", "dst_port": 443, "action": "BLOCK"})]
    wire = Wire()
    wire.packet(0, CLIENT, SERVER, "S", seq=100)
    wire.packet(1, SERVER, CLIENT, "RA", ack=101)
    wire.packet(2, CLIENT, ("10.0.0.9", 22), "S", seq=100)
    wire.packet(3, ("10.0.0.9", 22), CLIENT, "RA", ack=101)
    made = drive(TOPOLOGY, Config(rules=rules), {"packets": wire.packets()})
    assert [(r["rule"], r["action"]) for r in made["contacts"].to_dicts()] == [("Out", "BLOCK"), (None, "NONE")]
    assert [r["capture_pos"] for r in made["verdicts"].to_dicts()] == [24]


def test_the_oldest_flow_makes_room_and_says_so() -> None:
    """Above flows_max the flow with the oldest last packet goes: its attempt is open, its answer midstream later."""
    wire = Wire()
    for i in range(1_000):
        wire.packet(i / 1_000, ("10.1.0.1", 10_000 + i), SERVER, "S", seq=1)
    wire.packet(1.5, ("10.1.0.1", 10_000), SERVER, "S", seq=1)  # a repetition keeps the first flow young
    wire.packet(2, CLIENT, SERVER, "S", seq=1)  # so the second one goes
    wire.packet(3, SERVER, ("10.1.0.1", 10_000), "SA", seq=1, ack=2)
    wire.packet(4, SERVER, ("10.1.0.1", 10_001), "SA", seq=1, ack=2)
    config = parse("thresholds: {flows_max: 1000}")
    core = TOPOLOGY.make_core(config, "run", 0)
    made = core.step({"packets": wire.packets()}, at(5), False)["contacts"]
    assert [(r["src_port"], r["outcome"]) for r in made.to_dicts()] == [
        (10_001, "open"), (10_000, "established"), (10_002, "open"), (10_001, "midstream"),
    ]  # fmt: skip
    assert core.counters == {"flows_evicted": 2, "attempts_doubtful": 0}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["tcp/http.dmp.gz", "tcp/out-of-order.pcap", "tcp/reddit.pcap", "orderentry/fix.pcap"])
def test_recorded_connections(name: str, tmp_path: Path) -> None:
    """One contact a tshark stream: by its first frame, and by the first answer to a SYN within 3 s and before the end."""
    streams: dict[int, list[Dissected]] = {}
    frames = tshark_of(name, tmp_path)
    for frame in frames:
        streams.setdefault(frame.stream, []).append(frame)
    packets = packets_of(name)
    made = drive(TOPOLOGY, Config(), {"packets": packets})["contacts"]
    expected = Counter(expected_outcome(of, int(packets["run_ns"][-1])) for of in streams.values())
    assert Counter(row["outcome"] for row in made.to_dicts()) == expected


def expected_outcome(frames: list[Dissected], last_ns: int) -> str:
    """Outcome of a stream that opens at most once, from tshark's fields."""
    first = frames[0]
    if first.flags & 0x16 != 0x02:
        return "midstream"
    for frame in frames:
        if frame.ts_ns - first.ts_ns >= 3_000_000_000:
            break
        if frame.src_port != first.src_port and frame.flags & 0x16 in (0x12, 0x04, 0x14):
            return "refused" if frame.flags & 0x04 else "established"
    return "open" if last_ns - first.ts_ns < 3_000_000_000 else "unanswered"


def _mixed() -> Rows:
    """Attempts of every fate with retransmissions, equal times, eviction pressure and other protocols between."""
    wire = Wire()
    for i in range(300):
        ms, port = 40.0 * (i // 3), 20_000 + i
        source, target = ("10.2.0.1", port), ("10.2.1.1", 80 + i % 5)
        wire.packet(ms, source, target, "S", seq=i)
        if i % 4 == 0:
            wire.packet(ms, target, source, "SA", seq=9, ack=i + 1)
        if i % 4 == 1:
            wire.packet(ms, target, source, "RA", ack=i + 1)
        if i % 7 == 0:
            wire.packet(ms, source, target, protocol=17)
        if i % 5 == 0:
            wire.packet(ms, source, target, "S", seq=i + (i % 2))
    return wire.packets()


def test_cuts_and_checkpoints_change_nothing() -> None:
    """Rows per step and restarts from a snapshot do not change one verdict or contact."""
    config = parse("rules: [{name: web, dst_port: 80, action: ALERT}]\nthresholds: {syn_timeout_ms: 900}")
    made = assert_cut_invariant(TOPOLOGY, config, {"packets": _mixed()})
    assert {r["outcome"] for r in made["contacts"].to_dicts()} == {"established", "refused", "unanswered", "open"}
