"""Options and look-ups that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from akbypass import config as configuration
from akbypass.config import Config
from akbypass.errors import ConfigError, ServiceError
from akbypass.local.stack import Endpoints, Places

F = TypeVar("F", bound=Callable[..., Any])

PIPE_COLUMNS = 140  # width of tables when nobody's terminal says otherwise

console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
stderr = Console(stderr=True, highlight=False)

config_option: Callable[[F], F] = click.option(
    "--config", "config_path", type=click.Path(dir_okay=False), metavar="FILE", help="Configuration (YAML)."
)
bootstrap_option: Callable[[F], F] = click.option(
    "--bootstrap-servers",
    metavar="HOST:PORT,…",
    help="Kafka cluster; by default the one of the configuration or of `akbypass up`.",
)
store_option: Callable[[F], F] = click.option(
    "--store-url",
    metavar="URL",
    help="ClickHouse address; by default the one of the configuration or of `akbypass up`.",
)
telemetry_option: Callable[[F], F] = click.option(
    "--telemetry-port",
    type=click.IntRange(0, 65_535),
    metavar="PORT",
    help="Serve /metrics, /healthz and /readyz here, on the address telemetry.host; 0 for none.",
)


def load_config(path: str | None, bootstrap: str | None = None, store_url: str | None = None) -> Config:
    """Read the configuration and let options of the command line win; without a file, that of what is up."""
    if path is None:
        up = Endpoints.read(Places.default())
        path = up.config_path or None if up else None
    config = configuration.load(path)
    if bootstrap:
        config = config.model_copy(update={"kafka": config.kafka.model_copy(update={"bootstrap_servers": bootstrap})})
    if store_url:
        config = config.model_copy(update={"clickhouse": config.clickhouse.model_copy(update={"url": store_url})})
    return config


def bootstrap_of(config: Config) -> str:
    """The broker to talk to: configured, else that of `akbypass up`; raises ServiceError when there is none."""
    if config.kafka.bootstrap_servers:
        return config.kafka.bootstrap_servers
    up = Endpoints.read(Places.default())
    if up is None or not up.bootstrap_servers:
        raise ServiceError("no broker: run `akbypass up` first, or name one with --bootstrap-servers")
    return up.bootstrap_servers


def store_url_of(config: Config) -> str:
    """The store to talk to: configured, else that of `akbypass up`; raises ServiceError when there is none."""
    if config.clickhouse.url:
        return config.clickhouse.url
    up = Endpoints.read(Places.default())
    if up is None or not up.store_url:
        raise ServiceError("no store: run `akbypass up` first, or name one with --store-url")
    return up.store_url


@contextmanager
def store_client_of(config: Config, *, start: bool = True) -> Iterator[Any]:
    """Connect to the store; when none is up and `start` is set, run the embedded one for as long as it is needed."""
    from akbypass import store_client
    from akbypass.local.store import StoreServer

    places = Places.default()
    if config.clickhouse.url or Endpoints.read(places) is not None or not start:
        with store_client.connect(config, store_url_of(config)) as client:
            yield client
        return
    if not places.store.exists():
        raise ServiceError(f"no store: nothing is up and {places.store} holds no data; run `akbypass demo` first")
    with StoreServer(places.store) as server, store_client.connect(config, server.url) as client:
        yield client


def show(title: str, columns: list[str], rows: list[list[Any]], *, right: tuple[str, ...] = ()) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    console.print(table)


def cell(value: Any) -> str:
    """Write a value for a table: thousands apart, unknown as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3f}"
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def existing_files(names: tuple[str, ...]) -> list[str]:
    """Check that each capture is there; `-` is standard input; raises ConfigError."""
    for name in names:
        if name != "-" and not Path(name).is_file():
            raise ConfigError(
                f"{name}: expected a capture file, found {'a directory' if Path(name).is_dir() else 'nothing'}"
            )
    return list(names)
