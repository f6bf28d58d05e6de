"""spool: what captures keep on disk for a broker that was away, and sending what ended ones left."""

from __future__ import annotations

import threading

import click

from akbypass.cli.common import bootstrap_of, bootstrap_option, config_option, console, load_config, show
from akbypass.errors import ServiceError

SEND_SECONDS = 600.0


@click.group(
    epilog="""\b
Examples:
  akbypass spool show     what captures that have ended left on disk
  akbypass spool send     send it now, without a capture
"""
)
def spool() -> None:
    """See and send what captures left on disk while the broker was away.

    A capture that runs sends its own spool, and what ended ones left. See docs/how-to/live-through-an-outage.md.
    """


@spool.command("show")
@config_option
def show_spool(config_path: str | None) -> None:
    """List what captures that have ended left; those that run are not in it."""
    from akbypass.producers.spool.home import leftovers

    found = leftovers(load_config(config_path))
    lines = [[left.name, left.bytes, str(left.directory)] for left in found]
    show("Left by ended captures", ["capture", "bytes", "directory"], lines, right=("bytes",))


@spool.command("send")
@click.option(
    "--seconds", type=click.FloatRange(1), default=SEND_SECONDS, show_default=True, help="Give up after this long."
)
@config_option
@bootstrap_option
def send_spool(seconds: float, config_path: str | None, bootstrap_servers: str | None) -> None:
    """Send what captures that have ended left, and wait until the broker has it; readers drop what they know."""
    from akbypass.producers.spool.home import leftovers, send_leftovers

    config = load_config(config_path, bootstrap_servers)
    stopping = threading.Event()
    timer = threading.Timer(seconds, stopping.set)
    timer.daemon = True
    timer.start()
    sent = send_leftovers(config, bootstrap_of(config), stopping)
    timer.cancel()
    left = leftovers(config)
    if left:
        raise ServiceError(f"{len(left)} spools could not be sent within {seconds:.0f} s; is the broker running?")
    console.print(f"sent {sent} spools")


COMMANDS = (spool,)
