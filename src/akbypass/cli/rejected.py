"""rejected list, show, replay: what was set aside, why, where it lies; and its run once more."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Mapping
from typing import Any

import click
import orjson

from akbypass import recorded, rejected
from akbypass.cli.common import (
    bootstrap_of,
    bootstrap_option,
    config_option,
    console,
    load_config,
    show,
    stderr,
    store_client_of,
    store_option,
)
from akbypass.config import Config
from akbypass.errors import EXIT_UNBALANCED, ServiceError
from akbypass.rejected import Filters


@click.group("rejected")
def rejected_group() -> None:
    """What could not be decoded or processed and was set aside: list it, look at one record, replay its run."""


@rejected_group.command(
    "list",
    epilog="""\b
Examples:
  akbypass rejected list                                   counts by reason, then the newest records
  akbypass rejected list --run 78a5748003b6d7f0            of one run
  akbypass rejected list --reason not_a_batch --since 1h
  akbypass rejected list --topic orders --rows 1000 --format jsonl
""",
)
@click.option("--run", default="", metavar="RUN", help="Only of this run.")
@click.option("--topic", default="", metavar="TOPIC", help="Only meant for this topic.")
@click.option("--reason", default="", metavar="REASON", help="Only for this reason.")
@click.option(
    "--stage", default="", metavar="STAGE", help="Only by this stage: capture, decode, merge, a topology, a sink."
)
@click.option("--since", metavar="TIME", help="Only from this time on: 15m, 2h, 7d ago, or 2026-11-22T12:00 (UTC).")
@click.option("--until", metavar="TIME", help="Only before this time.")
@click.option("-n", "--rows", "limit", type=click.IntRange(0), default=20, show_default=True, help="Records to print.")
@click.option("--format", "form", type=click.Choice(["table", "jsonl"]), default="table", show_default=True)
@config_option
@store_option
def list_command(
    run: str, topic: str, reason: str, stage: str, since: str | None, until: str | None, limit: int, form: str,
    config_path: str | None, store_url: str | None,
) -> None:  # fmt: skip
    """Count what was rejected by reason, and print the newest records."""
    now_ns = time.time_ns()
    filters = Filters(
        run, topic, reason, stage,
        rejected.parse_time(since, now_ns) if since else None, rejected.parse_time(until, now_ns) if until else None,
    )  # fmt: skip
    with store_client_of(load_config(config_path, None, store_url)) as client:
        records = rejected.newest(client, filters, limit) if limit else []
        if form == "jsonl":
            for record in records:
                sys.stdout.write(orjson.dumps(record).decode() + "\n")
            return
        counted = rejected.counts(client, filters)
    columns = ["reason", "stage", "topic", "records", "messages", "rows", "first", "last"]
    show(
        "Rejected, by reason",
        columns,
        [[c[k] for k in columns] for c in counted],
        right=("records", "messages", "rows"),
    )
    if records:
        lines = [
            [r["id"], time_text(r["ts_capture_ns"]), r["reason"], r["stage"], rejected.run_of(r), r["detail"]]
            for r in records
        ]
        show(f"The newest {len(records):,}", ["id", "time", "reason", "stage", "run", "detail"], lines)


@rejected_group.command(
    epilog="""\b
Examples:
  akbypass rejected show 0f3a5b7c9d1e2f40
"""
)
@click.argument("identity", metavar="ID")
@config_option
@bootstrap_option
@store_option
def show_command(identity: str, config_path: str | None, bootstrap_servers: str | None, store_url: str | None) -> None:
    """Print one record: every field, where its bytes lie on Kafka or in the capture, and a hex dump of what was kept."""
    loaded = load_config(config_path, bootstrap_servers, store_url)
    with store_client_of(loaded) as client:
        record = rejected.by_id(client, identity)
        where = place_on_kafka(loaded, record) if record["offset"] is not None else place_in_capture(client, record)
    kept = bytes.fromhex(record["bytes"])
    fields = {k: v for k, v in record.items() if k != "bytes" and v is not None}
    times = {k: f"{v}  {time_text(v)}" for k, v in fields.items() if k.endswith("_ns")}
    show(f"Rejected {identity}", ["field", "value"], [[k, times.get(k, str(v))] for k, v in fields.items()])
    console.print(where)
    console.print(f"{len(kept):,} bytes kept" + (":" if kept else ""))
    for line in rejected.hex_dump(kept):
        console.print(line, markup=False)


show_command.name = "show"


@rejected_group.command(
    epilog="""\b
Examples:
  akbypass rejected replay 78a5748003b6d7f0             once the fault is mended and the workers run the new code
  akbypass rejected replay 78a5748003b6d7f0 --as second the same again, as another run
\b
Exit codes: 0 all rows of the run were sent again; 9 the broker does not hold all of them any more.
"""
)
@click.argument("run")
@click.option("--as", "name", default="", metavar="NAME", help="Make it another run than an earlier replay.")
@config_option
@bootstrap_option
def replay(run: str, name: str, config_path: str | None, bootstrap_servers: str | None) -> None:
    """Send a run again from the recorded log, so that what was set aside is taken this time.

    Results come under a run_id of their own; those of the first run stay as they are.
    """
    from akbypass.rerun import rerun
    from akbypass.transport import Publisher

    loaded = load_config(config_path, bootstrap_servers)
    bootstrap = bootstrap_of(loaded)
    loaded = loaded.model_copy(update={"kafka": loaded.kafka.model_copy(update={"bootstrap_servers": bootstrap})})
    sent = 0
    with console.status(f"reading run {run}") as status:

        def one_more() -> None:
            nonlocal sent
            sent += 1
            status.update(f"run {run}: {sent:,} messages sent again")

        done = rerun(loaded, Publisher(loaded, bootstrap), run, name, one_more)
    show(
        f"Run {done.run_id}, from {run}",
        ["topic", "rows"],
        [[t, n] for t, n in sorted(done.rows.items())],
        right=("rows",),
    )
    missing = {topic: n for topic, n in done.missing.items() if n}
    console.print(f"akbypass reconcile {done.run_id}    says when it is complete", markup=False)
    if missing:
        said = ", ".join(f"{n:,} of {topic}" for topic, n in sorted(missing.items()))
        stderr.print(f"the broker does not hold all rows of the run any more: {said} are missing")
        sys.exit(EXIT_UNBALANCED)


def place_on_kafka(loaded: Config, record: Mapping[str, Any]) -> str:
    """Say whether the message is still where it was."""
    topic, partition, offset = record["topic"], record["partition"], record["offset"]
    place = f"{topic}[{partition}]@{offset}"
    try:
        full = recorded.broker_name(loaded, topic)
        with recorded.reader(loaded, bootstrap_of(loaded)) as consumer:
            message = recorded.message_at(consumer, full, partition, offset)
    except ServiceError as error:
        return f"On Kafka: {place}; whether it is still there could not be asked: {error}"
    if message is None:
        return f"On Kafka: {place} of {full}; gone, retention or compaction took it"
    return f"On Kafka: {place} of {full}; still there, {len(message.value() or b''):,} bytes"


def place_in_capture(client: Any, record: Mapping[str, Any]) -> str:
    """Say which bytes of which capture the record is about."""
    found = rejected.source_of(client, record)
    name = f"{found[1]} (capture point {found[0]})" if found else f"capture {record['capture_id']} of the run"
    return f"In the capture: {name}, the record at byte {record['capture_pos']:,} of the decompressed file"


def time_text(time_ns: int) -> str:
    """Write a time (ns since the UNIX epoch) as ISO 8601 in UTC with nine digits."""
    seconds, rest = divmod(time_ns, 10**9)
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


COMMANDS = (rejected_group,)
