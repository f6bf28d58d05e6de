"""What goes first when the spool is full, and what is left of a message that is dropped."""

from __future__ import annotations

from akbypass import batch, topics
from akbypass.config import Spool
from akbypass.producers.spool.degrade import Lost, hollow, level, limits
from tests.producers.spool.support import ROWS, START_NS, message

SPOOL = Spool(bytes_max=1 << 20, reserve_market_bytes=1_000, reserve_orders_bytes=200, reserve_accounts_bytes=30)


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
    left, capture, lost = hollow("packets", full)
    before, after = (batch.decode("packets", m.value, m.headers) for m in (full, left))
    assert after.rows is None and left.rows == 0 and before.rows is not None
    assert (after.run_id, after.source, after.sources, after.sequence) == ("r1", 0, 1, 3)
    assert after.watermark_ns == before.watermark_ns == START_NS + 4 * ROWS
    assert (capture, lost.first_ns, lost.last_ns) == (0, START_NS + 3 * ROWS, START_NS + 4 * ROWS - 1)
    assert lost.rows == {"packets": ROWS}


def test_accounts_of_one_capture_add_up() -> None:
    """Counts add by topic, the range covers both."""
    first, second = hollow("packets", message("packets", 3))[2], hollow("orders", message("orders", 1))[2]
    first.add(second)
    assert first == Lost(START_NS + ROWS, START_NS + 4 * ROWS - 1, first.rows)
    assert first.rows == {"packets": ROWS, "orders": ROWS}
