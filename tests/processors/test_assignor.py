"""How partitions are given out when the broker does not know them all; Faust's assignor, aiokafka's own types."""

from __future__ import annotations

import faust
import pytest
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata

from akbypass.errors import ServiceError
from akbypass.processors.worker import Assignor, require_known


def test_a_topic_without_partitions_is_not_left_out() -> None:
    """Just after its start a broker may name no topics: no assignment is better than one without an input."""
    app = faust.App("assignor", store="memory://", PartitionAssignor=Assignor)
    member = ConsumerProtocolMemberMetadata.decode(app.assignor.metadata({"packets", "captures"}).encode())
    with pytest.raises(ServiceError, match="no partitions of captures, packets"):
        require_known(ClusterMetadata(), {"a": member})
