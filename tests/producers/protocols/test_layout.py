"""Protocol files: the ones that ship are read, wrong ones are refused with file, line and reason, new ones just work."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from akbypass.config import Config
from akbypass.errors import LayoutError
from akbypass.producers import protocols
from akbypass.producers.decoders.feed import FeedDecoder
from tests.producers.decoders.feed_support import OPEN_NS, batch, decode_file, plain
from tests.support import ROOT, data

FRAMING = """\
framing: toy
specification: none
byte_order: big
header: 8
block_length_width: 1
heartbeat_recognises: true
fields:
  - {at: 0, width: 2, kind: match, value: 0x4D44, name: magic}
  - {at: 2, width: 1, kind: uint, to: session}
  - {at: 3, width: 4, kind: uint, to: first_seq}
  - {at: 7, width: 1, kind: uint, to: count}
"""
LAYOUT = """\
layout: toy-1.0
over: toy
specification: none
byte_order: big
type: {at: 0, width: 2}
length: exact
common:
  - {at: 2, width: 4, kind: time_midnight, zone: UTC, to: ts_wire_ns}
messages:
  - type: 105
    name: add
    kind: add
    size: 26
    fields:
      - {at: 6, width: 6, kind: alpha, to: symbol}
      - {at: 12, width: 4, kind: price, decimals: 2, to: price_nanos}
      - {at: 16, width: 8, kind: quantity, to: quantity_nanos}
      - {at: 24, width: 1, kind: side, map: {"1": buy, "2": sell}, to: side}
      - {at: 25, width: 1, kind: skip, name: spare}
"""
MESSAGES = LAYOUT.index("messages:")


def write(folder: Path, framing: str = FRAMING, layout: str = LAYOUT) -> Path:
    """Write the two files of the toy protocol."""
    (folder / "toy.yaml").write_text(framing)
    (folder / "toy-1.0.yaml").write_text(layout)
    return folder


def test_the_files_that_ship() -> None:
    """All files of the folder are right, and describe the message types of their specifications."""
    found = protocols.builtin()
    assert {f.name for f in found.framings} >= {"moldudp64", "iex-tp"}
    letters = {layout.protocol: {m.type_text for m in layout.messages} for layout in found.layouts}
    assert (
        letters.items()
        >= {
            "itch-5.0/moldudp64": set("SRHYLVWKJhAFECXDUPQBINO"),
            "deep-1.0/iex-tp": set("SDHIOPE85TXBA"),
            "tops-1.5/iex-tp": set("SDHIOPQTXBA"),
            "tops-1.6/iex-tp": set("SDHIOPQTXBA"),
        }.items()
    )


def test_a_protocol_is_added_by_writing_files(tmp_path: Path) -> None:
    """Two files make a protocol with two-byte numeric types, one-byte lengths and its own header decode."""
    decoder = FeedDecoder(Config(), protocols.load(write(tmp_path)))
    stamp = 1_000_000
    known = struct.pack(">HI6sIQcc", 105, stamp, b"ABC   ", 1_234, 5, b"2", b" ")
    unknown = struct.pack(">H", 9_999)
    blocks = b"".join(bytes([len(m)]) + m for m in (known,))
    first = struct.pack(">HBIB", 0x4D44, 7, 41, 1) + blocks
    second = struct.pack(">HBIB", 0x4D44, 7, 42, 2) + blocks + bytes([len(unknown)]) + unknown
    midnight_ns = OPEN_NS // 86_400_000_000_000 * 86_400_000_000_000
    rows = decoder.decode(batch([first, second], ts_ns=midnight_ns + 2 * stamp))
    expected = {
        "kind": "add", "message_type": "105", "symbol": "ABC", "price_nanos": 12_340_000_000, "quantity_nanos": 5 * 10**9,
        "side": "sell", "session": "7", "sequence": 41, "ts_wire_ns": midnight_ns + stamp,
    }  # fmt: skip
    row = plain(rows["market_data"])[0]
    assert {k: row[k] for k in expected} == expected
    assert rows["market_data"]["message_type"].tolist() == [b"105", b"105", b"9999"]
    assert rows["feed_frames"]["protocol"].tolist() == [b"toy-1.0/toy"] * 2


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("to: symbol", "to: ticker", 15, "unknown column ticker"),
        ("to: symbol", "to: venue", 15, "unknown column venue"),
        ("{at: 6, width: 6", "{at: 5, width: 7", 10, "bytes 5 to 5 are described twice"),
        ("{at: 6, width: 6", "{at: 7, width: 5", 10, "bytes 6 to 6 are not described"),
        ("size: 26", "size: 25", 10, "bytes 25 to 25 lie beyond the size of 25"),
        ("size: 26", "size: 27", 10, "bytes 26 to 26 are not described"),
        ("at: 12, width: 4, kind: price", "at: 12, width: 3, kind: price", 16, "expected a width of 1, 2, 4 or 8 bytes for price, found 3"),
        ("at: 2, width: 4, kind: time_midnight", "at: 2, width: 3, kind: time_midnight", 8, "expected a width of 4, 6 or 8"),
        ("at: 6, width: 6, kind: alpha, to: symbol", "at: 6, width: 6, kind: alpha, into: 11, to: symbol", 15, "17 bytes are wider than symbol"),
        ("kind: alpha, to: symbol", "kind: uint, to: symbol", 15, "symbol takes alpha, not uint"),
        ("kind: price, decimals: 2", "kind: uint", 16, "price_nanos takes price, not uint"),
        ("decimals: 2", "decimals: 10", 16, "expected a whole number from 0 to 9, found 10"),
        ("to: quantity_nanos", "to: price_nanos", 17, "price_nanos takes price, not quantity"),
        ("zone: UTC", "zone: Mars/Olympus", 8, "unknown time zone Mars/Olympus"),
        ("kind: add\n", "kind: plus\n", 12, "expected one of other, add,"),
        ("type: 105", "type: ABC", 10, "expected 2 printable letters or a number, found ABC"),
        ("type: 105", "type: 70000", 10, "expected a whole number from 0 to 9999"),
        ('"1": buy', '"1": long', 18, "expected one of none, buy, sell, found long"),
        ('"1": buy', '"11": buy', 18, "expected one printable letter, found 11"),
        ("kind: skip", "kind: omit", 19, "expected one of uint, int, price"),
        ("name: add\n", "name: add\n    sise: 3\n", 12, "unknown key sise"),
        ("    name: add\n", "", 10, "missing key name"),
        ("length: exact", "length: about", 6, "expected one of exact, minimum, found about"),
        ("over: toy", "over: soup", 1, "unknown framing soup; known are toy"),
        ("over: toy", "over: toy\nprotocol_id: 3", 1, "toy carries no protocol_id"),
        ("layout: toy-1.0", "layout: a-name-that-is-far-too-long", 1, "is longer than 24 letters"),
        ("byte_order: big\ntype", "byte_order: big\nbyte_order: big\ntype", 5, "key byte_order is written twice"),
        ("messages:", "messages: [", 19, "not YAML"),
        ("layout: toy-1.0", "lay: toy-1.0", 1, "begins with framing or layout"),
    ],
)  # fmt: skip
def test_wrong_layouts(tmp_path: Path, old: str, new: str, line: int, reason: str) -> None:
    """A wrong layout is refused with its file, its line and the reason."""
    assert old in LAYOUT
    with pytest.raises(LayoutError) as caught:
        protocols.load(write(tmp_path, layout=LAYOUT.replace(old, new, 1)))
    assert reason in str(caught.value)
    assert str(caught.value).startswith("toy-1.0.yaml:")
    if "not YAML" not in reason:
        assert str(caught.value).startswith(f"toy-1.0.yaml:{line}:")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("header: 8", "header: 9", "toy.yaml:8: bytes 8 to 8 are not described"),
        ("to: count", "to: stream_offset", "toy.yaml:8: a framing needs a field for count"),
        ("value: 0x4D44", "value: 0x14D44", "toy.yaml:8: expected a whole number from 0 to 65535, found 85316"),
        ("block_length_width: 1", "block_length_width: 3", "toy.yaml:5: expected a width of 1, 2 or 4 bytes, found 3"),
        ("heartbeat_recognises: true", "heartbeat_recognises: 1", "toy.yaml:6: expected true or false, found 1"),
    ],
)
def test_wrong_framings(tmp_path: Path, old: str, new: str, reason: str) -> None:
    """A wrong framing is refused with its file, its line and the reason."""
    with pytest.raises(LayoutError) as caught:
        protocols.load(write(tmp_path, framing=FRAMING.replace(old, new, 1)))
    assert reason in str(caught.value)


def test_a_message_type_twice(tmp_path: Path) -> None:
    """A message type that is described twice is refused."""
    twice = LAYOUT + LAYOUT[MESSAGES + len("messages:\n") :]
    with pytest.raises(LayoutError, match=r"toy-1\.0\.yaml:20: message type 105 is described twice"):
        protocols.load(write(tmp_path, layout=twice))


@pytest.mark.parametrize("text", ["", "\x00", "- 1", "&a [*a]", "framing: [", "layout: {a: &b {c: *b}}"])
def test_files_that_are_no_protocol(tmp_path: Path, text: str) -> None:
    """Whatever a file holds, what it raises is a LayoutError."""
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(LayoutError, match=r"x\.yaml:1: "):
        protocols.load(tmp_path)


def test_the_guide_is_true(tmp_path: Path) -> None:
    """The files that the guide shows decode the recorded DEEP+ message that it names."""
    guide = (ROOT / "docs/how-to/add-a-protocol.md").read_text()
    shown = [block.split("```")[0] for block in guide.split("```yaml\n")[1:]]
    (tmp_path / "deep-plus-1.0.yaml").write_text(shown[0])
    for name in ("iex-tp.yaml", "deep-1.0.yaml"):
        (tmp_path / name).write_text((ROOT / "producers/protocols" / name).read_text())
    path = data("omi-singles/Iex/DeepPlus.IexTp.1.0.2/a_AddOrder.pcap")
    row = plain(decode_file(path, protocols=protocols.load(tmp_path))["market_data"])[0]
    expected = {
        "kind": "add", "symbol": "IBKR", "side": "sell", "order_ref": 0x6300000000000A, "quantity_nanos": 100 * 10**9,
        "price_nanos": 0x14D408 * 10**5, "sequence": 0xB82E,
    }  # fmt: skip
    assert {k: row.get(k) for k in expected} == expected
