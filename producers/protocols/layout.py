"""What a protocol file may say, and the check that it says it right; makes no tables and reads no packets.

Two kinds of files, told apart by their first key:

    framing: NAME     the header of a packet and the length prefix of its messages (moldudp64.yaml)
    layout:  NAME     the messages inside, `over` a framing, field by field (itch-5.0.yaml)

A field is `{at: byte, width: bytes, kind: …, to: column}`. Every byte of a header or message is described exactly
once (`kind: skip` for what no column takes), so that a slip in an offset or a size cannot go unnoticed; the same span
may go to several columns.
"""

from __future__ import annotations

from dataclasses import dataclass

from akbypass import schemas
from akbypass.producers.protocols.field import Field, Target, check_cover, header_targets, message_targets, parse_field
from akbypass.producers.protocols.source import Node, read

HEADER_MAX = 256  # bytes; the largest known header has 40
MESSAGE_MAX = 65_507  # bytes; the largest UDP payload
MATCHES_MAX = 4  # constants that a header may be told by
PROTOCOL_WIDTH = schemas.load("feed_frames").by_name["protocol"].width
TYPE_WIDTH = schemas.load("market_data").by_name["message_type"].width


@dataclass(frozen=True, slots=True)
class Framing:
    """A packet header of `header` bytes, then messages that each follow their length in `block_length_width` bytes.

    `end_of_session_count` is the message count that says the session is over, −1 where there is none.
    `heartbeat_recognises`: the header of an empty packet is distinct enough to recognise a feed by.
    """

    name: str
    header: int
    big_endian: bool
    block_length_width: int
    end_of_session_count: int
    heartbeat_recognises: bool
    fields: tuple[Field, ...]

    def field(self, to: str) -> Field | None:
        """Field that fills a part of the header."""
        return next((f for f in self.fields if f.to == to), None)


@dataclass(frozen=True, slots=True)
class Message:
    """A message type: the number that its type bytes hold, its text, its canonical kind, size in bytes and fields."""

    type_value: int
    type_text: str
    name: str
    kind: str
    size: int
    exact: bool
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The messages of one protocol over one framing; `protocol_id` is −1 where the framing carries none."""

    name: str
    over: str
    protocol_id: int
    big_endian: bool
    type_at: int
    type_width: int
    messages: tuple[Message, ...]

    @property
    def protocol(self) -> str:
        """Name as feeds give it: itch-5.0/moldudp64."""
        return f"{self.name}/{self.over}"


def parse(text: str, file: str) -> Framing | list[Layout]:
    """Read one protocol file: a framing, or a layout under each of its names; raises LayoutError."""
    node = read(text, file)
    if node.mapping is not None and "framing" in node.mapping:
        return _framing(node)
    if node.mapping is None or "layout" not in node.mapping:
        node.fail("expected a file that begins with framing or layout")
    return _layouts(node)


def check_pair(layout: Layout, framing: Framing, where: str) -> None:
    """Check a layout against the framing that it is over; raises LayoutError."""
    has_id = framing.field("protocol_id") is not None
    if has_id != (layout.protocol_id >= 0):
        Node(where, 1).fail(f"{framing.name} carries {'a' if has_id else 'no'} protocol_id; {layout.name} must agree")


def _framing(node: Node) -> Framing:
    keys = node.keys(
        ("framing", "specification", "byte_order", "header", "block_length_width", "fields"),
        ("end_of_session_count", "heartbeat_recognises"),
    )
    size = keys["header"].integer(1, HEADER_MAX)
    fields = _fields(keys["fields"], header_targets())
    check_cover(keys["fields"], size, [(f.at, f.width) for f in fields])
    for part in ("session", "first_seq", "count"):
        if not any(f.to == part for f in fields):
            keys["fields"].fail(f"a framing needs a field for {part}")
    if sum(f.kind == "match" for f in fields) > MATCHES_MAX:
        keys["fields"].fail(f"expected at most {MATCHES_MAX} fields of kind match")
    block = keys["block_length_width"]
    if block.integer(1, 4) == 3:
        block.fail("expected a width of 1, 2 or 4 bytes, found 3")
    return Framing(
        keys["framing"].text(), size, keys["byte_order"].text(("big", "little")) == "big", block.integer(1, 4),
        keys["end_of_session_count"].integer(1, 2**32 - 1) if "end_of_session_count" in keys else -1,
        "heartbeat_recognises" in keys and keys["heartbeat_recognises"].boolean(), fields,
    )  # fmt: skip


def _layouts(node: Node) -> list[Layout]:
    keys = node.keys(
        ("layout", "over", "specification", "byte_order", "type", "length", "messages"),
        ("protocol_id", "also", "common"),
    )
    big = keys["byte_order"].text(("big", "little")) == "big"
    place = keys["type"].keys(("at", "width"))
    at, width = place["at"].integer(0, MESSAGE_MAX), place["width"].integer(1, 2)
    targets = message_targets()
    common = _fields(keys["common"], targets) if "common" in keys else ()
    exact = keys["length"].text(("exact", "minimum")) == "exact"
    messages: list[Message] = []
    for entry in keys["messages"].items():
        message = _message(entry, big, at, width, common, exact, targets)
        if any(m.type_value == message.type_value for m in messages):
            entry.fail(f"message type {message.type_text} is described twice")
        messages.append(message)
    names = {keys["layout"]: keys["protocol_id"].integer(0, 2**32 - 1) if "protocol_id" in keys else -1}
    over = keys["over"].text()
    made = [(node_.text(), id_, node_) for node_, id_ in names.items()]
    for name, id_node in (keys["also"].mapping or {}).items() if "also" in keys else ():
        made.append((name, id_node.integer(0, 2**32 - 1), id_node))
    for name, _, place_node in made:
        if len(f"{name}/{over}") > PROTOCOL_WIDTH:
            place_node.fail(f"{name}/{over} is longer than {PROTOCOL_WIDTH} letters")
    return [Layout(name, over, id_, big, at, width, tuple(messages)) for name, id_, _ in made]


def _message(
    node: Node,
    big: bool,
    type_at: int,
    type_width: int,
    common: tuple[Field, ...],
    exact: bool,
    targets: dict[str, Target],
) -> Message:
    keys = node.keys(("type", "name", "kind", "size"), ("fields",))
    value, text = _type(keys["type"], big, type_width)
    size = keys["size"].integer(1, MESSAGE_MAX)
    own = _fields(keys["fields"], targets) if "fields" in keys else ()
    fields = (*common, *own)
    _check_once(node, fields)
    check_cover(node, size, [(type_at, type_width), *((f.at, f.width) for f in fields if f.width)])
    kinds = schemas.load("market_data").by_name["kind"].symbols
    return Message(value, text, keys["name"].text(), keys["kind"].text(kinds), size, exact, fields)


def _type(node: Node, big: bool, width: int) -> tuple[int, str]:
    """Return the number that the type bytes hold and how it is written: letters as they are, numbers in decimal."""
    if isinstance(node.scalar, int) and not isinstance(node.scalar, bool):
        value = node.integer(0, min(2 ** (8 * width) - 1, 10**TYPE_WIDTH - 1))
        return value, str(value)
    text = node.text()
    if len(text) != width or not all("!" <= c <= "~" for c in text):
        node.fail(f"expected {width} printable letters or a number, found {text}")
    return int.from_bytes(text.encode(), "big" if big else "little"), text


def _fields(node: Node, targets: dict[str, Target]) -> tuple[Field, ...]:
    fields = tuple(parse_field(entry, targets) for entry in node.items())
    _check_once(node, fields)
    return fields


def _check_once(node: Node, fields: tuple[Field, ...]) -> None:
    """No column is filled twice, but a text column by parts that lie side by side."""
    filled: dict[str, list[tuple[int, int]]] = {}
    for f in fields:
        if not f.to:
            continue
        low, high = (f.into, f.into + f.width) if f.kind == "alpha" else (0, 1)
        if any(low < other_high and other_low < high for other_low, other_high in filled.get(f.to, [])):
            Node(node.file, f.line).fail(f"{f.to} is filled twice")
        filled.setdefault(f.to, []).append((low, high))
