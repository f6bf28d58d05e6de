"""decode, analyze, simulate: without broker and store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from akbypass import processors, topics
from akbypass.cli.common import config_option, console, existing_files, load_config, show, stderr
from akbypass.cli.progress import EdgeProgress
from akbypass.cli.stream import report_problems
from akbypass.errors import ConfigError
from akbypass.offline import LastRevisions, Offline
from akbypass.rows import Rows


@click.command(
    epilog="""\b
Examples:
  akbypass decode feed.pcap --topic market_data --format jsonl | head
  akbypass decode orders.pcap --topic orders
  akbypass decode any.pcap --deep --field dns.qry.name --field dns.a
"""
)
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@click.option("--topic", type=click.Choice(topics.CAPTURE_TOPICS), default="market_data", show_default=True)
@click.option("--format", "form", type=click.Choice(["jsonl", "parquet", "arrow"]), default="jsonl", show_default=True)
@click.option(
    "--out", type=click.Path(dir_okay=False), help="File to write; standard output by default (jsonl, arrow)."
)
@click.option("--deep", is_flag=True, help="Fields of any tshark dissector instead of ours; slow.")
@click.option(
    "--field", "fields", multiple=True, metavar="NAME", help="With --deep: a dissector's field, as dns.qry.name."
)
@click.option("--display-filter", default="", metavar="FILTER", help="With --deep: tshark display filter.")
@config_option
def decode(
    files: tuple[str, ...], topic: str, form: str, out: str | None, deep: bool, fields: tuple[str, ...], display_filter: str,
    config_path: str | None,
) -> None:  # fmt: skip
    """Print decoded events of captures. `-` reads standard input."""
    names = existing_files(files)
    if deep:
        _decode_deep(names, fields, display_filter)
        return
    if form == "parquet" and out is None:
        raise ConfigError("expected --out with --format parquet, found none")
    from akbypass.producers.edge import Edge

    edge = Edge(load_config(config_path), names, topics={topic}, stream_id="-")
    write, close = _writer(topic, form, out)
    for made in edge:
        if topic in made.rows:
            write(made.rows[topic])
    close()
    report_problems(edge)


def _decode_deep(names: list[str], fields: tuple[str, ...], display_filter: str) -> None:
    from akbypass.producers.decoders.deep import deep_fields

    for name in names:
        for found in deep_fields(name, fields, display_filter):
            sys.stdout.write(orjson.dumps(found).decode() + "\n")


def _writer(topic: str, form: str, out: str | None) -> tuple[Any, Any]:
    schema = topics.schema_of(topic)
    if form == "parquet":
        parquet = pq.ParquetWriter(out, schema.arrow)
        return lambda rows: parquet.write_table(pa.Table.from_batches([rows.to_arrow()])), parquet.close
    file = Path(out).open("wb") if out else sys.stdout.buffer  # noqa: SIM115 - closed by the second function
    if form == "arrow":
        stream = pa.ipc.new_stream(file, schema.arrow)
        return lambda rows: stream.write_batch(rows.to_arrow()), lambda: (stream.close(), file.flush())

    def lines(rows: Rows) -> None:
        file.writelines(line + b"\n" for line in rows.to_json_lines())

    return lines, file.flush


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@click.option(
    "--out", type=click.Path(file_okay=False), required=True, help="Directory for one <topic>.jsonl per result topic."
)
@config_option
def analyze(files: tuple[str, ...], out: str, config_path: str | None) -> None:
    """Run every topology over captures in one process and write the last revision of every result."""
    from akbypass.producers.edge import Edge

    config = load_config(config_path)
    edge = Edge(config, existing_files(files), stream_id="-")
    results = LastRevisions(Path(out))
    run = Offline(config, processors.all_topologies(), edge.run_id, edge.captures, results)
    with EdgeProgress(edge) as progress:
        for made in edge:
            run.feed(made.rows, made.capture_id, made.watermark_ns, made.end_ns)
            progress.update()
    results.close()
    show(f"Run {edge.run_id}", ["topic", "rows"], [[t, n] for t, n in results.counts.items()], right=("rows",))
    counted = [[topology, reason.replace("_", " "), n] for (topology, reason), n in sorted(run.counters.items())]
    if counted:
        show("Counted by the topologies", ["topology", "what", "count"], counted, right=("count",))
    console.print(f"written to {out}")
    report_problems(edge)


@click.command()
@click.argument("out", type=click.Path(file_okay=False))
@click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, help="The same seed gives the same bytes."
)
@click.option("--seconds", type=click.FloatRange(2, 3600), default=60, show_default=True, help="Length of the day; s.")
@click.option(
    "--rate",
    type=click.IntRange(300),
    default=2_500,
    show_default=True,
    help="Market-data messages per second of all venues together; about as many packets.",
)
def simulate(out: str, seed: int, seconds: float, rate: int) -> None:
    """Make a simulated trading day: capture.pcap, config.yaml and truth.json in OUT."""
    from akbypass.producers.simulator import simulate as make

    with stderr.status("simulating"):
        day = make(Path(out), seed, seconds, rate)
    console.print(f"capture  {day.capture}\nconfig   {day.config}\ntruth    {day.truth}")


COMMANDS = (decode, analyze, simulate)
