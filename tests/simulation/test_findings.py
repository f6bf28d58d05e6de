"""The whole line without a broker against the truth: on eleven simulated days every answer is right."""

from __future__ import annotations

import orjson
import pytest

from akbypass import config
from akbypass.offline import LastRevisions, Offline
from akbypass.processors import all_topologies
from akbypass.producers.edge import Edge
from akbypass.producers.simulator import simulate
from akbypass.truth import compare

DAYS = [
    (101, 2, 2_500), (102, 2.5, 2_500), (103, 3, 600), (104, 4, 9_000), (105, 5, 2_500), (106, 6, 300),
    (107, 7.3, 2_500), (108, 8, 2_500), (109, 10, 2_500), (110, 20, 2_500), (995329, 3.79, 300),
]  # fmt: skip


@pytest.mark.parametrize(("seed", "seconds", "rate"), DAYS)
def test_every_answer_equals_the_truth(tmp_path, seed, seconds, rate):
    """Gaps, delays, edges, verdicts, alerts and counts of lines: nothing missing, nothing invented."""
    day = simulate(tmp_path, seed, seconds, rate)
    settings = config.load(day.config)
    edge = Edge(settings, [str(day.capture)])
    results = LastRevisions(tmp_path / "out")
    run = Offline(settings, all_topologies(), edge.run_id, edge.captures, results)
    for made in edge:
        run.feed(made.rows, made.capture_id, made.watermark_ns, made.end_ns)
    results.close()
    found = {p.stem: [orjson.loads(line) for line in p.open("rb")] for p in (tmp_path / "out").glob("*.jsonl")}
    truth = orjson.loads(day.truth.read_bytes())
    findings = compare(truth, found)
    assert [f for f in findings if not f.is_right] == []
    assert sum(f.expected for f in findings) > 100
    assert found["rejected"] == []
