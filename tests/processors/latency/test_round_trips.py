"""TCP round trips against dialogues written by hand and against tshark's on recorded captures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from akbypass.config import Config, parse, venue_text
from akbypass.processors.latency.topology import TOPOLOGY
from akbypass.producers.decoders import order_map
from akbypass.rows import Rows, address_bytes
from tests.processors.captures import Dissected, packets_of, tshark_of
from tests.processors.support import assert_cut_invariant, drive
from tests.processors.wire import Wire, at

CLIENT, SERVER = ("10.0.0.5", 40_000), ("198.51.100.10", 4_001)
SPACE = 2**32


def samples(wire: Wire, config: Config | None = None) -> list[tuple[str, str, float, float]]:
    """(kind, leg, time of the ACK in ms, delay in ms) of each sample."""
    made = drive(TOPOLOGY, config or Config(), {"packets": wire.packets()})["latency"].to_dicts()
    return [(r["kind"], r["leg"], (r["ts_capture_ns"] - at(0)) / 1e6, r["value_ns"] / 1e6) for r in made]


def shaken(client_seq: int = 100, server_seq: int = 500) -> Wire:
    """A connection whose handshake takes 4 ms to the venue and 1 ms to the client."""
    wire = Wire()
    wire.packet(0, CLIENT, SERVER, "S", seq=client_seq)
    wire.packet(4, SERVER, CLIENT, "SA", seq=server_seq, ack=client_seq + 1)
    wire.packet(5, CLIENT, SERVER, "A", seq=client_seq + 1, ack=server_seq + 1)
    return wire


SHAKEN = [("tcp_handshake", "to_venue", 4, 4), ("tcp_handshake", "to_client", 5, 1)]


def test_handshake_and_data_in_both_directions() -> None:
    """SYN→SYN-ACK and SYN-ACK→ACK are handshake legs; data, and FIN, give one sample each when acknowledged."""
    wire = shaken()
    wire.packet(10, CLIENT, SERVER, "PA", seq=101, ack=501, size=50)
    wire.packet(13, SERVER, CLIENT, "PA", seq=501, ack=151, size=20)
    wire.packet(13.5, CLIENT, SERVER, "A", seq=151, ack=521)
    wire.packet(20, CLIENT, SERVER, "FA", seq=151, ack=521)
    wire.packet(26, SERVER, CLIENT, "A", seq=521, ack=152)
    assert samples(wire) == [
        *SHAKEN,
        ("tcp_rtt", "to_venue", 13, 3),
        ("tcp_rtt", "to_client", 13.5, 0.5),
        ("tcp_rtt", "to_venue", 26, 6),
    ]


def test_one_sample_an_ack_for_the_segment_that_ends_there() -> None:
    """A cumulative ACK measures the segment that ends at its number; one that ends inside a segment measures none."""
    wire = shaken()
    for ms, seq in ((10, 101), (11, 201), (12, 301)):
        wire.packet(ms, CLIENT, SERVER, "PA", seq=seq, ack=501, size=100)
    wire.packet(15, SERVER, CLIENT, "A", seq=501, ack=301)  # ends the second
    wire.packet(16, SERVER, CLIENT, "A", seq=501, ack=350)  # half of the third
    wire.packet(17, SERVER, CLIENT, "A", seq=501, ack=350)  # nothing new
    wire.packet(18, SERVER, CLIENT, "A", seq=501, ack=401)
    assert samples(wire)[2:] == [("tcp_rtt", "to_venue", 15, 4), ("tcp_rtt", "to_venue", 18, 6)]


def test_karn_drops_what_was_sent_again() -> None:
    """No sample for an ACK that covers a repeated byte, also none for later segments behind it; then again samples."""
    wire = shaken()
    wire.packet(10, CLIENT, SERVER, "PA", seq=101, ack=501, size=100)
    wire.packet(11, CLIENT, SERVER, "PA", seq=201, ack=501, size=100)
    wire.packet(12, CLIENT, SERVER, "PA", seq=301, ack=501, size=100)
    wire.packet(30, CLIENT, SERVER, "PA", seq=201, ack=501, size=100)
    wire.packet(31, SERVER, CLIENT, "A", seq=501, ack=201)  # below the repeated bytes
    wire.packet(33, SERVER, CLIENT, "A", seq=501, ack=301)
    wire.packet(34, SERVER, CLIENT, "A", seq=501, ack=401)  # beyond them, and they are acknowledged
    core = TOPOLOGY.make_core(Config(), "run", 0)
    core.step({"packets": wire.packets()}, at(35), False)
    assert core.counters["samples_ambiguous"] == 1  # type: ignore[attr-defined]
    assert samples(wire)[2:] == [("tcp_rtt", "to_venue", 31, 21), ("tcp_rtt", "to_venue", 34, 22)]


def test_a_cumulative_ack_over_a_repeated_byte_is_ambiguous() -> None:
    """When the ACK jumps over a repeated segment no segment under it is measured, but the next new one is."""
    wire = shaken()
    wire.packet(10, CLIENT, SERVER, "PA", seq=101, ack=501, size=100)
    wire.packet(11, CLIENT, SERVER, "PA", seq=201, ack=501, size=100)
    wire.packet(30, CLIENT, SERVER, "PA", seq=101, ack=501, size=100)
    wire.packet(33, SERVER, CLIENT, "A", seq=501, ack=301)
    wire.packet(40, CLIENT, SERVER, "PA", seq=301, ack=501, size=100)
    wire.packet(42, SERVER, CLIENT, "A", seq=501, ack=401)
    assert samples(wire)[2:] == [("tcp_rtt", "to_venue", 42, 2)]


def test_a_repeated_syn_gives_no_handshake_time() -> None:
    """Karn holds for the SYN too; the other leg is still measured."""
    wire = Wire()
    wire.packet(0, CLIENT, SERVER, "S", seq=100)
    wire.packet(1_000, CLIENT, SERVER, "S", seq=100)
    wire.packet(1_004, SERVER, CLIENT, "SA", seq=500, ack=101)
    wire.packet(1_005, CLIENT, SERVER, "A", seq=101, ack=501)
    assert samples(wire) == [("tcp_handshake", "to_client", 1_005, 1)]


def test_sequence_numbers_wrap() -> None:
    """A segment over the end of the number space, and its repetition, are recognised."""
    wire = shaken(client_seq=SPACE - 51)
    wire.packet(10, CLIENT, SERVER, "PA", seq=SPACE - 50, ack=501, size=100)
    wire.packet(12, SERVER, CLIENT, "A", seq=501, ack=50)
    wire.packet(13, CLIENT, SERVER, "PA", seq=SPACE - 50, ack=501, size=100)  # repeated after its ACK: harmless
    wire.packet(14, CLIENT, SERVER, "PA", seq=50, ack=501, size=10)
    wire.packet(17, SERVER, CLIENT, "A", seq=501, ack=60)
    assert samples(wire)[2:] == [("tcp_rtt", "to_venue", 12, 2), ("tcp_rtt", "to_venue", 17, 3)]


def test_ports_used_again_begin_anew() -> None:
    """A SYN with another number forgets the connection before it; a stray second SYN-ACK does not."""
    wire = shaken()
    wire.packet(10, CLIENT, SERVER, "PA", seq=101, ack=501, size=100)
    wire.packet(20, CLIENT, SERVER, "S", seq=9_000)
    wire.packet(22, SERVER, CLIENT, "SA", seq=7_000, ack=9_001)
    wire.packet(23, CLIENT, SERVER, "A", seq=9_001, ack=7_001)
    wire.packet(24, SERVER, CLIENT, "SA", seq=3_000_000_000, ack=9_001)
    wire.packet(30, SERVER, CLIENT, "PA", seq=7_001, ack=9_001, size=5)
    wire.packet(31, CLIENT, SERVER, "A", seq=9_001, ack=7_006)
    assert samples(wire)[2:] == [
        ("tcp_handshake", "to_venue", 22, 2),
        ("tcp_handshake", "to_client", 23, 1),
        ("tcp_rtt", "to_client", 31, 1),
    ]


def test_a_full_list_skips_and_counts() -> None:
    """Of 70 outstanding segments 64 are followed; the six that are not are counted and give no sample."""
    wire = shaken()
    for i in range(70):
        wire.packet(10 + i, CLIENT, SERVER, "PA", seq=101 + i, ack=501, size=1)
    for i in range(70):
        wire.packet(100 + i, SERVER, CLIENT, "A", seq=501, ack=102 + i)
    core = TOPOLOGY.make_core(Config(), "run", 0)
    made = core.step({"packets": wire.packets()}, at(500), False)["latency"]
    assert len(made) == 2 + 64 and core.counters["segments_skipped"] == 6  # type: ignore[attr-defined]


def test_venue_session_and_doubt_of_a_sample() -> None:
    """The venue is the configured one, else the server's address: who got the SYN, else the lower port; u is the stamp's."""
    config = parse("exchanges: [{name: XNAS, ip_address: 198.51.100.10, ports: [4001]}]")
    wire = Wire()
    six = ("2001:db8:aaaa:bbbb:cccc:dddd:eeee:1", 5_000), ("2001:db8:aaaa:bbbb:cccc:dddd:eeee:2", 50_000)
    pairs = [(SERVER, CLIENT), (("10.0.0.7", 443), ("10.0.0.8", 44_444)), six]
    for i, (server, client) in enumerate(pairs):  # no handshake seen
        wire.packet(10 * i, server, client, "PA", seq=1, ack=1, size=9)
        wire.packet(10 * i + 1, client, server, "A", seq=1, ack=10)
    made = drive(TOPOLOGY, config, {"packets": wire.packets()})["latency"].to_dicts()
    assert [(r["venue"], r["session"], r["leg"]) for r in made] == [
        ("XNAS", "10.0.0.5:40000", "to_client"),
        ("10.0.0.7", "10.0.0.8:44444", "to_client"),
        (venue_text(address_bytes(six[0][0])).decode(), f"[{six[1][0]}]:50000", "to_client"),
    ]
    first = made[0]
    assert (first["u_ns"], first["n"], first["lost_n"], first["clock_source"]) == (1_000, 1, 0, "file")
    assert (first["ts_start_ns"], first["ts_capture_ns"], first["capture_pos"]) == (at(0), at(1), 124)
    assert (first["src_ip"], first["dst_port"]) == ("198.51.100.10", 40_000)  # who waited, and who answered


@pytest.mark.parametrize("address", ["198.51.100.10", "::1", "2001:db8::7", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:1"])
def test_round_trips_and_orders_name_a_venue_alike(address: str) -> None:
    """Without configuration the venue of a packet and that of an order message at one address are the same word."""
    assert venue_text(address_bytes(address)) == order_map.venue_text(address_bytes(address))


def test_evicted_flows_give_their_segments_back() -> None:
    """Above flows_max the flow silent for longest goes with its outstanding segments; memory stays bounded."""
    wire = Wire()
    for i in range(5_000):
        wire.packet(i, ("10.9.0.1", 1_024 + i), SERVER, "S", seq=1)
    config = parse("thresholds: {flows_max: 1000}")
    core = TOPOLOGY.make_core(config, "run", 0)
    core.step({"packets": wire.packets()}, at(5_000), False)
    state = core.snapshot()
    assert len(state["flows"]) == 1_000 and len(state["segments"]) <= 1_001
    assert core.counters["flows_evicted"] == 4_000  # type: ignore[attr-defined]


def reasons_of(frames: list[Dissected], missing: set[int]) -> Counter[str]:
    """Say for each ACK that tshark measures and we do not why it is ambiguous, from tshark's own numbers.

    repeated ACK: the number was acknowledged before (tshark then measures the repetition of an answered segment);
    Karn: a byte that it covers was sent twice, or behind a later byte.
    """
    sent: dict[tuple[int, int], list[tuple[int, int]]] = {}
    acked: dict[tuple[int, int], int] = {}
    why: Counter[str] = Counter()
    by_number = {f.number: f for f in frames}
    for f in frames:
        if f.flags & 0x10 and f.acks_frame is not None:
            peer = (f.stream, by_number[f.acks_frame].src_port)
            before = acked.get(peer)
            if f.number in missing:
                why[_reason(sent[peer], before, f.ack)] += 1
            if before is None or ahead(f.ack, before) > 0:
                acked[peer] = f.ack
        if f.flags & 0x10:
            for peer in [p for p in sent if p[0] == f.stream and p[1] != f.src_port]:
                if peer not in acked or ahead(f.ack, acked[peer]) > 0:
                    acked[peer] = f.ack
        size = f.length + (1 if f.flags & 3 else 0)
        if size:
            sent.setdefault((f.stream, f.src_port), []).append((f.seq, (f.seq + size) % SPACE))
    return why


def _reason(sent: list[tuple[int, int]], before: int | None, ack: int) -> str:
    if before is not None and ahead(ack, before) <= 0:
        return "repeated ACK"
    covered = [(s, e) for s, e in sent if ahead(ack, s) > 0 and (before is None or ahead(e, before) > 0)]
    disorder = any(ahead(e, s2) > 0 for i, (_, e) in enumerate(covered) for s2, _ in covered[i + 1 :])
    return "Karn" if disorder else "unexplained"


def ahead(x: int, y: int) -> int:
    """Signed distance of two sequence numbers."""
    distance = (x - y) % SPACE
    return distance - SPACE if distance >= SPACE // 2 else distance


@pytest.mark.parametrize(
    ("name", "measured", "reasons"),
    [
        ("tcp/http.dmp.gz", 591, {"repeated ACK": 1}),
        ("tcp/zwnd.dmp.gz", 8_681, {"Karn": 1}),
        ("tcp/out-of-order.pcap", 1_381, {"repeated ACK": 46, "Karn": 47}),
        ("tcp/reddit.pcap", 3_864, {"Karn": 6}),
        ("orderentry/fix.pcap", 634, {}),
        ("orderentry/boe2_useq.pcap", 166, {}),
        ("scan/synscan.pcapng", 8, {}),
    ],
)
def test_tshark_agrees(name: str, measured: int, reasons: dict[str, int], tmp_path: Path) -> None:
    """Every sample equals tshark's for that frame; each that tshark has on top is one that Karn's rule must drop.

    tshark leaves tcp.analysis.ack_rtt out where it is zero, so the delay is taken from the frame that it says is
    acknowledged, and equals ack_rtt wherever that is shown.
    """
    packets, frames = packets_of(name), tshark_of(name, tmp_path)
    sent_ns = {f.number: f.ts_ns for f in frames}
    theirs = {f.number: f.ts_ns - sent_ns[f.acks_frame] for f in frames if f.acks_frame is not None}
    assert all(theirs[f.number] == f.rtt_ns for f in frames if f.rtt_ns is not None)
    ours = numbered(drive(TOPOLOGY, Config(), {"packets": packets})["latency"], packets, frames)
    assert len(theirs) == measured
    assert {n: theirs.get(n) for n in ours} == ours
    assert dict(reasons_of(frames, set(theirs) - set(ours))) == reasons


def numbered(latency: Rows, packets: Rows, frames: list[Dissected]) -> dict[int, int]:
    """Delay (ns) by tshark's number of the acknowledging frame; the n-th TCP packet is tshark's n-th TCP frame."""
    positions = packets["capture_pos"][packets["protocol"] == 6].tolist()
    assert len(positions) == len(frames)
    number = {position: frame.number for position, frame in zip(positions, frames, strict=True)}
    rows: list[dict[str, Any]] = latency.to_dicts()
    return {number[r["capture_pos"]]: r["value_ns"] for r in rows}


def test_cuts_and_checkpoints_change_nothing() -> None:
    """Rows per step and restarts from a snapshot do not change one sample of a recorded capture with losses."""
    packets = packets_of("tcp/out-of-order.pcap").take(slice(0, 900))
    made = assert_cut_invariant(TOPOLOGY, parse("thresholds: {flows_max: 1000}"), {"packets": packets})
    assert len(made["latency"]) > 200
