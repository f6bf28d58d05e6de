"""Brings a database to the newest numbered migration; every migration is applied once, in order."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

from akbypass.errors import ServiceError

_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
_VERSIONS = (
    "CREATE TABLE IF NOT EXISTS {database}.schema_migrations "
    "(number UInt32, name String, applied DateTime DEFAULT now()) ENGINE = ReplacingMergeTree ORDER BY number"
)


def migrations() -> list[tuple[int, str, list[str]]]:
    """Return (number, file name, statements) of every migration, lowest number first."""
    found = []
    for entry in resources.files(f"{__package__}.migrations").iterdir():
        match = _NAME.match(entry.name)
        if match:
            text = "\n".join(line for line in entry.read_text().splitlines() if not line.startswith("--"))
            found.append((int(match[1]), entry.name, [s.strip() for s in text.split(";\n") if s.strip(" ;\n")]))
    return sorted(found)


def migrate(client: Any, database: str) -> int:
    """Apply what is missing and return how many migrations were applied; raises ServiceError."""
    try:
        client.command(f"CREATE DATABASE IF NOT EXISTS {database}")
        client.command(_VERSIONS.format(database=database))
        done = {row[0] for row in client.query(f"SELECT number FROM {database}.schema_migrations").result_rows}  # noqa: S608
        applied = 0
        for number, name, statements in migrations():
            if number in done:
                continue
            for statement in statements:
                client.command(statement.rstrip(";"), settings={"database": database} if database else None)
            client.insert(f"{database}.schema_migrations", [[number, name]], column_names=["number", "name"])
            applied += 1
    except ServiceError:
        raise
    except Exception as error:  # the driver raises many kinds; each means that the store did not do it
        raise ServiceError(f"store: migration failed: {error}") from error
    return applied
