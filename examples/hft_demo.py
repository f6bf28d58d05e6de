"""The library face in one page: exchanges, rules, a run, the numbers.

python examples/hft_demo.py                            a simulated day, made on the spot
python examples/hft_demo.py capture.pcap               a capture of yours
python examples/hft_demo.py --live lo --seconds 10     a network interface
python examples/hft_demo.py --export out/today         also out/today.json and out/today.<result>.csv
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from akbypass import ExchangeConnection, FilterAction, FilterRule, HFTNetworkAnalyzer
from akbypass import config as configuration
from akbypass.errors import AkbypassError


def build(config_path: str | None) -> HFTNetworkAnalyzer:
    """Return an analyzer, configured from a file or with one exchange and one rule of our own."""
    if config_path:
        return HFTNetworkAnalyzer(configuration.load(config_path))
    analyzer = HFTNetworkAnalyzer()
    analyzer.add_exchange_connection(
        ExchangeConnection(name="NYSE", ip_address="198.51.100.10", ports=[4001, 9001], latency_target_us=500)
    )
    analyzer.add_filter_rule(
        FilterRule(
            name="Block_Unauthorized_Trading", protocol="tcp", dst_port=4001, src_ip="!192.168.1.0/24",
            action=FilterAction.BLOCK, priority=1, description="Only the trading network may reach the gateway",
        )
    )  # fmt: skip
    return analyzer


def simulated(seconds: float) -> tuple[str, str]:
    """Make a simulated day and return its capture and configuration."""
    from akbypass.producers.simulator import simulate

    day = simulate(Path(tempfile.mkdtemp(prefix="akbypass-")), 1, seconds)
    print(f"simulated day of {seconds:g} s in {day.capture.parent}")
    return str(day.capture), str(day.config)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", nargs="?", help="capture file; a simulated day by default")
    parser.add_argument("--config", help="configuration file")
    parser.add_argument("--live", metavar="INTERFACE", help="capture from a network interface instead")
    parser.add_argument("--seconds", type=float, default=10, help="length of the live capture or of the simulated day")
    parser.add_argument("--export", metavar="PREFIX", help="write PREFIX.json and PREFIX.<result>.csv")
    arguments = parser.parse_args()

    capture, config_path = arguments.capture, arguments.config
    if capture is None and arguments.live is None:
        capture, made = simulated(arguments.seconds)
        config_path = config_path or made
    analyzer = build(config_path)
    if arguments.live:
        analyzer.run_live(arguments.live, arguments.seconds)
    else:
        analyzer.run(capture)

    print(f"{analyzer.totals['packets']:,} packets")
    for venue, metrics in sorted(analyzer.get_trading_metrics().items()):
        print(f"{venue:16} latency {metrics.latency_us:10.1f} µs   jitter {metrics.jitter_us:10.1f} µs")
    for name, rows in analyzer.results().items():
        print(f"{name:16} {len(rows):8,} rows")
    if arguments.export:
        for path in analyzer.export(arguments.export):
            print(f"wrote {path}")


if __name__ == "__main__":
    try:
        main()
    except AkbypassError as error:
        print(f"hft_demo: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
