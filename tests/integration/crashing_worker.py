"""A worker of two topologies whose second Faust app crashes by itself a second after the start: BOOTSTRAP PREFIX."""

from __future__ import annotations

import asyncio
import dataclasses
import sys

from akbypass.config import Config, Kafka
from akbypass.processors import worker
from tests.spine.test_progress import TOY


class Crashing(worker._Together):
    """Crashes its first app from within."""

    async def on_start(self) -> None:
        """Start, then crash."""
        await super().on_start()
        asyncio.get_running_loop().call_later(
            1, lambda: asyncio.ensure_future(self.apps[0].crash(RuntimeError("planted")))
        )


if __name__ == "__main__":
    worker._Together = Crashing
    second = dataclasses.replace(TOY, name="toy2")
    worker.run_worker((TOY, second), Config(kafka=Kafka(prefix=sys.argv[2])), sys.argv[1], "w0", frozenset())
