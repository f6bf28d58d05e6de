"""What tests share: where recorded captures lie, and when their absence is a failure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from akbypass.config import Config
from akbypass.offline import RESULTS, LastRevisions, Offline
from akbypass.processors import all_topologies
from akbypass.producers.edge import Edge

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


def analyzed(capture: Path, config: Config, out: Path) -> dict[str, list[dict[str, Any]]]:
    """What `akbypass analyze` writes for a capture: rows by result."""
    edge = Edge(config, [str(capture)])
    written = LastRevisions(out)
    run = Offline(config, all_topologies(), edge.run_id, edge.captures, written)
    for made in edge:
        run.feed(made.rows, made.capture_id, made.watermark_ns, made.end_ns)
    written.close()
    return {n: [orjson.loads(line) for line in (out / f"{n}.jsonl").read_bytes().splitlines()] for n in RESULTS}
