"""The one engine of all market-data protocols: two kernels driven by the tables of `tables.py`; makes no rows.

    packet   +--------+--------+---------+--------+---------+----
             | header | length | message | length | message | …       header and lengths: a framing
             +--------+--------+---------+--------+---------+----     messages: a layout

`scan` walks packets in order, finds or recognises the feed of each, and lists frames, whole messages and complaints.
`extract` fills columns from the listed messages. Both touch only the bytes of the packet at hand: `scan` works on a
slice of exactly its captured payload, `extract` compares each field with its message's end before it reads.

A protocol is recognised by structure: every header constant, a printable session, known message types of the right
size, and lengths that fill the payload exactly. A destination that was recognised or configured is then held to it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from akbypass.kernel import kernel
from akbypass.order import FNV_OFFSET, FNV_PRIME

# The places in the tables stand here, beside the kernels: compiled code is cached with its constants, by the time of
# this file alone.
# framings: places of a header; a width of 0 means that the framing has no such part
F_HEADER, F_BIG, F_SESSION_AT, F_SESSION_WIDTH, F_SESSION_TEXT, F_CHANNEL_AT, F_CHANNEL_WIDTH = range(7)
F_CHANNEL_USUAL, F_FIRST_AT, F_FIRST_WIDTH, F_COUNT_AT, F_COUNT_WIDTH, F_END_COUNT = range(7, 13)
F_LENGTH_AT, F_LENGTH_WIDTH = range(13, 15)
F_OFFSET_AT, F_OFFSET_WIDTH, F_SEND_AT, F_SEND_WIDTH, F_ID_AT, F_ID_WIDTH, F_BLOCK_WIDTH, F_HEARTBEAT = range(15, 23)
FRAMING = 23

L_FRAMING, L_ID, L_BIG, L_TYPE_AT, L_TYPE_WIDTH = range(5)

M_SIZE, M_EXACT, M_FIRST, M_LAST = range(4)  # fields are first … last − 1

X_OPERATION, X_AT, X_WIDTH, X_BIG, X_COLUMN, X_SCALE, X_SIGNED, X_EXTRA = range(8)
FIELD = 8
OP_INTEGER, OP_MIDNIGHT, OP_ALPHA, OP_SIDE, OP_CONST = range(5)

INT64_MAX = np.int64(np.iinfo(np.int64).max)
INT64_MIN = np.int64(np.iinfo(np.int64).min)
UDP = 17
SEQUENCE_MAX = 2**63 - 65_537  # the last number of a packet must fit an int64 as well
STAMP_MAX_NS = 25 * 3_600 * 1_000_000_000  # the longest day of a time zone with daylight saving time
SESSION_WIDTH = 16  # bytes of the session column
REJECTS_MAX = 16  # complaints per packet that are told one by one; the rest is one complaint with a number

# frames: columns of the scan's answer
FRAME_PACKET, FRAME_SLOT, FRAME_LAYOUT, FRAME_KIND, FRAME_FIRST, FRAME_COUNT, FRAME_OFFSET, FRAME_SEND = range(8)
FRAME_HASH = 8
FRAME = 9
KIND_DATA, KIND_HEARTBEAT, KIND_END = range(3)  # ordinals of feed_frames.kind
# messages
MSG_FRAME, MSG_START, MSG_END, MSG_SPEC, MSG_TYPE, MSG_NTH = range(6)
MSG = 6
# complaints: `at` is a byte of the payload, `length` the bytes concerned, `nth` the message or −1
BAD_PACKET, BAD_SLOT, BAD_LAYOUT, BAD_REASON, BAD_NTH, BAD_EXPECTED, BAD_FOUND, BAD_AT, BAD_LENGTH, BAD_SPEC = range(10)
BAD = 10

# destinations: a bounded table of feeds that are configured or were recognised
DEST_PORT, DEST_LAYOUT, DEST_FIXED = range(3)
DEST = 3

(
    OK, HEADER_SHORT, NOT_THIS_FRAMING, OTHER_PROTOCOL_ID, SESSION_NOT_PRINTABLE, SEQUENCE_OUT_OF_RANGE, NO_PROTOCOL_FITS,
    BLOCK_BEYOND_PAYLOAD, FRAME_TRUNCATED, MESSAGE_WITHOUT_TYPE, MESSAGE_SHORT, MESSAGE_LONG, BYTES_AFTER_LAST_BLOCK,
    PAYLOAD_LENGTH_DIFFERS, FURTHER_MESSAGES, IP_FRAGMENT, FEEDS_MAX, VALUE_OUT_OF_RANGE, HEADER_TRUNCATED,
) = range(19)  # fmt: skip


@kernel
def read_uint(data: Any, at: Any, width: Any, big: Any) -> Any:
    """Read `width` (1 to 8) bytes as an unsigned number; an index outside of `data` raises IndexError."""
    value = np.uint64(0)
    if big:
        for k in range(at, at + width):
            value = (value << np.uint64(8)) | np.uint64(data[k])
    else:
        for k in range(at + width - 1, at - 1, -1):
            value = (value << np.uint64(8)) | np.uint64(data[k])
    return value


@kernel
def find(slots: Any, ips: Any, dests: Any, high: Any, low: Any, port: Any) -> Any:
    """Return (slot or −1, place in `slots` where it is or belongs) of a destination."""
    mask = np.uint64(slots.shape[0] - 1)
    h = (high ^ (low << np.uint64(1)) ^ np.uint64(port)) * np.uint64(0x9E3779B97F4A7C15)
    place = (h ^ (h >> np.uint64(32))) & mask
    while True:
        slot = slots[np.int64(place)]
        if slot < 0:
            return np.int64(-1), np.int64(place)
        if ips[slot, 0] == high and ips[slot, 1] == low and dests[slot, DEST_PORT] == port:
            return np.int64(slot), np.int64(place)
        place = (place + np.uint64(1)) & mask


@kernel
def _header_fault(data: Any, fr: Any, matches: Any, protocol_id: Any) -> Any:
    """Return OK or why these bytes cannot be a packet of this framing and protocol."""
    if data.shape[0] < fr[F_HEADER]:
        return HEADER_SHORT
    for m in range(matches.shape[0]):
        if matches[m, 1] and read_uint(data, matches[m, 0], matches[m, 1], fr[F_BIG]) != np.uint64(matches[m, 2]):
            return NOT_THIS_FRAMING
    if fr[F_ID_WIDTH] and read_uint(data, fr[F_ID_AT], fr[F_ID_WIDTH], fr[F_BIG]) != np.uint64(protocol_id):
        return OTHER_PROTOCOL_ID
    if fr[F_SESSION_TEXT]:
        ended = False
        for j in range(fr[F_SESSION_AT], fr[F_SESSION_AT] + fr[F_SESSION_WIDTH]):
            b = data[j]
            if b == 0:
                ended = True  # padding; recordings with their session wiped exist
            elif ended or b < 0x20 or b > 0x7E:
                return SESSION_NOT_PRINTABLE
    if read_uint(data, fr[F_FIRST_AT], fr[F_FIRST_WIDTH], fr[F_BIG]) > np.uint64(SEQUENCE_MAX):
        return SEQUENCE_OUT_OF_RANGE
    return OK


@kernel
def _message_fault(data: Any, at: Any, length: Any, lt: Any, types: Any, messages: Any) -> Any:
    """Return (fault, message, type value) of the message in data[at : at + length]; message 0 is unknown."""
    if length < lt[L_TYPE_AT] + lt[L_TYPE_WIDTH]:
        return MESSAGE_WITHOUT_TYPE, np.int64(0), np.int64(0)
    value = np.int64(read_uint(data, at + lt[L_TYPE_AT], lt[L_TYPE_WIDTH], lt[L_BIG]))
    spec = np.int64(types[value])
    if spec == 0:
        return OK, spec, value
    if length < messages[spec, M_SIZE]:
        return MESSAGE_SHORT, spec, value
    if messages[spec, M_EXACT] and length > messages[spec, M_SIZE]:
        return MESSAGE_LONG, spec, value
    return OK, spec, value


@kernel
def _fits(data: Any, wire: Any, fr: Any, matches: Any, lt: Any, types: Any, messages: Any, known: Any) -> Any:
    """Tell whether the whole structure agrees; `known` destinations may also begin with an empty packet."""
    if _header_fault(data, fr, matches, lt[L_ID]) != OK:
        return False
    big = fr[F_BIG]
    n = data.shape[0]
    if fr[F_LENGTH_WIDTH]:
        declared = np.int64(read_uint(data, fr[F_LENGTH_AT], fr[F_LENGTH_WIDTH], big))
        if declared != wire - fr[F_HEADER]:
            return False
    count = np.int64(read_uint(data, fr[F_COUNT_AT], fr[F_COUNT_WIDTH], big))
    if count == 0 or count == fr[F_END_COUNT]:
        return wire == fr[F_HEADER] and (known or (count == 0 and fr[F_HEARTBEAT] == 1))
    at = fr[F_HEADER]
    block = fr[F_BLOCK_WIDTH]
    for nth in range(count):
        if at + block > n:
            return nth > 0 and wire > n  # cut by the capture; at least one message was whole and right
        length = np.int64(read_uint(data, at, block, big))
        if at + block + length > n:
            return nth > 0 and wire > n
        fault, spec, _ = _message_fault(data, at + block, length, lt, types, messages)
        if fault != OK or spec == 0:
            return False
        at += block + length
    return at == wire


@kernel
def _write_session(data: Any, fr: Any, out: Any) -> None:
    """Write the session as text: letters as they are, a number in decimal, with its channel in hex if that is unusual."""
    out[:] = 0
    if fr[F_SESSION_TEXT]:
        last = 0
        for j in range(fr[F_SESSION_WIDTH]):
            b = data[fr[F_SESSION_AT] + j]
            if b not in (0, 0x20):
                last = j + 1
        for j in range(last):
            out[j] = data[fr[F_SESSION_AT] + j]
        return
    number = read_uint(data, fr[F_SESSION_AT], fr[F_SESSION_WIDTH], fr[F_BIG])
    if fr[F_CHANNEL_WIDTH]:
        channel = read_uint(data, fr[F_CHANNEL_AT], fr[F_CHANNEL_WIDTH], fr[F_BIG])
        if channel != np.uint64(fr[F_CHANNEL_USUAL]):
            for j in range(8):
                for k in range(2):
                    part = channel if k == 0 else number
                    digit = np.int64((part >> np.uint64(28 - 4 * j)) & np.uint64(15))
                    out[8 * k + j] = 48 + digit if digit < 10 else 87 + digit
            return
    digits = 1
    rest = number // np.uint64(10)
    while rest > 0:
        digits += 1
        rest = rest // np.uint64(10)
    for j in range(digits):
        if digits - 1 - j < SESSION_WIDTH:
            out[digits - 1 - j] = 48 + np.int64(number % np.uint64(10))
        number = number // np.uint64(10)


@kernel
def _complain(
    bad: Any, n: Any, packet: Any, slot: Any, layout: Any, reason: Any, nth: Any, expected: Any, found: Any, at: Any,
    length: Any, spec: Any,
) -> Any:  # fmt: skip
    row = bad[n]
    row[BAD_PACKET], row[BAD_SLOT], row[BAD_LAYOUT], row[BAD_REASON], row[BAD_NTH] = packet, slot, layout, reason, nth
    row[BAD_EXPECTED], row[BAD_FOUND], row[BAD_AT], row[BAD_LENGTH], row[BAD_SPEC] = expected, found, at, length, spec
    return n + 1


@kernel
def scan(
    buffer: Any, start: Any, end: Any, wire_length: Any, protocol: Any, fragment: Any, ip_words: Any, port: Any,
    framings: Any, matches: Any, layouts: Any, types: Any, messages: Any,
    ips: Any, dests: Any, slots: Any, used: Any, frames: Any, sessions: Any, msgs: Any, bad: Any,
) -> Any:  # fmt: skip
    """Walk the packets of a batch in order; returns the numbers of frames, messages and complaints.

    Fills `frames`, `sessions`, `msgs` and `bad` from their beginning, and remembers destinations in `ips`, `dests`,
    `slots` and `used[0]`, their number.
    """
    n_frames = n_msgs = n_bad = 0
    for p in range(start.shape[0]):
        if protocol[p] != UDP:
            continue
        high, low = ip_words[p, 0], ip_words[p, 1]
        slot, place = find(slots, ips, dests, high, low, port[p])
        if fragment[p]:
            if slot >= 0:
                n_bad = _complain(bad, n_bad, p, slot, dests[slot, DEST_LAYOUT], IP_FRAGMENT, -1, 0, 0, 0, 0, 0)
            continue
        data = buffer[start[p] : end[p]]
        n = data.shape[0]
        wire = np.int64(max(wire_length[p], n))

        # -- which protocol ----------------------------------------------------------------------------------------
        layout = np.int64(-1)
        fault = NO_PROTOCOL_FITS
        blamed = np.int64(-1)
        if slot >= 0 and dests[slot, DEST_LAYOUT] >= 0:
            blamed = dests[slot, DEST_LAYOUT]
            f = layouts[blamed, L_FRAMING]
            fault = _header_fault(data, framings[f], matches[f], layouts[blamed, L_ID])
            if fault == OK:
                layout = blamed
        if layout < 0 and (slot < 0 or dests[slot, DEST_FIXED] == 0):
            for candidate in range(layouts.shape[0]):
                f = layouts[candidate, L_FRAMING]
                if _fits(
                    data, wire, framings[f], matches[f], layouts[candidate], types[candidate], messages, slot >= 0
                ):
                    layout = np.int64(candidate)
                    break
        if layout < 0:
            if slot >= 0:
                if fault == HEADER_SHORT and wire > n:
                    fault = HEADER_TRUNCATED
                header = framings[layouts[blamed, L_FRAMING], F_HEADER] if blamed >= 0 else 0
                n_bad = _complain(bad, n_bad, p, slot, blamed, fault, -1, header, n, 0, n, 0)
            continue
        fr = framings[layouts[layout, L_FRAMING]]
        big = fr[F_BIG]
        count = np.int64(read_uint(data, fr[F_COUNT_AT], fr[F_COUNT_WIDTH], big))
        if slot < 0:
            if used[0] >= dests.shape[0]:
                n_bad = _complain(bad, n_bad, p, slot, layout, FEEDS_MAX, -1, dests.shape[0], used[0] + 1, 0, n, 0)
                continue
            slot = np.int64(used[0])
            ips[slot, 0], ips[slot, 1] = high, low
            dests[slot, DEST_PORT], dests[slot, DEST_LAYOUT], dests[slot, DEST_FIXED] = port[p], -1, 0
            slots[place] = slot
            used[0] += 1
        data_packet = count != 0 and count != fr[F_END_COUNT]
        if dests[slot, DEST_FIXED] == 0 and (data_packet or fr[F_HEARTBEAT] == 1):
            dests[slot, DEST_LAYOUT] = layout

        # -- its messages ------------------------------------------------------------------------------------------
        msgs_before, bad_before = n_msgs, n_bad
        right = faults = np.int64(0)
        broken = False
        at = np.int64(fr[F_HEADER])
        block = fr[F_BLOCK_WIDTH]
        if data_packet:
            for nth in range(count):
                length = np.int64(-1)
                if at + block <= n:
                    length = np.int64(read_uint(data, at, block, big))
                if length < 0 or at + block + length > n:
                    reason = FRAME_TRUNCATED if wire > n else BLOCK_BEYOND_PAYLOAD
                    broken = wire == n
                    n_bad = _complain(bad, n_bad, p, slot, layout, reason, nth, count, nth, at, n - at, 0)
                    at = wire
                    break
                reason, spec, value = _message_fault(data, at + block, length, layouts[layout], types[layout], messages)
                if reason == OK:
                    row = msgs[n_msgs]
                    row[MSG_FRAME], row[MSG_SPEC], row[MSG_TYPE], row[MSG_NTH] = n_frames, spec, value, nth
                    row[MSG_START] = start[p] + at + block
                    row[MSG_END] = row[MSG_START] + length
                    n_msgs += 1
                    right += spec > 0
                else:
                    faults += 1
                    if faults <= REJECTS_MAX:
                        size = (
                            messages[spec, M_SIZE]
                            if spec > 0
                            else layouts[layout, L_TYPE_AT] + layouts[layout, L_TYPE_WIDTH]
                        )
                        n_bad = _complain(
                            bad, n_bad, p, slot, layout, reason, nth, size, length, at + block, length, spec
                        )
                at += block + length
        if faults > REJECTS_MAX:
            n_bad = _complain(bad, n_bad, p, slot, layout, FURTHER_MESSAGES, -1, REJECTS_MAX, faults, 0, n, 0)
        if broken and right == 0:
            # Nothing here is known to be a message: one complaint, and no sequence number that could pass for a gap.
            n_msgs, n_bad = msgs_before, bad_before
            n_bad = _complain(bad, n_bad, p, slot, layout, BLOCK_BEYOND_PAYLOAD, -1, count, 0, fr[F_HEADER], n, 0)
            continue
        if at < wire:
            n_bad = _complain(
                bad, n_bad, p, slot, layout, BYTES_AFTER_LAST_BLOCK, -1, at, wire, min(at, n), max(n - at, 0), 0
            )
        elif fr[F_LENGTH_WIDTH]:
            declared = np.int64(read_uint(data, fr[F_LENGTH_AT], fr[F_LENGTH_WIDTH], big))
            if declared != wire - fr[F_HEADER]:
                actual = wire - fr[F_HEADER]
                n_bad = _complain(bad, n_bad, p, slot, layout, PAYLOAD_LENGTH_DIFFERS, -1, declared, actual, 0, n, 0)

        # -- the frame ---------------------------------------------------------------------------------------------
        row = frames[n_frames]
        row[FRAME_PACKET], row[FRAME_SLOT], row[FRAME_LAYOUT] = p, slot, layout
        row[FRAME_KIND] = KIND_DATA if data_packet else (KIND_HEARTBEAT if count == 0 else KIND_END)
        row[FRAME_FIRST] = np.int64(read_uint(data, fr[F_FIRST_AT], fr[F_FIRST_WIDTH], big))
        row[FRAME_COUNT] = count if data_packet else 0
        row[FRAME_OFFSET], row[FRAME_SEND] = INT64_MIN, INT64_MIN
        if fr[F_OFFSET_WIDTH]:
            offset = read_uint(data, fr[F_OFFSET_AT], fr[F_OFFSET_WIDTH], big)
            if offset <= np.uint64(INT64_MAX):
                row[FRAME_OFFSET] = np.int64(offset)
        if fr[F_SEND_WIDTH]:
            sent = read_uint(data, fr[F_SEND_AT], fr[F_SEND_WIDTH], big)
            if sent <= np.uint64(INT64_MAX):
                row[FRAME_SEND] = np.int64(sent)
        h = FNV_OFFSET
        for j in range(fr[F_HEADER], n):
            h = (h ^ np.uint64(data[j])) * FNV_PRIME
        if h > np.uint64(INT64_MAX):
            row[FRAME_HASH] = -np.int64(~h) - 1
        else:
            row[FRAME_HASH] = np.int64(h)
        _write_session(data, fr, sessions[n_frames])
        n_frames += 1
    return n_frames, n_msgs, n_bad


@kernel
def _store_text(buffer: Any, at: Any, width: Any, out: Any, into: Any) -> None:
    """Copy letters without their padding; anything unprintable becomes a question mark."""
    last = width
    while last and buffer[at + last - 1] in (0, 0x20):
        last -= 1
    if last and into:
        for j in range(into):
            if out[j] == 0:
                out[j] = 0x20
    for j in range(last):
        b = buffer[at + j]
        out[into + j] = b if 0x20 <= b <= 0x7E else 0x3F


@kernel
def extract(
    buffer: Any, msgs: Any, n: Any, frames: Any, messages: Any, fields: Any, sides: Any, ts_capture: Any, day: Any,
    midnights: Any, numbers: Any, symbol: Any, attribution: Any, condition: Any, faults: Any,
) -> None:  # fmt: skip
    """Fill the columns of the first `n` messages; a value that does not fit sets faults[i] = 1 + its field.

    `midnights` (zone, day, candidate) are ns since the epoch; `day` gives each packet's row of it.
    """
    for i in range(n):
        at, length = msgs[i, MSG_START], msgs[i, MSG_END] - msgs[i, MSG_START]
        spec = msgs[i, MSG_SPEC]
        for x in range(messages[spec, M_FIRST], messages[spec, M_LAST]):
            op, where, width, column = fields[x, X_OPERATION], fields[x, X_AT], fields[x, X_WIDTH], fields[x, X_COLUMN]
            if where + width > length:
                faults[i] = x + 1  # cannot be: sizes were compared with the layout, and the layout with its fields
                break
            if op == OP_ALPHA:
                if column == 0:
                    _store_text(buffer, at + where, width, symbol[i], fields[x, X_EXTRA])
                elif column == 1:
                    _store_text(buffer, at + where, width, attribution[i], fields[x, X_EXTRA])
                else:
                    _store_text(buffer, at + where, width, condition[i], fields[x, X_EXTRA])
                continue
            if op == OP_SIDE:
                numbers[column, i] = sides[fields[x, X_EXTRA], buffer[at + where]]
                continue
            if op == OP_CONST:
                numbers[column, i] = fields[x, X_EXTRA]
                continue
            raw = read_uint(buffer, at + where, width, fields[x, X_BIG])
            if op == OP_MIDNIGHT:
                if raw > np.uint64(STAMP_MAX_NS):
                    faults[i] = x + 1
                    break
                packet = frames[msgs[i, MSG_FRAME], FRAME_PACKET]
                stamp, near = np.int64(raw), ts_capture[packet]
                candidates = midnights[fields[x, X_EXTRA], day[packet]]
                best = candidates[0] + stamp
                for k in range(1, candidates.shape[0]):
                    other = candidates[k] + stamp
                    if abs(other - near) < abs(best - near):
                        best = other
                numbers[column, i] = best
                continue
            top = np.uint64(1) << np.uint64(8 * width - 1)
            negative = fields[x, X_SIGNED] == 1 and raw >= top
            magnitude = (top - np.uint64(1)) - (raw - top) if negative else raw  # −value − 1, or value
            limit = (
                (INT64_MAX - fields[x, X_SCALE]) // fields[x, X_SCALE] if negative else INT64_MAX // fields[x, X_SCALE]
            )
            if magnitude > np.uint64(limit):
                faults[i] = x + 1
                break
            if negative:
                numbers[column, i] = (-np.int64(magnitude) - 1) * fields[x, X_SCALE]
            else:
                numbers[column, i] = np.int64(magnitude) * fields[x, X_SCALE]
