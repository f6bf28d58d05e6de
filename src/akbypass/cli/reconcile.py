"""reconcile: the ledger of a run, hop by hop; counts are made elsewhere, this prints them."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import click
import orjson

from akbypass import evidence
from akbypass.cli.common import config_option, console, load_config, show, store_client_of, store_option
from akbypass.errors import EXIT_UNBALANCED, ConfigError
from akbypass.evidence import Retention
from akbypass.reconcile import Balance, Hop

RUNS = 10  # newest runs when none is named
COLUMNS = ["hop", "topic", "at", "handed on", "arrived", "drops by reason", "lost", "extra", ""]
RIGHT = ("handed on", "arrived", "lost", "extra")


@click.command(
    epilog="""\b
Examples:
  akbypass reconcile                      the ten newest runs, one line each, and in full what does not balance
  akbypass reconcile 3f2a9c0d11e4b785     every hop of one run
  akbypass reconcile --json | jq '.runs[] | select(.state == "unbalanced")'
\b
Exit codes: 0 everything balances, runs that still go on included; 9 rows were lost or count twice. What retention took
before it was read belongs to no run: without a named run it ends with 9, too.
"""
)
@click.argument("runs", nargs=-1, metavar="[RUN]…")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
@config_option
@store_option
def reconcile(runs: tuple[str, ...], as_json: bool, config_path: str | None, store_url: str | None) -> None:
    """Say whether captured = published = consumed = stored + counted drops, by capture, run and topic.

    A run that still goes on is open: what is under way is not lost.
    """
    config = load_config(config_path, None, store_url)
    with store_client_of(config) as client:
        chosen = list(runs) or evidence.run_ids(client, RUNS)
        balances = [evidence.balance_of(client, config, run_id) for run_id in chosen]
        taken_away = evidence.retention(client)
    unknown = [b.run_id for b in balances if not b.hops]
    if unknown:
        raise ConfigError(f"expected runs that left rows in the store, found none of {', '.join(unknown)}")
    if as_json:
        sys.stdout.write(orjson.dumps(_plain(balances, taken_away)).decode() + "\n")
    else:
        _print(balances, taken_away, in_full=bool(runs))
    if (taken_away and not runs) or not all(b.holds for b in balances):
        sys.exit(EXIT_UNBALANCED)


def _plain(balances: list[Balance], taken_away: list[Retention]) -> dict[str, Any]:
    runs = [{"run_id": b.run_id, "state": b.state, "hops": [_hop(hop) for hop in b.hops]} for b in balances]
    return {"runs": runs, "retention": [asdict(r) for r in taken_away]}


def _hop(hop: Hop) -> dict[str, Any]:
    return asdict(hop) | {"lost": hop.lost, "extra": hop.extra}


def _print(balances: list[Balance], taken_away: list[Retention], *, in_full: bool) -> None:
    if not in_full:
        rows = [[b.run_id, len(b.hops), *_sums(b), b.state] for b in balances]
        show("Runs", ["run", "hops", "lost", "extra", ""], rows, right=("hops", "lost", "extra"))
    for b in balances:
        if in_full or not b.holds:
            show(f"Run {b.run_id}: {b.state}", COLUMNS, [_line(hop) for hop in b.hops], right=RIGHT)
        for hop in b.hops:
            if hop.lost or hop.extra:
                console.print(f"run {b.run_id}: {_sentence(hop)}")
    if taken_away:
        rows = [[r.stage, r.topic, r.partition, r.messages] for r in taken_away]
        columns = ["reader", "topic", "partition", "messages"]
        show("Taken by retention before they were read", columns, rows, right=("partition", "messages"))


def _sums(b: Balance) -> tuple[int, int]:
    return sum(hop.lost for hop in b.hops), sum(hop.extra for hop in b.hops)


def _line(hop: Hop) -> list[Any]:
    drops = ", ".join(f"{reason.removeprefix('dropped_')} {n:,}" for reason, n in hop.drops.items())
    state = "DIFFERS" if hop.lost or hop.extra else "open" if hop.open else "holds"
    return [hop.kind, hop.topic, hop.place, hop.expected, hop.found, drops, hop.lost, hop.extra, state]


def _sentence(hop: Hop) -> str:
    what = f"{hop.lost:,} lost" if hop.lost else f"{hop.extra:,} too many"
    where = {
        "captured": f"frames at {hop.place}", "published": f"{hop.topic} rows at {hop.place}",
        "taken": f"{hop.topic} rows on the way to {hop.place}", "stored": f"{hop.topic} rows in the store ({hop.place})",
    }[hop.kind]  # fmt: skip
    return f"{where}: {what}; expected {hop.expected:,}, found {hop.found:,}, counted drops {sum(hop.drops.values()):,}"


COMMANDS = (reconcile,)
