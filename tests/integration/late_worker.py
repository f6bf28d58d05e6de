"""A worker whose Faust tells of an assignment only after it has acted on it: BOOTSTRAP PREFIX."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from faust.app.base import App

from akbypass.config import Config, Kafka
from akbypass.processors import worker
from tests.spine.test_progress import TOY

LATE_S = 3.0
_make = worker.TopologyWorker._make_app


def _late(self: worker.TopologyWorker, member: str) -> App:
    app = _make(self, member)
    send = app.on_partitions_assigned.send

    async def later(*arguments: Any, **named: Any) -> None:
        await asyncio.sleep(LATE_S)
        await send(*arguments, **named)

    app.on_partitions_assigned.send = later
    return app


if __name__ == "__main__":
    worker.TopologyWorker._make_app = _late  # type: ignore[method-assign]
    worker.run_worker((TOY,), Config(kafka=Kafka(prefix=sys.argv[2])), sys.argv[1], "w0", frozenset())
