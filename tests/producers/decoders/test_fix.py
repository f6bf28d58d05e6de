"""What one FIX message becomes: verification, columns, kinds, roles, session."""

from __future__ import annotations

import datetime
import xml.etree.ElementTree as ET
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from akbypass.config import Config, ExchangeConnection
from akbypass.producers.decoders import fix, fix_scan
from tests.producers.decoders.fix_support import CLIENT, VENUE, Decoded, Segment, back, decode, order, seal, stream
from tests.support import data

HEAD = "34=7|49=BUY|56=XV|52=20231114-22:13:20|"
GATEWAY = Config(exchanges=[ExchangeConnection(name="XNAS", ip_address=VENUE[0], ports=[VENUE[1]])])


def one(text: str | bytes, begin: str = "FIX.4.4") -> Decoded:
    """Decode one message from the client."""
    return decode(stream(seal(text, begin), 10_000))


def test_every_wanted_tag_reaches_its_column() -> None:
    """Each tag of the orders schema is read into its column in the column's unit."""
    row = one(
        "35=G|34=42|49=BUY|56=XV|43=Y|52=20231114-22:13:20.123456789|1=ACC|11=C2|41=C1|37=O1|17=E1|150=5|39=0|55=ABC|"
        "54=5|40=2|59=3|44=-0.5|38=100|31=99.99|32=7|151=93|14=7.25|60=20231114-22:13:20|"
    ).orders[0]
    expected = {
        "kind": "replace", "message_type": "G", "msg_seq_num": 42, "sender_comp_id": "BUY", "target_comp_id": "XV",
        "poss_dup": True, "ts_wire_ns": 1_700_000_000_123_456_789, "account": "ACC", "cl_ord_id": "C2",
        "orig_cl_ord_id": "C1", "order_id": "O1", "exec_id": "E1", "exec_type": "5", "ord_status": "0", "symbol": "ABC",
        "side": "sell", "ord_type": "2", "time_in_force": "3", "price_nanos": -500_000_000,
        "quantity_nanos": 100_000_000_000, "last_price_nanos": 99_990_000_000, "last_quantity_nanos": 7_000_000_000,
        "leaves_quantity_nanos": 93_000_000_000, "cum_quantity_nanos": 7_250_000_000,
        "ts_transact_ns": 1_700_000_000_000_000_000, "protocol": "FIX.4.4", "segments": 1, "retransmitted": False,
        "src_ip": CLIENT[0], "src_port": CLIENT[1], "dst_ip": VENUE[0], "dst_port": VENUE[1], "ts_resolution_ns": 1,
    }  # fmt: skip
    assert {k: row[k] for k in expected} == expected


def test_absent_tags_are_unknown() -> None:
    """A heartbeat has no order fields, and none is invented."""
    row = one(f"35=0|{HEAD}").orders[0]
    absent = (
        "cl_ord_id",
        "order_id",
        "symbol",
        "price_nanos",
        "quantity_nanos",
        "ts_transact_ns",
        "exec_type",
        "account",
    )
    assert [row[k] for k in absent] == [None] * len(absent)
    assert (row["side"], row["poss_dup"], row["kind"]) == ("none", False, "heartbeat")


@pytest.mark.parametrize(
    "begin", ["FIX.4.0", "FIX.4.1", "FIX.4.2", "FIX.4.3", "FIX.4.4", "FIX.5.0", "FIX.5.0SP1", "FIX.5.0SP2", "FIXT.1.1"]
)
def test_versions(begin: str) -> None:
    """Every BeginString from FIX 4.0 to FIXT.1.1 is accepted; service packs are FIX.5.0."""
    assert one(f"35=0|{HEAD}", begin).column("protocol") == [begin[:7] if begin.startswith("FIX.5") else begin]


@pytest.mark.parametrize(
    "begin", ["FIX.3.9", "FIX.4.5", "FIX.5.1", "FIX.5.0SP3", "FIXT.1.2", "FIX", "FIXCOMP", "FIX.4.22"]
)
def test_other_begin_strings_are_rejected_and_passed_over_by_their_length(begin: str) -> None:
    """A message of an unknown version is one rejected row, with or without a checksum field; the next one is decoded."""
    body = b"35=Z\x01\x00\x018=FIX."
    raw = f"8={begin}\x019={len(body)}\x01".encode() + body
    for trailer in (b"", b"10=123\x01"):
        found = decode(stream(order(1) + raw + trailer + order(2), 10_000))
        assert found.column("msg_seq_num") == [1, 2]
        assert found.reasons() == ["fix_begin_string"]


def broken(good: bytes, **change: bytes) -> bytes:
    """Replace one field of a message as it stands."""
    ((tag, value),) = change.items()
    fields = good.split(b"\x01")
    return b"\x01".join(tag[1:].encode() + b"=" + value if f.startswith(tag[1:].encode() + b"=") else f for f in fields)


CASES = {
    "checksum off by one": (lambda m: m[:-4] + b"%03d\x01" % ((int(m[-4:-1]) + 1) % 256), "fix_checksum"),
    "checksum above 255": (lambda m: broken(m, t10=b"256"), "fix_checksum"),
    "checksum of two digits": (lambda m: broken(m, t10=b"7"), "fix_checksum"),
    "checksum of letters": (lambda m: broken(m, t10=b"abc"), "fix_checksum"),
    "byte changed": (lambda m: m.replace(b"55=ABC", b"55=ABD"), "fix_checksum"),
    "body length one too short": (
        lambda m: broken(m, t9=b"%d" % (int(m.split(b"\x01")[1][2:]) - 1)),
        "fix_body_length",
    ),
    "body length too long": (lambda m: broken(m, t9=b"%d" % (int(m.split(b"\x01")[1][2:]) + 9)), "fix_body_length"),
    "body length of letters": (lambda m: broken(m, t9=b"1x"), "fix_body_length"),
    "body length empty": (lambda m: broken(m, t9=b""), "fix_body_length"),
    "body length zero": (lambda m: broken(m, t9=b"0"), "fix_body_length"),
    "body length beyond the limit": (lambda m: broken(m, t9=b"999999999"), "fix_body_length"),
    "third tag is not 35": (lambda m: seal(m.split(b"\x01", 3)[3][: -len("10=123|")]), "fix_tag_order"),
    "second tag is not 9": (lambda m: m.replace(b"\x019=", b"\x0134=", 1), "fix_tag_order"),
    "begin string without end": (lambda m: b"8=FIX.4.2" + bytes(b"x" * 40), "fix_begin_string"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_message_is_rejected_and_nothing_else_lost(case: str) -> None:
    """Each way to break a frame gives its reason, once, and both neighbours are decoded."""
    change, reason = CASES[case]
    found = decode(stream(order(1) + change(order(2)) + order(3), 10_000))
    assert found.column("msg_seq_num") == [1, 3]
    assert found.reasons() == [reason]
    assert bytes.fromhex(str(found.rejected[0]["bytes"])).startswith(b"8=FIX.4.2\x01"[: 9 if "without" in case else 10])


def test_a_rejected_row_says_what_and_where() -> None:
    """Expected and found checksum, byte position in the stream and both ends stand in the detail."""
    good = order(2)
    bad = good[:-4] + b"%03d\x01" % ((int(good[-4:-1]) + 1) % 256)
    row = decode(stream(order(1) + bad, 10_000)).rejected[0]
    assert row["detail"] == (
        f"expected checksum {good[-4:-1].decode()}, found {bad[-4:-1].decode()}; at byte {len(order(1))} of stream "
        "192.0.2.10 port 40000 -> 198.51.100.10 port 4001"
    )
    assert (row["stage"], row["topic"], row["src_port"]) == ("decode", "orders", 40_000)
    assert row["bytes"] == bad.hex()


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("44=1.2.3", "fix_number"), ("44=", "fix_number"), ("44=-", "fix_number"), ("44=1e5", "fix_number"),
        ("44=9223372036.854775808", "fix_number"), ("38=9223372037", "fix_number"), ("44=0.0000000001", "fix_number"),
        ("34=-1", "fix_number"), ("34=1234567890123456789", "fix_number"), ("95=x", "fix_number"),
        ("60=20230229-00:00:00", "fix_time"), ("60=20231114-24:00:00", "fix_time"), ("60=20231114", "fix_time"),
        ("60=20231114-22:13:20.", "fix_time"), ("60=20231114-22:13:20.x", "fix_time"), ("60=00000000-00:00:00", "fix_time"),
        ("0=1", "fix_field"), ("-1=1", "fix_field"), ("=1", "fix_field"), ("x", "fix_field"), ("012=1", "fix_field"),
        ("1234567890=1", "fix_field"), ("", "fix_field"), ("12", "fix_field"),
        ("95=3|96=abcd", "fix_data_length"), ("95=99|96=abcd", "fix_data_length"),
        ("11=" + 65 * "a", "fix_field_too_long"), ("55=" + 25 * "a", "fix_field_too_long"), ("59=12345", "fix_field_too_long"),
    ],
)  # fmt: skip
def test_a_bad_field_rejects_its_message(field: str, reason: str) -> None:
    """A wanted value that cannot be kept exactly, or text that is no field, is told, never cut or guessed."""
    text = f"35=D|49=BUY|56=XV|{field}|"
    found = decode(stream(order(1) + seal(text) + order(2), 10_000))
    assert found.column("msg_seq_num") == [1, 2]
    assert found.reasons() == [reason]


def test_a_session_too_long_for_its_column_is_rejected() -> None:
    """CompIDs fit alone but not together: the message is rejected, not joined and cut."""
    found = one(f"35=D|49={'a' * 32}|56={'b' * 32}|")
    assert (found.orders, found.reasons()) == ([], ["fix_field_too_long"])


@given(st.decimals(min_value="-9223372036", max_value="9223372036", places=9), st.booleans())
def test_prices_are_exact(value: Decimal, trimmed: bool) -> None:
    """Any decimal with nine places comes back as that many billionths."""
    text = f"{value:f}"
    row = one(f"35=D|44={text.rstrip('0') if trimmed else text + '000'}|").orders[0]
    assert row["price_nanos"] == int(value * 10**9)


@given(st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 12, 31)), st.integers(0, 12), st.integers(0))
def test_timestamps_are_exact(moment: datetime.datetime, places: int, seed: int) -> None:
    """A UTC timestamp with 0 to 12 fractional digits is read to the nanosecond; finer digits are cut off."""
    whole = moment.replace(microsecond=0)
    digits = f"{seed:012d}"[-places:] if places else ""
    text = whole.strftime("%Y%m%d-%H:%M:%S").rjust(17, "0") + ("." + digits if digits else "")
    expected = (whole - datetime.datetime(1970, 1, 1)) // datetime.timedelta(seconds=1) * 10**9
    row = one(f"35=D|52={text}|").orders[0]
    assert row["ts_wire_ns"] == expected + int((digits + "0" * 9)[:9])


def test_a_leap_second_is_the_next_second() -> None:
    """23:59:60 is allowed by FIX and counts as the following midnight."""
    assert one("35=D|52=20161231-23:59:60|").column("ts_wire_ns") == [1_483_228_800 * 10**9]


def test_data_fields_may_hold_anything() -> None:
    """A data field with its length may contain SOH, a checksum field and a whole message."""
    inner = order(9).decode()
    for length, tag in ((95, 96), (93, 89), (90, 91), (212, 213), (354, 355), (445, 446), (618, 619), (621, 622)):
        found = one(f"35=D|11=BEFORE|{length}={len(inner)}|{tag}={inner}|37=AFTER|")
        assert (found.column("cl_ord_id"), found.column("order_id")) == (["BEFORE"], ["AFTER"])
        assert found.rejected == []


def test_a_length_counts_only_for_the_next_field() -> None:
    """The length of a data field that does not follow is no length."""
    assert one("35=D|95=99|11=A|96=x|37=O|").column("order_id") == ["O"]


def test_the_first_occurrence_of_a_tag_counts() -> None:
    """A tag that comes again in a repeating group leaves the first value."""
    assert one("35=E|11=FIRST|55=ABC|11=SECOND|55=XYZ|").orders[0]["cl_ord_id"] == "FIRST"


def test_private_types_and_tags_are_kept() -> None:
    """A message type that nobody knows is kind other with its name; private tags disturb nothing."""
    row = one("35=UXY|9999=a|50000=b|123456789=c|11=A|").orders[0]
    assert (row["kind"], row["message_type"], row["cl_ord_id"]) == ("other", "UXY", "A")


def test_text_is_printable_ascii() -> None:
    """Bytes outside of printable ASCII become question marks, spaces at the end go."""
    row = one(b"35=D\x0111=a\xe9b\x00\x7fc  \x0155=A B\x01").orders[0]
    assert (row["cl_ord_id"], row["symbol"]) == ("a?b??c", "A B")


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ("35=D|", "new"), ("35=G|", "replace"), ("35=F|", "cancel"), ("35=9|", "cancel_reject"), ("35=A|", "logon"),
        ("35=5|", "logout"), ("35=0|", "heartbeat"), ("35=1|", "test_request"), ("35=2|", "resend_request"),
        ("35=4|", "sequence_reset"), ("35=3|", "session_reject"), ("35=j|", "business_reject"), ("35=J|", "other"),
        ("35=8|150=0|39=0|", "ack"), ("35=8|150=1|39=1|", "fill"), ("35=8|150=2|39=2|", "fill"), ("35=8|150=F|39=2|", "fill"),
        ("35=8|150=4|39=4|", "canceled"), ("35=8|150=5|39=0|", "replaced"), ("35=8|150=6|", "pending"),
        ("35=8|150=E|", "pending"), ("35=8|150=A|", "pending"), ("35=8|150=8|39=8|", "reject"), ("35=8|150=I|", "status"),
        ("35=8|150=H|", "bust"), ("35=8|150=G|", "bust"), ("35=8|150=C|39=C|", "canceled"), ("35=8|150=3|39=3|", "status"),
        ("35=8|39=2|", "fill"), ("35=8|39=0|", "ack"), ("35=8|", "status"), ("35=8|150=D|39=0|", "status"),
    ],
)  # fmt: skip
def test_kinds(fields: str, kind: str) -> None:
    """Message type and execution type give the canonical kind."""
    assert one(fields, "FIX.4.4").column("kind") == [kind]


@pytest.mark.parametrize(
    ("begin", "fields", "kind"),
    [
        ("FIX.4.0", "20=0|39=2|", "fill"), ("FIX.4.0", "20=1|39=2|", "bust"), ("FIX.4.2", "20=2|150=2|39=2|", "bust"),
        ("FIX.4.1", "20=3|150=0|39=0|", "status"), ("FIX.4.2", "20=0|150=0|39=0|", "ack"), ("FIX.4.3", "20=3|150=0|", "ack"),
        ("FIX.4.0", "20=0|39=8|", "reject"),
    ],
)  # fmt: skip
def test_execution_transactions_up_to_fix_4_2(begin: str, fields: str, kind: str) -> None:
    """ExecTransType comes first where the version has it."""
    assert one(f"35=8|{fields}", begin).column("kind") == [kind]


@pytest.mark.parametrize(
    ("code", "side"), [("1", "buy"), ("2", "sell"), ("5", "sell"), ("6", "sell"), ("8", "none"), ("", "none")]
)
def test_sides(code: str, side: str) -> None:
    """Short sales are sales; a cross has no side."""
    assert one(f"35=D|54={code}|").column("side") == [side]


def both(first: bytes, second: bytes, syn: Segment | None = None) -> list[Segment]:
    """One message from CLIENT, then one from VENUE."""
    return [*([syn] if syn else []), Segment(1_001, first), back(Segment(5_001, second))]


REPORT = seal("35=8|34=1|49=XV|56=BUY|150=0|")


@pytest.mark.parametrize(
    ("segments", "config", "venue", "way"),
    [
        (both(order(1), REPORT), GATEWAY, "XNAS", ["to_venue", "from_venue"]),
        (both(order(1), REPORT), None, VENUE[0], ["to_venue", "from_venue"]),
        ([back(s) for s in both(order(1), REPORT)], None, CLIENT[0], ["to_venue", "from_venue"]),
        ([back(s) for s in both(REPORT, order(1))], None, VENUE[0], ["from_venue", "to_venue"]),
        (both(seal("35=0|49=BUY|56=XV|"), REPORT), None, VENUE[0], ["to_venue", "from_venue"]),
        ([back(s) for s in both(seal("35=0|49=XV|56=BUY|"), order(1))], None, VENUE[0], ["from_venue", "to_venue"]),
        (both(REPORT, order(1), Segment(1_000, flags=2)), None, VENUE[0], ["to_venue", "from_venue"]),
        (both(order(1), REPORT, back(Segment(5_000, flags=18))), None, VENUE[0], ["to_venue", "from_venue"]),
    ],
    ids=["configured", "order's sender", "order's sender has the lower port", "report's receiver", "higher port",
         "higher port, answer first", "SYN before message type", "SYN-ACK alone"],
)  # fmt: skip
def test_roles(segments: list[Segment], config: Config | None, venue: str, way: list[str]) -> None:
    """Who is the venue: configuration, then SYN, then message type, then the higher port is the client."""
    found = decode(segments, config=config)
    assert found.column("direction") == way
    assert set(found.column("venue")) == {venue}


def test_a_session_is_the_same_in_both_directions() -> None:
    """Sender and target are swapped for what comes from the venue, so both ways share one session."""
    assert set(decode(both(order(1), REPORT), config=GATEWAY).column("session")) == {"XNAS/BUY/XV"}


def test_roles_are_kept_once_decided() -> None:
    """A later message that would say otherwise does not turn a connection round."""
    found = decode([Segment(1_001, order(1)), Segment(1_001 + len(order(1)), REPORT)])
    assert found.column("direction") == ["to_venue", "to_venue"]


def test_a_venue_without_name_fits_its_column_over_ipv6_too() -> None:
    """A long IPv6 address becomes a short stable name instead of being cut."""
    ends = {
        "src": ("2001:db8:1234:5678:9abc:def0:1234:5678", 40_000),
        "dst": ("2001:db8:1234:5678:9abc:def0:1234:9999", 4_001),
    }
    (venue,) = decode([Segment(1, order(1), **ends)]).column("venue")
    assert str(venue).startswith("ip6:") and len(str(venue)) == 16
    assert decode([Segment(1, order(1), dst=("2001:db8::1", 4_001), src=("2001:db8::2", 40_000))]).column("venue") == [
        "2001:db8::1"
    ]


def test_every_data_field_of_the_dictionaries_has_its_length_field() -> None:
    """The table of data fields agrees with the published dictionaries, FIX 4.0 to 5.0 SP2."""
    checked = 0
    for path in sorted(data("schemas/fix").glob("FIX*.xml")):
        numbers = {f.get("name"): int(f.get("number", 0)) for f in ET.parse(path).getroot().findall("fields/field")}
        for field in ET.parse(path).getroot().findall("fields/field"):
            if field.get("type") in ("DATA", "XMLDATA"):
                name, tag = field.get("name", ""), int(field.get("number", 0))
                length = next((numbers[n] for n in (f"{name}Len", f"{name}Length") if n in numbers), None)
                if length is None:  # FIX 5.0 SP2 names this pair unevenly
                    assert name == "EncodedUnderlyingMarketDisruptionFallbackUnderlierSecurityDesc"
                    length = 41_873
                assert fix.DATA_OF_LENGTH[length] == tag
                assert tag < fix_scan.TAGS
                checked += 1
    assert checked == 181  # DATA fields over all dictionaries
