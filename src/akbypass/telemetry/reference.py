"""Writes the reference page of the metrics: `python -m akbypass.telemetry.reference`."""

from __future__ import annotations

from akbypass.telemetry.metrics import EXPORTED, Exported

UNITS = {
    "seconds": "s", "bytes": "bytes", "rows": "rows", "messages": "messages", "packets": "packets", "partitions": "partitions",
    "runs": "runs", "inputs": "inputs", "lines": "lines", "retries": "retries", "restarts": "restarts", "counted": "events",
    "up": "0 or 1", "healthy": "0 or 1", "ready": "0 or 1", "info": "1",
}  # fmt: skip


def unit(metric: Exported) -> str:
    """Unit of a metric by the last word of its name.

    >>> unit(Exported("akbypass_timestamp_seconds", "gauge", (), "")), unit(Exported("akbypass_read_rows_total", "counter", (), ""))
    ('s', 'rows')
    """
    return UNITS[metric.name.removesuffix("_total").rpartition("_")[2]]


def page() -> str:
    """Return the whole page as Markdown."""
    lines = [
        "# Telemetry\n\n",
        "Made from the code by `make docs`; do not edit.\n",
        "Metrics that a process serves at `/metrics` in the Prometheus text format; [how to scrape them](../how-to/monitor.md).\n",
        "A histogram has the suffixes `_bucket`, `_sum` and `_count`. Labels name topics, tables, parts and reasons;\n",
        "no label and no log line carries an address or a symbol.\n",
        "The usual `process_…` metrics (CPU seconds, resident memory, open files) stand beside these.\n\n",
        "| metric | kind | labels | unit | meaning |\n|---|---|---|---|---|\n",
    ]
    lines += [
        f"| `{m.name}` | {m.kind} | {', '.join(f'`{name}`' for name in m.labels) or '–'} | {unit(m)} | {m.meaning} |\n"
        for m in EXPORTED
    ]
    return "".join(lines)


if __name__ == "__main__":
    print(page(), end="")
