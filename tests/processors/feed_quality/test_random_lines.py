"""Random traffic of several lines against a slow model that treats every number on its own, from the definitions."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from typing import Any

import pytest

from akbypass.processors.arbitration import Sequencer
from akbypass.processors.feed_quality.topology import TOPOLOGY
from tests.processors.feed_quality.lines import T0_NS, Packet, config, frames, messages, packet, random_packets
from tests.processors.feed_quality.test_gap_fates import last_revisions
from tests.processors.support import assert_cut_invariant, drive
from tests.processors.test_arbitration import flat, model, run

HOUR_MS = 3_600_000


def traffic(seed: int) -> tuple[str, float, list[Packet]]:
    """Lines, reorder window (µs), and packets of different times, the first of which is number 1."""
    rng = random.Random(seed)
    lines = rng.choice(["A", "AB", "AB", "ABC"])
    packets = random_packets(seed, lines, 120)
    packets.append(packet(0, "A", 1, "hb"))
    return lines, rng.choice([30, 120, 5_000]), list({p.us: p for p in packets}.values())


def brought(p: Packet) -> range:
    return range(p.first, p.first + p.count) if p.kind == "data" else range(0)


def line_fates(
    packets: list[Packet], line: str, settle_us: float
) -> tuple[dict[int, tuple[str, float, float | None]], int]:
    """Each number that `line` missed: fate, when that began, when it came after all; and the line's duplicates."""
    expected, opened, seen, duplicates = 1, {}, {}, 0
    others: dict[int, float] = {}
    filled: dict[int, float] = {}
    for p in packets:
        for q in brought(p):
            if p.line != line:
                others.setdefault(q, p.us)
            elif q in seen:
                duplicates += 1
            else:
                seen[q] = p.us
                if q in opened:
                    filled[q] = p.us
        if p.line == line:
            for q in range(expected, p.first):
                opened[q] = p.us
            expected = max(expected, p.first, p.first + len(brought(p)))
    fates: dict[int, tuple[str, float, float | None]] = {}
    for q, since in opened.items():
        if filled.get(q, since + settle_us) < since + settle_us:
            fates[q] = ("filled_late", since, filled[q])
        elif others.get(q, since + settle_us) < since + settle_us:
            fates[q] = ("recovered_other_line", since, others[q])
        else:
            fates[q] = ("lost", since, None)
    return fates, duplicates


def feed_fates(
    packets: list[Packet], lines: str, window_us: float, settle_us: float
) -> dict[int, tuple[str, float, float | None]]:
    """Each number that was lost on all lines, and whether some line brought it after that."""
    fates: dict[int, tuple[str, float, float | None]] = {}
    for q, since in model(packets, lines, window_us)[1].items():
        later = [p.us for p in packets if q in brought(p) and since <= p.us < since + settle_us]
        fates[q] = ("filled_late", since, min(later)) if later else ("lost", since, None)
    return fates


def median_leads(packets: list[Packet]) -> dict[str, tuple[int | None, int]]:
    """Per line: lower median of its leads (ns) and how many; a packet is paired by its first number new on its line."""
    first: dict[int, int] = {}  # number → packet that brought it first
    seen: dict[str, set[int]] = defaultdict(set)
    leads: dict[str, list[int]] = defaultdict(list)
    paired: set[int] = set()
    for i, p in enumerate(packets):
        new = [q for q in brought(p) if q not in seen[p.line]]
        if new and new[0] in first:
            k = first[new[0]]
            lead = round((p.us - packets[k].us) * 1_000)
            leads[p.line].append(-lead)
            if k not in paired:
                leads[packets[k].line].append(lead)
            paired.add(k)
        for q in brought(p):
            first.setdefault(q, i)
        seen[p.line].update(brought(p))
    return {line: (sorted(v)[(len(v) - 1) // 2], len(v)) for line, v in leads.items()}


def rows_of(fates: dict[int, tuple[str, float, float | None]], rows: list[dict[str, Any]], what: str) -> None:
    """Expect the rows to cover exactly the numbers with these fates, each row one fate, with its time and delay."""
    covered: dict[int, str] = {}
    for r in rows:
        numbers = range(r["first_seq"], r["last_seq"] + 1)
        assert r["messages"] == len(numbers)
        assert not covered.keys() & set(numbers), f"{what}: rows overlap"
        covered |= dict.fromkeys(numbers, r["fate"])
        came = [fates[q][2] for q in numbers if q in fates]
        assert abs(min(fates[q][1] for q in numbers) - (r["opened_ns"] - T0_NS) / 1_000) < 1e-6, what
        if r["fate"] != "lost":
            latest_ns = round(max(t for t in came if t is not None) * 1_000) + T0_NS
            assert r["fill_delay_ns"] == latest_ns - r["opened_ns"], what
    assert covered == {q: fate for q, (fate, _, _) in fates.items()}, what
    for a, b in itertools.pairwise(rows):
        touching = a["last_seq"] + 1 == b["first_seq"] and a["fate"] == b["fate"]
        assert not touching or a["closed_ns"] < b["opened_ns"], f"{what}: a run of one fate in two rows"


def check(seed: int) -> int:
    """Compare one seed with the model; returns the number of gap rows."""
    lines, window_us, packets = traffic(seed)
    cfg = config(lines, reorder_window_us=window_us, gap_settle_ms=1, window_ms=HOUR_MS)
    made = drive(TOPOLOGY, cfg, {"feed_frames": frames(packets)}, end_ns=T0_NS + 10**9)
    packets = sorted(packets, key=lambda p: p.us)
    rows = sorted(last_revisions(made["feed_gaps"].to_dicts()), key=lambda r: r["first_seq"])
    quality = {r["line"]: r for r in made["feed_quality"].to_dicts()}
    leads = median_leads(packets)
    assert quality.keys() == {*lines, "feed"}
    for line in lines:
        what, row = f"seed {seed}, line {line}", quality[line]
        fates, duplicates = line_fates(packets, line, 1_000)
        rows_of(fates, [r for r in rows if r["line"] == line], what)
        assert row["missing"] == len(fates) and row["duplicates"] == duplicates, what
        counts = [
            sum(f == name for f, _, _ in fates.values()) for name in ("recovered_other_line", "filled_late", "lost")
        ]
        assert [row["recovered"], row["filled_late"], row["lost"]] == counts, what
        assert row["messages"] == sum(len(brought(p)) for p in packets if p.line == line), what
        if len(lines) > 1:
            assert (row["lead_p50_ns"], row["n"]) == leads[line], what
    whole = feed_fates(packets, lines, window_us, 1_000)
    rows_of(whole, [r for r in rows if r["line"] == "feed"], f"seed {seed}, feed")
    copies = sum(len(brought(p)) for p in packets) - len({q for p in packets for q in brought(p)})
    assert quality["feed"]["duplicates"] == copies, seed
    return len(rows)


@pytest.mark.parametrize("seed", range(12))
def test_fates_equal_the_definitions(seed: int) -> None:
    """Fates, delays, counters and leads equal the slow model's."""
    assert check(seed) > 0


@pytest.mark.parametrize("seed", [2, 5])
def test_cuts_and_checkpoints_do_not_matter(seed: int) -> None:
    """Over a session change, short windows and short settling, results do not depend on steps or restarts."""
    lines, window_us, packets = traffic(seed)
    second = [
        Packet(p.us + 3_000.0005, p.line, p.first + 40, p.count, p.kind, "S2")
        for p in traffic(seed + 1)[2]
        if p.line in lines
    ]
    cfg = config(lines, reorder_window_us=window_us, gap_settle_ms=1, window_ms=1)
    made = assert_cut_invariant(TOPOLOGY, cfg, {"feed_frames": frames(packets + second)}, T0_NS + 10**9)
    assert len(made["feed_gaps"]) > 20 and len(made["feed_quality"]) > 5 and len(made["alerts.feed_quality"]) > 0


def chaos(seed: int) -> list[Packet]:
    """Packets without any sense: feeds, sessions, lines and numbers at random, many lines, repeats and jumps."""
    rng = random.Random(seed)
    out = []
    for i in range(260):
        kind = rng.choice(["data"] * 8 + ["heartbeat", "end"])
        first = rng.choice([rng.randint(-2, 40), rng.randint(1, 200), 2**61 + rng.randint(-3, 3), 2**63 - 1])
        count = rng.choice([0, 1, 3, 10, 40]) if kind == "data" else 0xFFFF
        line = rng.choice("AAAABBB") if rng.random() < 0.8 else f"L{rng.randint(0, 20)}"
        us = round(i * rng.choice([7, 7, 900]) + rng.random() * 30, 3)
        session, feed = rng.choice(["S1", "S1", "S1", "S2", "S3"]), rng.choice(["F", "F", "G"])
        out.append(Packet(us, line, first, count, kind, session, feed))
    return list({p.us: p for p in out}.values())


@pytest.mark.parametrize("seed", range(6))
def test_chaos_is_survived_and_accounted_for(seed: int) -> None:
    """Whatever comes, results do not depend on steps, and each message is released or counted under a reason."""
    packets = chaos(seed)
    rows = frames(packets)
    cfg = config(reorder_window_us=300, gap_settle_ms=2, window_ms=5, held_messages_max=64, gaps_open_max=16)
    assert_cut_invariant(TOPOLOGY, cfg, {"feed_frames": rows}, T0_NS + 10**9)
    sequencer = Sequencer(cfg)
    made = sequencer.step(rows, messages(rows), T0_NS + 10**9, True)
    counters = sequencer.counters
    refused = counters["invalid_messages"] + counters["ignored_line_messages"]
    dropped = sum(counters[k] for k in ("copies", "late", "before_start", "after_close")) + refused
    assert len(made.messages) + dropped == sum(len(brought(p)) for p in packets)
    assert (made.cause_run_ns[1:] >= made.cause_run_ns[:-1]).all()
    assert flat(run(cfg, rows, 7, True)) == flat(run(cfg, rows))
