"""demo: the whole line once: a capture through Kafka and Faust into ClickHouse, and what it says."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import orjson

from akbypass import config as configuration
from akbypass import results, store_client
from akbypass.analyzer import export_results
from akbypass.cli import report
from akbypass.cli.common import (
    bootstrap_option,
    config_option,
    console,
    existing_files,
    load_config,
    stderr,
    store_option,
)
from akbypass.cli.progress import EdgeProgress
from akbypass.cli.publishing import publisher_of
from akbypass.cli.stream import report_problems, stop_in
from akbypass.config import Config
from akbypass.errors import AkbypassError, ConfigError, ServiceError
from akbypass.local.stack import Endpoints, Places, Stack
from akbypass.offline import RESULTS

LIVE_SECONDS = 10.0
STALLED_S = 120.0  # the demo gives up when no result moves for this long


@click.command(
    epilog="""\b
Examples:
  akbypass demo                        a simulated day, its findings held against its truth
  akbypass demo day.pcapng.gz          a capture of yours
  akbypass demo --live --interface lo --seconds 10
  akbypass demo --export out/today     also out/today.json and out/today.<result>.csv
"""
)
@click.argument("files", nargs=-1, metavar="[CAPTURE]…")
@click.option("--live", is_flag=True, help="Capture from a network interface instead.")
@click.option("--interface", default="any", show_default=True, metavar="IF", help="With --live: the interface.")
@click.option(
    "--seconds", type=click.FloatRange(2, 3600), help="Length of the simulated day (60) or of the live capture (10)."
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the simulated day.")
@click.option("--export", metavar="PREFIX", help="Write all results as PREFIX.json and PREFIX.<result>.csv.")
@config_option
@bootstrap_option
@store_option
def demo(
    files: tuple[str, ...], live: bool, interface: str, seconds: float | None, seed: int, export: str | None,
    config_path: str | None, bootstrap_servers: str | None, store_url: str | None,
) -> None:  # fmt: skip
    """Run the whole pipeline once over a simulated trading day, or over captures, and show what it finds."""
    places = Places.default()
    if live and files:
        raise ConfigError("expected captures or --live, found both")
    if Endpoints.read(places) is not None:
        raise ServiceError("the stack is up; run `akbypass down` first, or use `akbypass capture`")
    names, truth = existing_files(files), None
    if not files and not live:
        day = _simulated_day(places, seed, seconds or 60)
        names, truth = [str(day.capture)], orjson.loads(Path(day.truth).read_bytes())
        config_path = config_path or str(day.config)
    config = load_config(config_path, bootstrap_servers, store_url)
    kept = places.home / "demo" / "config.yaml"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(configuration.dump(config))
    from akbypass.producers.edge import Edge

    edge = Edge(config, names, interface=interface if live else None)
    found = _through(edge, places, config, str(kept), (seconds or LIVE_SECONDS) if live else None)
    differs = 0
    if truth is not None:
        from akbypass import truth as answers

        findings = answers.compare(truth, found)
        console.print(answers.render(findings))
        differs = sum(len(f.missing) + len(f.invented) for f in findings)
    if export:
        written = export_results(export, found)
        console.print(f"exported to {written[0]} and {len(written) - 1} CSV files beside it")
    report.suggest(found)
    report_problems(edge)
    if differs:
        raise AkbypassError(f"{differs} findings differ from the truth of the simulated day")


def _simulated_day(places: Places, seed: int, seconds: float) -> Any:
    from akbypass.producers.simulator import simulate

    out = places.home / "demo" / f"day-{seed}-{seconds:g}s"
    console.print(f"[bold]A simulated trading day[/] (seed {seed}, {seconds:g} s); its truth is known: {out}")
    with stderr.status("simulating"):
        return simulate(out, seed, seconds)


def _through(
    edge: Any, places: Places, config: Config, config_path: str, live_seconds: float | None
) -> Mapping[str, list[dict[str, Any]]]:
    """Bring one run through the whole stack and print the report; returns every result by row type."""
    from akbypass.producers.publish import publish

    started_s = time.monotonic()
    stack = Stack(places, config, config_path)
    try:
        with stderr.status("starting") as status:
            points = stack.start(status.update)
        console.print(
            f"up after {time.monotonic() - started_s:.1f} s: broker {points.bootstrap_servers}, store {points.store_url}"
        )
        with store_client.connect(config, points.store_url) as client:
            repeated = results.is_stored(client, config, edge.run_id, edge.captures)
            captured_s = time.monotonic()
            if live_seconds:
                stop_on_signals(edge)
                stop_in(edge, live_seconds)  # only now: the start of the stack is not part of the capture
            with (
                publisher_of(edge, config, points.bootstrap_servers) as publisher,
                EdgeProgress(edge, publisher.waiting) as progress,
            ):
                sent = publish(edge, publisher, progress.update)
            with stderr.status("results") as status:

                def waiting(done: int, whole: int) -> None:
                    stack.check()
                    status.update(f"results: {done} of {whole} end markers are in the store")

                results.wait_for_run(client, config, edge.run_id, edge.captures, STALLED_S, waiting)
            elapsed_s = None if repeated else time.monotonic() - captured_s
            report.run_report(client, edge, sent, elapsed_s, live_seconds is not None)
            return results.all_results(client, edge.run_id, (*RESULTS, "orders"))
    finally:
        with stderr.status("stopping"):
            stack.stop()


def stop_on_signals(edge: Any) -> None:
    """End a live capture in order on Ctrl-C or SIGTERM; the demo then shows what it has."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: edge.stop())


COMMANDS = (demo,)
