"""The running-sum worker with a page, bounded in its draining; hangs at its first row if told so.

BOOTSTRAP PREFIX STORY DRAIN_S PORT, where STORY is sums or hangs.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping

from akbypass.config import Checkpoint, Config, Kafka, Shutdown, Telemetry
from akbypass.processors.worker import run_worker
from akbypass.rows import Rows
from tests.spine.test_progress import TOY, RunningSum


class Hanging(RunningSum):
    """Never comes back from a step with rows, as in a deadlock."""

    def step(self, inputs: Mapping[str, Rows], watermark_ns: int, end: bool) -> dict[str, Rows]:
        """Hang."""
        while inputs:
            time.sleep(0.1)
        return super().step(inputs, watermark_ns, end)


if __name__ == "__main__":
    bootstrap, prefix, story, drain_s, port = sys.argv[1:]
    config = Config(
        kafka=Kafka(prefix=prefix),
        checkpoint=Checkpoint(interval_s=1, interval_max_s=1),
        telemetry=Telemetry(port=int(port), stalled_s=3),
        shutdown=Shutdown(drain_s=float(drain_s)),
    )
    core = {"sums": RunningSum, "hangs": Hanging}[story]
    run_worker((dataclasses.replace(TOY, make_core=core),), config, bootstrap, "w0", frozenset())
