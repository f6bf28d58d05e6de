"""A worker process that runs the running-sum topology of the progress tests: BOOTSTRAP PREFIX MEMBER."""

from __future__ import annotations

import sys

from akbypass.config import Config, Kafka
from akbypass.processors.worker import run_worker
from tests.spine.test_progress import TOY

if __name__ == "__main__":
    bootstrap, prefix, member = sys.argv[1:]
    run_worker((TOY,), Config(kafka=Kafka(prefix=prefix)), bootstrap, member, frozenset())
