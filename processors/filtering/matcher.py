"""Asks the ordered rules about every packet and makes verdicts; follows no connection and enforces nothing.

A rule matches when every part of it that is given matches:

    protocol   tcp 6, udp 17, icmp 1 and 58, any
    src, dst   address or network, IPv4 as ::ffff:0:0/96, `!` turns it round (so IPv6 is outside every IPv4 network)
    ports      as in the packet; a packet without ports has 0

Rules are asked by priority, 1 first, then in the order written; the first that matches decides.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from akbypass import schemas
from akbypass.config import FilterRule
from akbypass.kernel import kernel
from akbypass.processors.flow_table import halves
from akbypass.rows import Array, Rows

PROTOCOL_A, PROTOCOL_B, SRC_PORT, DST_PORT, SRC, DST = 0, 1, 2, 3, 4, 9  # columns of the rule table
NET_HIGH, NET_LOW, MASK_HIGH, MASK_LOW, INVERTED = range(5)  # behind SRC and DST
WIDTH = DST + 5
ANY = -1
PROTOCOLS = {"tcp": (6, 6), "udp": (17, 17), "icmp": (1, 58), "any": (ANY, ANY), None: (ANY, ANY)}
MAPPED_BITS = 96  # IPv4 addresses begin behind this many bits of ::ffff:0:0


@kernel
def _inside(rules: Any, r: int, at: int, high: int, low: int) -> bool:
    same = (high & rules[r, at + MASK_HIGH]) == rules[r, at + NET_HIGH] and (low & rules[r, at + MASK_LOW]) == rules[
        r, at + NET_LOW
    ]
    return same != (rules[r, at + INVERTED] == 1)  # type: ignore[no-any-return]


@kernel
def _match(rules: Any, protocol: Any, src: Any, dst: Any, src_port: Any, dst_port: Any, out: Any) -> None:
    """Write the index of the first matching rule of each packet, -1 for none."""
    for i in range(len(out)):
        out[i] = -1
        for r in range(rules.shape[0]):
            if (
                rules[r, PROTOCOL_A] != ANY
                and protocol[i] != rules[r, PROTOCOL_A]
                and protocol[i] != rules[r, PROTOCOL_B]
            ):
                continue
            if rules[r, SRC_PORT] != ANY and src_port[i] != rules[r, SRC_PORT]:
                continue
            if rules[r, DST_PORT] != ANY and dst_port[i] != rules[r, DST_PORT]:
                continue
            if _inside(rules, r, SRC, src[i, 0], src[i, 1]) and _inside(rules, r, DST, dst[i, 0], dst[i, 1]):
                out[i] = r
                break


class Matcher:
    """The rules of a configuration, ready to be asked.

    `version` is the hash of the rules that decide (names, parts, actions, order), 16 hexadecimal digits.
    """

    def __init__(self, rules: Sequence[FilterRule]) -> None:
        self.rules = sorted(rules, key=lambda rule: rule.priority)  # stable: then in the order written
        self.version = _version(self.rules)
        self._table = np.array([_compiled(rule) for rule in self.rules], np.int64).reshape(len(self.rules), WIDTH)
        action = schemas.load("verdicts").by_name["action"]
        self.names: Array = np.array([rule.name.encode("ascii", "replace") for rule in self.rules] + [b""], "S64")
        self.actions: Array = np.array([action.code(rule.action) for rule in self.rules] + [0], np.int8)
        self._priorities: Array = np.array([rule.priority for rule in self.rules] + [0], np.int32)

    def match(self, packets: Rows) -> Array:
        """Index (int32) into `rules` for each packet, -1 where none matches; -1 also indexes the empty name."""
        out = np.full(len(packets), -1, np.int32)
        if self.rules:
            src, dst = halves(packets["src_ip"]), halves(packets["dst_ip"])
            _match(self._table, packets["protocol"], src, dst, packets["src_port"], packets["dst_port"], out)
        return out

    def verdicts(self, packets: Rows, matched: Array) -> Rows:
        """Make one row for each packet that a rule matched."""
        hit = np.flatnonzero(matched >= 0)
        rule, rows = matched[hit], packets.take(hit)
        same = ("run_ns", "capture_id", "capture_pos", "ts_capture_ns", "src_ip", "dst_ip", "src_port", "dst_port")
        return Rows.build(
            "verdicts", len(hit), rule=self.names[rule], action=self.actions[rule], priority=self._priorities[rule],
            rule_version=self.version.encode(), protocol=rows["protocol"], wire_length=rows["wire_length"],
            **{name: rows[name] for name in same},
        )  # fmt: skip


def _version(rules: Sequence[FilterRule]) -> str:
    text = orjson.dumps([rule.model_dump(mode="json", exclude={"description"}) for rule in rules])
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def _compiled(rule: FilterRule) -> list[int]:
    ports = [ANY if port is None else port for port in (rule.src_port, rule.dst_port)]
    return [*PROTOCOLS[rule.protocol], *ports, *_network(rule.src_ip), *_network(rule.dst_ip)]


def _network(text: str | None) -> list[int]:
    """Network and mask as signed halves, and whether it is turned round."""
    if text is None:
        return [0, 0, 0, 0, 0]
    network = ipaddress.ip_network(text.removeprefix("!"), strict=False)
    bits, address = network.prefixlen, int(network.network_address)
    if network.version == 4:
        bits, address = bits + MAPPED_BITS, address | 0xFFFF << 32
    mask = (1 << 128) - (1 << (128 - bits))
    parts = [address >> 64, address & (1 << 64) - 1, mask >> 64, mask & (1 << 64) - 1]
    return [part - (1 << 64) if part >> 63 else part for part in parts] + [int(text.startswith("!"))]
