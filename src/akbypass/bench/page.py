"""Measurements as JSON, as tables, and as the page docs/reference/performance.md; measures nothing."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import psutil

from akbypass import __version__
from akbypass.bench.delay import HOPS
from akbypass.bench.line import Measurement
from akbypass.bench.scale import TARGETS, cores

COLUMNS = ("process", "CPU (s)", "CPU per packet (µs)", "peak memory (MiB)")
HOP_MEANING = {
    "edge": "packets rows written to the broker",
    "worker": "quotes written to the broker",
    "topic": "quotes read by a subscriber",
    "alert": "alerts and opportunities read by a subscriber",
    "store": "quotes readable in the store",
}


def plain(m: Measurement) -> dict[str, Any]:
    """Return a measurement as JSON values."""
    return asdict(m) | {"packets_per_s": round(m.rate), "cpu_us_per_packet": round(m.per_packet_us(), 2)}


def cost_rows(m: Measurement) -> list[list[Any]]:
    """Return the rows of COLUMNS, their sum last."""
    rows = [[c.part, round(c.cpu_s, 2), round(c.cpu_s / m.packets * 1e6, 2), round(c.memory_mib)] for c in m.costs]
    if len(m.costs) > 1:
        rows.append(["together", round(sum(c.cpu_s for c in m.costs), 2), round(m.per_packet_us(), 2), ""])
    return rows


def title(m: Measurement) -> str:
    """Return what was measured, in one line."""
    settings = "".join(f", {value} {key}" for key, value in m.settings.items())
    if m.pace is not None:
        share = sum(c.cpu_s for c in m.costs) / m.seconds / (psutil.cpu_count() or 1)
        return f"{m.name} at {m.pace:,.0f} packets/s{settings}: {share:.0%} of the machine's CPU"
    return f"{m.name}{settings}: {m.packets:,} packets in {m.seconds:.1f} s = {m.rate:,.0f} packets/s"


def delay_rows(m: Measurement) -> list[list[Any]]:
    """Return per hop what it is and p50, p90, p99, max (ms) and rows."""
    found = m.delays or {}
    return [
        [hop, HOP_MEANING[hop], *(round(found[hop][p] * 1e3) for p in ("p50", "p90", "p99", "p100")), int(found[hop]["n"])]
        for hop in HOPS
        if hop in found
    ]  # fmt: skip


DELAY_COLUMNS = (
    "hop",
    "from the moment that a frame is due until",
    "p50 (ms)",
    "p90 (ms)",
    "p99 (ms)",
    "max (ms)",
    "rows",
)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Write a Markdown table, numbers to the right."""
    numeric = [bool(rows) and not isinstance(rows[0][i], str) for i in range(len(columns))]
    cells = [[f"{v:,}" if isinstance(v, int | float) else str(v) for v in row] for row in rows]
    lines = [columns, ["---:" if right else "---" for right in numeric], *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def chart(name: str, unit: str, labels: Sequence[str], values: Sequence[float]) -> str:
    """Write a bar chart that Markdown viewers draw (Mermaid)."""
    shown, heights = ", ".join(f'"{label}"' for label in labels), ", ".join(f"{v:.2f}" for v in values)
    top = max(values) * 1.1
    return (
        f'```mermaid\nxychart-beta\n    title "{name}"\n    x-axis [{shown}]\n'
        f'    y-axis "{unit}" 0 --> {top:.1f}\n    bar [{heights}]\n```\n\n'
    )


def page(found: dict[str, list[Measurement]], settings: str, input_: str) -> str:
    """Return docs/reference/performance.md: a section for each benchmark that ran."""
    memory = psutil.virtual_memory().total / 2**30
    parts = [
        "# Performance\n\n",
        f"Written by `akbypass bench {settings}` (`make bench` measures everything); measures, not promises. The same as JSON: `performance.json`.\n",
        f"Version {__version__}, {platform.system()} {platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GiB, "
        f"Python {platform.python_version()}; single runs after a warm-up; broker and store on the same machine.\n",
        f"Input: {input_}\n\n",
    ]
    for name, measured in found.items():
        parts.append(f"## {name}\n\n")
        parts += [_section(m) for m in measured]
        if name.startswith("scale"):
            labels = [" ".join(str(v) for v in m.settings.values()) or f"{m.pace or 0:,.0f}/s" for m in measured]
            parts.append(chart(name, "CPU per packet (us)", labels, [m.per_packet_us() for m in measured]))
    if found.get("pipeline"):
        parts.append(_cores(found["pipeline"][0]))
    return "".join(parts)


def _section(m: Measurement) -> str:
    text = f"**{title(m)}**\n\n" + table(COLUMNS, cost_rows(m))
    if m.together_mib:
        text += (
            f"Capture, workers and sinks together peak at {m.together_mib:,.0f} MiB (sum of their proportional set sizes, "
            "in which the libraries that they share count once); broker and store stand apart.\n\n"
        )
    return text + (table(DELAY_COLUMNS, delay_rows(m)) if m.delays else "")


def _cores(m: Measurement) -> str:
    rows = []
    for target in TARGETS:
        needed = cores(m, target)
        rows.append([f"{target:,} packets/s", *(round(n, 1) for n in needed.values()), round(sum(needed.values()), 1)])
    return (
        "## Cores needed\n\nComputed from the CPU per packet of `pipeline`, as if it stayed the same.\n\n"
        + table(("rate", "capture", "worker", "sink", "broker", "store", "together"), rows)
    )  # fmt: skip
