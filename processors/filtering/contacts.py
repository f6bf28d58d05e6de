"""Follows TCP connection attempts to their outcome; looks at no payload and judges nobody.

    SYN ──▶ attempt ──▶ SYN-ACK (or an ACK of the SYN) from the other side          established
                    ──▶ RST from the other side                                     refused
                    ──▶ nothing for syn_timeout_ms                                  unanswered, at its due time
                    ──▶ the run ends, or the flow makes room for a newer one        open
                    ──▶ nothing, but packets were lost meanwhile                    open, at its due time
    any other first packet of a flow                                                midstream, once

A SYN with the number of the last one repeats its attempt, and so does every SYN while the attempt is undecided; a SYN
with another number after that is a new attempt. A RST from the initiator answers nothing. The initiator of midstream
is the side that is not a configured gateway, else the receiver of a SYN-ACK, else the side with the higher port, else
the sender. Due times grow with the attempts because the time-out is constant, so undecided attempts are one list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from akbypass import schemas
from akbypass.config import Config
from akbypass.kernel import kernel
from akbypass.processors import flow_table
from akbypass.processors.filtering.matcher import Matcher
from akbypass.processors.flow_table import A_HIGH, OWN, PORTS, FlowTable, halves, whole
from akbypass.processors.losses import Losses
from akbypass.rows import NULL_INT64, Array, Rows

STATE, INITIATOR, ISN, RUN, TS, CAPTURE, POS, RULE, BEFORE, AFTER = range(OWN, OWN + 10)  # of a flow
WIDTH = OWN + 10
DECIDED, ATTEMPT = 0, 1
SYN, RST, ACK = 2, 4, 16
ESTABLISHED, REFUSED, UNANSWERED, MIDSTREAM, OPEN = (
    schemas.load("contacts").code("outcome", s) for s in ("established", "refused", "unanswered", "midstream", "open")
)
OUT_RUN, OUT_CAPTURE, OUT_POS, OUT_TS, OUT_START, OUT_OUTCOME, OUT_RULE, OUT_SRC, OUT_DST, OUT_PORTS = (
    0, 1, 2, 3, 4, 5, 6, 7, 9, 11,
)  # fmt: skip
OUT_WIDTH = 13
ANSWER_BYTES = 65_536  # an ACK this far behind the SYN's number still answers the SYN: data may have come before it
SEQUENCE_MASK = 0xFFFFFFFF
TCP = 6
CHUNK_ROWS = 65_536  # bounds the room that is made before packets are known to be of new flows


@kernel
def _emit(flows: Any, slot: int, out: Any, n: int, run: int, capture: int, pos: int, ts: int, outcome: int) -> int:
    side = flows[slot, INITIATOR]
    ports = flows[slot, PORTS]
    out[n, OUT_RUN], out[n, OUT_CAPTURE], out[n, OUT_POS], out[n, OUT_TS] = run, capture, pos, ts
    out[n, OUT_START], out[n, OUT_OUTCOME], out[n, OUT_RULE] = flows[slot, TS], outcome, flows[slot, RULE]
    for half in range(2):
        out[n, OUT_SRC + half] = flows[slot, A_HIGH + half + 2 * side]
        out[n, OUT_DST + half] = flows[slot, A_HIGH + half + 2 - 2 * side]
    out[n, OUT_PORTS + side] = ports >> 16
    out[n, OUT_PORTS + 1 - side] = ports & 0xFFFF
    return n + 1


@kernel
def _decide(flows: Any, waiting: Any, slot: int) -> None:
    """Take an attempt out of the list of undecided ones."""
    before, after = flows[slot, BEFORE], flows[slot, AFTER]
    if before >= 0:
        flows[before, AFTER] = after
    else:
        waiting[0] = after
    if after >= 0:
        flows[after, BEFORE] = before
    else:
        waiting[1] = before
    flows[slot, STATE] = DECIDED


@kernel
def _wait(flows: Any, waiting: Any, slot: int) -> None:
    flows[slot, STATE] = ATTEMPT
    flows[slot, BEFORE], flows[slot, AFTER] = waiting[1], -1
    if waiting[1] >= 0:
        flows[waiting[1], AFTER] = slot
    else:
        waiting[0] = slot
    waiting[1] = slot


@kernel
def _expire(flows: Any, waiting: Any, until: int, timeout: int, out: Any, n: int) -> int:
    """Emit every attempt that is due at or before `until`."""
    slot = waiting[0]
    while slot >= 0 and flows[slot, RUN] + timeout <= until:
        due, ts = flows[slot, RUN] + timeout, flows[slot, TS] + timeout
        n = _emit(flows, slot, out, n, due, flows[slot, CAPTURE], flows[slot, POS], ts, UNANSWERED)
        _decide(flows, waiting, slot)
        slot = waiting[0]
    return n


@kernel
def _close(flows: Any, waiting: Any, end: int, out: Any, n: int) -> int:
    """Emit every undecided attempt as open at the end of the run."""
    while waiting[0] >= 0:
        slot = waiting[0]
        n = _emit(flows, slot, out, n, end, flows[slot, CAPTURE], flows[slot, POS], end, OPEN)
        _decide(flows, waiting, slot)
    return n


@kernel
def _initiator(flows: Any, slot: int, direction: int, syn: bool, gateways: Any) -> int:
    """Tell which side (0 for a) opened a flow whose SYN was not seen."""
    gateway = flow_table.gateway_side(flows, slot, gateways)
    if gateway >= 0:
        return 1 - gateway
    if syn:
        return 1 - direction
    port_a, port_b = flows[slot, PORTS] >> 16, flows[slot, PORTS] & 0xFFFF
    if port_a == port_b:
        return direction
    return 0 if port_a > port_b else 1


@kernel
def _follow(
    flows: Any, heads: Any, meta: Any, waiting: Any, flows_max: int, timeout: int, gateways: Any, run_ns: Any, capture_id: Any,
    capture_pos: Any, ts_ns: Any, src: Any, dst: Any, src_port: Any, dst_port: Any, seq: Any, ack: Any, flags: Any, rule: Any, out: Any,
) -> int:  # fmt: skip
    """Take TCP packets in order, write outcomes to `out`, return how many."""
    n = 0
    for i in range(len(run_ns)):
        run, capture, pos, ts, flag = run_ns[i], capture_id[i], capture_pos[i], ts_ns[i], flags[i]
        n = _expire(flows, waiting, run, timeout, out, n)
        direction = flow_table.write_key(flows, src[i], dst[i], src_port[i], dst_port[i])
        slot = flow_table.find(flows, heads)
        known = slot >= 0
        if known:
            flow_table.touch(flows, meta, slot)
        else:
            slot = flow_table.victim(meta, flows_max)
            if slot >= 0 and flows[slot, STATE] == ATTEMPT:
                n = _emit(flows, slot, out, n, run, capture, pos, ts, OPEN)
                _decide(flows, waiting, slot)
            slot = flow_table.insert(flows, heads, meta, flows_max)
        syn, answers = flag & SYN != 0, direction != flows[slot, INITIATOR]
        if flag & (SYN | ACK | RST) == SYN:
            repeated = flows[slot, STATE] == ATTEMPT or (not answers and seq[i] == flows[slot, ISN])
            if known and repeated:
                continue
            flows[slot, INITIATOR], flows[slot, ISN], flows[slot, RULE] = direction, seq[i], rule[i]
            flows[slot, RUN], flows[slot, TS], flows[slot, CAPTURE], flows[slot, POS] = run, ts, capture, pos
            _wait(flows, waiting, slot)
        elif not known:
            flows[slot, INITIATOR] = _initiator(flows, slot, direction, syn, gateways)
            flows[slot, ISN], flows[slot, RULE], flows[slot, TS] = -1, rule[i], ts
            n = _emit(flows, slot, out, n, run, capture, pos, ts, MIDSTREAM)
        elif flows[slot, STATE] == ATTEMPT and answers:
            near = flag & ACK != 0 and (ack[i] - flows[slot, ISN] - 1) & SEQUENCE_MASK < ANSWER_BYTES
            if flag & RST or (flag & ACK and (syn or near)):
                _decide(flows, waiting, slot)
                n = _emit(flows, slot, out, n, run, capture, pos, ts, REFUSED if flag & RST else ESTABLISHED)
    return n


class ContactTracker:
    """The TCP flows of one partition and their undecided attempts.

    `flows_evicted` counts flows that made room for newer ones; an undecided attempt among them became an `open` row.
    `attempts_doubtful` counts attempts whose answer may be among packets that were lost.
    """

    def __init__(self, config: Config, matcher: Matcher) -> None:
        self._matcher = matcher
        self._timeout_ns = config.thresholds.syn_timeout_ms * 1_000_000
        self._table = FlowTable(WIDTH, config.thresholds.flows_max)
        self._waiting: Array = np.full(2, -1, np.int64)  # first and last undecided attempt
        self._gateways = flow_table.gateway_table(config)
        self._doubtful: Array = np.zeros(1, np.int64)

    @property
    def attempts_doubtful(self) -> int:
        """Attempts of which nobody can say whether they were answered (count)."""
        return int(self._doubtful[0])

    @property
    def flows_evicted(self) -> int:
        """Flows that made room (count)."""
        return int(self._table.meta[flow_table.EVICTED])

    def step(self, packets: Rows, matched: Array, losses: Losses, watermark_ns: int, end: bool) -> Rows:
        """Follow packets to the watermark; `matched` is the matcher's answer for each, `losses` what is missing."""
        parts = []
        tcp = np.flatnonzero((packets["protocol"] == TCP) & (packets["tcp_seq"] != NULL_INT64))
        for at in range(0, len(tcp), CHUNK_ROWS):
            chunk = tcp[at : at + CHUNK_ROWS]
            parts.append(self._take(packets.take(chunk), matched[chunk]))
        out = self._outcomes(0)
        n = _expire(self._table.flows, self._waiting, watermark_ns - 1, self._timeout_ns, out, 0)
        if end:
            n = _close(self._table.flows, self._waiting, watermark_ns, out, n)
        return self._rows(self._doubted(np.concatenate([*parts, out[:n]]), losses))

    def _doubted(self, out: Array, losses: Losses) -> Array:
        """Leave open what nobody answered while packets were lost."""
        silent = np.flatnonzero(out[:, OUT_OUTCOME] == UNANSWERED)
        due_ns = out[silent, OUT_RUN]
        doubtful = silent[losses.touching("packets", due_ns - self._timeout_ns, due_ns, due_ns) > 0]
        out[doubtful, OUT_OUTCOME] = OPEN
        self._doubtful[0] += len(doubtful)
        return out

    def _outcomes(self, packets: int) -> Array:
        """Room for what a call may emit: each known flow's attempt, and one outcome a packet."""
        return np.empty((int(self._table.meta[flow_table.COUNT]) + packets, OUT_WIDTH), np.int64)

    def _take(self, packets: Rows, matched: Array) -> Array:
        table = self._table
        table.reserve(len(packets))
        out = self._outcomes(len(packets))
        n = _follow(
            table.flows, table.heads, table.meta, self._waiting, table.flows_max, self._timeout_ns, self._gateways,
            packets["run_ns"], packets["capture_id"], packets["capture_pos"], packets["ts_capture_ns"],
            halves(packets["src_ip"]), halves(packets["dst_ip"]), packets["src_port"], packets["dst_port"],
            packets["tcp_seq"], packets["tcp_ack"], packets["tcp_flags"], matched, out,
        )  # fmt: skip
        return out[:n]

    def _rows(self, out: Array) -> Rows:
        rule = out[:, OUT_RULE]
        return Rows.build(
            "contacts", len(out), run_ns=out[:, OUT_RUN], capture_id=out[:, OUT_CAPTURE], capture_pos=out[:, OUT_POS],
            ts_capture_ns=out[:, OUT_TS], ts_start_ns=out[:, OUT_START], outcome=out[:, OUT_OUTCOME],
            duration_ns=out[:, OUT_TS] - out[:, OUT_START], rule=self._matcher.names[rule], action=self._matcher.actions[rule],
            src_ip=whole(out[:, OUT_SRC], out[:, OUT_SRC + 1]), dst_ip=whole(out[:, OUT_DST], out[:, OUT_DST + 1]),
            src_port=out[:, OUT_PORTS], dst_port=out[:, OUT_PORTS + 1],
        )  # fmt: skip

    def snapshot(self) -> dict[str, Array]:
        """Copy the state."""
        return {**self._table.snapshot(), "waiting": self._waiting.copy(), "doubtful": self._doubtful.copy()}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over a snapshot."""
        self._table.restore(state)
        self._waiting, self._doubtful = state["waiting"].copy(), state["doubtful"].copy()
