"""A worker that misses a message seeks to it; the Kafka client is the only part that stands in for a real one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from faust.types import TP

from akbypass.processors.worker import ASKED_MAX, PASSED_MAX, TopologyWorker
from akbypass.progress import LostMessagesError

POSITION = TP("akbypass.packets.v1", 2)


class Client:
    """Remembers where it was told to read."""

    def __init__(self) -> None:
        self.sought: list[tuple[TP, int]] = []

    async def seek(self, position: TP, offset: int) -> None:
        """Remember."""
        self.sought.append((position, offset))


def asking() -> tuple[TopologyWorker, Client]:
    """A worker with nothing but its client and its memory of what it asked for."""
    worker, client = TopologyWorker.__new__(TopologyWorker), Client()
    worker.app, worker._asked = SimpleNamespace(consumer=client), {}
    return worker, client


def test_a_missing_message_is_sought_once_for_all_that_were_fetched_behind_it() -> None:
    """The first message behind a hole makes one seek, those that were under way make none."""
    worker, client = asking()
    for _ in range(PASSED_MAX):
        asyncio.run(worker._ask_again(POSITION, 115))
    assert client.sought == [(POSITION, 115)]
    asyncio.run(worker._ask_again(POSITION, 116))
    assert client.sought == [(POSITION, 115), (POSITION, 116)]


def test_a_message_that_never_comes_is_an_error() -> None:
    """After some seeks that brought nothing the message counts as lost."""
    worker, client = asking()
    with pytest.raises(LostMessagesError, match="offset 115 does not come"):
        for _ in range((PASSED_MAX + 1) * (ASKED_MAX + 1)):
            asyncio.run(worker._ask_again(POSITION, 115))
    assert 1 < len(client.sought) <= ASKED_MAX
