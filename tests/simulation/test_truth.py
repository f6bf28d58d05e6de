"""truth.json against a slow reader that finds everything again in the bytes of the capture."""

from __future__ import annotations

import ipaddress
import itertools
from collections import defaultdict

import pytest

from tests.simulation import slow_reader


@pytest.fixture(scope="module")
def read(day):
    """All packets of the day."""
    return list(slow_reader.packets(day.capture))


def test_times_rise(read, truth):
    """No two frames have the same time, and the count of packets is the truth's."""
    assert all(a.ts < b.ts for a, b in itertools.pairwise(read))
    assert len(read) == truth["packets"]


def test_gaps(read, truth):
    """Walking each line number by number gives the same gaps and fates."""
    wanted = {(g["feed"], g["line"], g["first_seq"], g["last_seq"], g["fate"]) for g in truth["feed_gaps"]}
    assert slow_reader.gaps(list(slow_reader.mold(read))) == wanted
    assert len(wanted) == len(truth["feed_gaps"])


def test_lines(read, truth):
    """Counting each line's packets gives the same messages, duplicates and heartbeats."""
    seen, counts = defaultdict(set), defaultdict(lambda: [0, 0, 0, 0])
    for m in slow_reader.mold(read):
        count = counts[m.feed, m.line]
        numbers = set(range(m.first, m.first + m.count))
        count[0] += 1
        count[1] += m.count
        count[2] += len(numbers & seen[m.feed, m.line])
        count[3] += m.count == 0
        seen[m.feed, m.line] |= numbers
    for row in truth["lines"]:
        got = counts[row["feed"], row["line"]]
        assert got[:3] == [row["packets"], row["messages"], row["duplicates"]]
        assert got[3] == row["heartbeats"] + 2  # two ends of session


def test_edges(read, truth):
    """Dictionaries as books, released in sequence, give the same edges to the nanosecond."""
    wanted = [tuple(row.values()) for row in truth["arbitrage"]]
    assert sorted(slow_reader.edges(list(slow_reader.mold(read)))) == sorted(wanted)
    assert wanted


def test_latency(read, truth):
    """Pairing requests with their first answers by hand gives the same delays."""
    requests, found = {}, []
    for m in slow_reader.fix_messages(read):
        parties = (m["49"], m["56"]) if m["to_venue"] else (m["56"], m["49"])
        key = ("/".join((m["venue"], *parties)), m.get("11"))
        if m["to_venue"] and m["35"] in "DFG":
            requests[key] = m
        elif m["35"] in "89" and key in requests:
            asked = requests.pop(key)
            kind = {"D": "order_ack", "F": "cancel_ack", "G": "replace_ack"}[asked["35"]]
            says = {"0": "accepted", "8": "rejected", "A": "pending", "4": "canceled", "5": "replaced"}
            outcome = "rejected" if m["35"] == "9" else says[m["150"]]
            found.append((kind, *key, outcome, m["last"], m["last"] - asked["first"]))
    fields = ("kind", "session", "cl_ord_id", "outcome", "ts_capture_ns", "value_ns")
    wanted = [tuple(row[f] for f in fields) for row in truth["latency"] if row["kind"] != "order_fill"]
    assert sorted(found) == sorted(wanted)


def test_fills(read, truth):
    """The first report with a quantity for each order, under any of its ids, ends its order_fill."""
    origin, first, found = {}, {}, []
    for m in slow_reader.fix_messages(read):
        if m["35"] == "G":
            origin[m["49"], m["11"]] = origin.get((m["49"], m["41"]), m["41"])
        elif m["35"] == "D":
            first[m["49"], m["11"]] = m["first"]
        elif "32" in m:
            cl_ord_id = origin.get((m["56"], m["11"]), m["11"])
            start = first.pop((m["56"], cl_ord_id), None)
            if start is not None:
                found.append((cl_ord_id, m["last"], m["last"] - start))
    rows = [r for r in truth["latency"] if r["kind"] == "order_fill"]
    assert sorted(found) == sorted((r["cl_ord_id"], r["ts_capture_ns"], r["value_ns"]) for r in rows)
    assert rows


def test_alert_on_target(truth):
    """Exactly the venues with a second whose median order_ack is above 500 µs are alerted."""
    windows = defaultdict(list)
    for row in truth["latency"]:
        if row["kind"] == "order_ack":
            windows[row["venue"], row["ts_capture_ns"] // 10**9].append(row["value_ns"])
    slow = {v for (v, _), values in windows.items() if sorted(values)[-(-len(values) // 2) - 1] > 500_000}
    assert {a["entity"] for a in truth["alerts"] if a["kind"] == "latency_target"} == slow != set()


def test_alert_on_score(truth):
    """The one feed that lost messages on both lines is alerted."""
    lost = {g["feed"] for g in truth["feed_gaps"] if g["line"] == "feed"}
    assert {a["entity"] for a in truth["alerts"] if a["kind"] == "feed_score"} == lost
    assert len(lost) == 1


def test_verdicts(read, truth):
    """Every TCP packet from outside to the first gateway's port is blocked, every one to telnet is logged."""
    inside = ipaddress.ip_network("192.168.1.0/24")
    found = []
    for p in read:
        if p.protocol == 6 and p.dport == 4001 and ipaddress.ip_address(p.src) not in inside:
            found.append(("Block_Unauthorized_Trading", "BLOCK", p.src, p.dst, p.sport, p.dport, p.ts))
        elif p.protocol == 6 and p.dport == 23:
            found.append(("Watch_Telnet", "LOG", p.src, p.dst, p.sport, p.dport, p.ts))
    assert found == [tuple(row.values()) for row in truth["verdicts"]]
    assert {row[0] for row in found} == {"Block_Unauthorized_Trading", "Watch_Telnet"}


def test_scanner_fails(read, truth):
    """The scanner's contacts fail by far more often than they succeed; no other source has four failures."""
    refused = defaultdict(int)
    for p in read:
        if p.protocol == 6 and p.flags & 4 and p.flags & 16:
            refused[p.dst] += 1
    scanners = {a["entity"] for a in truth["alerts"] if a["kind"] == "port_scan"}
    assert {source for source, n in refused.items() if n >= 4} == scanners


def test_itch_stamps(read):
    """ITCH stamps rise within a feed and lie at most 100 µs before the packet is seen, counted from New York's midnight."""
    midnight = 1_772_427_600 * 10**9  # 2026-03-02 05:00 UTC: winter time
    last = defaultdict(int)
    late = 0
    for m in slow_reader.mold(read):
        if m.line == "A" and m.messages:
            stamps = [int.from_bytes(message[5:11], "big") for message in m.messages]
            assert stamps == sorted(stamps)
            ages = [m.ts - midnight - s for s in stamps]
            assert min(ages) > 0
            late += max(ages) > 150_000
            last[m.feed] = stamps[-1]
    assert late < 20  # planned late packets
