"""up, down, status, reset: the embedded stack in the background."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from typing import Any

import click
import psutil

from akbypass import config as configuration
from akbypass.cli.common import bootstrap_option, config_option, console, load_config, show, store_option
from akbypass.errors import ServiceError
from akbypass.local import children, pages
from akbypass.local.stack import Endpoints, Places, reset, supervise

START_S = 180.0  # the first start resolves the broker's jars
STOP_S = 60.0


@click.command()
@config_option
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Worker processes.")
@bootstrap_option
@store_option
def up(config_path: str | None, workers: int, bootstrap_servers: str | None, store_url: str | None) -> None:
    """Start broker, store, worker and sinks in the background.

    Servers that the options or the configuration name (kafka.bootstrap_servers, clickhouse.url) are used as they are.
    """
    places = Places.default()
    if Endpoints.read(places) is not None:
        raise ServiceError("already up; see `akbypass status`")
    config = load_config(config_path, bootstrap_servers, store_url)
    places.logs.mkdir(parents=True, exist_ok=True)
    if bootstrap_servers or store_url:
        config_path = str(places.config)
        places.config.touch(mode=0o600)  # an address may carry a password
        places.config.write_text(configuration.dump(config))
    log = places.logs / "supervisor.log"
    command = [sys.executable, "-m", "akbypass.cli", "supervise", "--workers", str(workers)]
    if config_path:
        command += ["--config", os.path.abspath(config_path)]  # noqa: PTH100 - resolve() would follow links
    with log.open("wb") as out:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    try:
        with console.status("starting"):
            found = _wait_until_ready(places, child)
    except BaseException:  # also Ctrl-C: what did not come up must not come up later
        children.stop(child, STOP_S)
        raise
    if found is None:
        children.stop(child, STOP_S)
        raise ServiceError(f"the stack did not start; its log ends:\n{children.tail(log)}")
    _print(found)
    console.print("`akbypass status` shows their health once they have joined")


def _wait_until_ready(places: Places, child: subprocess.Popen[bytes]) -> Endpoints | None:
    """What the supervisor brought up; None when it ended or took too long."""
    deadline = time.monotonic() + START_S
    while child.poll() is None and time.monotonic() < deadline:
        found = Endpoints.read(places)
        if found is not None and found.ready:
            return found
        time.sleep(0.1)
    return None


@click.command(hidden=True)
@config_option
@click.option("--workers", type=int, default=1)
def supervise_command(config_path: str | None, workers: int) -> None:
    """Body of the background process of `up`."""
    supervise(Places.default(), config_path or "", workers)


supervise_command.name = "supervise"


@click.command()
def down() -> None:
    """Stop what `akbypass up` started; data stays."""
    places = Places.default()
    found = Endpoints.read(places)
    supervisor = found.supervisor() if found is not None else None
    if found is None or supervisor is None:
        console.print("nothing is up")
        return
    with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself meanwhile
        supervisor.terminate()  # refused by psutil when the number belongs to another process by now
    wait_s = STOP_S + load_config(found.config_path or None).shutdown.drain_s
    deadline = time.monotonic() + wait_s
    with console.status("stopping"):
        while found.supervisor() is not None:
            if time.monotonic() > deadline:
                raise ServiceError(f"the supervisor {found.supervisor_pid} did not end within {wait_s:.0f} s")
            time.sleep(0.1)
    console.print("down")


@click.command()
@config_option
@bootstrap_option
def status(config_path: str | None, bootstrap_servers: str | None) -> None:
    """Show what is up: processes with their health, addresses, and how far readers are behind.

    Healthy is a process whose offsets move, or that has nothing to read. Ready is one that has its partitions and whose
    broker and store answer. The page of a process has /metrics, /healthz and /readyz.
    """
    found = Endpoints.read(Places.default())
    config = load_config(config_path, bootstrap_servers)
    bootstrap = config.kafka.bootstrap_servers or (found.bootstrap_servers if found else "")
    if found is not None:
        _print(found)
        _print_health(found)
    elif bootstrap:
        console.print("nothing is up on this machine")
    else:
        console.print("nothing is up")
        return
    from akbypass.cli.look import consumer_lags

    lags = consumer_lags(config, bootstrap)
    show("Readers", ["group", "lag (messages)"], [[g, n] for g, n in lags], right=("lag (messages)",))


def _print(found: Endpoints) -> None:
    rows: list[list[Any]] = []
    for name, pid in found.pids.items():
        try:
            process = psutil.Process(pid)
            memory = process.memory_info().rss // 2**20
            state = str(process.status())
        except psutil.NoSuchProcess:
            memory, state = 0, "gone"
        rows.append([name, str(pid), state, memory, found.restarts.get(name, 0)])
    show(
        "Processes", ["part", "process", "state", "memory (MiB)", "restarts"], rows, right=("memory (MiB)", "restarts")
    )
    console.print(f"broker  {found.bootstrap_servers}\nstore   {found.store_url}")


def _print_health(found: Endpoints) -> None:
    told = [[name, *pages.summary(pages.report_of(url)), url] for name, url in found.pages.items()]
    columns = ["part", "healthy", "ready", "lag (messages)", "oldest checkpoint (s)", "page"]
    show("Health", columns, told, right=("lag (messages)", "oldest checkpoint (s)"))


@click.command("reset")
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset_command(yes: bool) -> None:
    """Delete all data of the embedded broker and store."""
    places = Places.default()
    if Endpoints.read(places) is not None:
        raise ServiceError("the stack is up; run `akbypass down` first")
    if not yes:
        click.confirm(f"Delete everything below {places.home}?", abort=True)
    reset(places)
    console.print("reset")


COMMANDS = (up, supervise_command, down, status, reset_command)
