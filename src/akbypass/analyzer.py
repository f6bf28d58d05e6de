"""The small library face: configure in Python, run captures or an interface in this process, ask for results.

It drives the same cores as the Kafka pipeline and keeps results in memory; for long captures use the pipeline.
"""

from __future__ import annotations

import csv
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from akbypass import topics
from akbypass.config import Config, ExchangeConnection, Feed, FilterRule
from akbypass.errors import ConfigError
from akbypass.offline import RESULTS, Offline, has_revisions, last_revisions
from akbypass.rows import Rows

if TYPE_CHECKING:
    from akbypass.processors.latency.metrics import TradingMetrics


class HFTNetworkAnalyzer:
    """Analyze captures with exchanges, feeds and rules that are added one by one.

    Results of the last `run` replace those of the one before.
    """

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._results: dict[str, list[Rows]] = {}
        self.totals: dict[str, int] = {}
        self.problems: list[Any] = []

    def add_exchange_connection(self, connection: ExchangeConnection) -> None:
        """Name a venue's order gateway; connections that end there belong to the venue."""
        self._extend("exchanges", connection)

    def add_feed(self, feed: Feed) -> None:
        """Name a market-data feed and its lines."""
        self._extend("feeds", feed)

    def add_filter_rule(self, rule: FilterRule) -> None:
        """Add a filter rule; rules are asked by priority. Raises ConfigError when the name is taken."""
        self._extend("rules", rule)

    def _extend(self, key: str, value: Any) -> None:
        try:
            tree = self.config.model_dump()
            tree[key] = [*tree[key], value.model_dump()]
            self.config = Config.model_validate(tree)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def run(self, *captures: str | Path) -> None:
        """Analyze capture files as one run. Raises CaptureError for a file that is no capture."""
        from akbypass.producers.edge import Edge

        self._drive(Edge(self.config, [str(c) for c in captures]))

    def run_live(self, interface: str, seconds: float, capture_filter: str = "") -> None:
        """Analyze an interface for a time. Raises MissingError without dumpcap or the privilege to capture."""
        from akbypass.producers.edge import Edge

        edge = Edge(self.config, [], interface=interface, capture_filter=capture_filter)
        timer = threading.Timer(seconds, edge.stop)
        timer.daemon = True
        timer.start()
        self._drive(edge)
        timer.cancel()

    def _drive(self, edge: Any) -> None:
        from akbypass.processors import all_topologies

        self._results = {}
        run = Offline(self.config, all_topologies(), edge.run_id, edge.captures, self._keep)
        for made in edge:
            run.feed(made.rows, made.capture_id, made.watermark_ns, made.end_ns)
        self.totals, self.problems = edge.totals(), list(edge.problems)

    def _keep(self, topic: str, rows: Rows) -> None:
        self._results.setdefault(topics.row_type(topic), []).append(rows)

    def rows(self, result: str) -> Rows:
        """Rows of one result, as "latency" or "alerts": the last revisions, in order. Raises KeyError for another name."""
        if result not in RESULTS:
            raise KeyError(f"expected a result of {', '.join(RESULTS)}; found {result}")
        parts = self._results.get(result)
        if not parts:
            return Rows.empty(result)
        whole = Rows.concat(parts)
        return last_revisions(whole) if has_revisions(result) else whole

    def results(self) -> Mapping[str, list[dict[str, Any]]]:
        """Every result as plain dictionaries with the field names of the schemas."""
        return {name: self.rows(name).to_dicts() for name in RESULTS}

    def get_trading_metrics(self) -> dict[str, TradingMetrics]:
        """Latency and jitter per venue over the last window in which it had any; venues without samples are absent."""
        from akbypass.processors.latency.metrics import metrics_from_windows

        return metrics_from_windows(self.rows("latency_windows"), self.config.thresholds.latency_model)

    def export(self, prefix: str) -> list[Path]:
        """Write PREFIX.json with all results and PREFIX.<result>.csv for each that has rows; returns the paths."""
        return export_results(prefix, self.results())


def export_results(prefix: str, results: Mapping[str, list[dict[str, Any]]]) -> list[Path]:
    """Write results as PREFIX.json and, for each that has rows, PREFIX.<result>.csv; returns the paths."""
    Path(prefix).parent.mkdir(parents=True, exist_ok=True)
    written = [Path(f"{prefix}.json")]
    written[0].write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2))
    for name, rows in results.items():
        if rows:
            written.append(Path(f"{prefix}.{name}.csv"))
            with written[-1].open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
    return written
