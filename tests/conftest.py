"""Fixtures that every stage shares: one real broker and one real store for the whole session."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.backends import Backend, Broker, Containers, Embedded, Store, docker_answers, probed


@pytest.fixture(scope="session")
def backend() -> Backend:
    """Containers where Docker answers, else embedded servers."""
    return Containers() if docker_answers() else Embedded()


@pytest.fixture(scope="session")
def kafka_server(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker for the session: `.bootstrap_servers`. Use topic names of your own; nobody cleans up."""
    with contextlib.ExitStack() as stack:
        with probed():
            broker = stack.enter_context(backend.kafka(tmp_path_factory.mktemp("kafka")))
        yield broker


@pytest.fixture(scope="session")
def store_server(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store for the session: `.url`. Use a database of your own; nobody cleans up."""
    with contextlib.ExitStack() as stack:
        with probed():
            store = stack.enter_context(backend.store(tmp_path_factory.mktemp("store")))
        yield store
