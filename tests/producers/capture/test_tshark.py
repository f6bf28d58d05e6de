"""Every capture of the data folder, held field by field against tshark."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.producers.capture.support import rows_of
from tests.support import DATA, data

CAPTURES = [
    "tcp/http.dmp.gz", "tcp/zwnd.dmp.gz", "tcp/out-of-order.pcap", "tcp/reddit.pcap", "link/vlan.pcap", "link/exa.mode.fcs.pcap",
    "link/fusion_hpt_example.pcap", "marketdata/sai_test.pcap.gz", "marketdata/TOPS16.pcapng",
    "marketdata/Cme.Mdp3.Sbe.v8.1.Example.pcap", "marketdata/Nyse.ImbalancesFeed.v2.1.f.Example.pcap",
    "marketdata/Ice.Mdf.iMpact.v1.1.33.Example.pcap", "marketdata/Miax.cTom.Mach.v1.1.Example.pcap",
    "marketdata/mcastpitch_realtime_useq.pcap", "orderentry/boe2_useq.pcap", "orderentry/fix.pcap", "scan/synscan.pcapng",
    "scan/pkt.TCP.synflood.spoofed.pcap", "app/basic_websockets.pcap",
]  # fmt: skip
SINGLES = sorted(str(p.relative_to(DATA)) for p in DATA.glob("omi-singles/**/*.pcap"))
SAMPLE_EVERY = 9  # of the 280 single-message captures; each costs a start of tshark
FIELDS = (
    "frame.time_epoch",
    "frame.len",
    "frame.cap_len",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "ip.id",
    "ip.ttl",
    "ipv6.hlim",
    "ip.proto",
    "ip.frag_offset",
    "ip.flags.mf",
    "vlan.id",
    "tcp.srcport",
    "tcp.dstport",
    "udp.srcport",
    "udp.dstport",
    "tcp.seq",
    "tcp.ack",
    "tcp.flags",
    "tcp.window_size_value",
    "tcp.options.mss_val",
    "tcp.options.wscale.shift",
    "tcp.options.sack_perm",
    "tcp.options.sack_le",
    "tcp.options.sack_re",
    "tcp.options.timestamp.tsval",
    "tcp.options.timestamp.tsecr",
    "tcp.len",
    "udp.length",
)
PREFERENCES = (
    "tcp.relative_sequence_numbers:FALSE", "tcp.desegment_tcp_streams:FALSE", "ip.defragment:FALSE", "ipv6.defragment:FALSE",
    "tcp.analyze_sequence_numbers:FALSE",
)  # fmt: skip
Record = dict[str, list[str]]


def tshark(path: Path) -> list[Record]:
    """Every frame's fields, each with all its occurrences."""
    program = shutil.which("tshark")
    if program is None:
        reason = "tshark is not installed"
        if os.environ.get("AKBYPASS_REQUIRE_SERVICES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    argv = [
        program,
        "-n",
        "-r",
        str(path),
        "-T",
        "fields",
        "-E",
        "occurrence=a",
        "-E",
        "aggregator=,",
        "-E",
        "separator=/t",
    ]
    argv += [x for p in PREFERENCES for x in ("-o", p)] + [x for f in FIELDS for x in ("-e", f)]
    out = subprocess.run(argv, capture_output=True, text=True, check=False).stdout  # a cut capture makes it exit 2
    lines = [line.split("\t") for line in out.splitlines()]
    return [{f: v.split(",") if v else [] for f, v in zip(FIELDS, line, strict=True)} for line in lines]


def first(record: Record, *fields: str, base: int = 10) -> int | None:
    """First occurrence of the first field that is there, as a number."""
    found = next((record[f][0] for f in fields if record[f]), None)
    return None if found is None else int(found, base)


def expected(record: Record, protocol: int) -> dict[str, Any]:
    """What tshark's fields of one frame say of our columns; inner headers (as in ICMP errors) are later occurrences."""
    seconds, _, part = record["frame.time_epoch"][0].partition(".")
    tags = [int(v) for v in record["vlan.id"]]
    is_tcp, is_udp = protocol == 6 and bool(record["tcp.srcport"]), protocol == 17 and bool(record["udp.srcport"])
    tcp: Callable[..., int | None] = lambda name, base=10: first(record, name, base=base) if is_tcp else None  # noqa: E731
    flags = tcp("tcp.flags", 16)
    wanted: dict[str, Any] = {
        "ts_capture_ns": int(seconds) * 1_000_000_000 + int(part.ljust(9, "0")),
        "wire_length": first(record, "frame.len"), "captured_length": first(record, "frame.cap_len"),
        "src_ip": (record["ip.src"] or record["ipv6.src"])[0], "dst_ip": (record["ip.dst"] or record["ipv6.dst"])[0],
        "ip_version": 4 if record["ip.src"] else 6, "ip_id": first(record, "ip.id", base=16),
        "ip_ttl": first(record, "ip.ttl", "ipv6.hlim"),
        "ip_more_fragments": record["ip.flags.mf"][:1] in (["1"], ["True"]),
        "vlan_id": tags[0] if tags else None, "vlan_inner_id": tags[1] if len(tags) > 1 else None,
        "src_port": 0, "dst_port": 0, "tcp_seq": tcp("tcp.seq"), "tcp_flags": (flags or 0) & 0xFF,
        "tcp_ack": tcp("tcp.ack") if (flags or 0) & 0x10 else None, "tcp_window": tcp("tcp.window_size_value"),
        "tcp_mss": tcp("tcp.options.mss_val"), "tcp_window_scale": tcp("tcp.options.wscale.shift"),
        "tcp_sack_permitted": is_tcp and bool(record["tcp.options.sack_perm"]),
        "tcp_sack_left": tcp("tcp.options.sack_le"), "tcp_sack_right": tcp("tcp.options.sack_re"),
        "tcp_ts_val": tcp("tcp.options.timestamp.tsval"), "tcp_ts_ecr": tcp("tcp.options.timestamp.tsecr"),
    }  # fmt: skip
    if record["ip.src"]:
        wanted["protocol"] = first(record, "ip.proto")
    if is_tcp:
        wanted |= {"src_port": tcp("tcp.srcport"), "dst_port": tcp("tcp.dstport"), "payload_length": tcp("tcp.len")}
    if is_udp:
        wanted |= {"src_port": first(record, "udp.srcport"), "dst_port": first(record, "udp.dstport")}
        if not wanted["ip_more_fragments"]:
            wanted["payload_length"] = (first(record, "udp.length") or 0) - 8
    return wanted


def compare(path: Path) -> int:
    """Assert that the rows of a capture are tshark's; returns how many there are."""
    truth = tshark(path)
    rows, rejected, status, payloads = rows_of(path)
    assert len(status) == len(truth)
    is_ip = [bool(r["ip.src"] or r["ipv6.src"]) for r in truth]
    assert len(rejected) == sum(s > 2 for s in status)
    assert [s == 0 for s in status] == is_ip
    found = rows.to_dicts()
    for row, payload, record in zip(
        found, payloads, (r for r, ip in zip(truth, is_ip, strict=True) if ip), strict=True
    ):
        wanted = expected(record, row["protocol"])
        assert {name: row[name] for name in wanted} == wanted, f"frame at byte {row['capture_pos']}"
        offset = first(record, "ip.frag_offset") or 0  # in units of 8 bytes, or in bytes, as tshark's version pleases
        assert row["ip_fragment_offset"] in (offset * 8, offset)
        assert len(payload) == row["payload_captured"]
        if row["captured_length"] == row["wire_length"] and row["protocol"] in (6, 17) and not row["ip_more_fragments"]:
            assert row["ip_fragment_offset"] or row["payload_captured"] == row["payload_length"]
    return len(found)


@pytest.mark.parametrize("name", CAPTURES)
def test_captures(name: str) -> None:
    """Counts, times to the ns, addresses, ports, lengths, VLANs and TCP fields of a capture are those of tshark."""
    assert compare(data(name)) >= 0


@pytest.mark.parametrize("name", SINGLES[::SAMPLE_EVERY] or ["omi-singles"])
def test_single_messages(name: str) -> None:
    """The same for a sample of the single-message captures."""
    assert compare(data(name)) >= 0
