"""Days that the tests of the simulator share."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from akbypass.producers.simulator import SimulatedDay, simulate

SEEDS = (0, 1, 2, 7, 20)


@pytest.fixture(scope="session", params=SEEDS, ids=lambda seed: f"seed{seed}")
def day(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimulatedDay:
    """A short day, one for each seed."""
    return simulate(tmp_path_factory.mktemp("day"), request.param, 3)


@pytest.fixture(scope="session")
def truth(day: SimulatedDay) -> dict:
    """Truth of the day."""
    return orjson.loads(Path(day.truth).read_bytes())
