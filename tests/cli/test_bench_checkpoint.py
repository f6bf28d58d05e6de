"""`bench checkpoint` at a small size: volumes and that a worker really starts from the states; no times."""

from __future__ import annotations

import pytest

from akbypass.bench.checkpoint import Sizes, measure, plain

pytestmark = pytest.mark.services


def test_states_are_saved_and_a_worker_steps_from_them() -> None:
    """Each topology saves its state whole, then nothing but a manifest, and every partition steps beyond the last one."""
    sizes = Sizes(flows=8_000, orders=800, contacts=4_000, books=80, book_orders=8_000)
    costs, recovery = measure(sizes)
    found = {(c.topology, c.save): c for c in costs}
    assert found["filtering", "whole"].state_bytes > 8_000 * 18 * 8
    assert found["latency", "whole"].state_bytes > 8_000 * 26 * 8 + 800 * 8 * 8
    assert found["books", "whole"].state_bytes > 8_000 * 5 * 8
    for topology in ("filtering", "security", "latency", "books"):
        whole, unchanged, touched = (found[topology, save] for save in ("whole", "unchanged", "1 % touched"))
        assert whole.sent_bytes > whole.state_bytes
        assert unchanged.sent_bytes < 20_000  # four manifests
        assert unchanged.sent_bytes < touched.sent_bytes <= touched.state_bytes + 40_000
    assert recovery.seconds > 0
    assert [s["topology"] for s in plain(costs, recovery)["saves"][::3]] == [
        "filtering",
        "security",
        "latency",
        "books",
    ]
