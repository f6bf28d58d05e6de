"""Writes the reference page of all row types from the .avsc files: `python -m akbypass.schemas.reference`."""

from __future__ import annotations

from akbypass import schemas
from akbypass.schemas import RowSchema


def page() -> str:
    """Return the whole page as Markdown."""
    head = (
        "# Topics and tables\n\n"
        "Made from the schemas by `make docs`; do not edit.\n"
        "A topic is named `{prefix}{name}.v{version}`; a table has the topic's name without prefix and version,\n"
        "and beside the columns below `run_id`, `_topic`, `_partition`, `_offset` and `_source`.\n"
        "`arrow` topics carry batches of rows (schemas/packet_batch) without the columns that are unknown in all of them,\n"
        "`plain` ones one JSON record a message,\n"
        "`table` marks what is stored only.\n"
    )
    return head + "".join(_section(schemas.load(name)) for name in schemas.names())


def _section(schema: RowSchema) -> str:
    lines = [
        f"\n## {schema.name}\n\n{schema.doc}\n\nVersion {schema.version}, key {', '.join(schema.key)}, encoding {schema.encoding}.\n",
        "\n| column | type | ClickHouse | meaning |\n|---|---|---|---|\n",
    ]
    for c in schema.columns:
        kind = c.kind + (" or unknown" if c.nullable else "")
        if c.symbols:
            kind += ": " + ", ".join(c.symbols)
        lines.append(f"| `{c.name}` | {kind} | `{c.clickhouse}` | {c.doc} |\n")
    return "".join(lines)


if __name__ == "__main__":
    print(page(), end="")
