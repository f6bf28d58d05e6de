"""takeover: this software's version of a topology goes on where another version stops."""

from __future__ import annotations

import click

from akbypass import processors, transport
from akbypass.cli.common import bootstrap_of, bootstrap_option, config_option, console, load_config, stderr


@click.command(
    epilog="""\b
Examples:
  akbypass takeover latency              beside the workers of the old version; then start those of the new one
  akbypass takeover                      every topology whose version has changed
"""
)
@click.argument("names", nargs=-1, metavar="[TOPOLOGY]…")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0),
    default=90.0,
    show_default=True,
    help="How long workers of the old version may take for their last save; s.",
)
@config_option
@bootstrap_option
def takeover(names: tuple[str, ...], wait_s: float, config_path: str | None, bootstrap_servers: str | None) -> None:
    """Replay topologies in this software's version beside the one that runs, then take over from it.

    The old version publishes until it is asked to stop; no row is lost or comes twice. It goes back the same way.
    """
    from akbypass.takeover.handover import take_over

    config = load_config(config_path, bootstrap_servers)
    bootstrap, chosen = bootstrap_of(config), processors.choose(names)
    transport.declare_topics(config, bootstrap, transport.known_topics(), chosen)
    taken = take_over(chosen, config, bootstrap, wait_s, lambda text: stderr.print(text, markup=False))
    console.print(f"taken over: {', '.join(taken)}" if taken else "nothing to take over: no other version holds state")


COMMANDS = (takeover,)
