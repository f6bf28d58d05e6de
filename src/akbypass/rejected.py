"""What the table `rejected` holds, for people: filters, counts by reason, one record with its place; changes nothing."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from akbypass import results, schemas
from akbypass.errors import ConfigError

ID = re.compile(r"[0-9a-f]{16}")
_AGE = re.compile(r"(\d+)(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
DUMP_BYTES = 16  # bytes in one line of a hex dump


@dataclass(frozen=True)
class Filters:
    """Which rows are meant; an empty part means all. Times are ns since the UNIX epoch, of the capture or the message."""

    run: str = ""
    topic: str = ""
    reason: str = ""
    stage: str = ""
    since_ns: int | None = None
    until_ns: int | None = None

    def where(self) -> tuple[str, dict[str, Any]]:
        """Return the condition and its parameters."""
        parts, values = ["1"], dict[str, Any]()
        if self.run:
            parts.append("(run_id = {run:String} OR message_run = {run:String})")
            values["run"] = self.run
        for name in ("topic", "reason", "stage"):
            if getattr(self, name):
                parts.append(f"{name} = {{{name}:String}}")
                values[name] = getattr(self, name)
        for name, sign in (("since_ns", ">="), ("until_ns", "<")):
            if getattr(self, name) is not None:
                parts.append(f"toUnixTimestamp64Nano(ts_capture_ns) {sign} {{{name}:Int64}}")
                values[name] = getattr(self, name)
        return " AND ".join(parts), values


def parse_time(text: str, now_ns: int) -> int:
    """Read a time as ns since the UNIX epoch: an age as `90s`, `15m`, `2h`, `7d`, or ISO 8601 (UTC without an offset).

    >>> parse_time("15m", 10**18) - 10**18
    -900000000000
    >>> parse_time("2026-11-22T12:00", 0)
    1795348800000000000

    Raises ConfigError for anything else.
    """
    age = _AGE.fullmatch(text)
    if age:
        return now_ns - int(age[1]) * _SECONDS[age[2]] * 10**9
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"expected a time as 15m or 2026-11-22T12:00, found {text!r}") from error
    moment = moment.replace(tzinfo=moment.tzinfo or datetime.UTC)
    since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1_000


def counts(client: Any, filters: Filters) -> list[dict[str, Any]]:
    """Count by reason, stage and topic: records, Kafka messages, rows set aside, first and last time; most first."""
    where, values = filters.where()
    query = (
        "SELECT reason, stage, topic, count() AS records, "  # noqa: S608 - names are ours
        "uniqExactIf(tuple(partition, offset), offset IS NOT NULL) AS messages, sum(message_rows) AS rows, "
        "min(ts_capture_ns) AS first, max(ts_capture_ns) AS last "
        f"FROM rejected FINAL WHERE {where} GROUP BY reason, stage, topic ORDER BY records DESC, reason, stage, topic"
    )
    found = client.query(query, parameters=values)
    return [dict(zip(found.column_names, row, strict=True)) for row in found.result_rows]


def newest(client: Any, filters: Filters, limit: int) -> list[dict[str, Any]]:
    """Whole records, newest first, at most `limit` of them; `run_id` is the run that each was written in."""
    where, values = filters.where()
    return _records(client, f"{where} ORDER BY ts_capture_ns DESC, id LIMIT {int(limit)}", values)


def by_id(client: Any, identity: str) -> dict[str, Any]:
    """The record of this id; raises ConfigError when there is none."""
    if not ID.fullmatch(identity):
        raise ConfigError(f"expected an id of 16 hexadecimal digits, found {identity!r}")
    found = _records(client, "id = {id:String} LIMIT 1", {"id": identity})
    if not found:
        raise ConfigError(f"expected a rejected record {identity}, found none; see `akbypass rejected list`")
    return found[0]


def _records(client: Any, condition: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    columns = results.expressions(schemas.load("rejected"))
    query = f"SELECT run_id, {columns} FROM rejected FINAL WHERE {condition}"  # noqa: S608 - names are ours
    found = client.query(query, parameters=values).result_rows
    return [{"run_id": row[0], **results.plain_row(schemas.load("rejected"), row[1:])} for row in found]


def run_of(record: Mapping[str, Any]) -> str | None:
    """Run that a record is about: its message's, or its own when it did not come from Kafka; None when unknown."""
    about: str | None = record["message_run"]
    return about or (record["run_id"] if record["offset"] is None else None)


def source_of(client: Any, record: Mapping[str, Any]) -> tuple[str, str] | None:
    """Capture point and file or interface of a record that was rejected before Kafka; None when not stored."""
    query = (
        "SELECT point, source FROM captures FINAL WHERE run_id = {run:String} AND capture_id = {capture:Int32} LIMIT 1"
    )
    found = client.query(query, parameters={"run": record["run_id"], "capture": record["capture_id"]}).result_rows
    return (str(found[0][0]), str(found[0][1])) if found else None


def hex_dump(data: bytes) -> Iterator[str]:
    """Lines of offset, bytes in hexadecimal and printable letters.

    >>> list(hex_dump(b"\\x00poison"))
    ['0000  00 70 6f 69 73 6f 6e                             .poison']
    """
    for start in range(0, len(data), DUMP_BYTES):
        piece = data[start : start + DUMP_BYTES]
        letters = "".join(chr(b) if 32 <= b < 127 else "." for b in piece)
        yield f"{start:04x}  {piece.hex(' '):<47}  {letters}"
