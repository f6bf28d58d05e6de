"""Results of a run out of the store: when they are complete, and as the plain rows that `analyze` writes."""

from __future__ import annotations

import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from akbypass import processors, schemas, topics
from akbypass.config import Config
from akbypass.errors import ServiceError
from akbypass.schemas import Column, RowSchema

WAIT_S = 0.1


def ends_by_topic(config: Config, captures: int) -> dict[tuple[str, str], int]:
    """How many end markers a sink writes for a topic of a whole run, by (sink, topic): one a writer and partition."""
    from akbypass.sinks.audit.trail import audit_target
    from akbypass.sinks.clickhouse.writer import clickhouse_target

    writers = dict.fromkeys(topics.CAPTURE_TOPICS, captures)
    topologies = processors.all_topologies()
    writers |= {t: config.kafka.partitions for topology in topologies for t in topology.outputs}
    writers[topics.LEDGER] = captures + config.kafka.partitions * len(topologies)
    expected = {}
    for target in (clickhouse_target(config), audit_target()):
        for topic in target.tables:
            read = 1 if topics.schema_of(topic).key == ("all",) else config.kafka.partitions
            expected[target.name, topic] = read * writers.get(topic, 0)
    return expected


def expected_ends(config: Config, captures: int) -> dict[str, int]:
    """How many end markers each sink writes for a whole run."""
    expected = Counter[str]()
    for (sink, _), n in ends_by_topic(config, captures).items():
        expected[sink] += n
    return dict(expected)


def _ends_found(client: Any, expected: Mapping[str, int], run_id: str) -> int:
    """How many of the expected end markers of a run the store holds."""
    query = "SELECT sink, uniqExact(topic, partition, source) FROM run_ends WHERE run_id = {run:String} GROUP BY sink"
    found = {s: int(n) for s, n in client.query(query, parameters={"run": run_id}).result_rows}
    return sum(min(found.get(s, 0), n) for s, n in expected.items())


def is_stored(client: Any, config: Config, run_id: str, captures: int) -> bool:
    """Whether every sink has written everything of a run."""
    expected = expected_ends(config, captures)
    return _ends_found(client, expected, run_id) == sum(expected.values())


def wait_for_run(
    client: Any, config: Config, run_id: str, captures: int, timeout_s: float, on_wait: Callable[[int, int], None] = lambda done, all_: None
) -> None:  # fmt: skip
    """Wait until every sink has written everything of a run; raises ServiceError when nothing moves for `timeout_s`."""
    expected, last, moved_s = expected_ends(config, captures), -1, time.monotonic()
    while True:
        done = _ends_found(client, expected, run_id)
        on_wait(done, sum(expected.values()))
        if done == sum(expected.values()):
            return
        if done > last:
            last, moved_s = done, time.monotonic()
        if time.monotonic() - moved_s > timeout_s:
            raise ServiceError(
                f"run {run_id}: expected {sum(expected.values())} end markers, found {done} and no more within {timeout_s:.0f} s; "
                "are worker and sinks up? see `akbypass status`"
            )
        time.sleep(WAIT_S)


def fetch(client: Any, row_type: str, run_id: str) -> list[dict[str, Any]]:
    """Rows of a run, last revisions, sorted by (order key, id), with the same values as `Rows.to_dicts`."""
    schema = schemas.load(row_type)
    order = "run_ns, capture_id, capture_pos, sub" + (", id" if schema.has_life else "")
    sql = f"SELECT {expressions(schema)} FROM {row_type} FINAL WHERE run_id = {{run:String}} ORDER BY {order}"  # noqa: S608 - names are ours
    return [plain_row(schema, row) for row in client.query(sql, parameters={"run": run_id}).result_rows]


def expressions(schema: RowSchema) -> str:
    """What to select for `plain_row`."""
    return ", ".join(_expression(c) for c in schema.columns)


def plain_row(schema: RowSchema, row: Sequence[Any]) -> dict[str, Any]:
    """One selected row with the same values as `Rows.to_dicts`."""
    return {c.name: _plain(c, value) for c, value in zip(schema.columns, row, strict=True)}


def _expression(column: Column) -> str:
    if column.kind == "timestamp":
        return f"toUnixTimestamp64Nano({column.name})"
    if column.kind == "bytes":
        return f"lower(hex({column.name}))"
    return column.name


def _plain(column: Column, value: Any) -> Any:
    if column.kind == "ip":
        address = ipaddress.IPv6Address(value)
        return str(address.ipv4_mapped or address)
    if column.kind == "double" and value is not None and value != value:
        return None
    return list(value) if column.kind == "list" else value


def all_results(client: Any, run_id: str, names: tuple[str, ...]) -> Mapping[str, list[dict[str, Any]]]:
    """Every result of a run by row type."""
    return {name: fetch(client, name, run_id) for name in names}
