"""Arbitration of several lines into one stream, against hand-made tables and a slow model made from the definitions."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from akbypass.config import Config
from akbypass.processors.arbitration import Sequenced, Sequencer
from akbypass.rows import Rows
from tests.processors.feed_quality.lines import T0_NS, Packet, config, frames, messages, packet, random_packets

Released = list[tuple[int, float]]  # sequence, µs of its cause
Lost = list[tuple[int, int, float, int]]  # first, last, µs, messages before


def run(
    cfg: Config, rows: Rows, cut: int | None = None, rebirth: bool = False, end_us: float = 1_000_000
) -> list[Sequenced]:
    """Step a sequencer over the frames and their messages, `cut` frames at a time."""
    sequencer = Sequencer(cfg)
    msgs, n = messages(rows), len(rows)
    borders = [*range(0, n, cut or max(n, 1)), n]
    out = []
    for low, high in itertools.pairwise(borders):
        last = high == n
        watermark = T0_NS + round(end_us * 1_000) if last else int(rows["run_ns"][high])
        of = (msgs["capture_pos"] >= low * 1_000) & (msgs["capture_pos"] < high * 1_000)
        part = rows.take(slice(low, high))
        while not last and len(part) and part["run_ns"][-1] == watermark:  # the test's times differ; guard the contract
            raise AssertionError("frames of one time must stay together")
        out.append(sequencer.step(part, msgs.take(of), watermark, False))
        if rebirth:
            state = sequencer.snapshot()
            sequencer = Sequencer(cfg)
            sequencer.restore(state)
    out.append(
        sequencer.step(Rows.empty("feed_frames"), Rows.empty("market_data"), T0_NS + round(end_us * 1_000), True)
    )
    return out


def us(run_ns: int) -> float:
    return (run_ns - T0_NS) / 1_000


def flat(steps: list[Sequenced]) -> tuple[Released, Lost]:
    """All steps as one list of releases and one of losses."""
    released: Released = []
    lost: Lost = []
    for s in steps:
        for i in range(len(s.losses)):
            before = len(released) + int(s.losses.before[i])
            lost.append((int(s.losses.first_seq[i]), int(s.losses.last_seq[i]), us(int(s.losses.run_ns[i])), before))
        released += [(int(q), us(int(t))) for q, t in zip(s.messages["sequence"], s.cause_run_ns, strict=True)]
    return released, lost


def arbitrate(cfg: Config, *packets: Packet) -> tuple[Released, Lost]:
    return flat(run(cfg, frames(list(packets))))


def test_first_arrival_wins() -> None:
    """Each message is released once, when the first line brings it, and the copy is dropped."""
    released, lost = arbitrate(
        config(), packet(0, "A", 1, 2), packet(1, "B", 1, 2), packet(2, "B", 3, 1), packet(3, "A", 3, 1)
    )
    assert released == [(1, 0), (2, 0), (3, 2)]
    assert lost == []


def test_other_line_fills_a_hole() -> None:
    """A packet that one line lost holds later ones back until the other line brings it."""
    released, lost = arbitrate(
        config(),
        packet(0, "A", 1, 2),
        packet(1, "B", 1, 2),
        packet(10, "A", 5, 1),
        packet(12, "B", 3, 2),
        packet(13, "B", 5, 1),
    )
    assert released == [(1, 0), (2, 0), (3, 12), (4, 12), (5, 12)]
    assert lost == []


def test_lost_when_every_line_has_passed() -> None:
    """A message that both lines skip is lost at the row at which the second line passes it."""
    released, lost = arbitrate(
        config(), packet(0, "A", 1, 2), packet(1, "B", 1, 2), packet(10, "A", 5, 1), packet(12, "B", 5, 1)
    )
    assert released == [(1, 0), (2, 0), (5, 12)]
    assert lost == [(3, 4, 12, 2)]


def test_part_of_a_hole_is_lost() -> None:
    """Of a hole, only what every line has passed is lost; the rest is still taken from the line behind."""
    released, lost = arbitrate(
        config(),
        packet(0, "A", 1, 2),
        packet(1, "B", 1, 2),
        packet(10, "A", 7, 1),
        packet(12, "B", 5, 2),
        packet(14, "B", 7, 1),
    )
    assert released == [(1, 0), (2, 0), (5, 12), (6, 12), (7, 12)]
    assert lost == [(3, 4, 12, 2)]


def test_silent_line_is_waited_for() -> None:
    """While a configured line is silent a hole is lost only when the reorder window has passed, even without traffic."""
    released, lost = arbitrate(config(reorder_window_us=500), packet(0, "A", 1, 2), packet(10, "A", 5, 1))
    assert released == [(1, 0), (2, 0), (5, 510)]
    assert lost == [(3, 4, 510, 2)]


def test_swap_on_a_single_line() -> None:
    """On a feed of one line two swapped packets are put right, and a real loss waits for the reorder window."""
    swapped = arbitrate(
        config("A", reorder_window_us=500), packet(0, "A", 1, 1), packet(10, "A", 3, 1), packet(20, "A", 2, 1)
    )
    assert swapped == ([(1, 0), (2, 20), (3, 20)], [])
    released, lost = arbitrate(config("A", reorder_window_us=500), packet(0, "A", 1, 1), packet(10, "A", 3, 1))
    assert (released, lost) == ([(1, 0), (3, 510)], [(2, 2, 510, 1)])


def test_heartbeats_reveal_tail_loss() -> None:
    """A heartbeat counts as its line having passed what lies below its next expected number."""
    released, lost = arbitrate(
        config(), packet(0, "A", 1, 2), packet(1, "B", 1, 2), packet(10, "A", 4, "hb"), packet(11, "B", 4, "hb")
    )
    assert released == [(1, 0), (2, 0)]
    assert lost == [(3, 3, 11, 2)]


def test_end_of_session_does_not_count_messages() -> None:
    """End of session carries 0xFFFF where the count is, which is not a number of messages."""
    released, lost = arbitrate(config("A"), packet(0, "A", 1, 2), packet(10, "A", 3, "end"), packet(20, "A", 3, 1))
    assert released == [(1, 0), (2, 0), (3, 20)]
    assert lost == []


def test_late_messages_are_reported_not_released() -> None:
    """What was declared lost and then arrives is in `late`, once; its second copy is a copy."""
    steps = run(
        config(),
        frames([packet(0, "A", 1, 1), packet(1, "B", 1, 1), packet(10, "A", 4, 1), packet(12, "B", 4, 1),
                packet(20, "B", 2, 2), packet(21, "A", 2, 2)]),
    )  # fmt: skip
    assert flat(steps) == ([(1, 0), (4, 12)], [(2, 3, 12, 1)])
    late = steps[0].late
    assert [
        (int(a), int(b), us(int(t))) for a, b, t in zip(late.first_seq, late.last_seq, late.run_ns, strict=True)
    ] == [(2, 3, 20)]


def test_start_in_the_middle() -> None:
    """A capture that begins in the middle of a session begins with no loss, at the lowest number of the lines."""
    released, lost = arbitrate(
        config(), packet(0, "A", 103, 2), packet(1, "B", 100, 3), packet(2, "B", 103, 2), packet(9, "A", 105, 1)
    )
    assert released == [(100, 1), (101, 1), (102, 1), (103, 1), (104, 1), (105, 9)]
    assert lost == []


def test_first_packet_lost_on_the_leading_line() -> None:
    """When the leading line lost the first packet of a session, the other line's first packet is released first."""
    released, lost = arbitrate(config(), packet(0, "A", 3, 1), packet(1, "B", 1, 2), packet(2, "B", 3, 1))
    assert (released, lost) == ([(1, 1), (2, 1), (3, 1)], [])


def test_new_session_starts_again() -> None:
    """A new session closes the old one when every line has moved: its holes are lost, and numbers begin anew."""
    released, lost = arbitrate(
        config(), packet(0, "A", 1, 2), packet(1, "B", 1, 2), packet(10, "A", 5, 1),
        packet(20, "A", 1, 1, session="S2"), packet(22, "B", 3, 1), packet(25, "B", 1, 1, session="S2"),
    )  # fmt: skip
    assert released == [(1, 0), (2, 0), (3, 22), (5, 25), (1, 25)]
    assert lost == [(4, 4, 25, 3)]


def test_stragglers_of_a_closed_session_are_counted() -> None:
    """What a closed session's lagging line still brings is counted and not released."""
    sequencer = Sequencer(config(reorder_window_us=100))
    rows = frames(
        [packet(0, "A", 1, 1), packet(1, "B", 1, 1), packet(2, "A", 1, 1, session="S2"), packet(500, "B", 2, 3)]
    )
    made = sequencer.step(rows, messages(rows), T0_NS + 10_000_000, True)
    assert made.messages["sequence"].tolist() == [1, 1]
    assert (sequencer.counters["after_close"], sequencer.counters["copies"]) == (3, 1)


def test_held_messages_are_bounded() -> None:
    """When more messages wait than allowed, the oldest hole is lost."""
    released, lost = arbitrate(
        config(held_messages_max=16), packet(0, "A", 1, 1), packet(10, "A", 3, 9), packet(20, "A", 13, 9)
    )
    assert lost == [(2, 2, 20, 1), (12, 12, 10_020, 10)]
    assert [q for q, _ in released] == [1, *range(3, 12), *range(13, 22)]


def test_messages_without_frame_are_counted() -> None:
    """A message whose frame is unknown is dropped and counted, and a frame without messages still counts as arrived."""
    rows = frames([packet(0, "A", 1, 2), packet(10, "A", 3, 1)])
    sequencer = Sequencer(config("A"))
    msgs = messages(rows)
    stray = msgs.with_columns(capture_pos=msgs["capture_pos"] + 1)
    made = sequencer.step(rows, stray, T0_NS + 10**9, True)
    assert (len(made.messages), len(made.losses), sequencer.counters["orphans"]) == (0, 0, 3)


def test_feeds_do_not_touch_each_other() -> None:
    """Feeds of one partition are arbitrated on their own."""
    released, lost = arbitrate(
        config("A"), packet(0, "A", 1, 1), packet(1, "A", 7, 1, feed="G"), packet(2, "A", 3, 1), packet(3, "A", 8, 1, feed="G"),
        packet(4, "A", 2, 1),
    )  # fmt: skip
    assert (released, lost) == ([(1, 0), (7, 1), (8, 3), (2, 4), (3, 4)], [])


# -- random traffic against the definitions --------------------------------------------------------------------------------


def model(packets: list[Packet], known: str, window_us: float) -> tuple[Released, dict[int, float]]:
    """Settle every number on its own, straight from the definitions; slow. The session starts at 1."""
    packets = sorted(packets, key=lambda p: p.us)
    expected = dict.fromkeys(known, 0)
    delivered: dict[int, tuple[int, float]] = {}  # number → row, time
    opened: dict[int, float] = {}
    passed: dict[int, tuple[int, float]] = {}  # number → row at which every line had passed it
    top = 1
    for i, p in enumerate(packets):
        brought = range(p.first, p.first + p.count) if p.kind == "data" else range(0)
        for q in brought:
            delivered.setdefault(q, (i, p.us))
        end = max(p.first, brought[-1] + 1 if brought else p.first)
        for q in range(top, p.first):
            opened[q] = p.us
        top = max(top, end)
        expected[p.line] = max(expected[p.line], end)
        if len(known) > 1:
            for q in range(1, min(expected.values())):
                passed.setdefault(q, (i, p.us))
    released: Released = []
    lost: dict[int, float] = {}
    settled_us = -1.0
    for q in range(1, top):
        never = (len(packets), float("inf"))
        at, when = delivered.get(q, never)
        row, lost_us = passed.get(q, never)
        due = opened[q] + window_us if q in opened else float("inf")
        if due <= lost_us:  # the timer fires before a row of the same time
            row, lost_us = -1, due
        in_time = when < lost_us or (when == lost_us and row >= 0 and at <= row)
        if in_time:
            settled_us = max(settled_us, when)
            released.append((q, settled_us))
        else:
            settled_us = max(settled_us, lost_us)
            lost[q] = settled_us
    return released, lost


@pytest.mark.parametrize("seed", range(12))
def test_random_lines_equal_the_definitions(seed: int) -> None:
    """On random traffic of one to three lines, releases and losses and their times equal the slow model's."""
    rng = random.Random(seed)
    lines = rng.choice(["A", "AB", "AB", "ABC"])
    window_us = rng.choice([30, 120, 5_000])
    packets = random_packets(seed, lines, 120)
    if min(packets, key=lambda p: p.us).first != 1:
        packets.append(Packet(0, "A", 1, 0, "heartbeat"))
    packets = list({p.us: p for p in packets}.values())  # no two rows of one time: the model has no order for them
    released, lost = flat(run(config(lines, reorder_window_us=window_us), frames(packets)))
    expected, expected_lost = model(packets, lines, window_us)
    assert [q for q, _ in released] == [q for q, _ in expected], f"seed {seed}"
    assert np.allclose([t for _, t in released], [t for _, t in expected]), f"seed {seed}"
    found_lost = {q: t for a, b, t, _ in lost for q in range(a, b + 1)}
    assert found_lost.keys() == expected_lost.keys(), f"seed {seed}"
    assert all(abs(found_lost[q] - expected_lost[q]) < 1e-6 for q in found_lost), f"seed {seed}"
    order = {q: i for i, (q, _) in enumerate(released)}
    for a, _, _, before in lost:
        assert before == sum(1 for q in order if q < a), "a loss stands between the messages around it"


@pytest.mark.parametrize("cut", [1, 7, 100])
@pytest.mark.parametrize("rebirth", [False, True])
def test_cuts_do_not_matter(cut: int, rebirth: bool) -> None:
    """However rows are cut into steps, and with a restored copy at every step, the outcome is the same."""
    packets = random_packets(5, "AB", 150) + [Packet(p.us + 4_000.0005, p.line, p.first, p.count, p.kind, "S2") for p in
                                              random_packets(6, "AB", 100, start=50)]  # fmt: skip
    rows = frames(list({p.us: p for p in packets}.values()))
    cfg = config(reorder_window_us=80)
    assert flat(run(cfg, rows, cut, rebirth)) == flat(run(cfg, rows))


def test_of_two_lines_in_order_the_second_copy_is_dropped() -> None:
    """Of 600,000 messages on two lines each is released once, and every copy is counted."""
    n = 60_000
    first = np.repeat(np.arange(n // 2, dtype=np.int64) * 10 + 1, 2)
    times = T0_NS + np.arange(n, dtype=np.int64) * 1_000
    rows = Rows.build(
        "feed_frames", n, run_ns=times, ts_capture_ns=times, capture_pos=np.arange(n) * 1_000, capture_id=np.int32(0),
        feed=np.full(n, b"F", "S32"), line=np.where(np.arange(n) % 2 == 0, b"A", b"B").astype("S8"),
        session=np.full(n, b"S1", "S16"), first_seq=first, count=np.full(n, 10, np.int32),
    )  # fmt: skip
    msgs = messages(rows)
    sequencer, released = Sequencer(config()), 0
    for low in range(0, n, 20_000):
        part, some = rows.take(slice(low, low + 20_000)), msgs.take(slice(low * 10, (low + 20_000) * 10))
        released += len(sequencer.step(part, some, int(part["run_ns"][-1]) + 1, False).messages)
    assert released == len(msgs) // 2
    assert sequencer.counters["copies"] == len(msgs) // 2
