"""What goes first when the spool is full, and what is left of a message that is dropped."""

from __future__ import annotations

import pytest

from akbypass import batch, topics
from akbypass.config import Spool
from akbypass.producers.spool import degrade
from akbypass.producers.spool.degrade import Tally, hollow, level, limits
from tests.producers.spool.support import ROWS, START_NS, message

SPOOL = Spool(bytes_max=1 << 20, reserve_market_bytes=1_000, reserve_orders_bytes=200, reserve_accounts_bytes=30)

WINDOW_NS = 10**9


def test_each_reserve_is_kept_from_what_goes_before() -> None:
    """packets may fill all but the three reserves, market data all but two, orders all but the last, accounts all."""
    room = {topic: limits(SPOOL)[level(topic, 1)] - (1 << 20) for topic in topics.CAPTURE_TOPICS}
    assert room == {
        "packets": -1_230, "feed_frames": -230, "market_data": -230, "orders": -30, "rejected": -30, "captures": 0
    }  # fmt: skip
    assert {limits(SPOOL)[level(topic, 0)] for topic in topics.CAPTURE_TOPICS} == {1 << 20}  # a watermark


def test_a_dropped_message_leaves_its_watermark_and_an_account() -> None:
    """Rows go; run, source, sequence and watermark stay; the account has topic, count and first and last time."""
    full = message("packets", 3)
    left, capture, lost = hollow("packets", full, WINDOW_NS)
    assert left is not None
    before, after = (batch.decode("packets", m.value, m.headers) for m in (full, left))
    assert after.rows is None and left.rows == 0 and before.rows is not None
    assert (after.run_id, after.source, after.sources, after.sequence) == ("r1", 0, 1, 3)
    assert after.watermark_ns == before.watermark_ns == START_NS + 4 * ROWS
    assert (before.rows_before, after.rows_before) == (3 * ROWS, 4 * ROWS)
    (one,) = lost.values()
    assert (capture, one.first_ns, one.last_ns) == (0, START_NS + 3 * ROWS, START_NS + 4 * ROWS - 1)
    assert one.rows == {"packets": ROWS} and one.last_key == (one.last_ns, 0, 4 * ROWS - 1, 0)


def test_losses_are_told_by_window() -> None:
    """A message over a border of windows is lost in both, each with its own rows, range and last key."""
    lost = hollow("packets", message("packets", 3), ROWS // 4)[2]
    assert [(n.rows["packets"], n.first_ns - START_NS, n.last_key[2]) for n in lost.values()] == [
        (25, 300, 324), (25, 325, 349), (25, 350, 374), (25, 375, 399)
    ]  # fmt: skip


def test_a_tally_keeps_counts_and_forgets_borders(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more windows than are told one by one, the oldest become one: no count is lost, its range covers both."""
    monkeypatch.setattr(degrade, "WINDOWS_MAX", 3)
    tally = Tally()
    for number in range(6):
        for window, lost in hollow("packets", message("packets", number), ROWS)[2].items():
            tally.add(window, lost)
    found = tally.take()
    assert [n.rows["packets"] // ROWS for n in found] == [4, 1, 1] and tally.take() == []
    assert (found[0].first_ns, found[0].last_ns) == (START_NS, START_NS + 4 * ROWS - 1)


def test_accounts_of_one_capture_add_up() -> None:
    """Counts add by topic, the range covers both."""
    (first,) = hollow("packets", message("packets", 3), WINDOW_NS)[2].values()
    (second,) = hollow("orders", message("orders", 1), WINDOW_NS)[2].values()
    first.add(second)
    assert (first.first_ns, first.last_ns) == (START_NS + ROWS, START_NS + 4 * ROWS - 1)
    assert first.rows == {"packets": ROWS, "orders": ROWS}
