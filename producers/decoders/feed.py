"""Market-data feeds of a capture: UDP packets in, feed_frames, market_data and rejected rows out.

Wires the engine (`engine.py`, driven by the layouts of `protocols/`) to rows; holds no protocol knowledge itself,
reassembles no IP fragments and reads no TCP.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from akbypass import schemas
from akbypass.config import Config
from akbypass.producers import protocols as protocol_files
from akbypass.producers.decoders import engine, midnight
from akbypass.producers.decoders.complaints import rejected_rows
from akbypass.producers.decoders.destinations import Destinations
from akbypass.producers.decoders.engine import (
    BAD,
    FRAME,
    FRAME_COUNT,
    FRAME_FIRST,
    FRAME_HASH,
    FRAME_KIND,
    FRAME_LAYOUT,
    FRAME_OFFSET,
    FRAME_PACKET,
    FRAME_SEND,
    FRAME_SLOT,
    L_TYPE_WIDTH,
    MSG,
    MSG_END,
    MSG_FRAME,
    MSG_NTH,
    MSG_SPEC,
    MSG_START,
    MSG_TYPE,
    REJECTS_MAX,
    SESSION_WIDTH,
)
from akbypass.producers.decoders.tables import NULLABLE_NUMBERS, NUMBERS, TEXT_WIDTHS, compile_tables
from akbypass.producers.frames import PacketBatch
from akbypass.producers.protocols import Protocols
from akbypass.rows import NULL_INT64, Array, Rows

PACKET_COLUMNS = ("run_ns", "capture_id", "capture_pos", "ts_capture_ns")
FRAME_COLUMNS = (
    *PACKET_COLUMNS,
    "ts_resolution_ns",
    "wire_length",
    "payload_length",
    "src_ip",
    "dst_ip",
    "src_port",
    "dst_port",
)
COMPLAINTS_PER_PACKET = REJECTS_MAX + 4  # the listed ones, their sum, and what may be said of the whole packet
MESSAGE_BYTES_MIN = 2  # a one-byte length and a one-byte message

_SCHEMA = schemas.load("feed_frames").by_name
assert _SCHEMA["kind"].symbols == ("data", "heartbeat", "end_of_session"), "the engine numbers the kinds in this order"
assert _SCHEMA["session"].width == SESSION_WIDTH, "the engine writes sessions of this width"


class FeedDecoder:
    """Decode the market-data feeds of one capture, batch by batch; how packets are cut into batches changes nothing.

    `counts` holds what was seen, by name: udp_packets, frames, messages, rejected, and rejected by reason.
    """

    def __init__(self, config: Config, protocols: Protocols | None = None) -> None:
        made = protocols or protocol_files.builtin()
        self.tables = compile_tables(made)
        self.destinations = Destinations(config, {name: i for i, name in enumerate(made.names)})
        self.counts: Counter[str] = Counter()
        self._protocols = np.array(
            [p.encode() for p in made.names], schemas.load("feed_frames").by_name["protocol"].dtype
        )
        self._frames: Array = np.empty((0, FRAME), np.int64)
        self._sessions: Array = np.empty((0, SESSION_WIDTH), np.uint8)
        self._bad: Array = np.empty((0, BAD), np.int64)
        self._msgs: Array = np.empty((0, MSG), np.int64)

    def decode(self, batch: PacketBatch) -> dict[str, Rows]:
        """Decode the UDP packets of a batch; returns those of feed_frames, market_data and rejected that have rows."""
        packets = batch.packets
        n = len(packets)
        if n == 0:
            return {}
        self._grow(n, int((batch.payload_end - batch.payload_start).sum()))
        fragment = packets["ip_more_fragments"] | (packets["ip_fragment_offset"] != 0)
        words = np.ascontiguousarray(packets["dst_ip"]).view(np.uint64).reshape(n, 2)
        t, d = self.tables, self.destinations
        n_frames, n_msgs, n_bad = engine.scan(
            batch.buffer, batch.payload_start, batch.payload_end, packets["payload_length"], packets["protocol"], fragment,
            words, packets["dst_port"], t.framings, t.matches, t.layouts, t.types, t.messages,
            d.ips, d.dests, d.slots, d.used, self._frames, self._sessions, self._msgs, self._bad,
        )  # fmt: skip
        frames, msgs, bad = self._frames[:n_frames], self._msgs[:n_msgs], self._bad[:n_bad]
        out: dict[str, Rows] = {}
        if n_frames:
            out["feed_frames"] = self._frame_rows(batch, frames)
        if n_msgs:
            rows, unfit = self._message_rows(batch, frames, msgs, out["feed_frames"])
            bad = np.concatenate([bad, unfit])
            if len(rows):
                out["market_data"] = rows
        if len(bad):
            out["rejected"] = rejected_rows(batch, bad, t)
        self._count(packets, out)
        return out

    def finish(self, run_ns: int, capture_id: int, capture_pos: int) -> dict[str, Rows]:
        """Say what is left at the end of the capture: nothing, since no packet waits for another one."""
        return {}

    def _grow(self, packets: int, payload_bytes: int) -> None:
        """Make the scratch arrays large enough; they are used again for every batch."""
        if len(self._frames) < packets:
            self._frames = np.empty((packets, FRAME), np.int64)
            self._sessions = np.empty((packets, SESSION_WIDTH), np.uint8)
            self._bad = np.empty((packets * COMPLAINTS_PER_PACKET, BAD), np.int64)
        if len(self._msgs) < payload_bytes // MESSAGE_BYTES_MIN:
            self._msgs = np.empty((payload_bytes // MESSAGE_BYTES_MIN, MSG), np.int64)

    def _frame_rows(self, batch: PacketBatch, frames: Array) -> Rows:
        packet, slot = frames[:, FRAME_PACKET], frames[:, FRAME_SLOT]
        feeds, venues, lines = self.destinations.names()
        return Rows.build(
            "feed_frames", len(frames), **{k: batch.packets[k][packet] for k in FRAME_COLUMNS},
            sub=np.zeros(len(frames), np.int32), feed=feeds[slot], venue=venues[slot], line=lines[slot],
            session=_texts(self._sessions[: len(frames)].copy()),
            protocol=self._protocols[frames[:, FRAME_LAYOUT]], kind=frames[:, FRAME_KIND].astype(np.int8),
            first_seq=frames[:, FRAME_FIRST].copy(), count=frames[:, FRAME_COUNT].astype(np.int32),
            ts_send_ns=frames[:, FRAME_SEND].copy(), stream_offset=frames[:, FRAME_OFFSET].copy(),
            payload_hash=frames[:, FRAME_HASH].copy(),
        )  # fmt: skip

    def _message_rows(self, batch: PacketBatch, frames: Array, msgs: Array, frame_rows: Rows) -> tuple[Rows, Array]:
        """Extract the messages; returns their rows, and complaints about values that fit no column."""
        n, t = len(msgs), self.tables
        numbers = np.empty((len(NUMBERS), n), np.int64)
        numbers[:NULLABLE_NUMBERS] = NULL_INT64
        numbers[NULLABLE_NUMBERS:] = 0
        symbol, attribution, condition = (np.zeros((n, width), np.uint8) for width in TEXT_WIDTHS)
        faults = np.zeros(n, np.int32)
        if t.uses_midnight[frames[:, FRAME_LAYOUT]].any():
            day, midnights = midnight.candidates(t.zones, batch.packets["ts_capture_ns"])
        else:
            day, midnights = np.zeros(0, np.int64), np.zeros((0, 0, 0), np.int64)
        engine.extract(
            batch.buffer, msgs, n, frames, t.messages, t.fields, t.sides, batch.packets["ts_capture_ns"], day, midnights,
            numbers, symbol, attribution, condition, faults,
        )  # fmt: skip
        frame, spec, nth = msgs[:, MSG_FRAME], msgs[:, MSG_SPEC], msgs[:, MSG_NTH]
        values = dict(zip(NUMBERS, numbers, strict=True))
        values["side"], values["flags"] = values["side"].astype(np.int8), values["flags"].astype(np.int32)
        rows = Rows.build(
            "market_data", n, **{k: frame_rows[k][frame] for k in (*PACKET_COLUMNS, "feed", "venue", "line", "session")},
            sub=nth.astype(np.int32), sequence=frame_rows["first_seq"][frame] + nth, kind=t.kinds[spec],
            message_type=self._type_texts(frames, msgs), symbol=_texts(symbol),
            attribution=_texts(attribution), condition=_texts(condition), **values,
        )  # fmt: skip
        if not faults.any():
            return rows, np.empty((0, BAD), np.int64)
        return rows.take(faults == 0), self._unfit(batch, frames, msgs[faults > 0], faults[faults > 0])

    def _type_texts(self, frames: Array, msgs: Array) -> Array:
        """Message types as text; unknown ones as their letter, or as a number where types have two bytes."""
        texts = self.tables.type_texts[msgs[:, MSG_SPEC]]
        for i in np.flatnonzero(msgs[:, MSG_SPEC] == 0).tolist():
            value, layout = int(msgs[i, MSG_TYPE]), int(frames[msgs[i, MSG_FRAME], FRAME_LAYOUT])
            if self.tables.layouts[layout, L_TYPE_WIDTH] == 1:
                texts[i] = bytes([value]) if 0x20 < value < 0x7F else b"?"
            else:
                texts[i] = b"%d" % value if value <= 9_999 else b"%04x" % value
        return texts

    def _unfit(self, batch: PacketBatch, frames: Array, msgs: Array, faults: Array) -> Array:
        packet = frames[msgs[:, MSG_FRAME], FRAME_PACKET]
        zero = np.zeros(len(msgs), np.int64)
        return np.stack(
            [
                packet, frames[msgs[:, MSG_FRAME], FRAME_SLOT], frames[msgs[:, MSG_FRAME], FRAME_LAYOUT],
                zero + engine.VALUE_OUT_OF_RANGE, msgs[:, MSG_NTH], faults.astype(np.int64) - 1, zero,
                msgs[:, MSG_START] - batch.payload_start[packet], msgs[:, MSG_END] - msgs[:, MSG_START], msgs[:, MSG_SPEC],
            ],
            axis=1,
        )  # fmt: skip

    def _count(self, packets: Rows, out: dict[str, Rows]) -> None:
        self.counts["udp_packets"] += int((packets["protocol"] == engine.UDP).sum())
        for name, topic in (("frames", "feed_frames"), ("messages", "market_data"), ("rejected", "rejected")):
            self.counts[name] += len(out[topic]) if topic in out else 0
        if "rejected" in out:
            self.counts.update(f"rejected_{reason.decode()}" for reason in out["rejected"]["reason"].tolist())


def _texts(letters: Array) -> Array:
    """View rows of letters as strings."""
    return letters.view(f"S{letters.shape[1]}").reshape(len(letters))
