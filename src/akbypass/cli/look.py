"""query, tail, topics, check: look at what is there, also while the pipeline runs."""

from __future__ import annotations

import csv
import shutil
import sys
import time
from typing import Any

import click
import orjson
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from akbypass import batch, config, schemas, topics, transport
from akbypass.cli.common import (
    bootstrap_of,
    bootstrap_option,
    config_option,
    console,
    load_config,
    show,
    store_client_of,
    store_option,
    store_url_of,
)
from akbypass.config import Config
from akbypass.errors import AkbypassError, ConfigError, MissingError, ServiceError
from akbypass.local import jars
from akbypass.local.stack import Endpoints, Places

QUERY_ROWS_MAX = 1_000  # rows that a table prints; other formats print all


@click.command(
    epilog="""\b
Examples:
  akbypass query "SELECT venue, kind, n, p50_ns, p99_ns FROM latency_windows ORDER BY window_start_ns LIMIT 20"
  akbypass query "SELECT * FROM feed_gaps" --format jsonl
  akbypass query "SHOW TABLES"
"""
)
@click.argument("sql")
@click.option("--format", "form", type=click.Choice(["table", "jsonl", "csv"]), default="table", show_default=True)
@config_option
@store_option
def query(sql: str, form: str, config_path: str | None, store_url: str | None) -> None:
    """Ask the store in SQL. Rows of several revisions count once, as the last (setting final=1)."""
    loaded = load_config(config_path, None, store_url)
    with store_client_of(loaded) as client:
        try:
            result = client.query(sql, settings={"final": 1})
        except Exception as error:  # the driver raises many kinds; each carries the store's own words
            words = str(error).split("server response: ")[-1].rsplit(" (for url ", 1)[0]
            raise ServiceError(f"store: {words}") from error
    names, rows = list(result.column_names), result.result_rows
    if form == "csv":
        writer = csv.writer(sys.stdout)
        writer.writerow(names)
        writer.writerows(rows)
    elif form == "jsonl":
        for row in rows:
            sys.stdout.write(orjson.dumps(dict(zip(names, row, strict=True)), default=str).decode() + "\n")
    else:
        show("", names, [list(row) for row in rows[:QUERY_ROWS_MAX]], right=_numbers(names, rows))
        if len(rows) > QUERY_ROWS_MAX:
            console.print(f"the first {QUERY_ROWS_MAX:,} of {len(rows):,} rows; --format jsonl prints all")


def _numbers(names: list[str], rows: Any) -> tuple[str, ...]:
    if not rows:
        return ()
    return tuple(
        n for n, v in zip(names, rows[0], strict=True) if isinstance(v, int | float) and not isinstance(v, bool)
    )


@click.command()
@click.argument("topic")
@click.option("-n", "--rows", "limit", type=click.IntRange(1), help="Stop after this many rows.")
@click.option("--from-beginning", is_flag=True, help="Start with the oldest message.")
@click.option("--seconds", type=click.FloatRange(0), help="Stop after this long.")
@config_option
@bootstrap_option
def tail(
    topic: str, limit: int | None, from_beginning: bool, seconds: float | None, config_path: str | None, bootstrap_servers: str | None
) -> None:  # fmt: skip
    """Print rows of TOPIC as JSON Lines, as they come; Ctrl-C stops."""
    loaded = load_config(config_path, bootstrap_servers)
    if topic not in transport.known_topics():
        raise ConfigError(f"expected a topic of {', '.join(transport.known_topics())}; found {topic}")
    bootstrap = bootstrap_of(loaded)
    full, printed = topics.full_name(loaded.kafka.prefix, topic), 0
    options = {"group.id": f"{loaded.kafka.prefix}tail", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    consumer = Consumer({**transport.client_options(loaded, bootstrap), **options})
    try:
        places = []
        for partition in range(loaded.kafka.partitions):
            low, high = consumer.get_watermark_offsets(TopicPartition(full, partition), timeout=10)
            places.append(TopicPartition(full, partition, low if from_beginning else high))
        consumer.assign(places)
        deadline = time.monotonic() + seconds if seconds else None
        while (deadline is None or time.monotonic() < deadline) and (limit is None or printed < limit):
            message = consumer.poll(0.2)
            if message is None or message.error():
                continue
            try:
                found = batch.decode(topic, message.value(), message.headers())
            except batch.BatchError as problem:
                words = " ".join(str(problem).split())  # Arrow writes several lines
                click.echo(f"{topic}[{message.partition()}]@{message.offset()}: {words}", err=True)
                continue
            lines = found.rows.to_json_lines() if found.rows is not None else []
            for line in lines[: None if limit is None else limit - printed]:
                sys.stdout.write(line.decode() + "\n")
                printed += 1
            sys.stdout.flush()
    except KafkaException as error:
        raise ServiceError(f"broker {bootstrap}: {error}") from error
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()


@click.command("topics")
@click.argument("topic", required=False)
@config_option
@bootstrap_option
def topics_command(topic: str | None, config_path: str | None, bootstrap_servers: str | None) -> None:
    """List the topics with what one row is; with TOPIC, its columns and units."""
    if topic is not None:
        if topic not in transport.known_topics():
            raise ConfigError(f"expected a topic of {', '.join(transport.known_topics())}; found {topic}")
        schema = topics.schema_of(topic)
        rows = [[c.name, c.kind + (" or unknown" if c.nullable else ""), c.doc] for c in schema.columns]
        show(f"{topic}: {schema.doc}", ["column", "type", "meaning"], rows)
        return
    loaded = load_config(config_path, bootstrap_servers)
    counts = _message_counts(loaded)
    listed: list[list[Any]] = []
    for name in transport.known_topics():
        schema = topics.schema_of(name)
        listed.append([name, schema.doc, ", ".join(schema.key), schema.encoding, counts.get(name)])
    show("Topics", ["topic", "one row is", "key", "encoding", "messages"], listed, right=("messages",))


def _message_counts(loaded: Config) -> dict[str, int]:
    """Messages per topic, where a broker is known; none otherwise."""
    up = Endpoints.read(Places.default())
    bootstrap = loaded.kafka.bootstrap_servers or (up.bootstrap_servers if up else "")
    if not bootstrap:
        return {}
    consumer = Consumer({**transport.client_options(loaded, bootstrap), "group.id": f"{loaded.kafka.prefix}topics"})
    found: dict[str, int] = {}
    try:
        existing = consumer.list_topics(timeout=10).topics
        for name in transport.known_topics():
            full = topics.full_name(loaded.kafka.prefix, name)
            for partition in existing[full].partitions if full in existing else ():
                low, high = consumer.get_watermark_offsets(TopicPartition(full, partition), timeout=10)
                found[name] = found.get(name, 0) + high - low
    except KafkaException as error:
        raise ServiceError(f"broker {bootstrap}: {error}") from error
    finally:
        consumer.close()
    return found


def consumer_lags(loaded: Config, bootstrap: str) -> list[tuple[str, int]]:
    """Messages on the broker that each of our consumer groups has not acknowledged yet.

    A partition that a member reads but nobody has committed counts from its oldest message.
    """
    admin = AdminClient(transport.client_options(loaded, bootstrap))
    consumer = Consumer({**transport.client_options(loaded, bootstrap), "group.id": f"{loaded.kafka.prefix}status"})
    lags = []
    try:
        groups = sorted(g.group_id for g in admin.list_consumer_groups().result(10).valid)
        for group in (g for g in groups if g.startswith(loaded.kafka.prefix)):
            behind = 0
            for (topic, partition), offset in _group_offsets(admin, group).items():
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
                behind += max(0, high - max(offset, low))
            lags.append((group.removeprefix(loaded.kafka.prefix), behind))
    except KafkaException as error:
        raise ServiceError(f"broker {bootstrap}: {error}") from error
    finally:
        consumer.close()
    return lags


def _group_offsets(admin: AdminClient, group: str) -> dict[tuple[str, int], int]:
    """Committed offset of every partition that a group has committed or its members read; negative for none."""
    members = admin.describe_consumer_groups([group])[group].result(10).members
    offsets = {(p.topic, p.partition): -1 for m in members for p in m.assignment.topic_partitions}
    committed = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(10)
    return offsets | {(p.topic, p.partition): p.offset for p in committed.topic_partitions}


@click.command()
@config_option
@bootstrap_option
@store_option
@click.option("--dump", is_flag=True, help="Print the whole configuration with every default, and nothing else.")
def check(config_path: str | None, bootstrap_servers: str | None, store_url: str | None, dump: bool) -> None:
    """Check this machine, the configuration, the layouts and the schemas; with addresses, broker and store as well."""
    loaded = load_config(config_path, bootstrap_servers, store_url)
    if dump:
        sys.stdout.write(config.dump(loaded))
        return
    results = [
        ("configuration", True, config_path or "defaults"),
        _java(),
        _program("mvn", "Maven, for the embedded broker"),
    ]
    results += [_program("tshark", "for --deep", needed=False), _program("dumpcap", "for --interface", needed=False)]
    results += [("schemas", True, f"{len(schemas.names())} row types"), _layouts(), *_services(loaded)]
    show("Check", ["what", "", "found"], [[what, "ok" if ok else "missing", text] for what, ok, text in results])
    if not all(ok for _, ok, text in results if not text.startswith("optional")):
        sys.exit(4)


def _program(name: str, why: str, *, needed: bool = True) -> tuple[str, bool, str]:
    found = shutil.which(name)
    return name, found is not None, found or f"{'' if needed else 'optional, '}{why}"


def _java() -> tuple[str, bool, str]:
    try:
        return "java", True, f"{jars.find_java()}, Java {jars.JAVA_MIN} or newer"
    except MissingError as error:
        return "java", False, str(error)


def _layouts() -> tuple[str, bool, str]:
    from akbypass.producers import protocols

    try:
        return "layouts", True, ", ".join(sorted(protocols.builtin().names))
    except AkbypassError as error:
        return "layouts", False, str(error)


def _services(loaded: Config) -> list[tuple[str, bool, str]]:
    from akbypass import store_client

    results = []
    up = Endpoints.read(Places.default())
    if loaded.kafka.bootstrap_servers or up:
        try:
            version = AdminClient(transport.client_options(loaded, bootstrap_of(loaded))).list_topics(timeout=10)
            results.append(("broker", True, f"{bootstrap_of(loaded)}, {len(version.brokers)} broker(s)"))
        except (KafkaException, AkbypassError) as error:
            results.append(("broker", False, str(error)))
    if loaded.clickhouse.url or up:
        try:
            with store_client.connect(loaded, store_url_of(loaded)) as client:
                results.append(("store", True, f"{store_url_of(loaded)}, ClickHouse {client.server_version}"))
        except AkbypassError as error:
            results.append(("store", False, str(error)))
    return results


COMMANDS = (query, tail, topics_command, check)
