"""Connects to the store, embedded or a server: the one place that makes clickhouse-connect clients."""

from __future__ import annotations

import logging
import os
import re
import time
from typing import Any
from urllib.parse import unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError
from clickhouse_connect.driver.httputil import default_pool_manager

from akbypass.config import Config
from akbypass.errors import ConfigError, ServiceError

log = logging.getLogger("akbypass.store")

CONNECT_TIMEOUT_S = 10
PAUSE_S = 2.0  # between two tries of a store that does not answer
_PORTS = {"http": 8123, "https": 8443}
_DATABASE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")  # as clickhouse.database of the configuration
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def database_of(config: Config, url: str = "") -> str:
    """Database that everything uses: the path of the store's address, else clickhouse.database.

    >>> database_of(Config(), "http://store.example:8123/trading"), database_of(Config(), "http://store.example:8123")
    ('trading', 'akbypass')

    Raises:
        ConfigError: The path is no name of a database.
    """
    address = url or config.clickhouse.url
    name = urlsplit(address).path.strip("/")
    if name and not _DATABASE.fullmatch(name):
        raise ConfigError(f"clickhouse.url: expected a database of letters, digits and _ as the path, found {name!r}")
    return name or config.clickhouse.database


def connect_when_up(config: Config, url: str, wait_s: float, *, database: str | None = None) -> Any:
    """Return a client as `connect` does, but wait up to `wait_s` seconds for a store that does not answer.

    Raises:
        ConfigError: As `connect`.
        ServiceError: The store stays away, or it refuses.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return connect(config, url, database=database)
        except ServiceError as error:
            if not isinstance(error.__cause__, OperationalError) or time.monotonic() > deadline:
                raise
            log.warning("%.300s; trying again in %.0f s", error, PAUSE_S)
        time.sleep(PAUSE_S)


def connect(config: Config, url: str = "", *, database: str | None = None) -> Any:
    """Return a clickhouse-connect client.

    The client has no session, so threads may share it.

    Args:
        config: Supplies the address when `url` is empty, the name of the password's environment variable, the database.
        url: Address as http://user@host:8123/database; https for TLS.
        database: Default database of the client; "" for the server's own, None for that of `database_of`.

    Raises:
        ConfigError: The address is no http or https address.
        ServiceError: The store does not answer, or refuses (wrong password, no such database).
    """
    address = url or config.clickhouse.url
    parts = urlsplit(address)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ConfigError(f"clickhouse.url: expected http://user@host:8123/database, found {address!r}")
    if database is None:
        database = database_of(config, address)
    password = os.environ.get(config.clickhouse.password_env) or unquote(parts.password or "")
    try:
        return clickhouse_connect.get_client(
            interface=parts.scheme,
            host=parts.hostname,
            port=parts.port or _PORTS[parts.scheme],
            username=unquote(parts.username or "default"),
            password=password,
            database=database or None,
            connect_timeout=CONNECT_TIMEOUT_S,
            autogenerate_session_id=False,
            compress=parts.hostname not in _LOOPBACK,  # costs both sides more than loopback does
            # a proxy of the environment must not see what stays on this machine
            pool_mgr=default_pool_manager() if parts.hostname in _LOOPBACK else None,
        )
    except ClickHouseError as error:
        shown = f"{parts.scheme}://{parts.hostname}:{parts.port or _PORTS[parts.scheme]}"
        raise ServiceError(f"the store at {shown} does not take us: {error}") from error
