"""One field of a packet header or of a message: its kinds, its options, its checks; reads no packets."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from akbypass import schemas
from akbypass.producers.protocols.source import Node

INTEGER_WIDTHS = (1, 2, 4, 8)  # bytes
MIDNIGHT_WIDTHS = (4, 6, 8)  # bytes; ITCH counts nanoseconds of a day in 6
FLAGS_WIDTH_MAX = 2  # bytes; the column has 4, signed
DECIMALS_MAX = 9  # prices and quantities are kept in 1e-9 units

# kind → (required keys, optional keys) beside the ones that every field of the kind has
KEYS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "uint": (("at", "width", "to"), ("usual",)),
    "int": (("at", "width", "to"), ()),
    "price": (("at", "width", "to", "decimals"), ("signed",)),
    "quantity": (("at", "width", "to"), ("decimals", "signed")),
    "time_midnight": (("at", "width", "to", "zone"), ()),
    "time_epoch": (("at", "width", "to"), ()),
    "alpha": (("at", "width", "to"), ("into",)),
    "side": (("at", "width", "to", "map"), ()),
    "const": (("to", "value"), ()),
    "match": (("at", "width", "value"), ("name",)),
    "skip": (("at", "width", "name"), ()),
}


@dataclass(frozen=True, slots=True)
class Target:
    """A column that fields may fill: its name, the kinds that suit it, and its width in bytes when it is text."""

    name: str
    kinds: tuple[str, ...]
    width: int = 0


@dataclass(frozen=True, slots=True)
class Field:
    """A checked field. `at` and `width` are bytes; width 0 is a constant.

    scale    1e-9 units per unit of the field, for prices and quantities; else 1
    into     first byte of the text column that an alpha field fills
    value    of a constant or of bytes that must match
    usual    channel number that is not worth writing down
    sides    byte value → ordinal of the side
    zone     of nanoseconds since midnight
    """

    at: int
    width: int
    kind: str
    to: str
    line: int
    scale: int = 1
    signed: bool = False
    into: int = 0
    value: int = 0
    usual: int = 0
    sides: tuple[tuple[int, int], ...] = ()
    zone: str = ""


def message_targets() -> dict[str, Target]:
    """Columns of market_data that a message may fill: the ones that may be unknown, `side` and `flags`."""
    targets = {"side": Target("side", ("side", "const")), "flags": Target("flags", ("uint", "const"))}
    for column in schemas.load("market_data").columns:
        if not column.nullable:
            continue
        if column.kind == "string":
            targets[column.name] = Target(column.name, ("alpha",), column.width)
        elif column.kind == "timestamp":
            targets[column.name] = Target(column.name, ("time_midnight", "time_epoch"))
        elif column.name.endswith("price_nanos"):
            targets[column.name] = Target(column.name, ("price",))
        elif column.name.endswith("quantity_nanos"):
            targets[column.name] = Target(column.name, ("quantity",))
        else:
            targets[column.name] = Target(column.name, ("uint", "int", "const"))
    return targets


def header_targets() -> dict[str, Target]:
    """Parts of a packet header."""
    numbers = ("channel", "first_seq", "count", "payload_length", "stream_offset", "protocol_id")
    targets = {name: Target(name, ("uint",)) for name in numbers}
    targets["session"] = Target("session", ("alpha", "uint"), schemas.load("feed_frames").by_name["session"].width)
    targets["ts_send_ns"] = Target("ts_send_ns", ("time_epoch",))
    return targets


def parse_field(node: Node, targets: Mapping[str, Target]) -> Field:
    """Read and check one field; raises LayoutError."""
    if node.mapping is None or "kind" not in node.mapping:
        node.fail("expected a field as {at: …, width: …, kind: …, to: …}")
    kind = node.mapping["kind"].text(tuple(KEYS))
    required, optional = KEYS[kind]
    keys = node.keys(("kind", *required), optional)
    at = keys["at"].integer(0, 65_535) if "at" in keys else 0
    width = keys["width"].integer(1, 65_535) if "width" in keys else 0
    target = _target(keys["to"], kind, targets) if "to" in keys else None
    _check_width(keys.get("width", node), kind, width, target)
    into = keys["into"].integer(0, 255) if "into" in keys else 0
    if kind == "alpha" and target is not None and into + width > target.width:
        keys["width"].fail(f"{into + width} bytes are wider than {target.name}, which holds {target.width}")
    decimals = keys["decimals"].integer(0, DECIMALS_MAX) if "decimals" in keys else 0
    return Field(
        at, width, kind, target.name if target else "", node.line,
        scale=10 ** (DECIMALS_MAX - decimals) if kind in ("price", "quantity") else 1,
        signed=kind in ("int", "time_epoch") or ("signed" in keys and keys["signed"].boolean()),
        into=into,
        value=_value(keys["value"], kind, width, target) if "value" in keys else 0,
        usual=keys["usual"].integer(0, 2**32 - 1) if "usual" in keys else 0,
        sides=_sides(keys["map"]) if "map" in keys else (),
        zone=_zone(keys["zone"]) if "zone" in keys else "",
    )  # fmt: skip


def check_cover(node: Node, size: int, spans: Sequence[tuple[int, int]]) -> None:
    """Check that (at, width) spans describe the bytes 0 … size − 1 once each; raises LayoutError."""
    end = 0
    for at, width in sorted(set(spans)):
        if at + width > size:
            node.fail(f"bytes {at} to {at + width - 1} lie beyond the size of {size}")
        if at < end:
            node.fail(f"bytes {at} to {end - 1} are described twice")
        if at > end:
            node.fail(f"bytes {end} to {at - 1} are not described; use kind skip for what no column takes")
        end = at + width
    if end < size:
        node.fail(f"bytes {end} to {size - 1} are not described; use kind skip for what no column takes")


def _target(node: Node, kind: str, targets: Mapping[str, Target]) -> Target:
    name = node.text()
    target = targets.get(name)
    if target is None:
        node.fail(f"unknown column {name}; known are {', '.join(sorted(targets))}")
    if kind not in target.kinds:
        node.fail(f"{name} takes {' or '.join(target.kinds)}, not {kind}")
    return target


def _check_width(node: Node, kind: str, width: int, target: Target | None) -> None:
    if kind in ("uint", "int", "price", "quantity", "time_epoch", "match") and width not in INTEGER_WIDTHS:
        node.fail(f"expected a width of 1, 2, 4 or 8 bytes for {kind}, found {width}")
    if kind == "time_midnight" and width not in MIDNIGHT_WIDTHS:
        node.fail(f"expected a width of 4, 6 or 8 bytes for {kind}, found {width}")
    if kind == "side" and width != 1:
        node.fail(f"expected a width of 1 byte for side, found {width}")
    if kind == "uint" and target is not None and target.name == "flags" and width > FLAGS_WIDTH_MAX:
        node.fail(f"expected at most {FLAGS_WIDTH_MAX} bytes for flags, found {width}")


def _value(node: Node, kind: str, width: int, target: Target | None) -> int:
    if kind == "match":
        return node.integer(0, 2 ** (8 * width) - 1)
    if target is not None and target.name == "side":
        return schemas.load("market_data").code("side", node.text(("none", "buy", "sell")))
    return node.integer(-(2**31), 2**31 - 1)


def _sides(node: Node) -> tuple[tuple[int, int], ...]:
    if not node.mapping:
        node.fail("expected a mapping as {B: buy, S: sell}")
    code = schemas.load("market_data").by_name["side"].code
    for letter, side in node.mapping.items():
        if len(letter) != 1 or not " " <= letter <= "~":
            side.fail(f"expected one printable letter, found {letter}")
    return tuple((ord(letter), code(side.text(("none", "buy", "sell")))) for letter, side in node.mapping.items())


def _zone(node: Node) -> str:
    name = node.text()
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        node.fail(f"unknown time zone {name}")
    return name
