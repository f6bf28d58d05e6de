"""Asks the store what is known of a run, for its balance: accounts, captures, end markers, and the rows themselves.

Stored rows are counted in the tables, so that no sink is believed about its own work. A table that keeps the last
revision of a row holds `revision + 1` of the rows that were handed on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from akbypass import letters, processors, reconcile, results, schemas, topics
from akbypass.accounts import CAPTURE
from akbypass.config import Config
from akbypass.reconcile import Balance, Evidence, Line, Reader

RUNS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Retention:
    """Messages that the broker deleted before a reader had them; of which runs, nobody knows any more."""

    stage: str
    partition: int
    topic: str
    messages: int


def line_of(config: Config) -> Line:
    """What the line consists of."""
    made = processors.all_topologies()
    to_all = frozenset(t for t in topics.CAPTURE_TOPICS if topics.schema_of(t).key == ("all",))
    readers = [Reader(t.name, t.inputs) for t in made]
    return Line(config.kafka.partitions, {t.name: t.outputs for t in made}, readers, to_all)


def run_ids(client: Any, limit: int) -> list[str]:
    """Newest runs that left an account or a captures row, at most `limit`, newest first."""
    query = (
        "SELECT run_id FROM (SELECT run_id, run_ns FROM captures UNION ALL SELECT run_id, run_ns FROM ledger "
        "WHERE messages_lost = 0) GROUP BY run_id ORDER BY max(run_ns) DESC, run_id LIMIT {limit:UInt32}"
    )
    found = client.query(query, parameters={"limit": min(limit, RUNS_MAX)}).result_rows
    return [str(run_id) for (run_id,) in found]


def balance_of(client: Any, config: Config, run_id: str) -> Balance:
    """Draw up the balance of one run from the store."""
    return reconcile.balance(line_of(config), gather(client, config, run_id))


def is_open(client: Any, config: Config, run_id: str) -> bool:
    """Whether somebody has not ended a run yet; counts no rows in tables, so it may be asked often."""
    return reconcile.balance(line_of(config), gather(client, config, run_id, counted=False)).open


def gather(client: Any, config: Config, run_id: str, *, counted: bool = True) -> Evidence:
    """Ask for everything that a balance needs; unless `counted`, without the rows in the tables."""
    accounts = results.fetch(client, topics.LEDGER, run_id)
    captures = _captures(client, run_id)
    ends, sources = _ends(client, run_id)
    known = {*captures, *(row["number"] for row in accounts if row["stage"] == CAPTURE)}
    sources = max(sources, 1 + max(known, default=0))
    return Evidence(
        run_id, captures, accounts, _stored(client, config, run_id) if counted else {}, ends,
        results.ends_by_topic(config, sources),
        _letters(client, run_id), sources,
    )  # fmt: skip


def retention(client: Any) -> list[Retention]:
    """What retention took away, by reader, partition and topic."""
    query = (
        "SELECT stage, number, topic, toInt64(sum(messages_lost)) FROM ledger FINAL WHERE messages_lost > 0 "
        "GROUP BY stage, number, topic ORDER BY stage, topic, number"
    )
    return [Retention(*row) for row in client.query(query).result_rows]


def _captures(client: Any, run_id: str) -> dict[int, dict[str, Any]]:
    """Sums of a run's captures rows, by capture."""
    own = schemas.load("captures").columns
    counters = [c.name for c in own if c.name.startswith("dropped_")]
    counters += ["packets", *reconcile.COUNTED.values()]
    sums = ", ".join(f"toInt64(sum(ifNull({name}, 0)))" for name in counters)
    query = (
        f"SELECT capture_id, any(point), {sums} FROM captures FINAL "  # noqa: S608 - names are ours
        "WHERE run_id = {run:String} GROUP BY capture_id"
    )
    found = client.query(query, parameters={"run": run_id}).result_rows
    return {int(n): {"point": point, **dict(zip(counters, counts, strict=True))} for n, point, *counts in found}


def _ends(client: Any, run_id: str) -> tuple[dict[tuple[str, str], int], int]:
    """End markers by (sink, topic), and how many captures they speak of."""
    query = (
        "SELECT sink, topic, uniqExact(partition, source), max(sources) FROM run_ends "
        "WHERE run_id = {run:String} GROUP BY sink, topic"
    )
    found = client.query(query, parameters={"run": run_id}).result_rows
    sources = max((int(n) for _, topic, _, n in found if topic in topics.CAPTURE_TOPICS), default=0)
    return {(sink, topic): int(ends) for sink, topic, ends, _ in found}, sources


def _stored(client: Any, config: Config, run_id: str) -> Mapping[tuple[str, str], int]:
    """Rows in the tables, by (sink, topic)."""
    query = " UNION ALL ".join(_counting(config))
    found = client.query(query, parameters={"run": run_id}).result_rows
    return {(sink, topic): int(rows) for sink, topic, rows in found}


def _counting(config: Config) -> Iterator[str]:
    from akbypass.sinks.audit.trail import audit_target
    from akbypass.sinks.clickhouse.writer import clickhouse_target

    for target in (clickhouse_target(config), audit_target()):
        for table in sorted(set(target.tables.values()) - {topics.LEDGER}):
            rows = "sum(revision + 1)" if schemas.load(table).encoding == "plain" else "count()"
            yield (
                f"SELECT '{target.name}' AS sink, _topic, toInt64({rows}) FROM {table} FINAL "  # noqa: S608 - names are ours
                "WHERE run_id = {run:String} GROUP BY _topic"
            )


def _letters(client: Any, run_id: str) -> dict[tuple[str, str], int]:
    """Rows of the run's messages that a reader set aside without taking them, by (reader, topic)."""
    query = (
        "SELECT stage, topic, toInt64(sum(message_rows)) FROM rejected FINAL "
        "WHERE message_run = {run:String} AND message_rows IS NOT NULL AND topic IS NOT NULL AND reason != {taken:String} "
        "GROUP BY stage, topic"
    )
    parameters = {"run": run_id, "taken": letters.CORE_FAILED}  # taken, as its account says, before the core failed
    return {(s, t): int(n) for s, t, n in client.query(query, parameters=parameters).result_rows}
