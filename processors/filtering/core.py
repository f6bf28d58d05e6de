"""The filtering core: verdicts of the matcher and contacts of the tracker, side by side; holds no rule of its own."""

from __future__ import annotations

from collections.abc import Mapping

from akbypass.config import Config
from akbypass.order import restrict
from akbypass.processors.filtering.contacts import ContactTracker
from akbypass.processors.filtering.matcher import Matcher
from akbypass.processors.losses import Losses
from akbypass.rows import Array, Rows


class FilteringCore:
    """packets, captures → verdicts and contacts, for one run and one partition."""

    def __init__(self, config: Config, run_id: str, partition: int) -> None:
        self._matcher = Matcher(config.rules)
        self._contacts = ContactTracker(config, self._matcher)
        self._losses = Losses()

    @property
    def counters(self) -> dict[str, int]:
        """What was dropped, by reason (count)."""
        return {"flows_evicted": self._contacts.flows_evicted, "attempts_doubtful": self._contacts.attempts_doubtful}

    def step(self, inputs: Mapping[str, Rows], watermark_ns: int, end: bool) -> dict[str, Rows]:
        """Judge and follow the packets below the watermark."""
        packets = restrict(inputs, "packets", "packets")
        matched = self._matcher.match(packets)
        self._losses.take(restrict(inputs, "captures", "captures"))
        contacts = self._contacts.step(packets, matched, self._losses, watermark_ns, end)
        return {"verdicts": self._matcher.verdicts(packets, matched), "contacts": contacts}

    def snapshot(self) -> dict[str, Array]:
        """Copy the state; the matcher has none."""
        return {**self._contacts.snapshot(), **self._losses.snapshot()}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over a snapshot."""
        self._contacts.restore(state)
        self._losses.restore(state)
