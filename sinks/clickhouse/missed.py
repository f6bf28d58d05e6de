"""Finds messages that retention took before a sink had them: a jump in the offsets, which our topics do not have."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from akbypass import accounts
from akbypass.rows import Rows
from akbypass.telemetry.metrics import LOST

log = logging.getLogger("akbypass.sink")


class Missed:
    """Next offset of every partition that one sink reads; what it has never read is not missed.

    Args:
        name: The sink.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._wanted: dict[tuple[str, int], int] = {}

    def begin(self, committed: Mapping[tuple[str, int], int]) -> None:
        """Take over an assignment: committed offset by topic and partition, negative for none."""
        self._wanted = {place: offset for place, offset in committed.items() if offset >= 0}

    def seen(self, topic: str, partition: int, offset: int) -> tuple[str, Rows] | None:
        """Take one offset; returns a ledger row and its run when messages are missing before it."""
        wanted = self._wanted.get((topic, partition), offset)
        self._wanted[topic, partition] = offset + 1
        if offset <= wanted:
            return None
        messages = offset - wanted
        LOST.labels(self.name, topic).inc(messages)
        place = {"sink": self.name, "topic": topic, "partition": partition}
        log.error("retention took %d messages that were not read", messages, extra=place)
        return accounts.retention(f"sink.{self.name}", partition, topic, wanted, messages, time.time_ns())
