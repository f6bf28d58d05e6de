"""A run once more from the recorded log, under another run_id: what its captures said is said again; stores nothing.

Every reader computes the new run from its beginning, with the code and the configuration of today: rows that were set
aside because a core failed, or because they came late, are taken this time. Rows keep their order keys and numbers, so
what the log holds twice is dropped as usual and what it lacks is counted as lost. Words that somebody spoke for a silent
capture are left out.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from akbypass import batch, recorded, topics
from akbypass.config import Config
from akbypass.emitter import PARTITIONS_MAX
from akbypass.errors import ConfigError
from akbypass.order import make_id
from akbypass.rows import Rows
from akbypass.transport import Publisher


@dataclass
class Rerun:
    """What was sent again: rows by topic, and rows that the log does not hold any more (count)."""

    run_id: str
    rows: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)


def new_run_id(run_id: str, name: str) -> str:
    """Identity of the new run: the same run and name give the same again."""
    return make_id("rerun", run_id, name).decode()


def rerun(
    config: Config, publisher: Publisher, run_id: str, name: str = "", on_message: Callable[[], None] = lambda: None
) -> Rerun:
    """Send a whole run again and wait for its delivery.

    Args:
        config: The configuration of the broker that holds the run.
        publisher: Where it goes.
        run_id: The run.
        name: Makes it another run than an earlier one.
        on_message: Called for each message that was sent.

    Raises ConfigError when the log holds nothing of the run, ServiceError.
    """
    done, kafka = Rerun(new_run_id(run_id, name)), config.kafka
    numbers = Counter[tuple[str, int, int]]()  # of the row that comes next, by topic, partition and source
    names = (*topics.CAPTURE_TOPICS, topics.LEDGER)
    for found in recorded.of_run(config, kafka.bootstrap_servers, run_id, names):
        said = found.batch
        if found.spoken or said.source >= PARTITIONS_MAX:  # accounts of topologies, which will make their own
            continue
        if said.rows_before is not None:  # a mark or an end without rows counts them, too
            place = (found.topic, found.partition, said.source)
            done.missing[found.topic] += max(0, said.rows_before - numbers[place])
            numbers[place] = max(numbers[place], said.rows_before + len(said.rows or ()))
        again = replace(said, run_id=done.run_id, rows=_named_anew(said.rows, done.run_id), publish_ns=time.time_ns())
        for message in batch.encode(again, kafka.batch_rows_max, kafka.batch_bytes_max):
            publisher.send(topics.full_name(kafka.prefix, found.topic), found.partition, message)
            done.rows[found.topic] += message.rows
        on_message()
    publisher.flush()
    if not done.rows:
        raise ConfigError(f"expected a run that the broker still holds, found nothing of {run_id}")
    return done


def _named_anew(rows: Rows | None, run_id: str) -> Rows | None:
    """Rows with ids of the new run, where they have any: tables keep one row of an id."""
    if rows is None or "id" not in rows.columns:
        return rows
    return rows.with_columns(id=np.array([make_id(run_id, old.decode()) for old in rows["id"].tolist()], "S16"))
