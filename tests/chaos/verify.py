"""Stored rows against the offline result: count and checksum per table, and the first row that differs."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from akbypass import results, schemas
from tests.chaos.day import TABLES, Day, canonical, checksum

Place = tuple[str, int, int]  # topic, partition, offset


@dataclass
class Verdict:
    """What the store holds of a run; equal when `differences` is empty."""

    rows: int = 0
    checksums: dict[str, tuple[int, str]] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    doubled: dict[str, int] = field(default_factory=dict)  # rows that stand in a table twice, which FINAL hides

    @property
    def equal(self) -> bool:
        """Whether the store holds exactly the offline result."""
        return not self.differences


def verify(client: Any, day: Day, poisoned: set[Place] | None) -> Verdict:
    """Compare everything of the day's run, and the poison messages that were sent (None: any) with those in `rejected`."""
    verdict = Verdict()
    for table in TABLES:
        found = canonical(table, results.fetch(client, table, day.run_id))
        got, expected = checksum(found), day.expected[table]
        verdict.rows += got.rows
        verdict.checksums[table] = (got.rows, got.digest)
        if got != expected:
            first = _first(day.lines(table), found)
            verdict.differences.append(f"{table}: expected {expected.rows} rows, found {got.rows}; {first}")
        twice = doubled(client, table, day.run_id)
        if twice:
            verdict.doubled[table] = twice
    if poisoned is not None:
        verdict.differences += _poison(client, poisoned)
    return verdict


def doubled(client: Any, table: str, run_id: str) -> int:
    """Rows of a run beyond the first with the same identity and revision, as they lie on disk."""
    schema = schemas.load(table)
    key = ("id", "revision", "_topic") if schema.has_life else ("capture_id", "capture_pos", "sub", "run_ns")
    sql = f"SELECT count() - uniqExact({', '.join(key)}) FROM {table} WHERE run_id = {{run:String}}"
    return int(client.query(sql, parameters={"run": run_id}).result_rows[0][0])


def _first(wanted: list[bytes], found: list[bytes]) -> str:
    for number, (want, got) in enumerate(zip_longest(wanted, found)):
        if want != got:
            return f"row {number}: expected {_text(want)}, found {_text(got)}"
    return "no row differs"


def _text(line: bytes | None) -> str:
    return "nothing" if line is None else line.decode()[:600]


def _poison(client: Any, poisoned: set[Place]) -> list[str]:
    sql = "SELECT DISTINCT topic, partition, offset FROM rejected FINAL WHERE reason = 'not_a_batch'"
    found = {(t, int(p), int(o)) for t, p, o in client.query(sql).result_rows}
    told = []
    if poisoned - found:
        told.append(
            f"rejected: expected {len(poisoned)} poison messages, {len(poisoned - found)} are absent: {min(poisoned - found)}"
        )
    if found - poisoned:
        told.append(f"rejected: {len(found - poisoned)} messages that nobody poisoned: {min(found - poisoned)}")
    return told
