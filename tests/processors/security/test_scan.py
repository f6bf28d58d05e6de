"""Who is a scanner and who trades that may not, against walks computed by hand and recorded scans."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from akbypass.config import Config, Thresholds, parse
from akbypass.processors.filtering.topology import TOPOLOGY as FILTERING
from akbypass.processors.security import scan
from akbypass.processors.security.scan import SequentialTest
from akbypass.processors.security.topology import TOPOLOGY
from akbypass.rows import Rows, address_bytes
from tests.processors.captures import packets_of
from tests.processors.support import assert_cut_invariant, drive
from tests.processors.wire import at

SCANNER, GATEWAY = "10.0.0.66", ("198.51.100.10", 4_001)
OUTCOMES = {"e": "established", "r": "refused", "u": "unanswered", "m": "midstream", "o": "open"}
Contact = tuple[str, str, int, str, str]  # source, destination, port, outcome letter, action


def contacts(items: list[Contact]) -> Rows:
    """Contacts rows, a millisecond apart, with ids and a rule wherever there is an action."""
    schema, n = Rows.empty("contacts").schema, len(items)
    times = np.array([at(i) for i in range(n)], np.int64)
    return Rows.build(
        "contacts", n, run_ns=times, ts_capture_ns=times, capture_pos=np.arange(n) * 100, id=[b"%016x" % i for i in range(n)],
        src_ip=np.array([address_bytes(c[0]) for c in items], "V16"), dst_ip=np.array([address_bytes(c[1]) for c in items], "V16"),
        dst_port=[c[2] for c in items], outcome=[schema.code("outcome", OUTCOMES[c[3]]) for c in items],
        action=[schema.code("action", c[4]) for c in items], rule=[b"R" if c[4] != "NONE" else b"" for c in items],
    )  # fmt: skip


def walk(letters: str, source: str = SCANNER) -> list[Contact]:
    """First contacts of a source with one new port each."""
    return [(source, "10.0.0.9", 1_000 + i, letter, "NONE") for i, letter in enumerate(letters)]


def alerts(items: list[Contact], config: str = "") -> list[dict[str, Any]]:
    """Alerts of security."""
    return drive(TOPOLOGY, parse(config), {"contacts": contacts(items)})["alerts.security"].to_dicts()


def fired(items: list[Contact], config: str = "") -> list[int]:
    """Which contacts (by index) raised a port scan alert."""
    return [a["capture_pos"] // 100 for a in alerts(items, config) if a["kind"] == "port_scan"]


@pytest.mark.parametrize(
    ("letters", "expected"),
    [
        ("uuuu", [3]),  # 4^4 = 256 >= 99, 4^3 = 64 is not
        ("rrrr", [3]),
        ("uuu", []),
        ("uueuuu", [5]),  # a success takes one failure back
        ("eeee" + "uuuu", [7]),  # four successes: 1/256 <= 1/99, back to 1
        ("eee" + "uuuu", []),  # three are not enough: 1/64, then 4
        ("eee" + "uuuuuuu", [9]),
        ("uuuuuuuu", [3]),  # once
        ("uuuu" + "eeeeeeee" + "uuuu", [3, 15]),  # 256 / 4^8 = 1/256: back to 1, and again
        ("uuuuuuuu" + "eeeeeeee" + "uuuu", [3, 19]),  # the ratio stayed at the bound, so eight suffice as well
        ("mmmmoooo", []),
        ("uumouu", [5]),
    ],
)
def test_the_walk(letters: str, expected: list[int]) -> None:
    """With θ0=0.8, θ1=0.2, α=0.01, β=0.99 four net failures make a scanner and four net successes clear it."""
    assert fired(walk(letters)) == expected


def test_only_first_contacts_count_and_sources_do_not_mix() -> None:
    """The same destination again is no news; failures of several sources are not one source's."""
    again = [(SCANNER, "10.0.0.9", 80, "u", "NONE")] * 9
    several = [(f"10.0.1.{i}", "10.0.0.9", 80, "u", "NONE") for i in range(9)]
    assert fired(again) == fired(several) == []


def test_midstream_does_not_use_up_a_first_contact() -> None:
    """A contact without information does not count as the first one with its destination."""
    assert fired([c for m, u in zip(walk("mmmm"), walk("uuuu"), strict=True) for c in (m, u)]) == [7]


def test_multicast_destinations_are_exempt() -> None:
    """Nobody answers for a group."""
    items: list[Contact] = [(SCANNER, f"224.0.0.{i}", 80, "u", "NONE") for i in range(8)]
    items += [("2001:db8::1", f"ff02::{i}", 80, "u", "NONE") for i in range(1, 8)]
    assert fired(items) == []


def test_what_a_scan_alert_says() -> None:
    """Entity, severity, the ratio and its threshold, and the failures as evidence."""
    (a,) = alerts(walk("uuuu"))
    assert (a["entity"], a["severity"], a["state"], a["topology"]) == (SCANNER, "critical", "firing", "security")
    assert (a["value"], a["threshold"], a["unit"]) == (256, 99, "ratio")
    assert a["evidence"] == [f"{i:016x}" for i in range(4)] and a["ts_capture_ns"] == at(3)


def test_bounds_are_exact_fractions() -> None:
    """Equality with a bound decides: θ 0.8/0.2, β/α = 64 exactly is reached by three failures."""
    test = SequentialTest(Thresholds(scan_alpha=0.015, scan_beta=0.96))
    assert (test.upper, test.failure, test.success) == (64, 4, Fraction(1, 4))
    assert [test.verdict(n, 0) for n in (2, 3)] == [0, 1]


def test_trading_that_a_rule_forbids() -> None:
    """A contact with a gateway that matched a BLOCK or ALERT rule alerts once a source and venue; other ports do not."""
    config = "exchanges: [{name: XNAS, ip_address: 198.51.100.10, ports: [4001, 4002]}]"
    other: Contact = ("10.0.0.7", GATEWAY[0], 4_002, "r", "ALERT")
    items: list[Contact] = [
        ("10.0.0.5", *GATEWAY, "e", "ALLOW"), ("10.0.0.5", *GATEWAY, "e", "NONE"), (SCANNER, *GATEWAY, "u", "BLOCK"),
        (SCANNER, *GATEWAY, "m", "BLOCK"), (SCANNER, GATEWAY[0], 80, "e", "BLOCK"), other,
    ]  # fmt: skip
    found = alerts(items, config)
    assert [(a["kind"], a["entity"], a["evidence"]) for a in found] == [
        ("unauthorised_trading", SCANNER, [f"{2:016x}"]),
        ("unauthorised_trading", "10.0.0.7", [f"{5:016x}"]),
    ]
    assert found[0]["description"] == f"{SCANNER} contacted the gateway of XNAS at 198.51.100.10:4001: rule R (BLOCK)"


def test_trading_from_where_no_session_is_configured() -> None:
    """Sessions with sources name who may trade with a venue; an entry without sources lets everyone; other venues are free."""
    config = """
exchanges: [{name: XNAS, ip_address: 198.51.100.10, ports: [4001]}, {name: XBOS, ip_address: 198.51.100.11, ports: [4001]}]
sessions: [{venue: XNAS, sources: [10.0.0.0/28]}, {venue: XNAS, sources: ["2001:db8::7"]}]
"""
    items: list[Contact] = [(s, *GATEWAY, "e", "NONE") for s in ("10.0.0.5", "10.0.0.77", "2001:db8::7", "2001:db8::8")]
    items.append(("10.0.0.77", "198.51.100.11", 4_001, "e", "NONE"))
    assert [a["entity"] for a in alerts(items, config)] == ["10.0.0.77", "2001:db8::8"]
    anyone = config.replace("sessions: [", "sessions: [{venue: XNAS}, ")
    assert alerts(items, anyone) == []


def test_state_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above their bounds the source silent for longest and a source's oldest destination are forgotten, and counted."""
    monkeypatch.setattr(scan, "SOURCES_MAX", 2)
    monkeypatch.setattr(scan, "DESTINATIONS_MAX", 2)
    core = TOPOLOGY.make_core(Config(), "run", 0)
    items = [c for s in ("10.0.1.1", "10.0.1.2", "10.0.1.3") for c in walk("uuu", s)]
    core.step({"contacts": contacts(items)}, at(100), False)
    assert core.counters == {"sources_forgotten": 1, "destinations_forgotten": 3, "reports_forgotten": 0}  # type: ignore[attr-defined]


def test_cuts_and_checkpoints_change_nothing() -> None:
    """Rows per step and restarts from a snapshot change no alert."""
    draw = np.random.default_rng(3)
    items: list[Contact] = [
        (
            f"10.0.2.{int(draw.integers(5))}",
            GATEWAY[0],
            int(draw.integers(3_990, 4_010)),
            "eruum"[int(draw.integers(5))],
            "BLOCK",
        )
        for _ in range(300)
    ]
    config = parse("exchanges: [{name: XNAS, ip_address: 198.51.100.10, ports: [4001]}]")
    made = assert_cut_invariant(TOPOLOGY, config, {"contacts": contacts(items)})["alerts.security"].to_dicts()
    assert {a["kind"] for a in made} == {"port_scan", "unauthorised_trading"}


def chain(name: str) -> tuple[Rows, list[dict[str, Any]]]:
    """Contacts and alerts of a recorded capture."""
    found = drive(FILTERING, Config(), {"packets": packets_of(name)})["contacts"]
    return found, drive(TOPOLOGY, Config(), {"contacts": found})["alerts.security"].to_dicts()


def test_a_recorded_syn_scan_is_found() -> None:
    """nmap's scan (1,994 SYNs from ports of their own, 3 open ports, 5 resets) gives one alert, of exactly the scanner."""
    found, raised = chain("scan/synscan.pcapng")
    assert Counter(r["outcome"] for r in found.to_dicts()) == {
        "established": 3,
        "refused": 5,
        "unanswered": 1_986,
    }
    assert [(a["kind"], a["entity"]) for a in raised] == [("port_scan", "172.16.0.8")]


def test_a_recorded_spoofed_flood_is_no_scan() -> None:
    """37,841 SYNs of 37,669 flows to one port stay undecided: a source with one first contact has the ratio 4, not 99.

    The test asks whether one source tries many destinations; a flood is many sources on one. That nobody is accused is
    right, since the sources are forged.
    """
    found, raised = chain("scan/pkt.TCP.synflood.spoofed.pcap")
    assert len(found) == 37_669 and raised == []
    assert {r["outcome"] for r in found.to_dicts()} == {"unanswered", "open"}
