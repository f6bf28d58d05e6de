"""Complaints of the engine as `rejected` rows: reason, what was expected and found, where, and the bytes.

Complaints are rare, so they are made one by one in plain Python; the engine limits them per packet.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from akbypass.producers.decoders import engine
from akbypass.producers.decoders.engine import (
    BAD_AT,
    BAD_EXPECTED,
    BAD_FOUND,
    BAD_LAYOUT,
    BAD_LENGTH,
    BAD_NTH,
    BAD_PACKET,
    BAD_REASON,
    BAD_SPEC,
    L_FRAMING,
)
from akbypass.producers.decoders.tables import Tables
from akbypass.producers.frames import PacketBatch
from akbypass.rows import Array, Rows

BYTES_MAX = 1_024  # bytes of evidence per row, as the schema says

# reason code → (reason, detail); {e} expected, {f} found, {n} message number, {t} type, {p} framing, {c} column
TEXTS: dict[int, tuple[str, str]] = {
    engine.HEADER_SHORT: ("{p}_header_short", "expected a {framing} header of {e} bytes, found {f}"),
    engine.NOT_THIS_FRAMING: ("not_{p}", "expected the constants of a {framing} header, found other values"),
    engine.OTHER_PROTOCOL_ID: ("protocol_id_differs", "expected the protocol number of {layout}, found another"),
    engine.SESSION_NOT_PRINTABLE: ("session_not_printable", "expected a session of printable letters, found other bytes"),
    engine.SEQUENCE_OUT_OF_RANGE: ("sequence_out_of_range", "expected a sequence number below 2^63, found a larger one"),
    engine.NO_PROTOCOL_FITS: ("no_protocol_fits", "expected a packet of a known protocol, found {f} bytes that fit none"),
    engine.BLOCK_BEYOND_PAYLOAD: ("block_beyond_payload", "expected {e} messages, found room for {f}"),
    engine.FRAME_TRUNCATED: ("frame_truncated", "expected {e} messages, found {f} whole ones; the frame was cut by the snap length"),
    engine.HEADER_TRUNCATED: ("frame_truncated", "expected a {framing} header of {e} bytes, found {f}; the frame was cut by the snap length"),
    engine.MESSAGE_WITHOUT_TYPE: ("message_without_type", "expected message {n} to have at least {e} bytes, found {f}"),
    engine.MESSAGE_SHORT: ("message_shorter_than_type", "expected message length {e} for '{t}', found {f}"),
    engine.MESSAGE_LONG: ("message_longer_than_type", "expected message length {e} for '{t}', found {f}"),
    engine.BYTES_AFTER_LAST_BLOCK: ("bytes_after_last_block", "expected the payload to end at byte {e}, found {f} bytes"),
    engine.PAYLOAD_LENGTH_DIFFERS: ("payload_length_differs", "expected {e} bytes after the header as it says, found {f}"),
    engine.FURTHER_MESSAGES: ("further_messages", "expected at most {e} wrong messages in a packet, found {f}; the rest is not listed"),
    engine.IP_FRAGMENT: ("ip_fragment", "expected whole datagrams of a feed, found a fragment, which is not put together"),
    engine.FEEDS_MAX: ("feeds_max", "expected at most {e} feeds, found one more; configure the ones that matter"),
    engine.VALUE_OUT_OF_RANGE: ("value_out_of_range", "expected a value of '{t}' that fits {c}, found a larger one"),
}  # fmt: skip
PACKET_REASONS = frozenset(
    {
        engine.HEADER_SHORT, engine.NOT_THIS_FRAMING, engine.OTHER_PROTOCOL_ID, engine.SESSION_NOT_PRINTABLE,
        engine.SEQUENCE_OUT_OF_RANGE, engine.NO_PROTOCOL_FITS, engine.IP_FRAGMENT, engine.FEEDS_MAX,
        engine.HEADER_TRUNCATED,
    }
)  # fmt: skip


def rejected_rows(batch: PacketBatch, complaints: Array, tables: Tables) -> Rows:
    """Make rows of complaints (n, BAD), sorted by packet and place."""
    ordered = complaints[np.lexsort((complaints[:, BAD_AT], complaints[:, BAD_PACKET]))]
    packet = ordered[:, BAD_PACKET]
    first = np.searchsorted(packet, packet, "left")
    columns = {k: batch.packets[k][packet] for k in ("run_ns", "capture_id", "capture_pos", "ts_capture_ns")}
    columns |= {k: batch.packets[k][packet] for k in ("src_ip", "dst_ip", "src_port", "dst_port")}
    told = [_told(row, tables) for row in ordered.tolist()]
    return Rows.build(
        "rejected", len(ordered), **columns, stage=np.full(len(ordered), b"decode"),
        sub=(np.arange(len(ordered)) - first).astype(np.int32),
        topic=np.array([b"feed_frames" if r in PACKET_REASONS else b"market_data" for r in ordered[:, BAD_REASON].tolist()]),
        reason=np.array([reason.encode() for reason, _ in told]),
        detail=[detail for _, detail in told],
        bytes=[_evidence(batch, row) for row in ordered.tolist()],
    )  # fmt: skip


def _told(row: list[int], tables: Tables) -> tuple[str, str]:
    layout = row[BAD_LAYOUT]
    framing = tables.framing_names[int(tables.layouts[layout, L_FRAMING])] if layout >= 0 else "feed"
    words: dict[str, Any] = {
        "e": row[BAD_EXPECTED], "f": row[BAD_FOUND], "n": row[BAD_NTH], "framing": framing,
        "p": framing.replace("-", "_"), "layout": tables.protocols[layout] if layout >= 0 else "a feed",
        "t": tables.message_letters[row[BAD_SPEC]], "c": "",
    }  # fmt: skip
    if row[BAD_REASON] == engine.VALUE_OUT_OF_RANGE:
        words["c"] = tables.field_columns[row[BAD_EXPECTED]]
    reason, detail = TEXTS[row[BAD_REASON]]
    which = f" (message {row[BAD_NTH]} of the packet)" if row[BAD_NTH] >= 0 else ""
    return reason.format(**words), f"{detail.format(**words)}; at byte {row[BAD_AT]} of the UDP payload{which}"


def _evidence(batch: PacketBatch, row: list[int]) -> bytes:
    start, end = int(batch.payload_start[row[BAD_PACKET]]), int(batch.payload_end[row[BAD_PACKET]])
    low = min(start + row[BAD_AT], end)
    return bytes(batch.buffer[low : min(low + min(row[BAD_LENGTH], BYTES_MAX), end)])
