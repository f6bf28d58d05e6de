"""capture, process, sink: the three stages, each as a process of its own."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import click

from akbypass import processors, transport
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
    telemetry_option,
)
from akbypass.cli.progress import EdgeProgress
from akbypass.cli.publishing import publisher_of
from akbypass.config import Config
from akbypass.errors import EXIT_DAMAGED, EXIT_STOPPED, ConfigError, ServiceError
from akbypass.local.memory import settle_memory
from akbypass.telemetry.life import Life
from akbypass.telemetry.probes import LagProbe, Probe

SINKS = ("clickhouse", "audit")


@click.command(
    epilog="""\b
Examples:
  akbypass capture day.pcapng.gz                 publish a file to the broker of `akbypass up`
  akbypass capture a.pcap b.pcap --speed 1       two capture points, in their original timing
  akbypass capture --interface eth1 --filter "udp or tcp port 4001" --telemetry-port 9101
  akbypass capture --interface eth1 --group open-1122 --member 0 --of 2      on one machine, and on the other
  akbypass capture --interface eth4 --group open-1122 --member 1 --of 2      (two points of one run)

\b
SIGTERM or Ctrl-C delivers what was read. A live capture ends its run and exits with 0; a capture of files exits with 7,
and the same command goes on with the run. A second signal, or shutdown.drain_s, ends it at once with 8.
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
@click.option(
    "--group",
    metavar="NAME",
    help="One capture of several processes whose rows are merged into one run; a new name for each run.",
)
@click.option("--member", type=click.IntRange(0), help="With --group: number of this capture, from 0.")
@click.option("--of", "members", type=click.IntRange(2, 1024), help="With --group: captures of the run.")
@click.option("--point", default="", metavar="NAME", help="Capture point of the files; default: the first configured.")
@config_option
@bootstrap_option
@telemetry_option
def capture(
    files: tuple[str, ...], interface: str | None, capture_filter: str, seconds: float | None, speed: float | None,
    begin_at: float | None, salt: str, group: str | None, member: int | None, members: int | None, point: str,
    config_path: str | None, bootstrap_servers: str | None, telemetry_port: int | None,
) -> None:  # fmt: skip
    """Decode captures and publish their rows. `-` reads standard input.

    While the broker is away or slow, a file waits; --interface and --speed go on and keep their messages on disk.
    """
    from akbypass.producers.edge import Edge
    from akbypass.producers.publish import publish
    from akbypass.producers.watch import CaptureWatch

    if bool(files) == bool(interface):
        raise ConfigError("expected either capture files or --interface, found " + ("both" if files else "neither"))
    config = load_config(config_path, bootstrap_servers)
    if point and point not in [p.name for p in config.points]:
        raise ConfigError(f"expected a capture point of {', '.join(p.name for p in config.points)}; found {point}")
    bootstrap = bootstrap_of(config)
    life = Life(config, "capture", telemetry_port, level="WARNING")
    edge = Edge(
        config, existing_files(files), interface=interface, capture_filter=capture_filter, salt=salt, speed=speed,
        begin_ns=None if begin_at is None else round(begin_at * 1e9), group=group_of(group, member, members, len(files)), point=point,
    )  # fmt: skip
    settle_memory()
    life.on_stop(edge.stop)
    if interface:
        stop_in(edge, seconds)
    with publisher_of(edge, config, bootstrap) as publisher, EdgeProgress(edge, publisher.waiting) as progress:
        watch = CaptureWatch(edge)
        life.begin([watch], [LagProbe(config, bootstrap, [])])

        def batch_sent() -> None:
            watch.update()
            progress.update()

        sent = publish(edge, publisher, batch_sent)
        watch.tell()
    life.end()
    show(f"Run {edge.run_id}", ["topic", "rows"], [[t, n] for t, n in sent.items()], right=("rows",))
    if edge.is_cut:
        stderr.print("stopped before the end; what was read is delivered, the same command goes on with the run")
        sys.exit(EXIT_STOPPED)
    report_problems(edge)


def group_of(name: str | None, member: int | None, members: int | None, files: int) -> Any:
    """The group that the options name, None for none; raises ConfigError when they do not go together."""
    from akbypass.producers.edge import Group

    if name is None and member is None and members is None:
        return None
    if name is None or member is None or members is None:
        raise ConfigError("expected --group, --member and --of together, found not all of them")
    if files > 1:
        raise ConfigError(
            f"expected one capture for a member of a group, found {files} files; start a process for each"
        )
    return Group(name, member, members)


def stop_in(edge: Any, seconds: float | None) -> None:
    """End a capture in order after a time (s), if one is given."""
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
@telemetry_option
def process(
    names: tuple[str, ...], member: str, config_path: str | None, bootstrap_servers: str | None, telemetry_port: int | None
) -> None:  # fmt: skip
    """Run topologies, all of them by default: filtering, security, latency, latency_windows, feed_quality, books, arbitrage.

    SIGTERM takes what was read, saves it and exits with 0; a second signal, or shutdown.drain_s, ends it at once with 8.
    """
    from akbypass.processors.worker import run_worker
    from akbypass.takeover.handover import require_own

    settle_memory()
    config = load_config(config_path, bootstrap_servers)
    bootstrap = bootstrap_of(config)
    life = Life(config, "worker", telemetry_port)
    chosen = processors.choose(names)
    transport.declare_topics(config, bootstrap, transport.known_topics(), chosen)
    require_own(config, bootstrap, chosen)
    run_worker(chosen, config, bootstrap, member, processors.marked_topics(), life)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(SINKS), metavar="[NAME]…")
@click.option("--member", default="sink-0", show_default=True, help="Stable name of this sink in its groups.")
@config_option
@bootstrap_option
@store_option
@telemetry_option
def sink(
    names: tuple[str, ...], member: str, config_path: str | None, bootstrap_servers: str | None, store_url: str | None,
    telemetry_port: int | None,
) -> None:  # fmt: skip
    """Run sinks, all of them by default: clickhouse (every result), audit (the trail).

    SIGTERM writes what was read, commits and exits with 0; a second signal, or shutdown.drain_s, ends it at once with 8.
    """
    from akbypass import store_client
    from akbypass.sinks.audit.trail import audit_target
    from akbypass.sinks.clickhouse.migrate import migrate
    from akbypass.sinks.clickhouse.reconciler import Reconciler
    from akbypass.sinks.clickhouse.writer import Writer, clickhouse_target

    settle_memory()
    config = load_config(config_path, bootstrap_servers, store_url)
    bootstrap, url = bootstrap_of(config), store_url_of(config)
    life = Life(config, "sink", telemetry_port)
    transport.declare_topics(config, bootstrap, transport.known_topics(), ())
    with store_client.connect_when_up(config, url, config.store.retry_s, database="") as client:
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

    def stop() -> None:
        for writer in writers:
            writer.stopping = True

    watches = [w.watch for w in writers]
    life.begin(watches, [LagProbe(config, bootstrap, watches), Probe("store", store_answers(config, url))])
    life.on_stop(stop)
    reconciler = Reconciler(config, store_client.connect(config, url))
    reconciler.start()
    for thread in threads:
        thread.start()
    while any(t.is_alive() for t in threads) and not failures:
        time.sleep(0.2)
    reconciler.stop()
    life.end()
    if failures:
        raise failures[0]


def store_answers(config: Config, url: str) -> Callable[[], None]:
    """Return what asks the store whether it is there, over a connection of its own; it raises when not."""
    from akbypass import store_client

    client = store_client.connect(config, url)

    def ask() -> None:
        if not client.ping():
            raise ServiceError("the store does not answer")

    return ask


COMMANDS = (capture, process, sink)
