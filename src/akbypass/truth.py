"""Holds the findings of a run against the truth of a simulated day; computes neither of them.

What the truth does not speak of is not compared: TCP round trips, alerts of kinds that it does not list, scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

Row = Mapping[str, Any]
Key = tuple[Any, ...]

# What must agree exactly, by topic; KINDS names the field by which the report divides a topic.
FIELDS = {
    "feed_gaps": ("fate", "feed", "venue", "line", "first_seq", "last_seq"),
    "latency": ("kind", "venue", "session", "cl_ord_id", "outcome", "ts_capture_ns", "value_ns"),
    "arbitrage": ("symbol", "buy_venue", "sell_venue", "opened_ns", "closed_ns", "edge_nanos", "quantity_nanos"),
    "verdicts": ("rule", "action", "src_ip", "dst_ip", "src_port", "dst_port", "ts_capture_ns"),
    "alerts": ("kind", "topology", "entity"),
}
KINDS = {"feed_gaps": "fate", "latency": "kind", "verdicts": "rule", "alerts": "kind"}
EXAMPLES_MAX = 3  # differences that the table shows per line


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of result: how many there should be and were, and the rows on which the two differ.

    `missing` and `invented` hold the compared fields of each row by name.
    """

    topic: str
    kind: str
    expected: int
    found: int
    missing: list[dict[str, Any]]
    invented: list[dict[str, Any]]

    @property
    def is_right(self) -> bool:
        """Whether nothing is missing and nothing invented."""
        return not self.missing and not self.invented


def compare(truth: Row, found: Mapping[str, Iterable[Row]]) -> list[Finding]:
    """Hold rows by row type, as `analyze` writes them, against a day's truth.json.

    A topic that is absent from `found` counts as empty. Rows are compared as multisets: a row found twice is invented
    once. Alerts are the exception: an alert that fires again says nothing new about whom it concerns.
    """
    findings = []
    for topic, fields in FIELDS.items():
        kinds = {row["kind"] for row in truth["latency"]} if topic == "latency" else set(truth["alert_kinds"])
        limited = topic in ("latency", "alerts")
        rows = [r for r in _rows(found, topic) if not limited or r["kind"] in kinds]
        wanted, got = _by_kind(topic, fields, truth[topic]), _by_kind(topic, fields, rows)
        for kind in sorted({*wanted, *got}):
            findings.append(_finding(topic, kind, fields, wanted.get(kind, Counter()), got.get(kind, Counter())))
    return findings + _line_sums(truth, found)


def _rows(found: Mapping[str, Iterable[Row]], topic: str) -> Iterator[Row]:
    """Rows of a row type, from all topics that carry it: alerts.security holds alerts."""
    for name, rows in found.items():
        if name == topic or name.startswith(f"{topic}."):
            yield from rows


def _by_kind(topic: str, fields: tuple[str, ...], rows: Iterable[Row]) -> dict[str, Counter[Key]]:
    made: dict[str, Counter[Key]] = {}
    for row in rows:
        kind = row[KINDS[topic]] if topic in KINDS else "edge"
        made.setdefault(kind, Counter())[tuple(row[f] for f in fields)] += 1
    if topic == "alerts":
        return {kind: Counter(keys.keys()) for kind, keys in made.items()}
    return made


def _finding(topic: str, kind: str, fields: tuple[str, ...], wanted: Counter[Key], got: Counter[Key]) -> Finding:
    missing, invented = (
        [dict(zip(fields, key, strict=True)) for key in sorted((a - b).elements(), key=repr)]
        for a, b in ((wanted, got), (got, wanted))
    )
    return Finding(topic, kind, wanted.total(), got.total(), missing, invented)


def _line_sums(truth: Row, found: Mapping[str, Iterable[Row]]) -> list[Finding]:
    """Compare messages and duplicates of each line, summed over the windows of feed_quality."""
    windows = [r for r in _rows(found, "feed_quality") if r["line"] != "feed"]
    findings = []
    for kind in ("messages", "duplicates"):
        sums: Counter[tuple[str, str]] = Counter()
        for row in windows:
            sums[row["feed"], row["line"]] += row[kind]
        wanted = {(row["feed"], row["line"]): row[kind] for row in truth["lines"]}
        fields = ("feed", "line", kind)
        ours, theirs = (Counter((*key, n) for key, n in m.items()) for m in (wanted, sums))
        made = _finding("feed_quality", kind, fields, ours, theirs)
        findings.append(Finding("feed_quality", kind, sum(wanted.values()), sums.total(), made.missing, made.invented))
    return findings


def render(findings: Iterable[Finding]) -> Table:
    """Draw found against true, with a few of the differences where there are any."""
    table = Table(title="found against true", title_justify="left")
    for heading, justify in (("topic", "left"), ("kind", "left"), ("true", "right"), ("found", "right"), ("", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for f in findings:
        says = "equal"
        if not f.is_right:
            parts = [f"{len(f.missing)} missing, {len(f.invented)} invented"]
            parts += [f"− {_text(row)}" for row in f.missing[:EXAMPLES_MAX]]
            parts += [f"+ {_text(row)}" for row in f.invented[:EXAMPLES_MAX]]
            says = "\n".join(parts)
        table.add_row(f.topic, f.kind, str(f.expected), str(f.found), says, style=None if f.is_right else "red")
    return table


def _text(row: Row) -> str:
    return " ".join(f"{name}={value}" for name, value in row.items())


__all__ = ["Finding", "compare", "render"]
