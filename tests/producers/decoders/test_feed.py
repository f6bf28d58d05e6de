"""The feed decoder on packets written by hand: recognition, damage, names, values; each claim with its own truth."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from akbypass.config import Config
from akbypass.errors import ConfigError
from akbypass.producers.decoders.destinations import DESTINATIONS_MAX
from akbypass.producers.decoders.feed import FeedDecoder
from tests.producers.decoders.feed_support import (
    CONFIGURED,
    GROUP,
    NEW_YORK_2023_08_22_NS,
    OPEN_NS,
    OPEN_STAMP,
    PORT,
    SECOND_NS,
    add,
    batch,
    decode,
    delete,
    iex,
    itch,
    level,
    mold,
    plain,
)  # fmt: skip

# A DNS answer as it once arrived on a feed's port: id, flags 0x8180, one question and answer, "example.com"
DNS = bytes.fromhex("1a2b81800001000100000000") + b"\x07example\x03com\x00" + bytes.fromhex(
    "00010001c00c000100010000003c00045db8d822"
)  # fmt: skip


def reasons(rows: dict) -> list[str]:
    """Reasons of the rejected rows."""
    return [row["reason"] for row in plain(rows["rejected"])] if "rejected" in rows else []


# -- recognition -------------------------------------------------------------------------------------------------------


def test_moldudp64_is_recognised_by_structure() -> None:
    """A packet whose session, lengths, types and sizes agree is a feed, named by where it is sent to."""
    rows = decode([mold([add(), delete()], sequence=41)])
    frame = plain(rows["feed_frames"])[0]
    expected = {
        "feed": f"{GROUP}:{PORT}", "venue": GROUP, "line": "A", "session": "000010059B", "protocol": "itch-5.0/moldudp64",
        "kind": "data", "first_seq": 41, "count": 2,
    }  # fmt: skip
    assert {k: frame[k] for k in expected} == expected
    assert rows["market_data"]["sequence"].tolist() == [41, 42]
    assert rows["market_data"]["sub"].tolist() == [0, 1]


@pytest.mark.parametrize(
    "payload",
    [
        DNS,
        b"",
        b"\x00" * 20,
        mold([], sequence=9),  # a heartbeat alone is 20 bytes without a constant
        mold([add()])[:-1],
        mold([add()]) + b"\x00",
        mold([add()], count=2),
        mold([add() + b"\x00"]),
        mold([itch("z", b"12345678")]),
        mold([add()], session=b"\x80" * 10),
        mold([add()], session=b"AB\x00CDEFGHI"),
        mold([add()], sequence=2**63),
    ],
)
def test_what_does_not_agree_is_not_a_feed(payload: bytes) -> None:
    """A packet of an unknown destination that does not fit in every point gives no rows."""
    assert decode([payload]) == {}


def test_dns_answer_on_a_feed_port_is_rejected() -> None:
    """A DNS answer on a configured line is one rejected row; it makes no frame and so no gap."""
    rows = decode([mold([add()]), DNS, mold([delete()], sequence=2)], CONFIGURED)
    assert reasons(rows) == ["session_not_printable"]
    assert rows["feed_frames"]["first_seq"].tolist() == [1, 2]
    row = rows["rejected"].to_dicts()[0]
    assert row["stage"] == "decode"
    assert row["bytes"] == DNS.hex()
    assert row["capture_pos"] == 124


def test_printable_nonsense_on_a_feed_port_is_rejected() -> None:
    """Text whose length fields point behind the packet is one rejected row without a frame."""
    rows = decode([b"GET / HTTP/1.1\r\nHost: example\r\n\r\n" * 2], CONFIGURED)
    assert list(rows) == ["rejected"]
    assert len(rows["rejected"]) == 1


def test_recognised_destination_is_held_to_it() -> None:
    """Once a destination was recognised, a packet there that does not fit is rejected; elsewhere it is still nothing."""
    rows = decode([mold([add()]), DNS, DNS], targets=[(GROUP, PORT), (GROUP, PORT), (GROUP, PORT + 1)])
    assert reasons(rows) == ["session_not_printable"]


def test_heartbeat_of_a_known_destination() -> None:
    """MoldUDP64 heartbeats and ends of session are frames once the destination is known, by recognition or configuration."""
    packets = [mold([], 1), mold([add()], 1), mold([], 2), mold([], 2, count=0xFFFF)]
    recognised, configured = decode(packets), decode(packets, CONFIGURED)
    kinds = [r["kind"] for r in configured["feed_frames"].to_dicts()]
    assert kinds == ["heartbeat", "data", "heartbeat", "end_of_session"]
    assert [r["kind"] for r in recognised["feed_frames"].to_dicts()] == kinds[1:]
    assert configured["feed_frames"]["first_seq"].tolist() == [1, 1, 2, 2]
    assert configured["feed_frames"]["count"].tolist() == [0, 1, 0, 0]
    assert "rejected" not in configured


def test_configured_line_without_protocol_begins_with_a_heartbeat() -> None:
    """A configured line without a protocol takes a heartbeat for what it is and learns the protocol from the data."""
    config = Config.model_validate({"feeds": [{"name": "Q", "lines": {"A": f"{GROUP}:{PORT}"}}]})
    rows = decode([mold([], 1), iex([level()]), b"nonsense"], config)
    assert [r["kind"] for r in rows["feed_frames"].to_dicts()] == ["heartbeat", "data"]
    assert rows["feed_frames"]["protocol"].tolist()[1] == b"deep-1.0/iex-tp"
    assert reasons(rows) == ["iex_tp_header_short"]


def test_wiped_session_is_recognised() -> None:
    """A session of NUL bytes, as some recordings have it, is an empty session."""
    assert decode([mold([add()], session=bytes(10))])["feed_frames"]["session"].tolist() == [b""]


def test_too_many_destinations_are_told() -> None:
    """Beyond the bound a recognised feed is rejected with a reason instead of growing memory."""
    decoder = FeedDecoder(Config())
    targets = [(f"239.1.{i // 256}.{i % 256}", 5_000) for i in range(DESTINATIONS_MAX + 1)]
    rows = decoder.decode(batch([mold([delete()])] * len(targets), targets))
    assert len(rows["feed_frames"]) == DESTINATIONS_MAX
    assert reasons(rows) == ["feeds_max"]
    assert decoder.counts["rejected_feeds_max"] == 1


def test_tcp_and_fragments() -> None:
    """TCP is not looked at; an IP fragment of a configured line is told."""
    assert decode([mold([add()])], protocol=6) == {}
    assert reasons(decode([mold([add()])], CONFIGURED, fragment=True)) == ["ip_fragment"]


# -- damage ------------------------------------------------------------------------------------------------------------


def test_message_shorter_than_its_type() -> None:
    """A message shorter than its type is one rejected row with its bytes; the others keep their sequence numbers."""
    short = add()[:-1]
    rows = decode([mold([add(1), short, delete(3)], sequence=10)], CONFIGURED)
    assert rows["market_data"]["sequence"].tolist() == [10, 12]
    assert rows["market_data"]["sub"].tolist() == [0, 2]
    assert rows["feed_frames"]["count"].tolist() == [3]
    row = rows["rejected"].to_dicts()[0]
    assert (row["reason"], row["topic"], row["bytes"]) == ("message_shorter_than_type", "market_data", short.hex())
    at = 20 + 2 + 36 + 2
    assert (
        row["detail"]
        == f"expected message length 36 for 'A', found 35; at byte {at} of the UDP payload (message 1 of the packet)"
    )


def test_only_message_shorter_than_its_type_keeps_the_frame() -> None:
    """A packet whose only message is too short still says which sequence number it took."""
    rows = decode([mold([add()[:-1]], sequence=7)], CONFIGURED)
    assert rows["feed_frames"]["first_seq"].tolist() == [7]
    assert reasons(rows) == ["message_shorter_than_type"]


@pytest.mark.parametrize(
    ("payload", "reason", "messages", "frames"),
    [
        (mold([add()])[:19], "moldudp64_header_short", 0, 0),
        (mold([add(), delete()])[:-1], "block_beyond_payload", 1, 1),
        (mold([add()], count=3), "block_beyond_payload", 1, 1),
        (mold([add()])[:-1], "block_beyond_payload", 0, 0),
        (mold([add()]) + b"xyz", "bytes_after_last_block", 1, 1),
        (mold([], 5) + b"xyz", "bytes_after_last_block", 0, 1),
        (mold([add(), b"", delete()]), "message_without_type", 2, 1),
        (mold([add() + b"\x00", delete()]), "message_longer_than_type", 1, 1),
        (mold([add()], sequence=2**63), "sequence_out_of_range", 0, 0),
    ],
)
def test_damage_on_a_configured_line(payload: bytes, reason: str, messages: int, frames: int) -> None:
    """Each damage has its reason; what is readable beside it is kept."""
    rows = decode([payload], CONFIGURED)
    assert reasons(rows) == [reason]
    assert len(rows.get("market_data", [])) == messages
    assert len(rows.get("feed_frames", [])) == frames


def test_frame_cut_by_the_snap_length() -> None:
    """Of a frame cut by the capture the whole messages are decoded and the rest is told as frame_truncated."""
    whole = mold([add(1), add(2), add(3)])
    rows = decode([whole[:70]], CONFIGURED, wire=[len(whole)])
    assert rows["market_data"]["order_ref"].tolist() == [1]
    assert rows["feed_frames"]["count"].tolist() == [3]
    assert reasons(rows) == ["frame_truncated"]
    assert "expected 3 messages, found 1 whole" in rows["rejected"].to_dicts()[0]["detail"]
    assert reasons(decode([whole[:12]], CONFIGURED, wire=[len(whole)])) == ["frame_truncated"]
    assert len(decode([whole[:70]], wire=[len(whole)])["feed_frames"]) == 1  # recognised by its first message


def test_unknown_message_type_is_kept() -> None:
    """A message type that the layout does not know is a row of kind other with its type; it is not rejected."""
    rows = decode([mold([add(), itch("z", b"anything"), b"\x07ab", delete()])], CONFIGURED)
    assert [r["kind"] for r in rows["market_data"].to_dicts()] == ["add", "other", "other", "delete"]
    assert rows["market_data"]["message_type"].tolist() == [b"A", b"z", b"?", b"D"]
    assert "rejected" not in rows


def test_many_wrong_messages_are_summed_up() -> None:
    """At most 16 wrong messages of a packet are listed; one more row says how many there were."""
    rows = decode([mold([add()] + [b""] * 500)], CONFIGURED)
    assert len(rows["market_data"]) == 1
    assert sorted(set(reasons(rows))) == ["further_messages", "message_without_type"]
    assert len(rows["rejected"]) == 17
    assert any("found 500" in r["detail"] for r in rows["rejected"].to_dicts())
    assert rows["rejected"]["sub"].tolist() == list(range(17))


def test_value_that_does_not_fit() -> None:
    """A quantity beyond int64 in 1e-9 units is a rejected row, never a wrapped number; the rest is kept."""
    cross = itch("Q", struct.pack(">Q8sIQc", 2**40, b"MSFT    ", 10_000, 9, b"O"))
    rows = decode([mold([add(), cross, delete()])], CONFIGURED)
    assert [r["kind"] for r in rows["market_data"].to_dicts()] == ["add", "delete"]
    assert reasons(rows) == ["value_out_of_range"]
    assert "expected a value of 'Q' that fits quantity_nanos" in rows["rejected"].to_dicts()[0]["detail"]


@pytest.mark.parametrize(("number", "fits"), [(2**63 - 1, True), (2**63, False)])
def test_largest_reference(number: int, fits: bool) -> None:
    """The largest order reference that a column holds is kept, the next one is rejected."""
    rows = decode([mold([delete(number)])], CONFIGURED)
    assert (
        (rows["market_data"]["order_ref"].tolist() == [number]) if fits else (reasons(rows) == ["value_out_of_range"])
    )


# -- names, times, values ----------------------------------------------------------------------------------------------


def test_configured_lines_are_one_feed() -> None:
    """The lines of a configured feed carry its name, its venue and their own line."""
    rows = decode([mold([add()]), mold([add()])], CONFIGURED, targets=[(GROUP, PORT), ("233.54.12.129", PORT)])
    named = [(r["feed"], r["venue"], r["line"]) for r in rows["market_data"].to_dicts()]
    assert named == [("XNAS", "XNAS", "A"), ("XNAS", "XNAS", "B")]
    hashes = rows["feed_frames"]["payload_hash"]
    assert hashes[0] == hashes[1]


def test_long_addresses_are_cut_but_stay_apart() -> None:
    """Two long IPv6 destinations that differ at their end have different feeds and venues of the columns' width."""
    one, two = "2001:db8:1234:5678:9abc:def0:1234:5678", "2001:db8:1234:5678:9abc:def0:1234:5679"
    rows = decode([mold([add()])] * 2, targets=[(one, PORT), (two, PORT)])["feed_frames"]
    assert len({*rows["feed"].tolist()}) == len({*rows["venue"].tolist()}) == 2
    short = decode([mold([add()])], targets=[("ff15::1", PORT)])["feed_frames"].to_dicts()[0]
    assert (short["feed"], short["venue"]) == (f"[ff15::1]:{PORT}", "ff15::1")


@pytest.mark.parametrize(
    "feeds",
    [
        [{"name": "X", "protocol": "pigeon/rfc1149", "lines": {"A": "239.0.0.1:5000"}}],
        [{"name": "X", "lines": {"A": "239.0.0.1:5000"}}, {"name": "Y", "lines": {"A": "239.0.0.1:5000"}}],
    ],
)
def test_wrong_feeds_are_configuration_errors(feeds: list[dict[str, object]]) -> None:
    """An unknown protocol, and one destination of two lines, are errors at start."""
    with pytest.raises(ConfigError, match=r"pigeon|239\.0\.0\.1"):
        FeedDecoder(Config.model_validate({"feeds": feeds}))


@pytest.mark.parametrize(
    ("captured", "stamp", "expected"),
    [
        (NEW_YORK_2023_08_22_NS + 5, 86_399_999_999_990, NEW_YORK_2023_08_22_NS - 10),  # sent before, captured after
        (NEW_YORK_2023_08_22_NS - 5, 7, NEW_YORK_2023_08_22_NS + 7),  # the tap's clock is behind
        (
            NEW_YORK_2023_08_22_NS + 20 * 3_600 * SECOND_NS,
            72_000 * SECOND_NS - 9,
            NEW_YORK_2023_08_22_NS + 72_000 * SECOND_NS - 9,
        ),
        (1_678_597_200 * SECOND_NS, 0, 1_678_597_200 * SECOND_NS),  # 2023-03-12, the day that daylight saving begins
        (1_678_680_000 * SECOND_NS, 0, 1_678_680_000 * SECOND_NS),  # the day after, an hour earlier in UTC
    ],
)
def test_day_of_a_stamp_is_the_nearest(captured: int, stamp: int, expected: int) -> None:
    """A stamp of a day belongs to the day in New York that puts it nearest to the capture time."""
    rows = decode([mold([itch("D", struct.pack(">Q", 1), stamp=stamp)])], ts_ns=captured)
    assert rows["market_data"]["ts_wire_ns"].tolist() == [expected]


def test_days_of_one_batch_differ() -> None:
    """Packets of one batch that lie on different days each take their own day."""
    days = [NEW_YORK_2023_08_22_NS + d * 86_400 * SECOND_NS + OPEN_STAMP for d in (0, 1, 30)]
    rows = decode([mold([delete()])] * 3, ts_ns=days)
    assert rows["market_data"]["ts_wire_ns"].tolist() == days


def test_impossible_stamp_is_rejected() -> None:
    """A stamp of more than 25 hours is not a time of day."""
    late = itch("D", struct.pack(">Q", 1), stamp=26 * 3_600 * SECOND_NS)
    assert reasons(decode([mold([late])], CONFIGURED)) == ["value_out_of_range"]


@pytest.mark.parametrize("ts_ns", [-(2**63) + 1, 2**63 - 1, 0, -1])
def test_capture_times_at_the_ends_of_time(ts_ns: int) -> None:
    """Any capture time gives rows, even where calendars end."""
    assert len(decode([mold([delete()])], ts_ns=ts_ns)["market_data"]) == 1


def test_text_is_printable_and_stripped() -> None:
    """Padding is stripped on the right, every other unprintable byte becomes a question mark."""
    rows = decode([mold([add(symbol=b"A\x00B\xff C  ")])])
    assert rows["market_data"]["symbol"].tolist() == [b"A?B? C"]


def test_payload_hash_is_fnv1a_of_the_message_bytes() -> None:
    """payload_hash is 64-bit FNV-1a over what follows the header, as a signed number."""
    packet = mold([add(), delete()])
    h = 0xCBF29CE484222325
    for byte in packet[20:]:
        h = (h ^ byte) * 0x100000001B3 % 2**64
    rows = decode([packet, mold([], 3)])["feed_frames"]
    assert rows["payload_hash"].tolist() == [h - 2**64 * (h >= 2**63), 0xCBF29CE484222325 - 2**64]


def test_iex_frame() -> None:
    """An IEX-TP segment gives offset, send time and session; another channel than 1 is a session of its own."""
    rows = decode([iex([level()], sequence=5, offset=777), iex([level()], channel=2, session=0xABC)])
    frame = plain(rows["feed_frames"])[0]
    assert (frame["stream_offset"], frame["ts_send_ns"], frame["session"]) == (777, OPEN_NS, "1286602752")
    assert rows["feed_frames"]["session"].tolist()[1] == b"0000000200000abc"
    first = plain(rows["market_data"])[0]
    expected = {
        "kind": "level", "side": "buy", "symbol": "UNH", "price_nanos": 344_140_000_000, "quantity_nanos": 82 * 10**9,
        "flags": 1, "sequence": 5, "ts_wire_ns": OPEN_NS - 5_000,
    }  # fmt: skip
    assert {k: first[k] for k in expected} == expected


@pytest.mark.parametrize(
    ("protocol", "name"), [(0x8002, b"tops-1.5/iex-tp"), (0x8003, b"tops-1.6/iex-tp"), (0x8004, b"deep-1.0/iex-tp")]
)
def test_iex_protocol_number_chooses_the_layout(protocol: int, name: bytes) -> None:
    """The protocol number of the segment tells TOPS 1.5, TOPS 1.6 and DEEP 1.0 apart."""
    system = b"SO" + struct.pack("<q", OPEN_NS)
    assert decode([iex([system], protocol=protocol)])["feed_frames"]["protocol"].tolist() == [name]


def test_iex_messages_may_grow() -> None:
    """IEX may append fields to a message: the longer message is decoded by its known part."""
    rows = decode([iex([level() + b"new field"])])
    assert rows["market_data"]["price_nanos"].tolist() == [344_140_000_000]
    assert "rejected" not in rows


def test_iex_negative_price() -> None:
    """IEX prices are signed."""
    assert decode([iex([level(price=-1)])])["market_data"]["price_nanos"].tolist() == [-100_000]


def test_iex_header_that_contradicts_itself() -> None:
    """A wrong payload length on a known feed is told; the messages, whose own lengths agree, are kept."""
    good, bad = iex([level()]), bytearray(iex([level()], sequence=2))
    bad[12] += 1
    rows = decode([good, bytes(bad)])
    assert len(rows["market_data"]) == 2
    assert reasons(rows) == ["payload_length_differs"]


# Every ITCH 5.0 message, written field by field after the specification: letter → (body, kind, some of its values)
ALL_ITCH = {
    "S": (b"O", "system", {"condition": "O"}),
    "R": (struct.pack(">8sccIcc2scccccIc", b"AAPL    ", b"Q", b"N", 100, b"N", b"C", b"Z ", b"P", b"N",
                      b"N", b"1", b"N", 0, b"N"), "directory", {"symbol": "AAPL", "condition": "QN P", "quantity_nanos": 100 * 10**9}),
    "H": (b"AAPL    T RSON", "status", {"symbol": "AAPL", "condition": "T RSON"}),
    "Y": (b"AAPL    0", "status", {"condition": "0"}),
    "L": (b"ABCDAAPL    YNA", "status", {"attribution": "ABCD", "symbol": "AAPL", "condition": "YNA"}),
    "V": (struct.pack(">QQQ", 350_012_345_678, 2, 3), "system", {"price_nanos": 3_500_123_456_780}),
    "W": (b"1", "system", {"condition": "1"}),
    "K": (struct.pack(">8sIcI", b"AAPL    ", 36_000, b"A", 100_000), "status", {"price_nanos": 10 * 10**9, "condition": "A"}),
    "J": (struct.pack(">8sIIII", b"AAPL    ", 100_000, 2, 3, 4), "auction", {"price_nanos": 10 * 10**9}),
    "h": (b"AAPL    QH", "status", {"condition": "QH"}),
    "A": (struct.pack(">QcI8sI", 1, b"S", 2, b"AAPL    ", 3), "add", {"side": "sell", "price_nanos": 300_000}),
    "F": (struct.pack(">QcI8sI4s", 1, b"B", 2, b"AAPL    ", 3, b"VIRT"), "add", {"attribution": "VIRT", "order_ref": 1}),
    "E": (struct.pack(">QIQ", 1, 2, 3), "execute", {"order_ref": 1, "quantity_nanos": 2 * 10**9, "match_number": 3}),
    "C": (struct.pack(">QIQcI", 1, 2, 3, b"N", 4), "execute_price", {"condition": "N", "price_nanos": 400_000}),
    "X": (struct.pack(">QI", 1, 2), "cancel", {"quantity_nanos": 2 * 10**9}),
    "D": (struct.pack(">Q", 1), "delete", {"order_ref": 1}),
    "U": (struct.pack(">QQII", 1, 2, 3, 4), "replace", {"new_order_ref": 2, "quantity_nanos": 3 * 10**9, "price_nanos": 400_000}),
    "P": (struct.pack(">QcI8sIQ", 0, b"B", 2, b"AAPL    ", 3, 4), "trade", {"match_number": 4, "symbol": "AAPL"}),
    "Q": (struct.pack(">Q8sIQc", 2, b"AAPL    ", 3, 4, b"C"), "trade_cross", {"quantity_nanos": 2 * 10**9, "condition": "C"}),
    "B": (struct.pack(">Q", 4), "trade_break", {"match_number": 4}),
    "I": (struct.pack(">QQc8sIIIcc", 1, 2, b"B", b"AAPL    ", 3, 4, 5, b"C", b"L"), "imbalance",
          {"side": "buy", "quantity_nanos": 2 * 10**9, "price_nanos": 500_000, "condition": "CLB"}),
    "N": (b"AAPL    S", "retail", {"side": "sell", "condition": "S"}),
    "O": (struct.pack(">8scIIIQII", b"AAPL    ", b"Y", 1, 2, 3, 4, 5, 6), "auction", {"condition": "Y", "price_nanos": 300_000}),
}  # fmt: skip


@pytest.mark.parametrize("letter", ALL_ITCH)
def test_every_itch_message(letter: str) -> None:
    """Every message of ITCH 5.0 has its kind and its values, with locate and stamp from the common head."""
    body, kind, expected = ALL_ITCH[letter]
    row = plain(decode([mold([itch(letter, body, locate=77)])])["market_data"])[0]
    assert {k: row.get(k) for k in expected} == expected
    assert (row["kind"], row["message_type"], row["instrument_id"], row["ts_wire_ns"]) == (kind, letter, 77, OPEN_NS)


def test_counts_and_finish() -> None:
    """Counters hold what was seen; at the end of a capture nothing is left over."""
    decoder = FeedDecoder(CONFIGURED)
    decoder.decode(batch([mold([add(), delete()]), DNS, mold([], 3)]))
    expected = {"udp_packets": 3, "frames": 2, "messages": 2, "rejected": 1, "rejected_session_not_printable": 1}
    assert dict(decoder.counts) == expected
    assert decoder.finish(0, 0, 0) == {}
    assert np.array_equal(decoder.destinations.used, [2])
