"""bench: what this machine does with simulated days, offline and through the whole pipeline; measured, not judged."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import orjson

from akbypass.bench import checkpoint, outage, page, process, scale
from akbypass.bench.day import Day, days
from akbypass.bench.line import Measurement, line
from akbypass.cli.common import console, show, stderr
from akbypass.errors import ConfigError

ON_A_DAY, ALONE = ("analyze", "pipeline", "scale"), ("checkpoint", "outage")  # all: every one on a day


@click.command(
    epilog="""\b
Examples:
  akbypass bench analyze                         offline, one process
  akbypass bench pipeline --pace 100000          flat out, then paced with the delay of every hop
  akbypass bench scale                           CPU per packet by workers, partitions and load
  akbypass bench checkpoint                      a million flows, 100,000 orders, 10,000 books: saving and recovery
  akbypass bench outage --away 60                the broker dead for a minute: catching up, rows lost and out of order
  akbypass bench analyze pipeline --seconds 40 --write docs/reference/performance.md
  akbypass bench all --write docs/reference/performance.md
"""
)
@click.argument("names", nargs=-1, required=True, metavar="NAME…", type=click.Choice([*ON_A_DAY, *ALONE, "all"]))
@click.option("--seconds", type=click.FloatRange(4, 3600), default=24, show_default=True, help="Length of the day.")
@click.option(
    "--rate",
    type=click.IntRange(300),
    default=100_000,
    show_default=True,
    help="Market-data messages in a second of the day; about as many packets. The demo's day has 2,500.",
)
@click.option(
    "--pace",
    type=click.FloatRange(1),
    metavar="N",
    help="pipeline: also replay at N packets/s. [all: 10,000 and 50,000]",
)
@click.option(
    "--away", type=click.FloatRange(1), default=60, show_default=True, help="outage: how long the broker is dead; s."
)
@click.option("--raw", is_flag=True, help="pipeline: also store packets and messages (store.raw).")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option(
    "--write", type=click.Path(dir_okay=False), metavar="FILE",
    help="Write the page docs/reference/performance.md, and performance.json beside it.",
)  # fmt: skip
def bench(
    names: tuple[str, ...], seconds: float, rate: int, pace: float | None, away: float, raw: bool, seed: int, as_json: bool,
    write: str | None,
) -> None:  # fmt: skip
    """Measure packets/s, CPU, memory and delays of each stage on a simulated day.

    NAME is analyze, pipeline, scale, or all of these; or checkpoint or outage, each of which has a page to itself.
    """
    if len(names) > 1 and set(names) & set(ALONE):
        raise ConfigError(f"expected {' and '.join(ALONE)} without others, found {', '.join(names)}")
    if names == ("checkpoint",):
        _checkpoint(as_json)
        return
    if names == ("outage",):
        _outage(seed, rate, pace or float(rate), away, as_json)
        return
    with stderr.status("simulating") as status, days(seed, seconds, rate) as (warm, day):
        input_ = f"a simulated day of seed {seed}: {day.packets:,} packets in {day.seconds:.0f} s, three ITCH venues on two lines each."
        found = {}
        for title, act in _chosen(names, pace, raw).items():
            status.update(f"measuring {title}")
            found[title] = act(warm, day)
    if as_json:
        sys.stdout.write(_json(found).decode() + "\n")
    else:
        _show(found)
    if write:
        options = f"{' '.join(names)} --seconds {seconds:g} --rate {rate} --seed {seed}"
        Path(write).write_text(page.page(found, options, input_))
        Path(write).with_suffix(".json").write_bytes(_json(found) + b"\n")
        console.print(f"written to {write}")


def _checkpoint(as_json: bool) -> None:
    """Measure saving and recovery of state; it needs no day."""
    sizes = checkpoint.Sizes()
    with stderr.status("measuring checkpoints"):
        costs, recovery = checkpoint.measure(sizes)
    if as_json:
        made = orjson.dumps(checkpoint.plain(costs, recovery), option=orjson.OPT_INDENT_2)
        sys.stdout.write(made.decode() + "\n")
        return
    columns = checkpoint.COLUMNS
    show(checkpoint.title(sizes), columns, checkpoint.rows(costs), right=tuple(columns[2:]))
    show("recovery", ["", "s"], checkpoint.recovery_rows(recovery), right=("s",))


OUTAGE_SLACK_S = 30.0  # a day for an outage is longer than that by this: before it, the broker's start, catching up


def _outage(seed: int, rate: int, pace: float, away_s: float, as_json: bool) -> None:
    """Measure the broker's absence on a day that lasts long enough."""
    with (
        stderr.status("simulating") as status,
        days(seed, (away_s + OUTAGE_SLACK_S) * pace / rate, rate) as (warm, day),
    ):
        status.update("measuring outage")
        found = outage.measure(warm, day, pace, away_s)
    if as_json:
        sys.stdout.write(orjson.dumps(outage.plain(found), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        show("outage", ["", ""], outage.rows(found), right=("",))


Act = Callable[[Day, Day], list[Measurement]]


def _chosen(names: tuple[str, ...], pace: float | None, raw: bool) -> dict[str, Act]:
    everything, acts = "all" in names, dict[str, Act]()
    if everything or "analyze" in names:
        acts["analyze"] = _analyze
    if everything or "pipeline" in names:
        paces = [10_000.0, 50_000.0] if everything and pace is None else [pace] if pace else []
        acts["pipeline"] = lambda warm, day: _pipeline(warm, day, paces, raw)
    if everything:
        acts["pipeline, raw rows stored too"] = lambda warm, day: _pipeline(warm, day, [], True)
    if everything or "scale" in names:
        acts["scale by workers"] = scale.by_workers
        acts["scale by partitions"] = scale.by_partitions
        acts["scale by load"] = scale.by_load
    return acts


def _analyze(warm: Day, day: Day) -> list[Measurement]:
    """`akbypass analyze` as a process of its own, start-up included."""
    with tempfile.TemporaryDirectory(prefix="akbypass-bench-") as out:
        process.run(["analyze", warm.capture, "--config", warm.config, "--out", out])
        started_s = time.monotonic()
        cost = process.run(["analyze", day.capture, "--config", day.config, "--out", out])
        return [Measurement("analyze", day.packets, time.monotonic() - started_s, [cost])]


def _pipeline(warm: Day, day: Day, paces: list[float], raw: bool) -> list[Measurement]:
    with line(warm, raw=raw) as running:
        return [running.flat_out(day), *(running.paced(day, pace) for pace in paces)]


def _json(found: dict[str, list[Measurement]]) -> bytes:
    return orjson.dumps({name: [page.plain(m) for m in ms] for name, ms in found.items()}, option=orjson.OPT_INDENT_2)


def _show(found: dict[str, list[Measurement]]) -> None:
    for m in (m for measured in found.values() for m in measured):
        show(page.title(m), list(page.COLUMNS), page.cost_rows(m), right=tuple(page.COLUMNS[1:]))
        if m.delays:
            show("delays", list(page.DELAY_COLUMNS), page.delay_rows(m), right=tuple(page.DELAY_COLUMNS[2:]))


COMMANDS = (bench,)
