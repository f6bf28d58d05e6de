"""A worker process that runs the running-sum topology of the progress tests: BOOTSTRAP PREFIX MEMBER [VERSION].

Version 2 makes the same sums and writes its name into every row, so that one sees whose row it is.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping

import numpy as np

from akbypass.config import Config, Kafka
from akbypass.processors.worker import run_worker
from akbypass.rows import Rows
from tests.spine.test_progress import TOY, RunningSum


class NamedSum(RunningSum):
    """The running sum of version 2."""

    def step(self, inputs: Mapping[str, Rows], watermark_ns: int, end: bool) -> dict[str, Rows]:
        """Emit the verdicts of version 1 with a name."""
        made = super().step(inputs, watermark_ns, end)
        return {topic: rows.with_columns(rule=np.full(len(rows), b"v2", "S64")) for topic, rows in made.items()}


TOY2 = dataclasses.replace(TOY, version=2, make_core=NamedSum)

if __name__ == "__main__":
    bootstrap, prefix, member, *version = sys.argv[1:]
    chosen = TOY2 if version == ["2"] else TOY
    run_worker((chosen,), Config(kafka=Kafka(prefix=prefix)), bootstrap, member, frozenset())
