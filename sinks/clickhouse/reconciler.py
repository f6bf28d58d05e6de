"""Draws up the balance of every run that has ended, once; what does not hold becomes an alert and a metric.

A topology tells its own losses as soon as it finds them, in `alerts.loss`. What only the store can show, rows that a
table lacks or has twice, is found here, when a run has ended; the alert is a row of the table, because data moves left to
right: a sink writes to the store and to nowhere else.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from akbypass import evidence, reconcile
from akbypass.config import Config
from akbypass.order import make_id
from akbypass.reconcile import Balance, Hop
from akbypass.rows import Rows
from akbypass.sinks.clickhouse.block import Block, Place
from akbypass.telemetry.metrics import UNBALANCED_ROWS
from akbypass.topics import LOSS_ALERTS

log = logging.getLogger("akbypass.reconciler")

EVERY_S = 5.0
RUNS_WATCHED = 20  # newest runs
JUDGED_MAX = 1_024  # runs remembered as judged

Losses = Mapping[tuple[str, str, str], int]  # (hop, topic, reader) → rows


class Reconciler:
    """Looks at the newest runs again and again; `client` is a clickhouse-connect client of its own."""

    def __init__(self, config: Config, client: Any) -> None:
        self.config, self.client = config, client
        self._judged: dict[str, Losses] = {}
        self._doubted: set[str] = set()  # runs that did not hold when they were looked at last
        self._shown: set[tuple[str, str]] = set()  # (reader, topic) that have a gauge
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="akbypass-reconciler", daemon=True)

    def start(self) -> None:
        """Begin looking."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_S):
            try:
                self.look()
            except Exception as error:  # the store is away or busy; the next look may find it
                log.warning("the balance could not be drawn up", extra={"reason": type(error).__name__})

    def look(self) -> None:
        """Look once at the runs that were not judged yet."""
        for run_id in evidence.run_ids(self.client, RUNS_WATCHED):
            if run_id not in self._judged and not evidence.is_open(self.client, self.config, run_id):
                self._judge(evidence.balance_of(self.client, self.config, run_id))
        self._show()

    def _judge(self, found: Balance) -> None:
        """Settle a run; one that does not hold is looked at twice, as a dead letter may come behind the end."""
        if not found.holds and found.run_id not in self._doubted:
            self._doubted.add(found.run_id)
            return
        self._doubted.discard(found.run_id)
        self._judged[found.run_id] = reconcile.rows_lost([found])
        while len(self._judged) > JUDGED_MAX:
            del self._judged[next(iter(self._judged))]
        if not found.holds:
            self._tell(found)

    def _tell(self, found: Balance) -> None:
        wrong = [hop for hop in found.hops if hop.lost or hop.extra]
        for hop in wrong:
            of = {"hop": hop.kind, "topic": hop.topic, "lost": hop.lost, "extra": hop.extra}
            log.error("a run does not balance", extra={"run_id": found.run_id, **of})
        unheard = [hop for hop in wrong if not hop.told]
        if not unheard:
            return
        block = Block("alerts")
        rows = Rows.from_dicts("alerts", [_alert(found, i, hop) for i, hop in enumerate(unheard)])
        block.add(rows, None, Place(found.run_id, LOSS_ALERTS, 0, -1, 0))
        for table in block.tables():
            self.client.insert_arrow("alerts", table, settings={"async_insert": 0})

    def _show(self) -> None:
        """Set the gauges: losses of the newest runs, zero where there was one before."""
        sums = dict.fromkeys(self._shown, 0)
        for losses in list(self._judged.values())[-RUNS_WATCHED:]:
            for (_, topic, reader), rows in losses.items():  # which hop it is, topic and reader say
                sums[reader, topic] = sums.get((reader, topic), 0) + rows
        for labels, rows in sums.items():
            UNBALANCED_ROWS.labels(*labels).set(rows)
        self._shown = set(sums)


def _alert(found: Balance, sub: int, hop: Hop) -> dict[str, Any]:
    rows = hop.lost or hop.extra
    what = "lost" if hop.lost else "too many"
    return {
        "run_ns": found.until_ns, "capture_id": 0, "capture_pos": 2, "sub": sub, "revision": 0,
        "id": make_id(LOSS_ALERTS, found.run_id, hop.kind, hop.topic, hop.place).decode(), "ts_capture_ns": found.until_ns,
        "topology": "reconciler", "kind": "loss", "entity": f"{hop.topic or 'frames'} {hop.kind} at {hop.place}"[:64],
        "severity": "critical", "state": "firing", "value": float(rows), "threshold": 0.0, "unit": "rows",
        "description": f"{rows} {what}: expected {hop.expected}, found {hop.found}, dropped for a reason {sum(hop.drops.values())}",
        "evidence": [],
    }  # fmt: skip
