"""capture, process, sink: the three stages, each as a process of its own."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from typing import Any

import click

from akbypass import processors, store_client, transport
from akbypass.cli.common import (
    bootstrap_of,
    bootstrap_option,
    config_option,
    existing_files,
    load_config,
    show,
    stderr,
    store_option,
    store_url_of,
)
from akbypass.cli.progress import EdgeProgress
from akbypass.errors import EXIT_DAMAGED, ConfigError
from akbypass.local.memory import settle_memory

SINKS = ("clickhouse", "audit")


@click.command(
    epilog="""\b
Examples:
  akbypass capture day.pcapng.gz                 publish a file to the broker of `akbypass up`
  akbypass capture a.pcap b.pcap --speed 1       two capture points, in their original timing
  akbypass capture --interface eth1 --filter "udp or tcp port 4001"
"""
)
@click.argument("files", nargs=-1, metavar="[FILE]…")
@click.option("--interface", metavar="IF", help="Capture live with dumpcap instead of from files.")
@click.option("--filter", "capture_filter", default="", metavar="BPF", help="Capture filter, live only.")
@click.option("--seconds", type=click.FloatRange(0.1), help="Stop a live capture after this long.")
@click.option(
    "--speed",
    type=click.FloatRange(0.001),
    metavar="X",
    help="Replay at X times the original speed; default: flat out.",
)
@click.option(
    "--begin-at",
    type=click.FloatRange(0),
    metavar="TIME",
    help="Wall clock (s since 1970) at which a replay's first frame is due, so that several begin together.",
)
@click.option("--run", "salt", default="", metavar="NAME", help="Make it another run of the same file.")
@config_option
@bootstrap_option
def capture(
    files: tuple[str, ...], interface: str | None, capture_filter: str, seconds: float | None, speed: float | None,
    begin_at: float | None, salt: str, config_path: str | None, bootstrap_servers: str | None,
) -> None:  # fmt: skip
    """Decode captures and publish their rows. `-` reads standard input."""
    from akbypass.producers.edge import Edge
    from akbypass.producers.publish import publish

    if bool(files) == bool(interface):
        raise ConfigError("expected either capture files or --interface, found " + ("both" if files else "neither"))
    config = load_config(config_path, bootstrap_servers)
    bootstrap = bootstrap_of(config)
    edge = Edge(
        config, existing_files(files), interface=interface, capture_filter=capture_filter, salt=salt, speed=speed,
        begin_ns=None if begin_at is None else round(begin_at * 1e9),
    )  # fmt: skip
    transport.declare_topics(config, bootstrap, transport.known_topics(), processors.all_topologies())
    publisher = transport.Publisher(config, bootstrap)
    if interface:
        stop_after(edge, seconds)
    with EdgeProgress(edge, publisher.waiting) as progress:
        sent = publish(edge, publisher, progress.update)
    show(f"Run {edge.run_id}", ["topic", "rows"], [[t, n] for t, n in sent.items()], right=("rows",))
    report_problems(edge)


def stop_after(edge: Any, seconds: float | None) -> None:
    """End a live capture in order on Ctrl-C, SIGTERM or after a time."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: edge.stop())
    if seconds:
        timer = threading.Timer(seconds, edge.stop)
        timer.daemon = True
        timer.start()


def report_problems(edge: Any) -> None:
    """Say what could not be read, and exit accordingly."""
    for problem in edge.problems:
        stderr.print(f"damaged: {problem}")
    if edge.problems:
        sys.exit(EXIT_DAMAGED)


@click.command()
@click.argument("names", nargs=-1, metavar="[TOPOLOGY]…")
@click.option("--member", default="worker-0", show_default=True, help="Stable name of this worker in its groups.")
@config_option
@bootstrap_option
def process(names: tuple[str, ...], member: str, config_path: str | None, bootstrap_servers: str | None) -> None:
    """Run topologies, all of them by default: filtering, security, latency, latency_windows, feed_quality, books, arbitrage."""
    from akbypass.processors.worker import run_worker

    settle_memory()
    config = load_config(config_path, bootstrap_servers)
    bootstrap = bootstrap_of(config)
    chosen = processors.choose(names)
    transport.declare_topics(config, bootstrap, transport.known_topics(), chosen)
    run_worker(chosen, config, bootstrap, member, processors.marked_topics())


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(SINKS), metavar="[NAME]…")
@click.option("--member", default="sink-0", show_default=True, help="Stable name of this sink in its groups.")
@config_option
@bootstrap_option
@store_option
def sink(
    names: tuple[str, ...], member: str, config_path: str | None, bootstrap_servers: str | None, store_url: str | None
) -> None:
    """Run sinks, all of them by default: clickhouse (every result), audit (the trail)."""
    from akbypass.sinks.audit.trail import audit_target
    from akbypass.sinks.clickhouse.migrate import migrate
    from akbypass.sinks.clickhouse.writer import Writer, clickhouse_target

    settle_memory()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    config = load_config(config_path, bootstrap_servers, store_url)
    bootstrap, url = bootstrap_of(config), store_url_of(config)
    transport.declare_topics(config, bootstrap, transport.known_topics(), ())
    with store_client.connect(config, url, database="") as client:
        migrate(client, store_client.database_of(config, url))
    targets = {"clickhouse": clickhouse_target(config), "audit": audit_target()}
    writers = [Writer(config, bootstrap, store_client.connect(config, url), targets[n], member) for n in names or SINKS]
    failures: list[BaseException] = []

    def run(writer: Any) -> None:
        try:
            writer.run()
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=run, args=(w,), name=w.target.name, daemon=True) for w in writers]

    def stop(*_: Any) -> None:
        for writer in writers:
            writer.stopping = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    for thread in threads:
        thread.start()
    while any(t.is_alive() for t in threads) and not failures:
        time.sleep(0.2)
    if failures:
        raise failures[0]


COMMANDS = (capture, process, sink)
