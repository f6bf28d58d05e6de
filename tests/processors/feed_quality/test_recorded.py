"""Real exchange captures: no gap where the data page says there is none, and exact gaps where we take packets away."""

from __future__ import annotations

import random

import numpy as np
import pytest

from akbypass.config import Config
from akbypass.processors.arbitration import Sequencer
from akbypass.processors.feed_quality.topology import TOPOLOGY
from akbypass.producers.edge import Edge
from akbypass.rows import Rows
from tests.processors.feed_quality.lines import config
from tests.processors.feed_quality.test_gap_fates import last_revisions
from tests.processors.support import drive
from tests.support import data

DEEP, TOPS = "marketdata/sai_test.pcap.gz", "marketdata/TOPS16.pcapng"


def recorded(name: str) -> tuple[Rows, Rows]:
    """feed_frames and market_data rows of a capture."""
    made: dict[str, list[Rows]] = {"feed_frames": [], "market_data": []}
    for batch in Edge(Config(), [str(data(name))], topics=tuple(made)):
        for topic, rows in batch.rows.items():
            if topic in made:
                made[topic].append(rows)
    return Rows.concat(made["feed_frames"]).sorted_by_order(), Rows.concat(made["market_data"]).sorted_by_order()


@pytest.mark.parametrize(("name", "packets", "messages"), [(DEEP, 5_000, 48_325), (TOPS, 13_022, 57_674)])
def test_recorded_feeds_have_no_gap(name: str, packets: int, messages: int) -> None:
    """The recorded IEX feeds have the packets and messages that the data page states, no gap and no duplicate."""
    rows, _ = recorded(name)
    made = drive(TOPOLOGY, Config(), {"feed_frames": rows})
    whole = [r for r in made["feed_quality"].to_dicts() if r["line"] == "feed"]
    assert (sum(r["packets"] for r in whole), sum(r["messages"] for r in whole)) == (packets, messages)
    assert sum(r["first_arrivals"] for r in whole) == messages
    assert (len(made["feed_gaps"]), sum(r["duplicates"] for r in whole), sum(r["gaps"] for r in whole)) == (0, 0, 0)


def test_every_recorded_message_is_released_once() -> None:
    """Arbitration of a single recorded line releases exactly its messages, in order, and loses none."""
    rows, messages = recorded(DEEP)
    made = Sequencer(Config()).step(rows, messages, int(rows["run_ns"][-1]) + 1, True)
    assert made.messages["sequence"].tolist() == list(range(1, 48_326))
    assert (len(made.losses), len(made.late)) == (0, 0)
    assert (made.cause_run_ns == made.messages["run_ns"]).all()


def test_packets_taken_away_from_a_recording() -> None:
    """A recording doubled into lines A and B, each without some packets, gives exactly those gaps and fates."""
    rows, _ = recorded(DEEP)
    rng = random.Random(7)
    whole = rows.take(np.flatnonzero(rows["kind"] == 0))
    n = len(whole)
    away = {"A": set(rng.sample(range(1, n - 1), 60)), "B": set(rng.sample(range(1, n - 1), 60))}
    both = set(rng.sample(range(1, n - 1), 15))
    parts, order = [], np.zeros(0, np.int64)
    for lag_ns, line in ((0, "A"), (700, "B")):
        keep = np.array([i for i in range(n) if i not in away[line] | both])
        times = whole["run_ns"][keep] + lag_ns
        parts.append(whole.take(keep).with_columns(
            run_ns=times, ts_capture_ns=times, capture_pos=np.arange(len(keep)) * 2 + (line == "B"),
            line=np.full(len(keep), line.encode(), "S8"), feed=np.full(len(keep), b"F", "S32"),
        ))  # fmt: skip
        order = np.append(order, keep)
    lossy = Rows.concat(parts).sorted_by_order()
    made = drive(TOPOLOGY, config(), {"feed_frames": lossy})
    found = {
        line: {q: r["fate"] for r in last_revisions(made["feed_gaps"].to_dicts()) if r["line"] == line
               for q in range(r["first_seq"], r["last_seq"] + 1)}
        for line in ("A", "B", "feed")
    }  # fmt: skip
    lost = away["A"] & away["B"] | both

    def numbers(packets: set[int]) -> set[int]:
        return {int(whole["first_seq"][i]) + k for i in packets for k in range(int(whole["count"][i]))}

    assert found["feed"] == dict.fromkeys(numbers(lost), "lost")
    for line in ("A", "B"):
        recovered = dict.fromkeys(numbers((away[line] | both) - lost), "recovered_other_line")
        assert found[line] == recovered | dict.fromkeys(numbers(lost), "lost")
    leads = [r["lead_p50_ns"] for r in made["feed_quality"].to_dicts() if r["line"] == "A" and r["n"]]
    assert set(leads) == {700}
