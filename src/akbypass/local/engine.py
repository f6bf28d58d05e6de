"""The one process that knows chDB: opens a database directory and runs statements in sessions of their own.

One connection lives as long as the engine. Every statement gets a further one (0.3 ms), with its settings, parameters
and database set in it, and drops it after: nothing leaks from one request into the next, and reads run while others
insert. What the default user may do is granted in a users file: no files, no URLs, no other servers, and only table
engines that work here (a Kafka table would leave metadata with which the directory no longer opens).

The database `default` is chDB's view of files, so it takes no tables here; every other database does.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from akbypass.errors import MissingError, ServiceError
from akbypass.local.answers import Answer, RefusedError
from akbypass.local.statement import Statement

STAGED = "_akbypass_staged"  # temporary table of one session, which ends with the statement
APPEND_BYTES = 1 << 20  # data of an INSERT goes to the engine in pieces of this size
QUERY_MEMORY_MAX = 2 << 30  # bytes a query may use, unless it says otherwise
RESULT_BYTES_MAX = 1 << 30  # bytes of a result, which is held in memory before it is sent
DISK_RESERVE = (
    64 << 20
)  # bytes that inserts and new merges leave free: a merge that hits the end of a disk spoils its part
QUERY_S_MAX = 600  # a client that went away leaves its query running

_TABLE_ENGINES = (
    "MergeTree", "ReplacingMergeTree", "SummingMergeTree", "AggregatingMergeTree", "CollapsingMergeTree",
    "VersionedCollapsingMergeTree", "Memory", "Null", "Log", "TinyLog", "StripeLog", "Buffer", "Join", "Set", "Merge",
    "GenerateRandom",
)  # fmt: skip
_RIGHTS = (
    "GRANT SHOW DATABASES, SHOW TABLES, SHOW COLUMNS, SHOW DICTIONARIES, SELECT, INSERT, ALTER, CREATE DATABASE, CREATE TABLE, "
    "CREATE VIEW, CREATE TEMPORARY TABLE, CREATE FUNCTION, DROP, UNDROP TABLE, TRUNCATE, OPTIMIZE, CHECK, KILL QUERY, "
    "dictGet, INTROSPECTION, SYSTEM MERGES, SYSTEM TTL MERGES, SYSTEM FLUSH, SYSTEM DROP CACHE ON *.*",
    "GRANT SET DEFINER ON *",
    *(f"GRANT TABLE ENGINE ON {name}" for name in _TABLE_ENGINES),
    "REVOKE DROP DATABASE ON default.*",  # chDB opens no session without it
)
CONFIG = """<clickhouse>
  <users_config>{users}</users_config>
  <storage_configuration><disks><default>
    <keep_free_space_bytes>{reserve}</keep_free_space_bytes>
  </default></disks></storage_configuration>
  <access_control_improvements><table_engines_require_grant>true</table_engines_require_grant></access_control_improvements>
</clickhouse>
"""
USERS = """<clickhouse>
  <profiles><default>
    <max_memory_usage>{memory}</max_memory_usage>
    <max_result_bytes>{result}</max_result_bytes><result_overflow_mode>throw</result_overflow_mode>
    <max_execution_time>{seconds}</max_execution_time>
  </default></profiles>
  <quotas><default/></quotas>
  <users><default>
    <password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
    <grants>{grants}</grants>
  </default></users>
</clickhouse>
"""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNKNOWN_SETTING, _VIOLATED_CONSTRAINT = 115, 469


class Engine:
    """One chDB database directory: `directory`/db, its configuration beside it. Changes the working directory."""

    def __init__(self, directory: Path) -> None:
        """Open the directory.

        Raises:
            MissingError: The package is not installed.
            ServiceError: The engine cannot open the directory.
        """
        empty, config = directory / "cwd", directory / "config"
        for made in (empty, config, directory / "db"):
            made.mkdir(parents=True, exist_ok=True)
        _write_config(config)
        os.chdir(empty)  # chDB reads a config.xml of the working directory
        try:
            from chdb import connect
        except ImportError as error:
            raise MissingError(
                "the embedded store needs the chdb package; install it with: pip install 'akbypass[local]'"
            ) from error
        # relative, because the engine takes the address apart at characters that a path may hold
        self._connect: Callable[[], Any] = functools.partial(connect, "../db?config-file=../config/config.xml")
        try:
            self._base = self._connect()
            row = self._base.query("SELECT version(), timezone()", "TSV").bytes().decode().split()
        except RuntimeError as error:
            raise ServiceError(f"the embedded store cannot open {directory / 'db'}: {error}") from error
        self.version, self.timezone = row[0], row[1]
        self._opening = threading.Lock()

    def close(self) -> None:
        """Close the directory; no statement may be running."""
        self._base.close()

    @contextlib.contextmanager
    def run(
        self,
        statement: Statement,
        *,
        database: str = "",
        settings: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
        role: str = "",
        default_format: str = "TabSeparated",
        read_only: bool = False,
    ) -> Iterator[Answer]:
        """Run a statement in a session of its own; the answer's bytes are valid inside the `with`.

        Args:
            statement: What to run.
            database: Default database, "" for `default`.
            settings: Settings of this statement, as texts; an unknown one is the engine's error 115.
            parameters: Values of `{name:Type}`, escaped as in TabSeparated.
            role: Role to take, "" for none.
            default_format: Output format when the statement names none.
            read_only: Refuse what changes data or tables.

        Raises:
            RefusedError: With the engine's own code and text.
        """
        with self._opening:
            session = self._connect()
        try:
            _prepare(session, database, settings or {}, parameters or {}, role, read_only)
            yield _insert(session, statement) if statement.data_format else _query(session, statement, default_format)
        except RuntimeError as error:  # ChdbError is one
            raise RefusedError.from_engine(str(error)) from error
        finally:
            session.close()


def _write_config(directory: Path) -> None:
    users = directory / "users.xml"
    (directory / "config.xml").write_text(CONFIG.format(users=_xml(str(users)), reserve=DISK_RESERVE))
    grants = "".join(f"<query>{right}</query>" for right in _RIGHTS)
    users.write_text(USERS.format(memory=QUERY_MEMORY_MAX, result=RESULT_BYTES_MAX, seconds=QUERY_S_MAX, grants=grants))


def _xml(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _prepare(
    session: Any, database: str, settings: Mapping[str, str], parameters: Mapping[str, str], role: str, read_only: bool
) -> None:
    for name in (*settings, *parameters):
        if not _NAME.fullmatch(name):
            raise RefusedError(_UNKNOWN_SETTING, f"Unknown setting {_literal(name)}. (UNKNOWN_SETTING)")
    if database:
        session.query(f"USE `{database.replace(chr(92), chr(92) * 2).replace('`', chr(92) + '`')}`")
    if role:
        session.query(f"SET ROLE {_literal(role)}")
    assigned = [f"{name} = {_literal(value)}" for name, value in settings.items()]
    assigned += [f"param_{name} = {_literal(value)}" for name, value in parameters.items()]
    if read_only:
        assigned.append("readonly = 2")  # as a server does for GET
    if assigned:
        session.query("SET " + ", ".join(assigned))


def _insert(session: Any, statement: Statement) -> Answer:
    """Bring data into a table; what the engine answers holds, and no answer of its is taken on trust.

    The last step of the engine's own insert of data hides every error (a full disk, a broken constraint) and counts the
    rows as written. So data goes to a table in memory, and from there with an INSERT … SELECT, which tells the truth.
    """
    if not statement.target:  # a table function has no columns to copy
        done = _append(session, statement.text, statement)
        return Answer(summary=_summary(0, 0, done.rows_written, done.bytes_written, 0, 0, done.elapsed))
    session.query(f"CREATE TEMPORARY TABLE {STAGED} AS {statement.target} ENGINE = Memory")
    listed = f"({statement.columns})" if statement.columns else ""
    done = _append(session, f"INSERT INTO {STAGED} {listed}", statement)
    if done.rows_written:
        result = session.query(f"{statement.text} SELECT {statement.columns or '*'} FROM {STAGED}")  # noqa: S608
        if result.rows_written() < done.rows_written:
            text = f"{done.rows_written} rows were sent, {result.rows_written()} taken: check the table's constraints"
            raise RefusedError(_VIOLATED_CONSTRAINT, f"{text}. (VIOLATED_CONSTRAINT)")
    return Answer(summary=_summary(0, 0, done.rows_written, done.bytes_written, 0, 0, done.elapsed))


def _append(session: Any, text: str, statement: Statement) -> Any:
    with session.send_insert(text, statement.data_format) as inserter:
        for start in range(0, len(statement.data), APPEND_BYTES):
            inserter.append(bytes(statement.data[start : start + APPEND_BYTES]))
        return inserter.finish()


def _query(session: Any, statement: Statement, default_format: str) -> Answer:
    result = session.query(statement.text, default_format)
    view = result.get_memview().view() if result.size() else memoryview(b"")
    name = (statement.result_format or default_format) if statement.has_result or len(view) else ""
    summary = _summary(
        result.storage_rows_read(), result.storage_bytes_read(), result.rows_written(), result.bytes_written(),
        result.rows_read(), result.bytes_read(), result.elapsed(),
    )  # fmt: skip
    return Answer(view, name, summary, result)


def _summary(
    read_rows: int, read_bytes: int, written_rows: int, written_bytes: int, rows: int, size: int, seconds: float
) -> dict[str, str]:
    counts = {
        "read_rows": read_rows, "read_bytes": read_bytes, "written_rows": written_rows, "written_bytes": written_bytes,
        "total_rows_to_read": 0, "result_rows": rows, "result_bytes": size, "elapsed_ns": int(seconds * 1e9),
    }  # fmt: skip
    return {name: str(count) for name, count in counts.items()}
