"""A few kills in every CI run; campaigns of many seeds are run with `make chaos` and kept in seeds.json."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import orjson
import pytest

from akbypass import store_client
from akbypass.local.store import StoreServer
from tests.backends import probed
from tests.chaos.__main__ import SEEDS
from tests.chaos.day import Day, make_day
from tests.chaos.plan import FIRST, HEAVY, LAST, LIGHT, PARTS, make_plan
from tests.chaos.run import run_plan
from tests.chaos.verify import verify

CI_SEED, CI_KILLS, CI_DAY_S = 5, 6, 6.0


def test_a_seed_is_one_plan() -> None:
    """The same seed gives the same plan; every part is killed, in the middle of the run, beside all light disturbances."""
    plans = [make_plan(seed) for seed in range(200)]
    assert plans == [make_plan(seed) for seed in range(200)]
    for plan in plans:
        assert set(plan.kills()) == set(PARTS)
        assert plan.kills().total() == 7
        assert all(FIRST <= a.at <= LAST for a in plan.actions)
        assert {name for name, *_ in LIGHT} <= {a.name for a in plan.actions}
    drawn = {(a.name, a.part) for plan in plans for a in plan.actions}
    assert drawn == {(n, p) for n, p, _ in (*LIGHT, *HEAVY)} | {("kill", part) for part in PARTS}


def test_proven_seeds_are_a_hundred_kills_in_fifteen_runs() -> None:
    """seeds.json: at most 15 runs, all equal, 100 kills that hit, at least 15 of each part; the plans still are those."""
    proven = orjson.loads(SEEDS.read_bytes())
    kills: Counter[str] = Counter()
    for run in proven:
        kills.update(run["kills"])
        planned = make_plan(run["seed"]).kills()
        assert all(count <= planned[part] for part, count in run["kills"].items())
    assert len(proven) <= 15
    assert {run["result"] for run in proven} == {"equal"}
    assert kills.total() >= 100
    assert min(kills[part] for part in PARTS) >= 15


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    """A short day and its offline result."""
    return make_day(tmp_path_factory.mktemp("day"), 7, CI_DAY_S)


@pytest.mark.services
def test_stored_rows_equal_the_offline_result_after_six_kills(day: Day, tmp_path: Path) -> None:
    """Each part killed, messages sent again, poison on every topic, clocks stepped: nothing lost, nothing counted twice.

    The comparison is then shown to notice one row that is gone.
    """
    with probed():
        report = run_plan(make_plan(CI_SEED, CI_KILLS, heavy=()), day, tmp_path / "run", CI_DAY_S, keep=True)
    assert report.differences == []
    assert sum(report.kills.values()) == CI_KILLS
    assert report.rows == day.rows > 50_000
    assert report.repeated > 50 and report.poisoned > 30
    with StoreServer(tmp_path / "run" / "store") as store, store_client.connect(day.config, store.url) as client:
        client.command("DELETE FROM latency WHERE id = (SELECT max(id) FROM latency)")
        found = verify(client, day, None)
    assert [text.split(":")[0] for text in found.differences] == ["latency"]
