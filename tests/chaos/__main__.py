"""Run seeds and print what became of each: `make chaos SEED=… RUNS=…`.

A record of every run, with all its actions, is appended to --record as JSON lines; with --keep-seeds the seeds that
came out equal are written to seeds.json beside this file, which CI and readers take them from.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import sys
import tempfile
from collections import Counter
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from tests.chaos.day import Day, make_day
from tests.chaos.plan import KILLS, PARTS, make_plan
from tests.chaos.run import Report, run_plan

SEEDS = Path(__file__).with_name("seeds.json")
console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def main() -> int:
    """Run the command line; returns 0 when every run came out equal."""
    options = _arguments()
    work = Path(options.work or tempfile.mkdtemp(prefix="chaos-"))
    console.print(
        f"a simulated day of {options.seconds:g} s (seed {options.day}), replayed in {options.replay:g} s, in {work}"
    )
    work.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=work / "harness.log", level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    day = make_day(work / "day", options.day, options.seconds, options.captures)
    console.print(f"offline result: {day.rows:,} rows, run {day.run_id}")
    reports: list[Report] = []
    for seed in range(options.seed, options.seed + options.runs):
        plan = make_plan(seed, options.kills, heavy=options.heavy)
        console.print(f"[bold]seed {seed}[/]: {plan.workers} workers; " + ", ".join(map(str, plan.actions)))
        report = run_plan(plan, day, work / f"seed-{seed}", options.replay, console.print, options.keep)
        reports.append(report)
        with Path(options.record or work / "record.jsonl").open("ab") as file:
            file.write(orjson.dumps(report.to_dict()) + b"\n")
        console.print(
            "equal" if report.equal else "[red]different:[/] " + "; ".join(report.differences), markup=report.equal
        )
        if report.equal and options.keep_seeds:
            keep_seed(report, day, options.replay)
    _print(reports)
    return 0 if all(r.equal for r in reports) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=(__doc__ or "").split("\n")[0], formatter_class=argparse.RawTextHelpFormatter,
        epilog="examples:\n  make chaos SEED=7                 one run\n  make chaos SEED=1 RUNS=15          a campaign\n"
        "  python -m tests.chaos --seed 3 --heavy 'fill store' --keep",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=1, help="first seed")
    parser.add_argument("--runs", type=int, default=1, help="runs; each takes the next seed")
    parser.add_argument("--kills", type=int, default=KILLS, help="kill -9 in a run")
    parser.add_argument(
        "--heavy", action="append", help="take this disturbance instead of a drawn one, as 'fill store'"
    )
    parser.add_argument("--day", type=int, default=7, help="seed of the simulated day")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the day; s")
    parser.add_argument("--captures", type=int, default=1, help="capture points of the day")
    parser.add_argument("--replay", type=float, default=12.0, help="how long an undisturbed replay takes; s")
    parser.add_argument("--work", help="directory of the runs; a temporary one by default")
    parser.add_argument("--record", help="file that every run's record is appended to")
    parser.add_argument("--keep", action="store_true", help="keep the data of runs that came out equal, too")
    parser.add_argument("--keep-seeds", action="store_true", help="write the seeds that came out equal to seeds.json")
    return parser.parse_args()


def keep_seed(report: Report, day: Day, replay_s: float, file: Path = SEEDS) -> None:
    """Add a proven seed to the list, replacing an older proof of it."""
    proven = orjson.loads(file.read_bytes()) if file.exists() else []
    proven = [p for p in proven if p["seed"] != report.seed]
    proven.append(
        {
            "seed": report.seed, "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "result": "equal",
            "workers": report.workers, "kills": report.kills, "rows": report.rows, "captures": len(day.captures),
            "day_s": round(day.seconds), "replay_s": replay_s, "done": report.done, "skipped": report.skipped,
        }
    )  # fmt: skip
    file.write_bytes(orjson.dumps(sorted(proven, key=lambda p: p["seed"]), option=orjson.OPT_INDENT_2) + b"\n")


def _print(reports: list[Report]) -> None:
    table = Table(title="Chaos", title_justify="left")
    for column in ("seed", *PARTS, "kills", "poison", "repeats", "rows", "stored twice", "s", "result"):
        table.add_column(column, justify="left" if column == "result" else "right", overflow="fold")
    whole: Counter[str] = Counter()
    for r in reports:
        whole.update(r.kills)
        result = "equal" if r.equal else r.differences[0][:200]
        counts = [r.kills.get(p, 0) for p in PARTS]
        cells = [r.seed, *counts, sum(counts), r.poisoned, r.repeated, r.rows, sum(r.doubled.values()), r.seconds]
        table.add_row(*map(str, cells), result)
    table.add_row(
        "all",
        *(str(whole[p]) for p in PARTS),
        str(whole.total()),
        *[""] * 5,
        f"{sum(r.equal for r in reports)} of {len(reports)} equal",
    )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
