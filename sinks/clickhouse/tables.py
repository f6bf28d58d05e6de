"""Table definitions derived from the row schemas; talks to no store. `python -m akbypass.sinks.clickhouse.tables` prints them.

Every table carries, beside the row's columns, the run and the place on Kafka that the row came from. The engine keeps
the highest revision of rows with equal keys, a second net under the writer's own rule that drops repeats.
"""

from __future__ import annotations

from akbypass import schemas
from akbypass.schemas import RowSchema

PLACE = (
    ("run_id", "LowCardinality(String)", "Run: 16 hexadecimal digits."),
    ("_topic", "LowCardinality(String)", "Topic that the row came from, without prefix and version."),
    ("_partition", "Int32", "Kafka partition that the row came from."),
    ("_offset", "Int64", "Kafka offset of the message that the row came from."),
    ("_source", "Int32", "Writer of the row: the capture in its run, or the partition of the topology."),
)
RAW = ("packets", "feed_frames", "market_data")  # stored only when store.raw is set


def stored_types() -> tuple[str, ...]:
    """Row types that have a table."""
    return schemas.names()


def sorting_key(schema: RowSchema) -> tuple[str, ...]:
    """Columns of the primary key; it ends in what tells one row from another and holds nothing that a revision changes."""
    lead = tuple(c for c in schema.sort if not schema.by_name[c].nullable)
    if not schema.has_life:
        return (*lead, "run_id", "run_ns", "capture_id", "capture_pos", "sub")
    return (*lead, "id") if schema.encoding == "plain" else (*lead, "run_ns", "id")


def create_table(schema: RowSchema) -> str:
    """Return the CREATE TABLE statement of one row type."""
    columns = [(c.name, c.clickhouse, c.doc) for c in schema.columns]
    lines = [f"    `{name}` {kind} COMMENT '{_quoted(doc)}'" for name, kind, doc in (*columns, *PLACE)]
    version = "revision" if schema.has_life else ""
    # rows that are replaced by later revisions must share a partition with them
    months = "" if schema.encoding == "plain" else "PARTITION BY toYYYYMM(run_ns)\n"
    return (
        f"CREATE TABLE IF NOT EXISTS {schema.name}\n(\n"
        + ",\n".join(lines)
        + f"\n)\nENGINE = ReplacingMergeTree({version})\n"
        f"{months}ORDER BY ({', '.join(sorting_key(schema))})\nCOMMENT '{_quoted(schema.doc)}'"
    )


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


RUN_ENDS = """CREATE TABLE IF NOT EXISTS run_ends
(
    `sink` LowCardinality(String) COMMENT 'Sink that has written everything up to the end.',
    `run_id` LowCardinality(String) COMMENT 'Run: 16 hexadecimal digits.',
    `topic` LowCardinality(String) COMMENT 'Topic, without prefix and version.',
    `partition` Int32 COMMENT 'Kafka partition.',
    `source` Int32 COMMENT 'Writer that has ended.',
    `sources` Int32 COMMENT 'Writers of the topic in this run (count).',
    `end_ns` Int64 COMMENT 'End of the run; ns since the UNIX epoch.'
)
ENGINE = ReplacingMergeTree
ORDER BY (sink, run_id, topic, partition, source)
COMMENT 'Which writers of a run have ended, so that a reader knows when results are complete.'"""


def all_statements() -> list[str]:
    """Return the statements that make every table."""
    return [*(create_table(schemas.load(name)) for name in stored_types()), RUN_ENDS]


if __name__ == "__main__":
    print(";\n\n".join(all_statements()) + ";")
