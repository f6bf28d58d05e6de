"""Gaps of lines and of the feed: hand-made tables, one per rule."""

from __future__ import annotations

from typing import Any

from akbypass.config import Config
from akbypass.processors.feed_quality.topology import TOPOLOGY
from tests.processors.feed_quality.lines import T0_NS, Packet, config, frames, packet
from tests.processors.support import assert_cut_invariant

Settled = tuple[str, int, int, str, float | None]  # line, first, last, fate, fill delay in µs


def last_revisions(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The current version of each row, as a store would keep it."""
    newest: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["id"] not in newest or row["revision"] > newest[row["id"]]["revision"]:
            newest[row["id"]] = row
    return list(newest.values())


def run(cfg: Config, *packets: Packet, end_us: float = 10_000_000) -> dict[str, list[dict[str, Any]]]:
    """All output rows by topic, the same however the input is cut."""
    made = assert_cut_invariant(TOPOLOGY, cfg, {"feed_frames": frames(list(packets))}, T0_NS + round(end_us * 1_000))
    return {topic: rows.to_dicts() for topic, rows in made.items()}


def gaps(cfg: Config, *packets: Packet, end_us: float = 10_000_000) -> list[Settled]:
    """Settled gaps, sorted."""
    rows = last_revisions(run(cfg, *packets, end_us=end_us)["feed_gaps"])
    delays = [None if r["fill_delay_ns"] is None else r["fill_delay_ns"] / 1_000 for r in rows]
    return sorted((r["line"], r["first_seq"], r["last_seq"], r["fate"], d) for r, d in zip(rows, delays, strict=True))


START = (packet(0, "A", 1, 2), packet(1, "B", 1, 2))


def test_loss_on_a_is_recovered_by_b() -> None:
    """What A misses and B delivers later is recovered, with the delay from A's gap to B's delivery; the feed has no gap."""
    found = gaps(config(), *START, packet(10, "A", 5, 1), packet(12, "B", 3, 2), packet(13, "B", 5, 1))
    assert found == [("A", 3, 4, "recovered_other_line", 2)]


def test_loss_on_b_was_delivered_before() -> None:
    """What A delivered before B skipped it is recovered too; the delay is negative because A led."""
    found = gaps(config(), *START, packet(10, "A", 3, 2), packet(11, "A", 5, 1), packet(13, "B", 5, 1))
    assert found == [("B", 3, 4, "recovered_other_line", -3)]


def test_loss_on_both_lines() -> None:
    """What no line delivers is lost on each line and on the feed."""
    found = gaps(config(), *START, packet(10, "A", 5, 1), packet(12, "B", 5, 1))
    assert found == [("A", 3, 4, "lost", None), ("B", 3, 4, "lost", None), ("feed", 3, 4, "lost", None)]


def test_loss_partly_on_both_lines() -> None:
    """A hole of which the other line had a part falls into one row per fate."""
    found = gaps(config(), *START, packet(10, "A", 9, 1), packet(12, "B", 5, 2), packet(14, "B", 9, 1))
    assert found == [
        ("A", 3, 4, "lost", None), ("A", 5, 6, "recovered_other_line", 2), ("A", 7, 8, "lost", None),
        ("B", 3, 4, "lost", None), ("B", 7, 8, "lost", None), ("feed", 3, 4, "lost", None), ("feed", 7, 8, "lost", None),
    ]  # fmt: skip


def test_several_lost_packets_are_one_row() -> None:
    """A hole of several packets of one fate is one row, also when a heartbeat showed it in two steps."""
    found = gaps(config(), *START, packet(10, "A", 5, "hb"), packet(11, "A", 9, 1), packet(12, "B", 9, 1))
    assert found == [("A", 3, 8, "lost", None), ("B", 3, 8, "lost", None), ("feed", 3, 8, "lost", None)]


def test_late_fill_splits() -> None:
    """What the line itself delivers later is filled late, the rest of the hole keeps its own fate."""
    found = gaps(config("A"), packet(0, "A", 1, 2), packet(10, "A", 8, 1), packet(60, "A", 5, 1))
    assert found == [
        ("A", 3, 4, "lost", None), ("A", 5, 5, "filled_late", 50), ("A", 6, 7, "lost", None),
        ("feed", 3, 4, "lost", None), ("feed", 6, 7, "lost", None),
    ]  # fmt: skip


def test_filled_after_all_lines_had_passed() -> None:
    """When every line has passed it and one delivers it after all, the feed's row is filled_late."""
    found = gaps(config(), *START, packet(10, "A", 5, 1), packet(12, "B", 5, 1), packet(40, "B", 3, 2))
    assert found == [
        ("A", 3, 4, "recovered_other_line", 30), ("B", 3, 4, "filled_late", 28), ("feed", 3, 4, "filled_late", 28),
    ]  # fmt: skip


def test_settled_gaps_stay_settled() -> None:
    """A delivery after gap_settle_ms changes no fate."""
    found = gaps(config("A", gap_settle_ms=1), packet(0, "A", 1, 2), packet(10, "A", 4, 1), packet(1_500, "A", 3, 1))
    assert found == [("A", 3, 3, "lost", None)]  # the feed still had time: its reorder window was longer


def test_reorder_within_the_window() -> None:
    """Two swapped packets are a late fill of their line and no gap of the feed."""
    found = gaps(config("A"), packet(0, "A", 1, 2), packet(10, "A", 4, 1), packet(30, "A", 3, 1), packet(40, "A", 5, 1))
    assert found == [("A", 3, 3, "filled_late", 20)]


def test_heartbeat_reveals_tail_loss() -> None:
    """A heartbeat whose next expected number is ahead opens a gap up to it."""
    assert gaps(config("A"), packet(0, "A", 1, 2), packet(10, "A", 5, "hb")) == [
        ("A", 3, 4, "lost", None),
        ("feed", 3, 4, "lost", None),
    ]


def test_heartbeat_is_no_message() -> None:
    """The sequence (90,10) (100,0) (100,3) (103,2), without any loss, has no gap and no duplicate."""
    made = run(
        config("A"), packet(0, "A", 90, 10), packet(1, "A", 100, "hb"), packet(2, "A", 100, 3), packet(3, "A", 103, 2)
    )
    assert made["feed_gaps"] == []
    line = made["feed_quality"][0]
    assert (line["gaps"], line["duplicates"], line["messages"], line["heartbeats"]) == (0, 0, 15, 1)


def test_old_heartbeat_changes_nothing() -> None:
    """A heartbeat that comes late, with a number already passed, is neither duplicate nor a step back."""
    made = run(config("A"), packet(0, "A", 1, 5), packet(1, "A", 4, "hb"), packet(2, "A", 6, 1))
    assert made["feed_gaps"] == []
    assert made["feed_quality"][0]["duplicates"] == 0


def test_end_of_session_does_not_add() -> None:
    """End of session carries 0xFFFF as count; the sequence goes on at its number, and it reveals tail loss."""
    assert gaps(config("A"), packet(0, "A", 1, 2), packet(10, "A", 3, "end"), packet(20, "A", 3, "end")) == []
    assert gaps(config("A"), packet(0, "A", 1, 2), packet(10, "A", 4, "end")) == [
        ("A", 3, 3, "lost", None),
        ("feed", 3, 3, "lost", None),
    ]


def test_duplicates_are_counted_per_line_and_feed() -> None:
    """A packet repeated on its line is a duplicate there; for the feed every later copy on any line is one."""
    made = run(config(), *START, packet(2, "A", 1, 2), packet(3, "B", 3, 1), packet(4, "A", 3, 1))
    assert made["feed_gaps"] == []
    by_line = {r["line"]: (r["messages"], r["duplicates"], r["first_arrivals"]) for r in made["feed_quality"]}
    assert by_line == {"A": (5, 2, 2), "B": (3, 0, 1), "feed": (8, 5, 3)}


def test_overlapping_packet_brings_its_tail() -> None:
    """Of a packet that overlaps what was seen, the head is duplicate and the tail new."""
    made = run(config("A"), packet(0, "A", 1, 4), packet(1, "A", 3, 4), packet(2, "A", 7, 1))
    assert made["feed_gaps"] == []
    line = made["feed_quality"][0]
    assert (line["duplicates"], line["first_arrivals"]) == (2, 7)


def test_session_change_closes_the_old_one() -> None:
    """A new session settles the old one's gaps, the unseen tail of a line included, and starts without a gap."""
    found = gaps(
        config(), *START, packet(10, "A", 3, 2), packet(20, "A", 1, 1, session="S2"), packet(21, "B", 1, 1, session="S2"),
        packet(22, "A", 2, 1, session="S2"), packet(23, "B", 2, 1, session="S2"),
    )  # fmt: skip
    assert found == [("B", 3, 4, "recovered_other_line", -11)]
    made = run(config(), *START, packet(20, "A", 1, 1, session="S2"), packet(21, "B", 1, 1, session="S2"))
    resets = {(r["line"], r["session"]): r["resets"] for r in made["feed_quality"]}
    assert resets == {
        ("A", "S1"): 0,
        ("B", "S1"): 0,
        ("feed", "S1"): 0,
        ("A", "S2"): 1,
        ("B", "S2"): 1,
        ("feed", "S2"): 1,
    }


def test_start_in_the_middle_is_no_gap() -> None:
    """A capture that begins in the middle of a session has no gap before its first packets, even with a line behind."""
    assert (
        gaps(config(), packet(0, "A", 103, 2), packet(1, "B", 100, 3), packet(2, "B", 103, 2), packet(3, "A", 105, 1))
        == []
    )


def test_first_packet_of_a_session_lost() -> None:
    """When a session is seen from number 1, a line that begins later has missed its beginning."""
    found = gaps(config(), packet(0, "A", 3, 1), packet(1, "B", 1, 2), packet(2, "B", 3, 1))
    assert found == [("A", 1, 2, "recovered_other_line", 1)]
    found = gaps(config(), packet(0, "A", 1, 2), packet(1, "A", 3, 1), packet(2, "B", 3, 1))
    assert found == [("B", 1, 2, "recovered_other_line", -2)]


def test_skew_between_lines_is_no_gap() -> None:
    """A line that is always behind, but complete, has no gap and no duplicates; its lead is negative."""
    packets = [packet(10 * i, "A", 2 * i + 1, 2) for i in range(50)] + [
        packet(10 * i + 25.5, "B", 2 * i + 1, 2) for i in range(50)
    ]
    made = run(config(), *packets)
    assert made["feed_gaps"] == []
    leads = {r["line"]: (r["lead_p50_ns"], r["n"], r["u_ns"]) for r in made["feed_quality"]}
    assert leads == {"A": (25_500, 50, 1), "B": (-25_500, 50, 1), "feed": (None, 0, None)}


def test_revisions_and_identity() -> None:
    """A gap is written when it opens and when it is settled; the first piece keeps its id, others get their own."""
    rows = run(config("A"), packet(0, "A", 1, 2), packet(10, "A", 6, 1), packet(60, "A", 3, 1))["feed_gaps"]
    line = [(r["id"], r["revision"], r["first_seq"], r["last_seq"], r["fate"]) for r in rows if r["line"] == "A"]
    first = line[0][0]
    assert line[0] == (first, 0, 3, 5, "open")
    assert line[1] == (first, 1, 3, 3, "filled_late")
    assert line[2][1:] == (0, 4, 5, "lost") and line[2][0] != first
    settled_ns = T0_NS + 10_000 + 5_000_000_000
    assert [r["run_ns"] for r in rows if r["line"] == "A"] == [T0_NS + 10_000, settled_ns, settled_ns]
    assert rows[0]["opened_ns"] == T0_NS + 10_000 and rows[0]["closed_ns"] is None and rows[0]["messages"] == 3


def test_open_gaps_are_bounded() -> None:
    """When a line has too many open gaps the oldest is settled early, with the fate that it has by then."""
    packets = [packet(10 * i, "A", 2 * i + 1, 1) for i in range(20)]
    rows = run(config("A", gaps_open_max=16), *packets)["feed_gaps"]
    early = [r for r in rows if r["line"] == "A" and r["fate"] == "lost" and r["run_ns"] < T0_NS + 1_000_000]
    assert [r["first_seq"] for r in early] == [2, 4, 6]
    assert len([r for r in last_revisions(rows) if r["line"] == "A"]) == 19
