"""Who scans, by the sequential test of Jung et al. (2004), and who trades that may not; follows no packet itself.

Port scan: first contacts of a source with a (destination, port) multiply its likelihood ratio

    refused, unanswered   × (1 − θ1) / (1 − θ0)          ratio >= β / α               scanner: one alert
    established           × θ1 / θ0                      ratio <= (1 − β) / (1 − α)   benign: back to 1, may fire again
    midstream, open       nothing                        in between                   wait for more

The ratio of an alarmed source stays at the bound. Ratios are two counts compared as exact fractions, so no result
depends on rounding. Destinations in multicast ranges are exempt. A tap that sees one direction only makes every
source fail: such a tap must not feed this.

Unauthorised trading: a contact with a configured order gateway that a BLOCK or ALERT rule matched, or from outside
the networks that `sessions` name for that venue; once per source and venue in a run.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, islice
from typing import Any

import numpy as np
import orjson

from akbypass import schemas
from akbypass.config import Config, Thresholds
from akbypass.order import make_id, restrict
from akbypass.processors.packing import pack_texts, unpack_texts
from akbypass.rows import Array, Rows, address_bytes, address_text

_CONTACTS, _ALERTS = schemas.load("contacts"), schemas.load("alerts")
FAILED = tuple(_CONTACTS.code("outcome", s) for s in ("refused", "unanswered"))
SUCCEEDED = _CONTACTS.code("outcome", "established")
FORBIDDEN = tuple(_CONTACTS.code("action", s) for s in ("ALERT", "BLOCK"))
ACTIONS = _CONTACTS.by_name["action"].symbols
SOURCES_MAX = 65_536  # sources tested at a time; the one silent for longest is forgotten first
DESTINATIONS_MAX = 1_024  # destinations remembered per source; the oldest is forgotten first
DESTINATIONS_ALL_MAX = 262_144  # over all sources: about 50 MB
EVIDENCE_MAX = 16  # ids in an alert
MULTICAST_6 = 0xFF  # first byte of ff00::/8
MAPPED = bytes(10) + b"\xff\xff"
MULTICAST_4 = range(224, 240)  # first byte of 224.0.0.0/4

Destination = tuple[bytes, int]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True)
class Walk:
    """Where a source's random walk stands: failures and successes since it was last at 1."""

    failures: int = 0
    successes: int = 0
    alarmed: bool = False
    evidence: list[str] = field(default_factory=list)  # ids of the last failures
    met: dict[Destination, None] = field(default_factory=dict)  # destinations, oldest first


class SequentialTest:
    """The likelihood ratio of counts and its two bounds, exactly.

    >>> test = SequentialTest(Thresholds())
    >>> test.verdict(3, 0), test.verdict(4, 0), test.verdict(0, 4)
    (0, 1, -1)
    """

    def __init__(self, thresholds: Thresholds) -> None:
        theta0, theta1 = Fraction(str(thresholds.scan_theta0)), Fraction(str(thresholds.scan_theta1))
        alpha, beta = Fraction(str(thresholds.scan_alpha)), Fraction(str(thresholds.scan_beta))
        self.failure, self.success = (1 - theta1) / (1 - theta0), theta1 / theta0
        self.upper, self.lower = beta / alpha, (1 - beta) / (1 - alpha)
        self._known: dict[tuple[int, int], int] = {}

    def ratio(self, failures: int, successes: int) -> Fraction:
        """Likelihood ratio after so many failures and successes."""
        return self.failure**failures * self.success**successes

    def verdict(self, failures: int, successes: int) -> int:
        """1 for a scanner, -1 for a benign source, 0 for undecided."""
        found = self._known.get((failures, successes))
        if found is None:
            if len(self._known) >= SOURCES_MAX:
                self._known.clear()
            ratio = self.ratio(failures, successes)
            found = self._known[failures, successes] = int(ratio >= self.upper) - int(ratio <= self.lower)
        return found


class SecurityCore:
    """contacts → alerts.security, for one run and one partition."""

    def __init__(self, config: Config, run_id: str, partition: int) -> None:
        self._run_id = run_id
        self._test = SequentialTest(config.thresholds)
        self._gateways = {(address_bytes(e.ip_address), port): e.name for e in config.exchanges for port in e.ports}
        self._allowed = _allowed(config)
        self._walks: dict[bytes, Walk] = {}  # by source, the one silent for longest first
        self._met = 0  # destinations over all walks
        self._reported: dict[tuple[bytes, str], None] = {}  # source, venue
        self.counters = {"sources_forgotten": 0, "destinations_forgotten": 0, "reports_forgotten": 0}

    def step(self, inputs: Mapping[str, Rows], watermark_ns: int, end: bool) -> dict[str, Rows]:
        """Judge the contacts below the watermark; there are no timers."""
        rows = restrict(inputs, "contacts", "contacts")
        src, dst = (rows.bytes_of(name) for name in ("src_ip", "dst_ip"))
        ports, outcomes, actions = (rows[name].tolist() for name in ("dst_port", "outcome", "action"))
        alerts: list[dict[str, Any]] = []
        for i in range(len(rows)):
            source, target = src[i].tobytes(), (dst[i].tobytes(), ports[i])
            venue = self._gateways.get(target)
            if venue is not None:
                alerts.extend(self._trading(rows, i, source, venue, actions[i]))
            if (outcomes[i] in FAILED or outcomes[i] == SUCCEEDED) and not _is_multicast(target[0]):
                alerts.extend(self._scanning(rows, i, source, target, outcomes[i] != SUCCEEDED))
        return {"alerts.security": _rows(alerts)}

    # -- unauthorised trading --------------------------------------------------------------------------------------

    def _trading(self, rows: Rows, i: int, source: bytes, venue: str, action: int) -> list[dict[str, Any]]:
        networks = self._allowed.get(venue)
        address = ipaddress.ip_address(address_text(source))
        outside = networks is not None and not any(address in network for network in networks)
        if (action not in FORBIDDEN and not outside) or (source, venue) in self._reported:
            return []
        self._reported[source, venue] = None
        if len(self._reported) > SOURCES_MAX:
            del self._reported[next(iter(self._reported))]
            self.counters["reports_forgotten"] += 1
        rule = bytes(rows["rule"][i]).decode("ascii", "replace")
        why = f"rule {rule} ({ACTIONS[action]})" if action in FORBIDDEN else "no configured session comes from there"
        gateway = f"{address_text(rows['dst_ip'][i].tobytes())}:{rows['dst_port'][i]}"
        text = f"{address} contacted the gateway of {venue} at {gateway}: {why}"
        identity = make_id("security", self._run_id, "unauthorised_trading", source.hex(), venue)
        contact = bytes(rows["id"][i]).decode()
        return [
            _alert(rows, i, identity, b"unauthorised_trading", str(address), 1.0, 0.0, b"contacts", text, [contact])
        ]

    # -- port scan -------------------------------------------------------------------------------------------------

    def _scanning(self, rows: Rows, i: int, source: bytes, target: Destination, failed: bool) -> list[dict[str, Any]]:
        walk = self._walks.pop(source, None) or Walk()
        self._walks[source] = walk  # the newest
        if target in walk.met:
            return []
        self._remember(walk, target)
        if failed:
            walk.evidence = [*walk.evidence[1 - EVIDENCE_MAX :], bytes(rows["id"][i]).decode()]
            walk.failures += not (walk.alarmed and self._test.verdict(walk.failures, walk.successes) == 1)
        else:
            walk.successes += 1
        verdict = self._test.verdict(walk.failures, walk.successes)
        if verdict < 0:
            walk.failures = walk.successes = 0
            walk.alarmed, walk.evidence = False, []
        if verdict <= 0 or walk.alarmed:
            return []
        walk.alarmed = True
        return [self._scanner(rows, i, source, walk)]

    def _scanner(self, rows: Rows, i: int, source: bytes, walk: Walk) -> dict[str, Any]:
        address = address_text(source)
        ratio, upper = float(self._test.ratio(walk.failures, walk.successes)), float(self._test.upper)
        text = (
            f"{address} scans: {walk.failures} first contacts failed and {walk.successes} succeeded since it was last "
            f"unsuspicious; likelihood ratio {ratio:g}, threshold {upper:g}"
        )
        cause = (int(rows[name][i]) for name in ("run_ns", "capture_id", "capture_pos"))
        identity = make_id("security", self._run_id, "port_scan", source.hex(), *cause)
        return _alert(rows, i, identity, b"port_scan", address, ratio, upper, b"ratio", text, list(walk.evidence))

    def _remember(self, walk: Walk, target: Destination) -> None:
        walk.met[target] = None
        self._met += 1
        if len(walk.met) > DESTINATIONS_MAX:
            del walk.met[next(iter(walk.met))]
            self._met -= 1
            self.counters["destinations_forgotten"] += 1
        while len(self._walks) > SOURCES_MAX or self._met > DESTINATIONS_ALL_MAX:
            oldest = self._walks.pop(next(iter(self._walks)))
            self._met -= len(oldest.met)
            self.counters["sources_forgotten"] += 1

    # -- state -----------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Array]:
        """Copy the state: destinations of all sources one behind the other, as they are too many for Python."""
        walks = self._walks.values()
        met = list(chain.from_iterable(w.met for w in walks))
        numbers = [(w.failures, w.successes, w.alarmed, len(w.met), len(w.evidence)) for w in walks]
        rest = [[[s.hex(), venue] for s, venue in self._reported], self.counters]
        return {
            "sources": np.frombuffer(b"".join(self._walks), "V16"),
            "walks": np.array(numbers, np.int64).reshape(len(numbers), 5),
            "met.addresses": np.frombuffer(b"".join([address for address, _ in met]), "V16"),
            "met.ports": np.fromiter((port for _, port in met), np.int32, len(met)),
            **pack_texts("evidence", [identity.encode() for w in walks for identity in w.evidence]),
            "rest": np.frombuffer(orjson.dumps(rest), np.uint8),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over a snapshot."""
        reported, self.counters = orjson.loads(state["rest"].tobytes())
        self._reported = {(bytes.fromhex(s), venue): None for s, venue in reported}
        met = iter(zip(state["met.addresses"].tolist(), state["met.ports"].tolist(), strict=True))
        evidence = iter(text.decode() for text in unpack_texts("evidence", state))
        self._walks, self._met = {}, len(state["met.ports"])
        for source, row in zip(state["sources"].tolist(), state["walks"].tolist(), strict=True):
            failures, successes, alarmed, n_met, n_evidence = row
            walk = Walk(failures, successes, bool(alarmed), list(islice(evidence, n_evidence)))
            walk.met = dict.fromkeys(islice(met, n_met))
            self._walks[source] = walk


def _allowed(config: Config) -> dict[str, list[Network]]:
    """Networks that may trade with each venue; venues without such a limit are left out."""
    unlimited = {s.venue for s in config.sessions if not s.sources}
    allowed: dict[str, list[Network]] = {}
    for session in config.sessions:
        if session.venue not in unlimited:
            networks = [ipaddress.ip_network(text, strict=False) for text in session.sources]
            allowed.setdefault(session.venue, []).extend(networks)
    return allowed


def _is_multicast(address: bytes) -> bool:
    return address[0] == MULTICAST_6 or (address.startswith(MAPPED) and address[12] in MULTICAST_4)


def _alert(
    rows: Rows, i: int, identity: bytes, kind: bytes, entity: str, value: float, threshold: float, unit: bytes, text: str,
    evidence: list[str],
) -> dict[str, Any]:  # fmt: skip
    cause = {name: int(rows[name][i]) for name in ("run_ns", "capture_id", "capture_pos", "ts_capture_ns")}
    return {
        **cause, "id": identity, "topology": b"security", "kind": kind, "entity": entity.encode(),
        "severity": _ALERTS.code("severity", "critical"), "state": _ALERTS.code("state", "firing"), "value": value,
        "threshold": threshold, "unit": unit, "description": text, "evidence": evidence,
    }  # fmt: skip


def _rows(made: list[dict[str, Any]]) -> Rows:
    if not made:
        return Rows.empty("alerts")
    return Rows.build("alerts", len(made), **{column: [row[column] for row in made] for column in made[0]})
