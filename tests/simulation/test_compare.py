"""Holding findings against the truth."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from akbypass.truth import compare, render


def perfect(truth):
    """Findings that agree with the truth, with fields beyond the compared ones."""
    windows = [{**row, "score": 100.0} for row in truth["lines"]]
    feed = {"feed": "XNAS", "line": "feed", "messages": 5, "duplicates": 9}
    names = ("feed_gaps", "latency", "arbitrage", "verdicts", "alerts")
    return {**{name: [{**row, "id": "x"} for row in truth[name]] for name in names}, "feed_quality": [*windows, feed]}


def wrong(findings):
    """The findings that differ."""
    return [(f.topic, f.kind, len(f.missing), len(f.invented)) for f in findings if not f.is_right]


def test_equal(truth):
    """Findings that equal the truth have nothing missing and nothing invented, kind by kind."""
    findings = compare(truth, perfect(truth))
    assert wrong(findings) == []
    assert {f.topic for f in findings} == {"feed_gaps", "latency", "arbitrage", "verdicts", "alerts", "feed_quality"}
    assert sum(f.expected for f in findings if f.topic == "latency") == len(truth["latency"])


def test_one_nanosecond(truth):
    """A delay that is off by one nanosecond is one missing and one invented."""
    found = perfect(truth)
    found["latency"][0]["value_ns"] += 1
    assert wrong(compare(truth, found)) == [("latency", truth["latency"][0]["kind"], 1, 1)]


def test_missing_twice_and_invented(truth):
    """A missing gap, a verdict found twice and a wrong count of duplicates are named as such."""
    found = perfect(truth)
    gap = found["feed_gaps"].pop()
    found["verdicts"].append(found["verdicts"][0])
    found["feed_quality"][0]["duplicates"] += 1
    findings = compare(truth, found)
    assert wrong(findings) == [
        ("feed_gaps", gap["fate"], 1, 0),
        ("verdicts", found["verdicts"][0]["rule"], 0, 1),
        ("feed_quality", "duplicates", 1, 1),
    ]
    assert next(f for f in findings if f.missing).missing[0]["first_seq"] == gap["first_seq"]


def test_nothing_found(truth):
    """Without any findings everything is missing."""
    findings = compare(truth, {})
    assert all(f.missing and not f.invented for f in findings)


def test_what_the_truth_is_silent_about(truth):
    """TCP round trips, alerts of other kinds and an alert that fires again are not held against anyone."""
    found = perfect(truth)
    found["latency"].append({**found["latency"][0], "kind": "tcp_rtt"})
    found["alerts.feed_quality"] = [{"kind": "microburst", "topology": "feed_quality", "entity": "XNAS"}]
    found["alerts"].append(found["alerts"][0])
    assert wrong(compare(truth, found)) == []


def test_table(truth):
    """The table says equal, or shows what is missing (−) and invented (+)."""
    found = perfect(truth)
    found["arbitrage"][0]["opened_ns"] += 7
    out = StringIO()
    Console(file=out, width=240).print(render(compare(truth, found)))
    text = out.getvalue()
    assert "1 missing, 1 invented" in text
    assert f"+ symbol={truth['arbitrage'][0]['symbol']}" in text
    assert "equal" in text
