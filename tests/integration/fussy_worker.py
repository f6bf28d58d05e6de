"""A worker process whose core fails at some rows (see the quarantine tests): BOOTSTRAP PREFIX MEMBER."""

from __future__ import annotations

import sys

from akbypass.config import Checkpoint, Config, Kafka
from akbypass.processors.worker import run_worker
from tests.spine.test_quarantine import FUSSY

if __name__ == "__main__":
    bootstrap, prefix, member = sys.argv[1:]
    config = Config(kafka=Kafka(prefix=prefix), checkpoint=Checkpoint(interval_s=1))
    run_worker((FUSSY,), config, bootstrap, member, frozenset())
