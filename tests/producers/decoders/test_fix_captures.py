"""The FIX decoder against recorded traffic, tshark, a session log, QuickFIX's session dialogues, and itself without JIT."""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

import orjson

from akbypass.config import Config
from akbypass.producers.capture.formats import open_capture
from akbypass.producers.capture.headers import HeaderParser
from akbypass.producers.decoders.orders import OrderDecoder
from tests.producers.decoders.fix_support import Decoded, Segment, back, decode, order, seal, stream
from tests.producers.decoders.tshark_support import tshark
from tests.support import ROOT, data

LIVE = "orderentry/fix.pcap"
LOG = "orderentry/FIX.4.2-KOD-BON.messages.current.log"


def decoded(path: Path) -> tuple[Decoded, list[int]]:
    """Decode a capture through the real reader; also returns the position of each frame, by its number."""
    decoder, parser = OrderDecoder(Config()), HeaderParser(0)
    rows: dict[str, list[dict[str, object]]] = {"orders": [], "rejected": []}
    positions = [-1]
    for frames in open_capture(str(path)):
        positions += frames.position.tolist()
        for name, part in decoder.decode(parser.parse(frames).packets).items():
            rows[name] += part.to_dicts()
    for name, part in decoder.finish(parser.run_ns, 0, positions[-1] + 1).items():
        rows[name] += part.to_dicts()
    return Decoded(**rows), positions


def test_live_fix_4_1_message_for_message_with_tshark() -> None:
    """Every message that tshark names in the live capture is decoded from the same frame with the same fields: 34.

    Differences: none among messages. tshark counts a further 579 frames as "fix" without a single field: they hold
    the vendor's own framing (8=O, 8=FIXCOMP), which is no FIX version; we reject those by name, one row a message.
    """
    path = data(LIVE)
    names = ("frame.number", "fix.BeginString", "fix.MsgType", "fix.MsgSeqNum", "fix.PossDupFlag", "fix.SendingTime")
    seen = tshark(
        "-r", str(path), "-d", "tcp.port==4000,fix", "-Y", "fix", "-T", "fields", "-E", "occurrence=a",
        *(a for n in names for a in ("-e", n)),
    )  # fmt: skip
    found, positions = decoded(path)
    expected = [row for row in seen if row[1]]
    ours = [
        [
            str(positions.index(int(str(r["capture_pos"])))), r["protocol"], r["message_type"], r["msg_seq_num"],
            r["poss_dup"], r["ts_wire_ns"],
        ]
        for r in found.orders
    ]  # fmt: skip
    assert ours == [
        [number, begin, kind, int(seq) if seq else None, dup == "Y", _utc_ns(sent)]
        for number, begin, kind, seq, dup, sent in expected
    ]
    assert (len(ours), len(seen) - len(expected)) == (34, 579)
    assert Counter(found.column("message_type")) == {"1": 28, "0": 5, "U": 1}


def _utc_ns(text: str) -> int | None:
    if not text:
        return None
    moment = datetime.datetime.strptime(text, "%Y%m%d-%H:%M:%S").replace(tzinfo=datetime.UTC)
    return int(moment.timestamp()) * 10**9


def test_proprietary_messages_of_the_live_capture_are_rejected_one_by_one() -> None:
    """Each 8=O and 8=FIXCOMP message behind the first FIX message of its connection is one rejected row.

    Counted here from tshark's payloads (nothing is lost or out of order in this capture) by BodyLength alone.
    """
    path = data(LIVE)
    lines = tshark("-r", str(path), "-Y", "tcp.len>0", "-T", "fields", "-e", "tcp.stream", "-e", "tcp.payload")
    speaks: set[str] = set()
    expected: Counter[bytes] = Counter()
    before = 0
    for connection, payload in lines:
        rest = bytes.fromhex(payload)
        if rest.startswith(b"8=FIX"):
            speaks.add(connection)
        while rest:
            head = re.match(rb"8=([^\x01]+)\x019=(\d+)\x01", rest)
            assert head is not None, "every segment of this capture holds whole messages"
            begin = head[1]
            rest = rest[head.end() + int(head[2]) + (7 if begin == b"FIX.4.1" else 0) :]
            if begin != b"FIX.4.1":
                before += connection not in speaks
                expected[begin] += connection in speaks
    found, _ = decoded(path)
    assert set(found.reasons()) == {"fix_begin_string"}
    ours = Counter(bytes.fromhex(str(r["bytes"])).split(b"\x01")[0][2:] for r in found.rejected)
    assert ours == +expected
    assert (sum(expected.values()), before) == (812, 17)


def logged() -> list[tuple[int, bytes]]:
    """Time (ns) and bytes of each message of the session log."""
    out = []
    for line in data(LOG).read_bytes().splitlines():
        stamp, message = line[:26].decode(), line[27:]
        moment = datetime.datetime.strptime(stamp, "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=datetime.UTC)
        whole = moment.replace(microsecond=0)
        out.append((int(whole.timestamp()) * 10**9 + moment.microsecond * 1_000, message))
    return out


def as_packets(messages: list[tuple[int, bytes]]) -> list[Segment]:
    """Put each message into one segment: BON is the client, KOD the venue."""
    seq, out = {True: 1_001, False: 5_001}, []
    for at_ns, message in messages:
        client = b"\x0149=BON\x01" in message
        segment = Segment(seq[client], message, at_ns=at_ns)
        out.append(segment if client else back(segment))
        seq[client] += len(message)
    return out


def test_session_log_counts_and_fields() -> None:
    """All 2,486 messages of the log: 602 new, 602 cancels, 1,204 reports, each field as a plain split of the line gives it."""
    messages = logged()
    found = decode(as_packets(messages))
    assert found.rejected == []
    assert Counter(found.column("kind")) == {
        "new": 602, "cancel": 602, "ack": 602, "canceled": 602, "heartbeat": 74, "logon": 2, "resend_request": 1,
        "sequence_reset": 1,
    }  # fmt: skip
    assert Counter(found.column("message_type"))["8"] == 1_204
    assert set(found.column("session")) == {"198.51.100.10/BON/KOD"}
    columns = {
        "11": "cl_ord_id", "41": "orig_cl_ord_id", "37": "order_id", "17": "exec_id", "55": "symbol", "1": "account",
        "49": "sender_comp_id", "56": "target_comp_id", "35": "message_type", "39": "ord_status", "59": "time_in_force",
    }  # fmt: skip
    decimals = {"44": "price_nanos", "38": "quantity_nanos", "151": "leaves_quantity_nanos", "14": "cum_quantity_nanos"}
    for (at_ns, message), row in zip(messages, found.orders, strict=True):
        tags = dict(reversed([f.split("=", 1) for f in message.decode().rstrip("\x01").split("\x01")]))
        assert {c: row[c] for c in columns.values()} == {c: tags.get(t) for t, c in columns.items()}
        for tag, column in decimals.items():
            assert row[column] == (round(float(tags[tag]) * 1e9) if tag in tags else None)
        assert (row["ts_capture_ns"], row["msg_seq_num"]) == (at_ns, int(tags["34"]))
        assert row["direction"] == ("to_venue" if tags["49"] == "BON" else "from_venue")


def test_session_log_acknowledgement_times() -> None:
    """First report after each new order, in log time: minimum 32.2, median 44.6, maximum 276 ms, as the data page states."""
    sent: dict[object, int] = {}
    delays = []
    for row in decode(as_packets(logged())).orders:
        if row["kind"] == "new":
            sent[row["cl_ord_id"]] = int(str(row["ts_capture_ns"]))
        elif row["message_type"] == "8" and row["cl_ord_id"] in sent:
            delays.append((int(str(row["ts_capture_ns"])) - sent.pop(row["cl_ord_id"])) / 1e6)
    assert [round(min(delays), 1), round(statistics.median(delays), 1), round(max(delays))] == [32.2, 44.6, 276]


# The files in which a dialogue sends what a FIX engine must not accept as a message, and the reason we give.
WRONG = {
    "2d_GarbledMessage": "fix_checksum", "3c_GarbledMessage": "fix_checksum", "3b_InvalidChecksum": "fix_checksum",
    "2m_BodyLengthValueNotCorrect": "fix_body_length", "1d_InvalidLogonLengthInvalid": "fix_body_length",
    "2t_FirstThreeFieldsOutOfOrder": "fix_tag_order", "1d_InvalidLogonWrongBeginString": "fix_begin_string",
    "14a_BadField": "fix_field", "14f_IncorrectDataFormat": "fix_number",
}  # fmt: skip
# In those files the comment above a message tells which ones are wrong.
TELLING = re.compile(
    rb"garbled|incorrect checksum|too short|and be ignored|should be|must disconnect|bad begin|is negative|below the valid"
    rb"|incorrect value",
    re.IGNORECASE,
)


def dialogue(path: Path) -> list[tuple[bytes, bytes]]:
    """Messages that a dialogue sends, with the comment above each; length and checksum are filled in as its runner does."""
    comment, out = b"", []
    for line in path.read_bytes().splitlines():
        sent = re.match(rb"I(?:\d,)?(.+)", line)
        if line.startswith(b"#"):
            comment = line
        elif line == b"iCONNECT" and not path.stem.startswith("1d_"):  # what was said so far is the file's title
            comment = b""
        elif sent is not None:
            text = re.sub(rb"<TIME[^>]*>", b"20231114-22:13:20", sent[1])
            if not re.match(rb"8=[^\x01]*\x019=|35=0\x018=", text):
                begin, rest = text.split(b"\x01", 1)
                body = re.sub(rb"(?<=\x01)10=[^\x01]*\x01$", b"", rest)
                text = begin + b"\x019=%d\x01" % len(body) + rest
            if not re.search(rb"\x0110=[^\x01]*\x01$", text):
                text += b"10=%03d\x01" % (sum(text) % 256)
            out.append((comment, text))
            comment = b""
    return out


def test_quickfix_dialogues() -> None:
    """Of 1,375 messages in 287 dialogues exactly those are rejected that the file's name and comment call wrong."""
    files, sent = sorted(data("fix-def").glob("fix4*/*.def")), 0
    for path in files:
        lines = dialogue(path)
        sent += len(lines)
        reason = WRONG.get(path.stem)
        for comment, text in lines:
            found = decode(stream(order(1) + text + order(2), 10_000))
            if reason is not None and TELLING.search(comment):
                assert found.column("msg_seq_num") == [1, 2], (path, text)
                assert found.reasons()[-1] == reason, (path, text)
            else:
                assert (len(found.orders), found.rejected) == (3, []), (path, comment, text)
    assert (len(files), sent) == (287, 1_375)


def digest() -> str:
    """Hash of everything decoded from a mixed stream; run in this process and in one without JIT."""
    parts = [order(n) for n in range(40)] + [
        seal("35=8|34=3|49=XV|56=BUY|150=2|39=2|44=-1.25|31=99.999999999|60=20231114-22:13:20.123456789123|95=3|96=a|b|"),
        order(5)[:-4] + b"000\x01", b"8=O\x019=9\x0135=P\x01\x00\x01\x02\x03", b"noise",
        order(6).replace(b"\x019=", b"\x019=1", 1), seal("35=D|44=1e5|"), seal("35=D|60=2023|"), seal("35=D|x|"),
        seal("35=D|11=" + "a" * 65 + "|"), seal("35=D|95=9|96=a|"), order(7),
    ]  # fmt: skip
    found = decode(stream(b"".join(parts), 61), 20)
    return (
        hashlib.sha256(orjson.dumps([found.orders, found.rejected])).hexdigest()
        + f" {len(found.orders)} {len(found.rejected)}"
    )


def test_the_kernel_gives_the_same_without_jit() -> None:
    """Compiled and interpreted, the scanner makes identical rows: nothing depends on wrapping or unchecked reads."""
    code = f"from {__name__} import digest; print(digest())"
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == digest()
    assert digest().endswith(" 42 9")
