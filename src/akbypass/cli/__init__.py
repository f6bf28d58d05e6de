"""The command `akbypass`: options, tables and exit codes; every command hands over to the stage that does the work.

Exit codes: 0 done; 1 failed, or findings that differ from the truth; 2 wrong arguments, configuration or layout;
3 a capture that cannot be read; 4 something missing on this machine; 5 broker or store; 6 a damaged capture;
7 a capture of files stopped before its end; 8 ended at once, without draining; 9 rows lost or counted twice;
130 interrupted. A reader of our output that goes away, as `head` does, ends a command with 0.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import sys

import click

from akbypass import __version__
from akbypass.errors import AkbypassError
from akbypass.telemetry import logs

STDOUT = 1  # file descriptor
EXIT_INTERRUPTED = 130  # what a shell gives for SIGINT
MODULES = {  # of this package, with the commands that each holds
    "demo": ("demo",), "stack": ("up", "supervise", "down", "status", "reset"), "stream": ("capture", "process", "sink"),
    "takeover": ("takeover",), "offline": ("decode", "analyze", "simulate"), "look": ("query", "tail", "topics", "check"),
    "reconcile": ("reconcile",), "rejected": ("rejected",), "spool": ("spool",), "bench": ("bench",),
}  # fmt: skip


class Commands(click.Group):
    """Imports a command's module when the command is asked for; all of them take half a second."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, by name."""
        return sorted(name for names in MODULES.values() for name in names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        module = next((module for module, names in MODULES.items() if cmd_name in names), None)
        if module is None:
            return None
        gc.disable()  # what imports make stays
        commands: tuple[click.Command, ...] = importlib.import_module(f"akbypass.cli.{module}").COMMANDS
        gc.freeze()
        gc.enable()
        return next(command for command in commands if command.name == cmd_name)


@click.group(
    cls=Commands,
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
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    envvar=logs.FORMAT_VARIABLE,
    default="text",
    show_default=True,
    help=f"Log lines of processes; also {logs.FORMAT_VARIABLE}. {logs.LEVEL_VARIABLE} sets their level.",
)
def cli(log_format: str) -> None:
    """Turn a network tap, or a capture file, into answers: latency, feed quality, arbitrage, order flow, proof."""
    os.environ[logs.FORMAT_VARIABLE] = log_format  # for the processes that this one starts, too


def main() -> None:
    """Run the command line; errors become one message and their exit code."""
    sys.exit(_run())


def _run() -> int:
    """Run the command that was asked for; returns its exit code."""
    try:
        code = cli(prog_name="akbypass", standalone_mode=False)  # the code of --help and its like, else None
        sys.stdout.flush()  # here, where a reader that went away is no error
        return code or 0
    except AkbypassError as error:
        if logs.is_set_up() and logs.is_json():
            logging.getLogger("akbypass").critical("%s", error)
        else:
            click.echo(f"akbypass: {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort as abort:
        if isinstance(abort.__cause__, KeyboardInterrupt):
            return EXIT_INTERRUPTED
        click.echo("Aborted!", err=True)
        return 1
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # click makes an exit with 1 of it in any mode
            return _reader_gone()
        raise


def _reader_gone() -> int:
    """Let what is still buffered go nowhere, so that the interpreter does not complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
    return 0
