"""Writes what one partition of a topology says of one run to the broker: its rows, and its accounts; decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

from akbypass.batch import SOURCES_MAX, Numbers
from akbypass.topics import LEDGER
from akbypass.topology import Emission, Topology
from akbypass.transport import Publisher, RunWriter

PARTITIONS_MAX = 1_024  # as kafka.partitions of the configuration
ORDINALS_MAX = SOURCES_MAX // PARTITIONS_MAX - 1  # topologies whose accounts can be told apart


def account_source(topology: Topology, partition: int) -> int:
    """Source number of a partition's accounts: all stages write the same topic, captures have the numbers below.

    >>> from akbypass.processors.filtering.topology import TOPOLOGY
    >>> account_source(TOPOLOGY, 3)
    1027
    """
    assert topology.ordinal < ORDINALS_MAX, f"expected an ordinal below {ORDINALS_MAX}, found {topology.ordinal}"
    return (1 + topology.ordinal) * PARTITIONS_MAX + partition


class Emitter:
    """Two writers of one run: rows come from the partition as a source, accounts from a source of their own.

    Args:
        publisher: The producer.
        topology: Who speaks.
        run_id: The run.
        partition: Which partition of it.
        marked: Outputs that are told how far the topology has spoken.
        mark_s: How long such a word may wait for rows; s.
        numbers: Where another emitter stopped; None at the start of a run.
    """

    def __init__(
        self, publisher: Publisher, topology: Topology, run_id: str, partition: int, marked: Sequence[str], mark_s: float,
        numbers: Numbers | None = None,
    ) -> None:  # fmt: skip
        self.outputs, self.marked = topology.outputs, marked
        source, sources = account_source(topology, partition), SOURCES_MAX
        self._rows = RunWriter(publisher, run_id, partition, publisher.config.kafka.partitions, mark_s, numbers)
        self._accounts = RunWriter(publisher, run_id, source, sources)

    def write(self, emission: Emission) -> None:
        """Send one emission."""
        end_ns = emission.end_ns
        self._rows.write(emission.rows, emission.watermark_ns, end_ns, marked=self.marked, ending=self.outputs)
        self._accounts.write(emission.accounts, emission.watermark_ns, end_ns, ending=[LEDGER])

    def mark(self) -> None:
        """Tell the watermarks that have waited long enough."""
        self._rows.mark()

    def numbers(self) -> dict[str, list[int]]:
        """Where the numbers of the rows stand, for a checkpoint."""
        return self._rows.numbers()
