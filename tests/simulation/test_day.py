"""What a simulated day promises: the same bytes again, everything at least once, nothing that was not planned."""

from __future__ import annotations

import doctest
from collections import Counter
from pathlib import Path

import orjson
import pytest

from akbypass import config
from akbypass.producers.simulator import draws, fix, simulate
from akbypass.producers.simulator.day import SYMBOLS, VENUES, make_plan

EVERY_LATENCY = {
    ("order_ack", "accepted"), ("order_ack", "rejected"), ("order_ack", "pending"), ("order_fill", "filled"),
    ("cancel_ack", "canceled"), ("cancel_ack", "rejected"), ("replace_ack", "replaced"), ("replace_ack", "rejected"),
}  # fmt: skip


def test_same_seed_same_bytes(tmp_path):
    """The same seed gives the same files, another seed another capture."""
    days = [simulate(tmp_path / name, seed, 2) for name, seed in (("a", 5), ("b", 5), ("c", 6))]
    for part in ("capture", "truth", "config"):
        first, second, third = (Path(getattr(d, part)).read_bytes() for d in days)
        assert first == second
        assert (first == third) == (part == "config")


def test_labelled(day, truth):
    """The truth and the note beside it say that the day is simulated."""
    assert truth["simulated"] is True
    assert "Simulated" in (day.capture.parent / "README.txt").read_text()


def test_configuration_loads(day, truth):
    """The configuration is one that the program accepts, and names feeds, gateways and rules of the day."""
    loaded = config.load(day.config)
    assert {f.name for f in loaded.feeds} == {row["feed"] for row in truth["lines"]}
    assert {r.name for r in loaded.rules} == {row["rule"] for row in truth["verdicts"]}
    assert loaded.venue_of("198.51.100.20", 4002) == "XBOS"


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("seconds", [2, 2.7, 5])
def test_everything_at_least_once(tmp_path, seed, seconds):
    """Even the shortest day has every kind of gap, delay, edge, verdict and alert, and one suspect venue."""
    truth = orjson.loads(simulate(tmp_path, seed, seconds).truth.read_bytes())
    fates = {(g["line"], g["fate"]) for g in truth["feed_gaps"]}
    lines = {(line, fate) for line in "AB" for fate in ("recovered_other_line", "filled_late", "lost")}
    assert fates == lines | {("feed", "lost")}
    for row in truth["lines"]:
        assert row["duplicates"] > 0
        assert row["heartbeats"] >= 3
    assert {(r["kind"], r["outcome"]) for r in truth["latency"]} == EVERY_LATENCY
    assert {a["kind"] for a in truth["alerts"]} == set(truth["alert_kinds"])
    assert len(truth["arbitrage"]) >= 2
    assert truth["near_misses"]
    assert len(truth["suspect"]) == 1


@pytest.mark.parametrize(
    ("seed", "seconds", "rate"), [(0, 2, 2_500), (1, 6, 9_000), (2, 20, 2_500), (995329, 3.79, 300)]
)
def test_edges_are_the_planned_ones(tmp_path, seed, seconds, rate):
    """Each planned edge that can be decided is in the truth with its size and length, and there is no other one."""
    truth = orjson.loads(simulate(tmp_path, seed, seconds, rate).truth.read_bytes())
    plan = make_plan(seed, seconds, rate)
    sound = [
        w for w in plan.windows
        if w.ticks > 2 and not (w.open_ns > plan.lost_ns and plan.lost_venue in (w.buy, w.sell))
    ]  # fmt: skip
    assert len(sound) == len(truth["arbitrage"])
    for w, row in zip(sound, sorted(truth["arbitrage"], key=lambda r: r["opened_ns"]), strict=True):
        assert (row["symbol"], row["buy_venue"]) == (SYMBOLS[w.symbol], VENUES[w.buy].name)
        assert (row["sell_venue"], row["edge_nanos"]) == (VENUES[w.sell].name, w.ticks * 10_000_000)
        assert abs(row["opened_ns"] - w.open_ns) < 400_000
        assert abs(row["closed_ns"] - w.close_ns) < 400_000
    assert Counter(w.close for w in sound)


def test_late_packets_settle(day, truth):
    """What is filled late comes early enough for its gap to be settled: all gaps of one fate, none open."""
    assert {g["fate"] for g in truth["feed_gaps"]} == {"lost", "recovered_other_line", "filled_late"}


@pytest.mark.parametrize(("seed", "seconds", "rate"), [(-1, 5, 3_000), (1, 1.9, 3_000), (1, 5, 10)])
def test_impossible_days(tmp_path, seed, seconds, rate):
    """A day without room for everything is refused with what was expected and found."""
    with pytest.raises(ValueError, match=r"expected a seed of 0 or more, .* found"):
        simulate(tmp_path, seed, seconds, rate)


def test_quiet_and_busy_days(tmp_path):
    """The rate of messages is the caller's, within a quarter."""
    for rate in (600, 12_000):
        truth = orjson.loads(simulate(tmp_path / str(rate), 3, 10, rate).truth.read_bytes())
        assert truth["feed_messages"] == pytest.approx(10 * rate, rel=0.25)


@pytest.mark.parametrize("module", [draws, fix])
def test_examples(module):
    """The examples in the simulator's docstrings are right."""
    tried = doctest.testmod(module)
    assert tried.attempted > 0
    assert tried.failed == 0
