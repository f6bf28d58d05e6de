"""The capture as tshark sees it."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter

import pytest

from tests.simulation import slow_reader

DECODE = ["-d", "udp.port==26477-26479,moldudp64", "-d", "tcp.port==4001-4003,fix", "-d", "tcp.port==443,data"]
CHECK = [f"-o{name}:TRUE" for name in ("ip.check_checksum", "udp.check_checksum", "tcp.check_checksum")]


def tshark(capture, *arguments):
    """Lines that tshark prints; the test is skipped without it."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    command = ["tshark", "-r", str(capture), "-n", *DECODE, *CHECK, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_well_formed(day):
    """No frame is malformed, no checksum of IP, UDP or TCP is wrong, and all are there to be checked."""
    wrong = "_ws.malformed || ip.checksum.status != 1 || udp.checksum.status != 1 || tcp.checksum.status != 1"
    assert tshark(day.capture, "-Y", wrong) == []


def test_tcp_is_sound(day):
    """tshark finds the planned retransmissions, two a session at least, and no lost segment or out-of-order one."""
    assert tshark(day.capture, "-Y", "tcp.analysis.lost_segment || tcp.analysis.out_of_order") == []
    again = tshark(day.capture, "-Y", "tcp.analysis.retransmission", "-Tfields", "-etcp.stream")
    assert len(set(again)) == 3
    assert 6 <= len(again) < 20


def test_fix_messages(day, truth):
    """tshark's FIX dissector finds the same messages as the truth counts, every checksum right."""
    lines = tshark(day.capture, "-Y", "fix", "-Tfields", "-efix.MsgType", "-efix.BeginString")
    kinds, versions = Counter(), set()
    for line in lines:
        types, begin = line.split("\t")
        kinds.update(types.split(","))
        versions |= set(begin.split(","))
    assert kinds.total() == truth["order_messages"]
    assert kinds["D"] == truth["orders"]
    assert versions == {"FIX.4.2", "FIX.4.4", "FIXT.1.1"}
    assert tshark(day.capture, "-Y", "fix.checksum_bad == 1") == []
    messages = slow_reader.fix_messages(list(slow_reader.packets(day.capture)))
    assert Counter(m["35"] for m in messages) == kinds


def test_moldudp64(day, truth):
    """tshark's MoldUDP64 dissector counts the same messages on each line."""
    lines = tshark(day.capture, "-Y", "moldudp64", "-Tfields", "-eip.dst", "-emoldudp64.count")
    counts = Counter()
    for line in lines:
        group, count = line.split("\t")
        counts[slow_reader.GROUPS[group]] += int(count, 0) if int(count, 0) != 0xFFFF else 0
    assert dict(counts) == {(row["feed"], row["line"]): row["messages"] for row in truth["lines"]}
