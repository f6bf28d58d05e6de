"""Migrations on a real store: a database that was brought up step by step is the one that the schemas derive."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from akbypass import store_client
from akbypass.config import Config
from akbypass.sinks.clickhouse import tables
from akbypass.sinks.clickhouse.migrate import migrate, migrations
from tests.backends import Store

pytestmark = pytest.mark.services
COLUMNS = "SELECT table, name, type, comment FROM system.columns WHERE database = {database:String}"
ENGINES = "SELECT name, engine_full, sorting_key, partition_key FROM system.tables WHERE database = {database:String}"


@pytest.fixture
def client(store_server: Store) -> Iterator[Any]:
    """A client of no database."""
    with store_client.connect(Config(), store_server.url, database="") as made:
        yield made


def described(client: Any, query: str, database: str) -> set[tuple[str, ...]]:
    """Rows of a query about a database, without the table of migrations."""
    found = client.query(query, parameters={"database": database}).result_rows
    return {tuple(row) for row in found if row[0] != "schema_migrations"}


def test_migrations_make_the_tables_of_the_schemas(client: Any) -> None:
    """All numbered migrations in order give the columns and engines that the schemas derive; a change needs a new one."""
    migrated, derived = (f"m{secrets.token_hex(4)}" for _ in range(2))
    assert migrate(client, migrated) == len(migrations())
    client.command(f"CREATE DATABASE {derived}")
    for statement in tables.all_statements():
        client.command(statement, settings={"database": derived})
    for query in (COLUMNS, ENGINES):
        assert described(client, query, migrated) == described(client, query, derived)
    assert len(described(client, ENGINES, derived)) == len(tables.all_statements())


def test_migrations_are_numbered_without_gaps() -> None:
    """Numbers run from 1 and none is used twice."""
    assert [number for number, _, _ in migrations()] == list(range(1, len(migrations()) + 1))
