"""Which rule decides about a packet, against tables written by hand."""

from __future__ import annotations

import pytest

from akbypass.config import FilterAction, FilterRule
from akbypass.processors.filtering.matcher import Matcher
from tests.processors.wire import Wire, at

V4, OTHER, V6 = ("192.168.1.20", 50_000), ("10.1.2.3", 50_001), ("2001:db8::5", 50_002)
GATEWAY, GATEWAY6 = ("198.51.100.10", 4_001), ("2001:db8:1::10", 4_001)


def asked(*rules: FilterRule, packets: Wire) -> list[str | None]:
    """Name of the rule that decided about each packet."""
    rows = packets.packets()
    matcher = Matcher(rules)
    return [matcher.rules[m].name if m >= 0 else None for m in matcher.match(rows).tolist()]


def four() -> Wire:
    """Packets of three sources to the gateway over TCP, and one over UDP."""
    wire = Wire()
    wire.packet(0, V4, GATEWAY, "S")
    wire.packet(1, OTHER, GATEWAY, "S")
    wire.packet(2, V6, GATEWAY6, "S")
    wire.packet(3, V4, GATEWAY, protocol=17)
    return wire


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, [1, 1, 1, 1]),
        ({"protocol": "any"}, [1, 1, 1, 1]),
        ({"protocol": "TCP"}, [1, 1, 1, 0]),
        ({"protocol": "udp"}, [0, 0, 0, 1]),
        ({"src_ip": "192.168.1.0/24"}, [1, 0, 0, 1]),
        ({"src_ip": "!192.168.1.0/24"}, [0, 1, 1, 0]),
        ({"src_ip": "192.168.1.20"}, [1, 0, 0, 1]),
        ({"src_ip": "0.0.0.0/0"}, [1, 1, 0, 1]),
        ({"src_ip": "2001:db8::/32"}, [0, 0, 1, 0]),
        ({"dst_ip": "!2001:db8:1::/48"}, [1, 1, 0, 1]),
        ({"src_port": 50_001}, [0, 1, 0, 0]),
        ({"dst_port": 4_001}, [1, 1, 1, 1]),
        ({"dst_port": 4_002}, [0, 0, 0, 0]),
        ({"dst_port": 4_001, "protocol": "tcp", "src_ip": "!192.168.1.0/24"}, [0, 1, 1, 0]),
    ],
)
def test_each_part_of_a_rule_narrows_it(parts: dict[str, object], expected: list[int]) -> None:
    """A rule matches when every part that is given matches; `!` and network families behave as documented."""
    rule = FilterRule.model_validate({"name": "r", **parts})
    assert [int(name is not None) for name in asked(rule, packets=four())] == expected


def test_icmp_is_both_protocol_numbers() -> None:
    """The word icmp means ICMP for IPv4 (1) and for IPv6 (58)."""
    wire = Wire()
    for ms, number in enumerate((1, 58, 17)):
        wire.packet(ms, ("10.0.0.1", 0), ("10.0.0.2", 0), protocol=number)
    assert asked(FilterRule(name="ping", protocol="icmp"), packets=wire) == ["ping", "ping", None]


def test_priority_then_the_order_written_decides() -> None:
    """The rule with the smallest priority number is asked first; equal ones in the order written; the first decides."""
    wide = FilterRule(name="wide", priority=50)
    early = FilterRule(name="early", src_ip="10.0.0.0/8", priority=1)
    second = FilterRule(name="second", src_ip="192.168.0.0/16", priority=50)
    assert asked(wide, early, second, packets=four()) == ["wide", "early", "wide", "wide"]
    assert asked(second, wide, early, packets=four()) == ["second", "early", "wide", "second"]


def test_a_verdict_names_packet_rule_and_rule_set() -> None:
    """Only matching packets give rows; each carries the packet's key and addresses and the rule's words."""
    rules = [FilterRule(name="Block", src_ip="!192.168.1.0/24", protocol="tcp", action=FilterAction.BLOCK, priority=7)]
    matcher, rows = Matcher(rules), four().packets()
    found = matcher.verdicts(rows, matcher.match(rows)).to_dicts()
    assert [(r["src_ip"], r["rule"], r["action"], r["priority"], r["ts_capture_ns"]) for r in found] == [
        ("10.1.2.3", "Block", "BLOCK", 7, at(1)),
        ("2001:db8::5", "Block", "BLOCK", 7, at(2)),
    ]
    assert {r["rule_version"] for r in found} == {matcher.version}
    assert Matcher([]).version != matcher.version != Matcher([rules[0].model_copy(update={"priority": 8})]).version
