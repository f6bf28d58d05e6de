"""Claims about headers: every kind of link, option and damage, on frames of the tests' own writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from akbypass.producers.capture import layers
from akbypass.producers.capture.headers import REASONS
from tests.producers.capture import writer as w
from tests.producers.capture.support import rows_of

T = 1_700_000_000_000_000_000
DATAGRAM = w.ipv4(w.udp(b"hello"))
DATAGRAM6 = w.ipv6(w.udp(b"hello"))
TIMESTAMPS = bytes.fromhex("01 01 08 0a 80000001 00000002")


def one(tmp_path: Path, frame: bytes, link: int = 1, wire: int | None = None) -> dict[str, Any]:
    """The packets row of one frame, with its payload."""
    path = tmp_path / "one"
    path.write_bytes(w.pcap_header(link=link) + w.pcap_record(T, frame, wire=wire))
    rows, _, status, payloads = rows_of(path)
    assert status == [layers.PACKET]
    return rows.to_dicts()[0] | {"payload": payloads[0]}


def fate(tmp_path: Path, frame: bytes, link: int = 1, wire: int | None = None) -> str:
    """What became of a frame that made no packet: not_ip, link, or the reason of its rejected row."""
    path = tmp_path / "one"
    path.write_bytes(w.pcap_header(link=link) + w.pcap_record(T, frame, wire=wire))
    rows, rejected, status, _ = rows_of(path)
    assert len(rows) == 0
    if status[0] == layers.NOT_IP:
        return "not_ip"
    if status[0] == layers.LINK_UNKNOWN:
        return "link"
    row = rejected.to_dicts()[0]
    assert (row["stage"], row["topic"], row["capture_pos"], row["ts_capture_ns"]) == ("capture", "packets", 24, T)
    assert row["bytes"] == frame[:1024].hex()
    assert row["detail"].startswith("expected ")
    return str(row["reason"])


def fnv1a(payload: bytes) -> int:
    """FNV-1a as its authors write it, signed."""
    h = 0xCBF29CE484222325
    for b in payload:
        h = (h ^ b) * 0x100000001B3 % 2**64
    return h - 2**64 if h >= 2**63 else h


@pytest.mark.parametrize(
    ("link", "frame", "version"),
    [
        (1, w.ethernet(DATAGRAM), 4), (1, w.ethernet(DATAGRAM6, 0x86DD), 6),
        (113, w.cooked(DATAGRAM), 4), (113, w.cooked(DATAGRAM6, 0x86DD), 6),
        (276, w.cooked2(DATAGRAM), 4), (276, w.cooked2(DATAGRAM6, 0x86DD), 6),
        (12, DATAGRAM, 4), (14, DATAGRAM6, 6), (101, DATAGRAM, 4), (101, DATAGRAM6, 6), (228, DATAGRAM, 4), (229, DATAGRAM6, 6),
        (0, b"\2\0\0\0" + DATAGRAM, 4), (0, b"\0\0\0\2" + DATAGRAM, 4), (0, b"\x1e\0\0\0" + DATAGRAM6, 6),
        (0, b"\x18\0\0\0" + DATAGRAM6, 6), (108, b"\0\0\0\2" + DATAGRAM, 4), (108, b"\0\0\0\x1c" + DATAGRAM6, 6),
    ],
)  # fmt: skip
def test_link_types(tmp_path: Path, link: int, frame: bytes, version: int) -> None:
    """The datagram is found behind every supported link header, with either family of addresses."""
    row = one(tmp_path, frame, link)
    assert (row["ip_version"], row["src_port"], row["dst_port"], row["protocol"]) == (version, 4000, 5000, 17)
    assert (row["payload"], row["payload_length"], row["payload_captured"]) == (b"hello", 5, 5)
    assert row["payload_hash"] == fnv1a(b"hello")
    addresses = ("10.0.0.1", "10.0.0.2") if version == 4 else ("2001:db8::1", "2001:db8::2")
    assert (row["src_ip"], row["dst_ip"]) == addresses
    assert (row["ip_ttl"], row["ip_id"]) == ((61, 7) if version == 4 else (59, None))
    assert (row["run_ns"], row["capture_pos"], row["sub"], row["ts_resolution_ns"]) == (T, 24, 0, 1)
    assert (row["vlan_id"], row["tcp_seq"], row["tcp_window"], row["tcp_flags"]) == (None, None, None, 0)


def test_vlan_tags(tmp_path: Path) -> None:
    """Of stacked tags of any kind the outer two identifiers are kept, without priority bits; more are passed over."""
    single = one(tmp_path, w.ethernet(w.vlan(DATAGRAM, 100), 0x8100))
    assert (single["vlan_id"], single["vlan_inner_id"], single["payload"]) == (100, None, b"hello")
    double = one(tmp_path, w.ethernet(w.vlan(w.vlan(DATAGRAM6, 0, 0x86DD), 4094, 0x8100), 0x88A8))
    assert (double["vlan_id"], double["vlan_inner_id"], double["ip_version"]) == (4094, 0, 6)
    triple = one(tmp_path, w.ethernet(w.vlan(w.vlan(w.vlan(DATAGRAM, 3), 2, 0x8100), 1, 0x9100), 0x9100))
    assert (triple["vlan_id"], triple["vlan_inner_id"], triple["payload"]) == (1, 2, b"hello")


def _stacked(count: int) -> bytes:
    content, kind = DATAGRAM, 0x0800
    for _ in range(count):
        content, kind = w.vlan(content, 1, kind), 0x8100
    return w.ethernet(content, kind)


def test_vlan_depth_is_bounded(tmp_path: Path) -> None:
    """Eight tags are followed, nine are refused."""
    assert one(tmp_path, _stacked(8))["payload"] == b"hello"
    assert fate(tmp_path, _stacked(9)) == "vlan_depth"


def test_ethernet_padding_is_no_payload(tmp_path: Path) -> None:
    """Bytes behind the datagram's own length belong to the frame, not to the payload."""
    row = one(tmp_path, w.ethernet(w.ipv4(w.tcp(b"ab"), 6)) + bytes(6))
    assert (row["payload"], row["payload_length"], row["wire_length"]) == (b"ab", 2, 62)
    row = one(tmp_path, w.ethernet(w.ipv4(w.udp(b"abcd", length=10))))  # UDP says two bytes, IP four
    assert (row["payload"], row["payload_length"]) == (b"ab", 2)


def test_offload_has_no_total_length(tmp_path: Path) -> None:
    """A total or payload length of 0 (segmentation offload) stands for the frame's length."""
    row = one(tmp_path, w.ethernet(w.ipv4(w.tcp(b"x" * 3_000), 6, total=0)))
    assert (row["payload_length"], row["payload_captured"]) == (3_000, 3_000)
    row = one(tmp_path, w.ethernet(w.ipv6(w.tcp(b"x" * 3_000), 6, length=0), 0x86DD))
    assert (row["payload_length"], row["payload_captured"]) == (3_000, 3_000)


def test_ipv4_options(tmp_path: Path) -> None:
    """IPv4 options are stepped over."""
    row = one(tmp_path, w.ethernet(w.ipv4(w.udp(b"hello"), options=b"\x94\x04\0\0" * 10)))
    assert (row["payload"], row["src_port"]) == (b"hello", 4000)


def test_fragments(tmp_path: Path) -> None:
    """Fragments have their offset and flag; only the first has ports, and none offers its payload."""
    first = one(tmp_path, w.ethernet(w.ipv4(w.udp(b"x" * 24), flags=1)))
    assert (first["ip_fragment_offset"], first["ip_more_fragments"], first["src_port"]) == (0, True, 4000)
    assert (first["payload"], first["payload_length"], first["payload_captured"]) == (b"", 24, 0)
    assert first["payload_hash"] == fnv1a(b"")
    last = one(tmp_path, w.ethernet(w.ipv4(b"y" * 16, offset=32)))
    assert (last["ip_fragment_offset"], last["ip_more_fragments"], last["src_port"]) == (32, False, 0)
    assert (last["payload"], last["payload_length"], last["protocol"]) == (b"", 16, 17)
    tiny = one(tmp_path, w.ethernet(w.ipv4(w.tcp(b"")[:8], 6, flags=1)))  # a first fragment shorter than a TCP header
    assert (tiny["src_port"], tiny["tcp_seq"], tiny["tcp_window"]) == (4000, 1, None)


def test_ipv6_extension_headers(tmp_path: Path) -> None:
    """Hop-by-hop, routing, destination options and authentication headers lead to the transport."""
    chain = w.extension(60, w.extension(51, b"\x11\x04" + bytes(22) + w.udp(b"hello"), 2), 1)
    row = one(tmp_path, w.ethernet(w.ipv6(w.extension(43, chain), 0), 0x86DD))
    assert (row["protocol"], row["payload"], row["payload_length"]) == (17, b"hello", 5)


def test_ipv6_fragments(tmp_path: Path) -> None:
    """A fragment header gives offset and flag; one that is the whole datagram offers its payload."""
    first = one(tmp_path, w.ethernet(w.ipv6(b"\x11\0\0\x01\0\0\0\x09" + w.udp(b"x" * 8), 44), 0x86DD))
    assert (first["ip_fragment_offset"], first["ip_more_fragments"], first["src_port"], first["payload"]) == (
        0,
        True,
        4000,
        b"",
    )
    later = one(tmp_path, w.ethernet(w.ipv6(b"\x3c\0\x05\xa9\0\0\0\x09" + b"z" * 8, 44), 0x86DD))
    assert (later["ip_fragment_offset"], later["ip_more_fragments"], later["protocol"]) == (1448, True, 60)
    atomic = one(tmp_path, w.ethernet(w.ipv6(b"\x11\0\0\0\0\0\0\x09" + w.udp(b"hello"), 44), 0x86DD))
    assert (atomic["payload"], atomic["ip_more_fragments"]) == (b"hello", False)


def test_ipv6_extension_chain_is_bounded(tmp_path: Path) -> None:
    """Sixteen extension headers are followed, seventeen are refused."""
    chains = []
    for count in (16, 17):
        content = w.udp(b"hello")
        for i in range(count):
            content = w.extension(17 if i == 0 else 60, content)
        chains.append(w.ethernet(w.ipv6(content, 60), 0x86DD))
    assert one(tmp_path, chains[0])["payload"] == b"hello"
    assert fate(tmp_path, chains[1]) == "ip_extension_count"


def test_tcp_options(tmp_path: Path) -> None:
    """MSS, window scale, SACK permission, the first SACK block and timestamps are read; an acknowledgement needs its flag."""
    syn = one(
        tmp_path,
        w.ethernet(
            w.ipv4(w.tcp(b"", seq=2**32 - 1, flags=2, options=bytes.fromhex("020405b4 0402 0303 0e 00 0000")), 6)
        ),
    )
    assert (syn["tcp_mss"], syn["tcp_sack_permitted"], syn["tcp_window_scale"]) == (1460, True, 14)
    assert (syn["tcp_seq"], syn["tcp_ack"], syn["tcp_flags"], syn["tcp_ts_val"]) == (2**32 - 1, None, 2, None)
    sack = bytes.fromhex("0101 0512 ffffff00 00000010 00000020 00000030") + TIMESTAMPS
    ack = one(tmp_path, w.ethernet(w.ipv4(w.tcp(b"data", ack=2**31, options=sack), 6)))
    assert (ack["tcp_sack_left"], ack["tcp_sack_right"], ack["tcp_ts_val"], ack["tcp_ts_ecr"]) == (
        0xFFFFFF00,
        0x10,
        2**31 + 1,
        2,
    )
    assert (ack["tcp_ack"], ack["tcp_window"], ack["tcp_mss"], ack["payload"]) == (2**31, 512, None, b"data")


@pytest.mark.parametrize("options", ["02ff05b4", "08000000", "05090000", "01010108", "03030e02"])
def test_broken_tcp_options_end_the_options_only(tmp_path: Path, options: str) -> None:
    """An option of wrong length ends the options; the packet stays."""
    row = one(tmp_path, w.ethernet(w.ipv4(w.tcp(b"data", options=bytes.fromhex(options)), 6)))
    assert (row["payload"], row["tcp_mss"], row["tcp_ts_val"]) == (b"data", None, None)


def test_cut_by_the_snapshot_length(tmp_path: Path) -> None:
    """Of a frame cut anywhere behind its IP header, whatever was captured is used, and the wire lengths are known."""
    frame = w.ethernet(w.ipv4(w.tcp(b"x" * 100, options=TIMESTAMPS), 6))
    for size in range(34, len(frame) + 1):
        row = one(tmp_path, frame[:size], wire=len(frame))
        assert row["src_ip"] == "10.0.0.1"
        assert row["src_port"] == (4000 if size >= 38 else 0)
        assert row["tcp_seq"] == (1 if size >= 42 else None)
        assert row["tcp_flags"] == (0x18 if size >= 48 else 0)
        assert row["tcp_ts_val"] == (2**31 + 1 if size >= 66 else None)
        assert row["payload_captured"] == max(size - 66, 0)
        assert (row["captured_length"], row["wire_length"]) == (size, len(frame))
        if size >= 48:
            assert row["payload_length"] == 100
    row = one(tmp_path, w.ethernet(w.ipv6(w.extension(60, w.udp(b"x")), 0), 0x86DD)[:56], wire=71)
    assert (row["protocol"], row["src_port"]) == (0, 0)


def test_other_protocols(tmp_path: Path) -> None:
    """ICMP and others are packets without ports and without a payload of a known transport."""
    row = one(tmp_path, w.ethernet(w.ipv4(b"\x08\0" + bytes(30), 1)))
    assert (row["protocol"], row["src_port"], row["payload_length"], row["payload_captured"], row["payload"]) == (
        1,
        0,
        32,
        0,
        b"",
    )


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (w.ethernet(DATAGRAM)[:13], "link_header_short"),
        (w.ethernet(b"\0", 0x8100), "link_header_short"),
        (w.ethernet(DATAGRAM[:19]), "ip_header_short"),
        (w.ethernet(DATAGRAM6[:39], 0x86DD), "ip_header_short"),
        (w.ethernet(w.ipv4(b"", words=15)), "ip_header_short"),
        (w.ethernet(w.ipv4(w.udp(b"x"), version=5)), "ip_version"),
        (w.ethernet(DATAGRAM, 0x86DD) + bytes(40), "ip_version"),
        (w.ethernet(w.ipv4(w.udp(b"x"), words=4)), "ip_header_length"),
        (w.ethernet(w.ipv4(w.udp(b"x"), total=19)), "ip_total_length"),
        (w.ethernet(w.ipv6(w.extension(17, b"", 3)[:16], 0), 0x86DD), "ip_extension_short"),
        (w.ethernet(w.ipv6(b"\x11\0", 0), 0x86DD), "ip_extension_short"),
        (w.ethernet(w.ipv4(w.tcp(b"")[:19], 6)) + bytes(10), "tcp_header_short"),
        (w.ethernet(w.ipv4(w.tcp(b"", words=6), 6)) + bytes(10), "tcp_header_short"),
        (w.ethernet(w.ipv4(w.tcp(b"", words=4), 6)), "tcp_header_length"),
        (w.ethernet(w.ipv4(b"1234567")) + bytes(10), "udp_header_short"),
        (w.ethernet(w.ipv4(w.udp(b"x", length=7))), "udp_length"),
    ],
)  # fmt: skip
def test_malformed(tmp_path: Path, frame: bytes, expected: str) -> None:
    """A header that contradicts itself or the frame becomes a rejected row with its reason and bytes."""
    assert fate(tmp_path, frame) == expected


def test_every_reason_is_claimed() -> None:
    """The table above and the VLAN and extension tests name every reason there is."""
    parameters = test_malformed.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {r for _, r in parameters} | {"vlan_depth", "ip_extension_count"} == {
        reason for reason, _ in REASONS.values()
    }


def test_what_is_not_ours(tmp_path: Path) -> None:
    """ARP, IEEE 802.3 and unknown links are counted, not rejected."""
    assert fate(tmp_path, w.ethernet(bytes(28), 0x0806)) == "not_ip"
    assert fate(tmp_path, w.ethernet(bytes(46), 46)) == "not_ip"
    assert fate(tmp_path, b"\x07\0\0\0" + DATAGRAM, link=0) == "not_ip"
    assert fate(tmp_path, DATAGRAM, link=147) == "link"


def test_run_ns_is_the_running_maximum(tmp_path: Path) -> None:
    """run_ns never goes back, dropped frames count, and ts_capture_ns stays as it is."""
    arp = w.ethernet(bytes(28), 0x0806)
    path = tmp_path / "back"
    path.write_bytes(
        w.pcap([(T, w.ethernet(DATAGRAM)), (T + 9, arp), (T - 5, w.ethernet(DATAGRAM)), (T + 10, w.ethernet(DATAGRAM))])
    )
    rows, _, _, _ = rows_of(path, frames_max=1)
    assert rows["run_ns"].tolist() == [T, T + 9, T + 10]
    assert rows["ts_capture_ns"].tolist() == [T, T - 5, T + 10]
