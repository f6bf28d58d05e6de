"""TCP flows in one NumPy array with a hash chain and an age list, for kernels that follow connections.

A flow is the unordered pair of its endpoints. Row of a flow, int64 each; the owner adds columns from OWN on:

    0 A_HIGH  1 A_LOW   address of endpoint a, the smaller of the two, as two halves of 16 bytes
    2 B_HIGH  3 B_LOW   address of endpoint b
    4 PORTS             port of a << 16 | port of b
    5 CHAIN             next flow of the same hash bucket, -1 at the end
    6 OLDER   7 NEWER   neighbours in the list by last packet, -1 at its ends

Flows never leave but to make room: at `flows_max` the one with the oldest last packet gives its row to the new one.
It does not know what TCP is. A kernel that calls these is compiled with them: after a change here clear the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from akbypass.config import Config
from akbypass.kernel import kernel
from akbypass.rows import Array, address_bytes

A_HIGH, A_LOW, B_HIGH, B_LOW, PORTS, CHAIN, OLDER, NEWER, OWN = range(9)
COUNT, OLDEST, NEWEST, EVICTED = range(4)  # of `meta`; EVICTED counts flows that made room
FIRST_CAPACITY = 1_024
MIX_A, MIX_B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xFF51AFD7ED558CCD)
SHIFT = np.uint64(32)


@kernel
def _bucket(flows: Any, slot: int, buckets: int) -> int:
    h = np.uint64(flows[slot, A_HIGH]) * MIX_A
    for column in range(A_LOW, PORTS + 1):
        h = (h ^ (h >> SHIFT) ^ np.uint64(flows[slot, column])) * MIX_B
    return np.int64((h ^ (h >> SHIFT)) & np.uint64(buckets - 1))  # type: ignore[return-value]


@kernel
def rehash(flows: Any, heads: Any, count: int) -> None:
    """Build every hash chain anew over the first `count` flows."""
    heads[:] = -1
    for slot in range(count):
        bucket = _bucket(flows, slot, len(heads))
        flows[slot, CHAIN] = heads[bucket]
        heads[bucket] = slot


@kernel
def write_key(flows: Any, src: Any, dst: Any, src_port: int, dst_port: int) -> int:
    """Write the key of a packet's flow into the last row, which is spare; return 0 if the source is a, else 1."""
    spare = flows.shape[0] - 1
    direction = 0
    if src[0] != dst[0]:
        direction = 1 if src[0] > dst[0] else 0
    elif src[1] != dst[1]:
        direction = 1 if src[1] > dst[1] else 0
    elif src_port > dst_port:
        direction = 1
    flows[spare, A_HIGH + 2 * direction] = src[0]
    flows[spare, A_LOW + 2 * direction] = src[1]
    flows[spare, B_HIGH - 2 * direction] = dst[0]
    flows[spare, B_LOW - 2 * direction] = dst[1]
    flows[spare, PORTS] = (dst_port << 16 | src_port) if direction else (src_port << 16 | dst_port)
    return direction


@kernel
def find(flows: Any, heads: Any) -> int:
    """Return the row of the flow whose key is in the spare row, -1 for an unknown one."""
    spare = flows.shape[0] - 1
    slot = heads[_bucket(flows, spare, len(heads))]
    while slot >= 0:
        same = True
        for column in range(PORTS + 1):
            if flows[slot, column] != flows[spare, column]:
                same = False
                break
        if same:
            return slot  # type: ignore[no-any-return]
        slot = flows[slot, CHAIN]
    return -1


@kernel
def _leave_ages(flows: Any, meta: Any, slot: int) -> None:
    older, newer = flows[slot, OLDER], flows[slot, NEWER]
    if older >= 0:
        flows[older, NEWER] = newer
    else:
        meta[OLDEST] = newer
    if newer >= 0:
        flows[newer, OLDER] = older
    else:
        meta[NEWEST] = older


@kernel
def _become_newest(flows: Any, meta: Any, slot: int) -> None:
    flows[slot, OLDER], flows[slot, NEWER] = meta[NEWEST], -1
    if meta[NEWEST] >= 0:
        flows[meta[NEWEST], NEWER] = slot
    else:
        meta[OLDEST] = slot
    meta[NEWEST] = slot


@kernel
def touch(flows: Any, meta: Any, slot: int) -> None:
    """Make a flow the newest."""
    if meta[NEWEST] != slot:
        _leave_ages(flows, meta, slot)
        _become_newest(flows, meta, slot)


@kernel
def victim(meta: Any, flows_max: int) -> int:
    """Return the row that the next `insert` will take from its flow, -1 while there is room."""
    return meta[OLDEST] if meta[COUNT] >= flows_max else -1


@kernel
def insert(flows: Any, heads: Any, meta: Any, flows_max: int) -> int:
    """Add the flow whose key is in the spare row as the newest and return its row; the owner's columns are 0."""
    spare = flows.shape[0] - 1
    slot = victim(meta, flows_max)
    if slot < 0:
        slot = meta[COUNT]
        meta[COUNT] += 1
    else:
        meta[EVICTED] += 1
        _leave_ages(flows, meta, slot)
        bucket = _bucket(flows, slot, len(heads))
        at = heads[bucket]
        if at == slot:
            heads[bucket] = flows[slot, CHAIN]
        else:
            while flows[at, CHAIN] != slot:
                at = flows[at, CHAIN]
            flows[at, CHAIN] = flows[slot, CHAIN]
    flows[slot, : PORTS + 1] = flows[spare, : PORTS + 1]
    flows[slot, OWN:] = 0
    bucket = _bucket(flows, slot, len(heads))
    flows[slot, CHAIN] = heads[bucket]
    heads[bucket] = slot
    _become_newest(flows, meta, slot)
    return slot


@kernel
def gateway_side(flows: Any, slot: int, gateways: Any) -> int:
    """Return the side (0 is a) whose endpoint is a configured gateway, -1 when neither is."""
    for g in range(gateways.shape[0]):
        for side in range(2):
            at, port = A_HIGH + 2 * side, (flows[slot, PORTS] >> (16 - 16 * side)) & 0xFFFF
            if gateways[g, 0] == flows[slot, at] and gateways[g, 1] == flows[slot, at + 1] and gateways[g, 2] == port:
                return side
    return -1


def gateway_table(config: Config) -> Array:
    """Write the configured order gateways as int64 rows: two halves of the address, port."""
    endpoints = [(address_bytes(e.ip_address), port) for e in config.exchanges for port in e.ports]
    addresses = halves(np.array([address for address, _ in endpoints], "V16"))
    return np.column_stack([addresses, np.array([port for _, port in endpoints], np.int64)])


class FlowTable:
    """The arrays behind the kernels; they grow before a batch, so that a kernel never has to.

    flows  int64 (capacity + 1, width)  rows as above; the last one is spare
    heads  int32 (2^k)                  first flow of each hash bucket, -1 for none
    meta   int64 (4)                    COUNT, OLDEST, NEWEST, EVICTED
    """

    def __init__(self, width: int, flows_max: int) -> None:
        self.flows_max = flows_max
        self.flows: Array = np.zeros((FIRST_CAPACITY + 1, width), np.int64)
        self.heads: Array = np.full(2 * FIRST_CAPACITY, -1, np.int32)
        self.meta: Array = np.array([0, -1, -1, 0], np.int64)

    def reserve(self, packets: int) -> None:
        """Make room for one new flow a packet, up to `flows_max`."""
        count = int(self.meta[COUNT])
        needed = min(count + packets, self.flows_max)
        capacity = len(self.flows) - 1
        if needed <= capacity:
            return
        while capacity < needed:
            capacity *= 2
        grown = np.zeros((capacity + 1, self.flows.shape[1]), np.int64)
        grown[:count] = self.flows[:count]
        self.flows, self.heads = grown, np.full(2 * capacity, -1, np.int32)
        rehash(self.flows, self.heads, count)

    def snapshot(self) -> dict[str, Array]:
        """Copy the state."""
        return {"flows": self.flows[: int(self.meta[COUNT])].copy(), "meta": self.meta.copy()}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over a snapshot."""
        self.meta = state["meta"].copy()
        count = int(self.meta[COUNT])
        self.meta[COUNT] = 0
        self.reserve(max(count, 1))
        self.meta[COUNT] = count
        self.flows[:count] = state["flows"]
        rehash(self.flows, self.heads, count)


def halves(addresses: Array) -> Array:
    """Split addresses (V16) into two numbers each: (n, 2) int64, the bits of the big-endian halves."""
    return np.ascontiguousarray(addresses).view(">i8").reshape(len(addresses), 2).astype(np.int64)


def whole(high: Array, low: Array) -> Array:
    """Put addresses (V16) together from their halves."""
    return np.ascontiguousarray(np.stack([high, low], axis=1).astype(">i8")).view("V16").reshape(len(high))
