"""Which FIX tags become which columns, where data fields have their length, and what a verdict says; scans by `fix_scan`.

Tags are those of the FIX dictionaries 4.0 to 5.0 SP2 (fields section); the order of verification is the session
specification's: BeginString, the first three tags, BodyLength, CheckSum, then the fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from akbypass import schemas
from akbypass.producers.decoders import fix_scan as fs
from akbypass.producers.decoders.tcp_flow import MESSAGE_BYTES_MAX
from akbypass.rows import Array

PROTOCOLS = np.array([b"FIX.4.0", b"FIX.4.1", b"FIX.4.2", b"FIX.4.3", b"FIX.4.4", b"FIX.5.0", b"FIXT.1.1"], "S16")
VERSION_4_2 = 2

TEXTS = {
    35: "message_type", 49: "sender_comp_id", 56: "target_comp_id", 11: "cl_ord_id", 41: "orig_cl_ord_id",
    37: "order_id", 17: "exec_id", 150: "exec_type", 39: "ord_status", 55: "symbol", 40: "ord_type",
    59: "time_in_force", 1: "account",
}  # fmt: skip
DECIMALS = {
    44: "price_nanos", 38: "quantity_nanos", 31: "last_price_nanos", 32: "last_quantity_nanos",
    151: "leaves_quantity_nanos", 14: "cum_quantity_nanos",
}  # fmt: skip
COUNTS = {34: "msg_seq_num"}
INSTANTS = {52: "ts_wire_ns", 60: "ts_transact_ns"}
CODES = {43: "poss_dup", 54: "side", 20: "exec_trans_type"}

# Length field and data field: the data field's tag is the next one, but for these.
_LENGTHS = (
    90, 95, 212, 348, 350, 352, 354, 356, 358, 360, 362, 364, 445, 618, 621, 1184, 1277, 1280, 1282, 1397, 1401, 1403,
    1468, 1578, 1620, 1664, 1733, 1871, 1874, 2072, 2074, 2111, 2179, 2287, 2351, 2481, 2637, 2651, 2665, 2715, 2718,
    2721, 2797, 40004, 40008, 40978, 40980, 40982, 40984, 40986, 40988, 41083, 41101, 41107, 41256, 41320, 41324, 41458,
    41476, 41482, 41653, 41710, 41806, 41811, 41873, 41969, 42025, 42171, 42451, 42652, 42947,
)  # fmt: skip
DATA_OF_LENGTH = {n: n + 1 for n in _LENGTHS} | {
    93: 89, 1525: 1527, 1678: 1697, 2372: 2371, 2494: 2493, 2522: 2521, 2802: 2801, 2809: 2808, 2815: 2814,
    43109: 42684, 43110: 42486, 43111: 42982,
}  # fmt: skip

REASONS = {
    fs.BEGIN_STRING: "fix_begin_string", fs.TAG_ORDER: "fix_tag_order", fs.BODY_LENGTH: "fix_body_length",
    fs.CHECKSUM: "fix_checksum", fs.FIELD: "fix_field", fs.DATA_LENGTH: "fix_data_length", fs.NUMBER: "fix_number",
    fs.TIME: "fix_time", fs.TOO_LONG: "fix_field_too_long", fs.GARBLED: "fix_garbled", fs.NOT_FIX: "not_fix",
    fs.JOINED: "stream_gap",
}  # fmt: skip
MESSAGE_BYTES_MIN = 26  # 8=FIX.4.0␁9=5␁35=0␁10=ddd␁; only rejected ones are shorter


def _tables() -> tuple[Array, Array, Array, dict[str, int], dict[str, slice]]:
    schema = schemas.load("orders")
    slots, data_of = np.full(fs.TAGS, -1, np.int64), np.full(fs.TAGS, -1, np.int64)
    spec: list[tuple[int, int, int]] = []
    columns: dict[str, int] = {}
    texts: dict[str, slice] = {}
    offset = 0
    for kind, tags in (
        (fs.TEXT, TEXTS),
        (fs.DECIMAL, DECIMALS),
        (fs.COUNT, COUNTS),
        (fs.INSTANT, INSTANTS),
        (fs.CODE, CODES),
    ):
        for tag, name in tags.items():
            width = schema.by_name[name].width if kind == fs.TEXT else 0
            slots[tag], columns[name] = len(spec), fs.FIRST_TAG + len(spec)
            spec.append((kind, offset, width))
            if kind == fs.TEXT:
                texts[name] = slice(offset, offset + width)
                offset += width
    for length, data in DATA_OF_LENGTH.items():
        data_of[length] = data
    return slots, data_of, np.array(spec, np.int64), columns, texts


SLOTS, DATA_OF, SPEC, COLUMNS, TEXT_AT = _tables()
TEXT_BYTES = max(s.stop for s in TEXT_AT.values())


@dataclass(frozen=True, slots=True)
class Found:
    """What the scanner found in an arena, in the order of its pieces.

    table  int64 (rows, columns)  a message each: fix_scan's columns, then those of COLUMNS
    text   uint8 (rows, bytes)    their strings, at TEXT_AT
    said   int64 (pieces, 4)      how each piece ended: state, start of what is not settled, bytes needed, bytes skipped
    """

    table: Array
    text: Array
    said: Array

    def strings(self, name: str, index: Array) -> Array:
        """One string column of the rows `index`."""
        at = TEXT_AT[name]
        return np.ascontiguousarray(self.text[index, at]).view(f"S{at.stop - at.start}").reshape(-1)

    def numbers(self, name: str, index: Array) -> Array:
        """One number column of the rows `index`; NULL_INT64 where the message has no such tag."""
        column: Array = self.table[index, COLUMNS[name]]
        return column


def scan(arena: Array, pieces: Array) -> Found:
    """Scan pieces of an arena: rows of start, end, state, bytes skipped before, FIX expected by configuration."""
    rows = len(arena) // (4 * MESSAGE_BYTES_MIN) + len(pieces) + 16
    said = np.zeros((len(pieces), 4), np.int64)
    while True:
        table = np.empty((rows, fs.FIRST_TAG + len(SPEC)), np.int64)
        text = np.zeros((rows, TEXT_BYTES), np.uint8)
        n = int(fs.scan(arena, pieces, SLOTS, DATA_OF, SPEC, table, text, said))
        if n >= 0:
            return Found(table[:n], text[:n], said)
        rows *= 4


def explain(row: Array, data: bytes) -> str:
    """Say what was expected and what was found in a rejected message, given its first bytes."""
    verdict, expected, found, tag = (int(row[c]) for c in (fs.VERDICT, fs.EXPECTED, fs.FOUND, fs.TAG))
    at = found - int(row[fs.BEGIN])
    head = data.split(b"\x01", 1)[0][2 : 2 + fs.BEGIN_BYTES_MAX].decode("ascii", "replace")
    shown = "".join(c if " " <= c <= "~" else "?" for c in data[:12].decode("latin-1"))
    match verdict:
        case fs.BEGIN_STRING:
            return f"expected BeginString FIX.4.0 to FIX.5.0 or FIXT.1.1, found {head!a}"
        case fs.TAG_ORDER:
            return "expected tags 8, 9, 35 in this order, found others"
        case fs.BODY_LENGTH if tag == fs.LENGTH_TAG:
            what = "other text" if found < 0 else str(found)
            return f"expected body length {fs.BODY_BYTES_MIN} to {fs.BODY_BYTES_MAX}, found {what}"
        case fs.BODY_LENGTH:
            right = f"expected body length {expected}" if expected >= 0 else "expected a checksum field behind the body"
            return f"{right}, found body length {found}"
        case fs.CHECKSUM:
            return f"expected checksum {expected:03d}, found {f'{found:03d}' if found >= 0 else 'no three digits'}"
        case fs.FIELD:
            return f"expected tag=value, found other text at byte {at} of the message"
        case fs.DATA_LENGTH:
            return f"expected {expected} bytes of data in tag {tag}, found no end there; at byte {at} of the message"
        case fs.NUMBER:
            return f"expected a number of 1e-9 units in 64 bits in tag {tag}, found other text; at byte {at} of the message"
        case fs.TIME:
            return f"expected a UTC timestamp in tag {tag}, found other text; at byte {at} of the message"
        case fs.TOO_LONG:
            return f"expected at most {expected} bytes in tag {tag}, found {found}"
        case fs.JOINED:
            return f"expected a message, found {found} bytes before the first one: the capture begins inside the stream"
        case _:
            return f"expected 8=FIX, found {shown!a}"


assert fs.BODY_BYTES_MAX < MESSAGE_BYTES_MAX
