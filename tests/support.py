"""What tests share: where recorded captures lie, and when their absence is a failure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("AKBYPASS_DATA", ROOT.parent / "shared" / "data"))


def data(name: str) -> Path:
    """Path of a recorded capture; skips when it is absent, fails under AKBYPASS_REQUIRE_DATA=1."""
    path = DATA / name
    if not path.exists():
        reason = f"{name} is not in {DATA}; set AKBYPASS_DATA"
        if os.environ.get("AKBYPASS_REQUIRE_DATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path
