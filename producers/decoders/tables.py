"""Protocol layouts as NumPy tables, which is all that the engine knows of a protocol; decodes nothing.

Rows of integers with named places, so that one compiled kernel serves every layout:

    framings  (framings, FRAMING)       where the parts of a packet header lie
    matches   (framings, 4, 3)          at, width, value of the header's constants; width 0 for none
    layouts   (layouts, 5)              framing, protocol number, byte order and place of the message type
    types     (layouts, 256 or 65536)   value of the type bytes → message; 0 for an unknown type
    messages  (messages, 4)             size and range of fields; message 0 is the unknown one, without fields
    fields    (fields, FIELD)           operation, place, column, factor
    sides     (maps, 256)               byte → ordinal of the side
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from akbypass import schemas
from akbypass.producers.decoders.engine import (
    F_BIG,
    F_BLOCK_WIDTH,
    F_CHANNEL_AT,
    F_CHANNEL_USUAL,
    F_COUNT_AT,
    F_END_COUNT,
    F_FIRST_AT,
    F_HEADER,
    F_HEARTBEAT,
    F_ID_AT,
    F_LENGTH_AT,
    F_OFFSET_AT,
    F_SEND_AT,
    F_SESSION_AT,
    F_SESSION_TEXT,
    FIELD,
    FRAMING,
    OP_ALPHA,
    OP_CONST,
    OP_INTEGER,
    OP_MIDNIGHT,
    OP_SIDE,
)
from akbypass.producers.protocols import Field, Framing, Layout, Message, Protocols
from akbypass.producers.protocols.layout import MATCHES_MAX, TYPE_WIDTH
from akbypass.rows import Array

# integer columns of market_data that messages fill, in the order of the engine's matrix; the last two are never null
NUMBERS = (
    "ts_wire_ns", "instrument_id", "order_ref", "new_order_ref", "match_number", "price_nanos", "quantity_nanos",
    "bid_price_nanos", "bid_quantity_nanos", "ask_price_nanos", "ask_quantity_nanos", "side", "flags",
)  # fmt: skip
NULLABLE_NUMBERS = 11  # the first ones of NUMBERS
TEXTS = ("symbol", "attribution", "condition")
TEXT_WIDTHS = tuple(schemas.load("market_data").by_name[name].width for name in TEXTS)  # bytes


@dataclass(frozen=True)
class Tables:
    """Compiled protocols. `kinds` and `type_texts` are by message, `protocols` and `uses_midnight` by layout."""

    framings: Array
    matches: Array
    layouts: Array
    types: Array
    messages: Array
    fields: Array
    sides: Array
    kinds: Array
    type_texts: Array
    uses_midnight: Array
    zones: tuple[str, ...]
    protocols: tuple[str, ...]
    framing_names: tuple[str, ...]
    message_letters: tuple[str, ...]
    field_columns: tuple[str, ...]


@dataclass
class _Building:
    messages: list[list[int]] = field(default_factory=lambda: [[0, 0, 0, 0]])
    fields: list[list[int]] = field(default_factory=list)
    sides: list[Array] = field(default_factory=list)
    zones: list[str] = field(default_factory=list)
    kinds: list[int] = field(default_factory=lambda: [schemas.load("market_data").code("kind", "other")])
    texts: list[str] = field(default_factory=lambda: [""])
    columns: list[str] = field(default_factory=list)


def compile_tables(protocols: Protocols) -> Tables:
    """Compile checked layouts; at least one is needed."""
    building = _Building()
    wide = any(layout.type_width == 2 for layout in protocols.layouts)
    types = np.zeros((len(protocols.layouts), 65_536 if wide else 256), np.int32)
    rows = []
    for i, layout in enumerate(protocols.layouts):
        framing = next(k for k, f in enumerate(protocols.framings) if f.name == layout.over)
        rows.append([framing, layout.protocol_id, int(layout.big_endian), layout.type_at, layout.type_width])
        for message in layout.messages:
            types[i, message.type_value] = len(building.messages)
            _add_message(building, layout, message)
    return Tables(
        framings=np.array([_framing_row(f) for f in protocols.framings], np.int64),
        matches=np.array([_match_rows(f) for f in protocols.framings], np.int64),
        layouts=np.array(rows, np.int64),
        types=types,
        messages=np.array(building.messages, np.int64),
        fields=np.array(building.fields, np.int64).reshape(-1, FIELD),
        sides=np.array(building.sides, np.int64).reshape(-1, 256),
        kinds=np.array(building.kinds, np.int8),
        type_texts=np.array([t.encode() for t in building.texts], f"S{TYPE_WIDTH}"),
        uses_midnight=np.array([_uses_midnight(layout) for layout in protocols.layouts], bool),
        zones=tuple(building.zones),
        protocols=protocols.names,
        framing_names=tuple(f.name for f in protocols.framings),
        message_letters=tuple(building.texts),
        field_columns=tuple(building.columns),
    )


def _uses_midnight(layout: Layout) -> bool:
    return any(f.kind == "time_midnight" for m in layout.messages for f in m.fields)


def _framing_row(framing: Framing) -> list[int]:
    row = [0] * FRAMING
    row[F_HEADER], row[F_BIG] = framing.header, int(framing.big_endian)
    row[F_END_COUNT], row[F_BLOCK_WIDTH] = framing.end_of_session_count, framing.block_length_width
    row[F_HEARTBEAT] = int(framing.heartbeat_recognises)
    places = {
        "session": F_SESSION_AT, "channel": F_CHANNEL_AT, "first_seq": F_FIRST_AT, "count": F_COUNT_AT,
        "payload_length": F_LENGTH_AT, "stream_offset": F_OFFSET_AT, "ts_send_ns": F_SEND_AT, "protocol_id": F_ID_AT,
    }  # fmt: skip
    for name, place in places.items():
        found = framing.field(name)
        if found is not None:
            row[place], row[place + 1] = found.at, found.width
    session, channel = framing.field("session"), framing.field("channel")
    row[F_SESSION_TEXT] = int(session is not None and session.kind == "alpha")
    row[F_CHANNEL_USUAL] = channel.usual if channel is not None else 0
    return row


def _match_rows(framing: Framing) -> list[list[int]]:
    rows = [[f.at, f.width, f.value] for f in framing.fields if f.kind == "match"]
    return rows + [[0, 0, 0]] * (MATCHES_MAX - len(rows))


def _add_message(building: _Building, layout: Layout, message: Message) -> None:
    first = len(building.fields)
    for f in message.fields:
        if f.kind != "skip":
            building.fields.append(_field_row(building, layout, f))
            building.columns.append(f.to)
    building.messages.append([message.size, int(message.exact), first, len(building.fields)])
    building.kinds.append(schemas.load("market_data").code("kind", message.kind))
    building.texts.append(message.type_text)


def _field_row(building: _Building, layout: Layout, f: Field) -> list[int]:
    operation, column, extra = OP_INTEGER, 0, 0
    if f.kind == "alpha":
        operation, column, extra = OP_ALPHA, TEXTS.index(f.to), f.into
    else:
        column = NUMBERS.index(f.to)
    if f.kind == "time_midnight":
        if f.zone not in building.zones:
            building.zones.append(f.zone)
        operation, extra = OP_MIDNIGHT, building.zones.index(f.zone)
    elif f.kind == "side":
        letters = np.zeros(256, np.int64)
        for letter, side in f.sides:
            letters[letter] = side
        operation, extra = OP_SIDE, len(building.sides)
        building.sides.append(letters)
    elif f.kind == "const":
        operation, extra = OP_CONST, f.value
    return [operation, f.at, f.width, int(layout.big_endian), column, f.scale, int(f.signed), extra]
