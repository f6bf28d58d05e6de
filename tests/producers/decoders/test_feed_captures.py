"""Recorded market data against facts that others stated: data page, file names, hand-read bytes, tshark, a plain loop."""

from __future__ import annotations

import gzip
import shutil
import struct
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from akbypass.rows import Rows
from tests.producers.decoders.feed_support import NEW_YORK_2023_08_22_NS, SECOND_NS, decode_file, plain
from tests.support import data

NEW_YORK_2018_02_27_NS = 1_519_707_600 * SECOND_NS  # midnight in New York, 05:00 UTC
NASDAQ = "omi-singles/Nasdaq/Nasdaq.Equities.TotalView.Itch.v5.0"
BX = "omi-singles/Nasdaq/Bx.Equities.TotalView.Itch.v5.0"
PSX = "omi-singles/Nasdaq/Psx.Equities.TotalView.Itch.v5.0.20230822"


def whole_captures_have_no_gap(frames: Rows) -> bool:
    """Tell whether each frame begins where the one before ended."""
    following = frames["first_seq"][:-1] + frames["count"][:-1]
    return bool((frames["first_seq"][1:] == following).all())


def types_by_hand(path: Path) -> Counter[str]:
    """Count message types with a plain loop over an Ethernet, IPv4, UDP, IEX-TP capture; no code of ours."""
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    found: Counter[str] = Counter()
    at = 24
    while at + 16 <= len(raw):
        captured = struct.unpack_from("<I", raw, at + 8)[0]
        segment = raw[at + 16 + 42 : at + 16 + captured]
        place = 40
        for _ in range(struct.unpack_from("<H", segment, 14)[0]):
            found[chr(segment[place + 2])] += 1
            place += 2 + struct.unpack_from("<H", segment, place)[0]
        at += 16 + captured
    return found


def test_deep_capture() -> None:
    """The DEEP capture has 5,000 packets and 48,325 messages without a gap, each type as often as a plain loop counts."""
    path = data("marketdata/sai_test.pcap.gz")
    rows = decode_file(path)
    assert len(rows["feed_frames"]) == 5_000
    assert len(rows["market_data"]) == 48_325
    assert len(rows["rejected"]) == 0
    assert whole_captures_have_no_gap(rows["feed_frames"])
    assert set(rows["feed_frames"]["protocol"].tolist()) == {b"deep-1.0/iex-tp"}
    assert Counter(t.decode() for t in rows["market_data"]["message_type"].tolist()) == types_by_hand(path)


def test_tops_capture() -> None:
    """The TOPS capture has 13,022 packets and 57,674 messages without a gap: 27,217 quotes, 6,390 trades."""
    path = data("marketdata/TOPS16.pcapng")
    rows = decode_file(path)
    kinds = Counter(row["kind"] for row in rows["market_data"].to_dicts())
    assert len(rows["feed_frames"]) == 13_022
    assert len(rows["market_data"]) == 57_674
    assert (kinds["quote"], kinds["trade"]) == (27_217, 6_390)
    assert len(rows["rejected"]) == 0
    assert whole_captures_have_no_gap(rows["feed_frames"])
    assert set(rows["feed_frames"]["protocol"].tolist()) == {b"tops-1.6/iex-tp"}
    assert Counter(t.decode() for t in rows["market_data"]["message_type"].tolist()) == types_by_hand(path)


@pytest.mark.parametrize("name", ["marketdata/sai_test.pcap.gz", "marketdata/TOPS16.pcapng"])
def test_rows_are_in_order_and_offsets_continue(name: str) -> None:
    """Rows come sorted by order key; IEX's second continuity check, the stream offset, agrees with the lengths."""
    rows = decode_file(data(name))
    for topic in ("feed_frames", "market_data"):
        keys = list(
            zip(*(rows[topic][k].tolist() for k in ("run_ns", "capture_id", "capture_pos", "sub")), strict=True)
        )
        assert keys == sorted(set(keys))
    frames = rows["feed_frames"]
    assert (frames["stream_offset"][1:] == frames["stream_offset"][:-1] + frames["payload_length"][:-1] - 40).all()
    sequence = rows["market_data"]["sequence"]
    assert (np.diff(sequence) == 1).all()


# Expectations read by hand from hex dumps of the first packet: file → (first row, its stamp as hex digits of the day)
ITCH: list[tuple[str, dict[str, object], int]] = [
    (f"{BX}.20230822/AddOrderMpidAttributionMessage.pcap",
     {"kind": "add", "message_type": "F", "instrument_id": 0x029E, "order_ref": 0x17AE5D, "side": "sell",
      "quantity_nanos": 100 * 10**9, "symbol": "ARGT", "price_nanos": 47_910_000_000, "attribution": "VIRT"}, 0x1F1ACF0BC028),
    (f"{NASDAQ}/AddOrderNoMpidAttributionMessage.pcap",
     {"kind": "add", "message_type": "A", "instrument_id": 0x1598, "order_ref": 0x166B53E, "side": "buy", "session": "000010059B",
      "sequence": 0xE12F59, "quantity_nanos": 0x640 * 10**9, "symbol": "IVOO", "price_nanos": 0xD55AC * 10**5}, 0x1F1ACED85306),
    (f"{BX}.20230822/OrderCancelMessage.pcap",
     {"kind": "cancel", "message_type": "X", "order_ref": 0x1659E1, "quantity_nanos": 1_000 * 10**9}, 0x1F1ACF4B2153),
    (f"{BX}.20230822/OrderDeleteMessage.pcap", {"kind": "delete", "message_type": "D", "order_ref": 0x2C493A}, 0x1F1ACED2AED3),
    (f"{BX}.20230822/OrderExecutedMessage.pcap",
     {"kind": "execute", "message_type": "E", "order_ref": 0x2E0ACB, "quantity_nanos": 10 * 10**9, "match_number": 0x6BEC},
     0x1F1ACEEB8633),
    (f"{BX}/OrderReplaceMessage.pcap",
     {"kind": "replace", "message_type": "U", "order_ref": 0x2782EE, "new_order_ref": 0x3608FE, "session": "000010059D",
      "sequence": 0x18BEF2, "quantity_nanos": 100 * 10**9, "price_nanos": 54_880_000_000}, 0x1F1ACED4D5E3),
    (f"{BX}.20230822/RegShoShortSalePriceTestRestrictedIndicatorMessage.pcap",
     {"kind": "status", "message_type": "Y", "symbol": "SOPA", "condition": "1"}, 0x1F1AD5CF5CD7),
    (f"{BX}.20230822/RetailInterestMessage.pcap",
     {"kind": "retail", "message_type": "N", "symbol": "BIZD", "side": "none", "condition": "N"}, 0x1F1ACECEFF2F),
    (f"{NASDAQ}.20230822/LULDAuctionCollar.pcap",
     {"kind": "auction", "message_type": "J", "symbol": "ZXZZT", "price_nanos": 13_340_000_000}, 0x1F1E703B4F95),
    (f"{NASDAQ}.20230822/MarketParticipantPosition.pcap",
     {"kind": "status", "message_type": "L", "attribution": "MAXM", "symbol": "FDLS", "condition": "YNA"}, 0x1F208142F846),
    (f"{NASDAQ}/NetOrderImbalanceIndicatorMessage.pcap",
     {"kind": "imbalance", "message_type": "I", "symbol": "MDC", "quantity_nanos": 0, "side": "none",
      "price_nanos": 46_440_000_000, "condition": "OLN"}, 0x1F1ACEDE0AB2),
    (f"{NASDAQ}.20230822/StockTradingAction.pcap",
     {"kind": "status", "message_type": "H", "symbol": "ZXZZT", "condition": "P LUDP"}, 0x1F1E7036E465),
    (f"{NASDAQ}.20230822/SystemEvent.pcap", {"kind": "system", "message_type": "S", "condition": "Q"}, 0x1F1ACEDB02F0),
    (f"{PSX}/OrderExecutedWithPriceMessage.pcap",
     {"kind": "execute_price", "message_type": "C", "order_ref": 0xE61FF, "quantity_nanos": 100 * 10**9,
      "match_number": 0x688D, "condition": "Y", "price_nanos": 5_290_000_000}, 0x1F1AEDF81F5B),
    (f"{PSX}/TradeMessageNon-cross.pcap",
     {"kind": "trade", "message_type": "P", "order_ref": 0, "side": "buy", "quantity_nanos": 10**9, "symbol": "AMAT",
      "price_nanos": 150_940_000_000, "match_number": 0x684D}, 0x1F1AD0A2C9EF),
]  # fmt: skip


@pytest.mark.parametrize(("name", "expected", "stamp"), ITCH, ids=[Path(name).stem for name, _, _ in ITCH])
def test_itch_messages_read_by_hand(name: str, expected: dict[str, object], stamp: int) -> None:
    """A recorded ITCH message has the values that its bytes show, its stamp being ns since midnight in New York."""
    rows = decode_file(data(name))
    assert len(rows["rejected"]) == 0
    assert set(rows["feed_frames"]["protocol"].tolist()) == {b"itch-5.0/moldudp64"}
    first = plain(rows["market_data"])[0]
    assert {k: first.get(k) for k in expected} == expected
    assert first["ts_wire_ns"] == NEW_YORK_2023_08_22_NS + stamp


def test_itch_stamp_in_winter_time() -> None:
    """In February New York's midnight is 05:00 UTC."""
    rows = decode_file(data("omi-singles/Nasdaq/Nsm.TotalView.v5.0/OrderDeleteMessage.D.pcap"))
    row = plain(rows["market_data"])[0]
    assert (row["order_ref"], row["sequence"]) == (0x105A5A9B, 0x120A737F)
    assert row["ts_wire_ns"] == NEW_YORK_2018_02_27_NS + 0x33BEEE99025D


IEX: list[tuple[str, dict[str, object]]] = [
    ("Deep.IexTp.v1.0/PriceLevelSellUpdateMessage.pcap",
     {"kind": "level", "side": "sell", "symbol": "UNH", "quantity_nanos": 82 * 10**9, "price_nanos": 344_140_000_000, "flags": 1,
      "session": str(0x48DD0000), "sequence": 0x056BD2, "ts_wire_ns": 0x165DE23A62D8B92A}),
    ("Deep.IexTp.v1.0/Error.Q.pcap",  # a TOPS quote in the DEEP folder: the protocol number tells
     {"kind": "quote", "symbol": "HJLI", "bid_quantity_nanos": 0, "bid_price_nanos": 0, "ask_price_nanos": 0, "flags": 0xC0}),
    ("Tops.IexTp.v1.5/AuctionInformationMessage.pcap",
     {"kind": "auction", "symbol": "ZIEXT", "condition": "H", "price_nanos": 10_000 * 10**5, "quantity_nanos": 0xFB * 10**9,
      "side": "sell"}),
    ("Tops.IexTp.v1.5/OfficialPriceMessage.pcap",
     {"kind": "official_price", "symbol": "ZXIET", "condition": "Q", "price_nanos": 0x0F4240 * 10**5}),
    ("Tops.IexTp.v1.5/SecurityDirectoryMessage.pcap",
     {"kind": "directory", "symbol": "ZEXIT", "flags": 0x80, "quantity_nanos": 100 * 10**9, "price_nanos": 100_000 * 10**5}),
    ("Tops.IexTp.v1.5/SystemEventMessage.pcap", {"kind": "system", "condition": "R", "ts_wire_ns": 0x150DB11FE2CF729A}),
    ("Tops.IexTp.v1.5/TradeReportMessage.pcap",
     {"kind": "trade", "symbol": "ZIEXT", "flags": 0xC0, "quantity_nanos": 100 * 10**9, "price_nanos": 0x270E * 10**5,
      "match_number": 0x0ED612}),
    ("Tops.IexTp.v1.5/TradingStatusMessage.pcap", {"kind": "status", "symbol": "JHMU", "condition": "H NA"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), IEX, ids=[Path(name).stem for name, _ in IEX])
def test_iex_messages_read_by_hand(name: str, expected: dict[str, object]) -> None:
    """A recorded IEX message has the values that its bytes show."""
    rows = decode_file(data(f"omi-singles/Iex/{name}"))
    first = plain(rows["market_data"])[0]
    assert {k: first.get(k) for k in expected} == expected


def test_iex_heartbeat_is_a_frame() -> None:
    """A recorded IEX heartbeat recognises its feed and is a frame without messages."""
    rows = decode_file(data("omi-singles/Iex/Deep.IexTp.v1.0/Heartbeat.pcap"))
    frame = plain(rows["feed_frames"])[0]
    expected = {"kind": "heartbeat", "first_seq": 1, "count": 0, "stream_offset": 0, "session": str(0x48DD0000)}
    assert {k: frame[k] for k in expected} == expected
    assert frame["ts_send_ns"] == 0x165DE023026A32AF
    assert len(rows["market_data"]) == 0


@pytest.mark.parametrize(
    "name",
    [
        "omi-singles/Iex/DeepPlus.IexTp.1.0.2/all_message_types.pcap",
        "marketdata/Cme.Mdp3.Sbe.v8.1.Example.pcap",
        "marketdata/Nyse.ImbalancesFeed.v2.1.f.Example.pcap",
        "marketdata/mcastpitch_realtime_useq.pcap",
        "scan/synscan.pcapng",
        "tcp/reddit.pcap",
        "link/vlan.pcap",
    ],
)
def test_other_traffic_is_no_feed(name: str) -> None:
    """Traffic of other protocols gives no rows at all, not even rejected ones."""
    assert all(len(rows) == 0 for rows in decode_file(data(name)).values())


def test_moldudp64_header_agrees_with_tshark() -> None:
    """Session, sequence and count are what tshark's MoldUDP64 dissector finds."""
    path = data(f"{NASDAQ}/Multiple.Packets.pcap")
    tshark = shutil.which("tshark")
    if tshark is None:
        pytest.skip("tshark is not installed")
    fields = [x for name in ("session", "sequence", "count") for x in ("-e", f"moldudp64.{name}")]
    command = [tshark, "-n", "-r", str(path), "-d", "udp.port==26477,moldudp64", "-T", "fields", *fields]
    told = [
        line.split("\t")
        for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    ]
    frames = decode_file(path)["feed_frames"].to_dicts()
    assert [(s, int(q), int(c)) for s, q, c in told] == [(f["session"], f["first_seq"], f["count"]) for f in frames]
