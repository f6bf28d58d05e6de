"""The command `akbypass`: options, tables and exit codes; every command hands over to the stage that does the work.

Exit codes: 0 done; 1 failed, or findings that differ from the truth; 2 wrong arguments, configuration or layout;
3 a capture that cannot be read; 4 something missing on this machine; 5 broker or store; 6 a damaged capture.
"""

from __future__ import annotations

import sys

import click

from akbypass import __version__
from akbypass.errors import AkbypassError


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""\b
Examples:
  akbypass demo                                  a simulated trading day, from wire to SQL, held against its truth
  akbypass demo capture.pcap                     the same with a capture of yours
  akbypass analyze capture.pcap --out results    without broker and store: one JSON Lines file per result
  akbypass up; akbypass capture a.pcap; akbypass query "SELECT * FROM latency_windows"; akbypass down
""",
)
@click.version_option(__version__, prog_name="akbypass")
def cli() -> None:
    """Turn a network tap, or a capture file, into answers: latency, feed quality, arbitrage, order flow, proof."""


def _register() -> None:
    from akbypass.cli import bench, demo, look, offline, stack, stream

    for module in (demo, stack, stream, offline, look, bench):
        for command in module.COMMANDS:
            cli.add_command(command)


def main() -> None:
    """Run the command line; errors of ours become one message and their exit code."""
    _register()
    try:
        cli(prog_name="akbypass")
    except AkbypassError as error:
        click.echo(f"akbypass: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stderr.close()
        sys.exit(0)
