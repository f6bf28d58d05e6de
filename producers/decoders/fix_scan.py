"""The FIX scanner: one kernel that cuts ordered bytes into messages, verifies them and fills a table; makes no row.

FIX 4.0 to 5.0 SP2, "tag=value" encoding (FIX Session Layer, section "FIX tagvalue encoding"); ␁ is the byte 0x01 (SOH):

    8=FIX.4.2␁ 9=178␁ 35=D␁ 34=2␁ … 10=128␁
    └ BeginString     │            │      └ CheckSum: three digits, sum of all bytes before it, modulo 256
               └ BodyLength: bytes from behind its ␁ up to and with the ␁ before 10=

    A field is tag, "=", value, ␁; the tag has no leading zero. A data field may hold ␁: the field directly before it
    gives its length (table `data_of`). Of a tag that occurs again (groups) the first value counts.

States and the bounds of reading: each piece is scanned within [start, end) of the arena; every read is preceded by a
comparison with the end of what is known to be there. Verdicts fall on the first byte that decides, so they do not
depend on how the bytes were cut into segments. A message behind one that is still open is not seen before that one is
settled: `settled` never goes back, and the caller dates a row by it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from akbypass.kernel import kernel
from akbypass.producers.decoders.tcp_flow import (
    AFTER_FOREIGN,
    AFTER_GAP,
    IN_SYNC,
    JOINING,
    MESSAGE_BYTES_MAX,
    SKIPPING,
    START,
)
from akbypass.schemas import NULL_INT64

BEGIN_BYTES_MAX = 16  # bytes of a BeginString; the longest known has 10
LENGTH_DIGITS_MAX = 9
BODY_BYTES_MIN = 5  # 35=x␁
TRAILER_BYTES = 7  # 10=ddd␁
FRAME_BYTES_MAX = 2 + BEGIN_BYTES_MAX + 1 + 2 + LENGTH_DIGITS_MAX + 1 + TRAILER_BYTES
BODY_BYTES_MAX = MESSAGE_BYTES_MAX - FRAME_BYTES_MAX
TAG_DIGITS_MAX = 9
TAGS = 50_000  # tags below this can be data fields or wanted (extension packs end at 43,099); higher ones are private

NOT_FIX_BYTES_MAX = 4_096  # bytes without "8=FIX" on a configured gateway's connection that was joined in midstream
LENGTH_TAG, CHECKSUM_TAG = 9, 10  # which of the two contradicts, in the TAG of a BODY_LENGTH verdict

# Verdicts.
(
    OK,
    BEGIN_STRING,
    TAG_ORDER,
    BODY_LENGTH,
    CHECKSUM,
    FIELD,
    DATA_LENGTH,
    NUMBER,
    TIME,
    TOO_LONG,
    GARBLED,
    NOT_FIX,
    JOINED,
) = range(13)

# Columns of the table; tag columns follow from FIRST_TAG on.
PIECE, BEGIN, END, SETTLED, VERDICT, EXPECTED, FOUND, TAG, VERSION, FIRST_TAG = range(10)
# How a wanted tag's value is read.
TEXT, DECIMAL, COUNT, INSTANT, CODE = range(5)
# Columns of what is said of a piece.
P_STATE, P_TAIL, P_NEED, P_SKIPPED = range(4)

FOREIGN = -1  # version of an unknown BeginString
SOH, EQUALS, ZERO, NINE, DOT, MINUS, QUESTION, SPACE, TILDE = 1, 61, 48, 57, 46, 45, 63, 32, 126
NANOS = 1_000_000_000
INT64_MAX = np.int64(np.iinfo(np.int64).max)


@kernel
def _version(arena: Any, a: Any, b: Any) -> Any:
    """Ordinal of a BeginString: FIX.4.0 to FIX.4.4 are 0 to 4, FIX.5.0 with any service pack 5, FIXT.1.1 6."""
    n = b - a
    if n < 7 or arena[a] != 70 or arena[a + 1] != 73 or arena[a + 2] != 88:  # F I X
        return FOREIGN
    if arena[a + 3] == DOT and arena[a + 5] == DOT:
        if n == 7 and arena[a + 4] == 52 and 48 <= arena[a + 6] <= 52:
            return np.int64(arena[a + 6]) - ZERO
        if arena[a + 4] == 53 and arena[a + 6] == ZERO:
            if n == 7:
                return 5
            if n == 10 and arena[a + 7] == 83 and arena[a + 8] == 80 and 49 <= arena[a + 9] <= 50:  # S P 1|2
                return 5
    if n == 8 and arena[a + 3] == 84 and arena[a + 4] == DOT and arena[a + 5] == 49:  # T . 1
        return 6 if arena[a + 6] == DOT and arena[a + 7] == 49 else FOREIGN
    return FOREIGN


@kernel
def _decimal(arena: Any, a: Any, b: Any) -> tuple[bool, Any]:
    """Read [a, b) as a decimal number in 1e-9 units; false for other text, overflow, or more than nine places."""
    negative = a < b and arena[a] == MINUS
    if negative:
        a += 1
    value: Any = np.int64(0)
    digits, places, point = 0, 0, False
    for i in range(a, b):
        c = np.int64(arena[i])
        if c == DOT and not point:
            point = True
            continue
        if c < ZERO or c > NINE:
            return False, 0
        digits += 1
        if point:
            places += 1
            if places > 9:
                if c != ZERO:
                    return False, 0
                continue
        if value > (INT64_MAX - (c - ZERO)) // 10:
            return False, 0
        value = value * 10 + (c - ZERO)
    if digits == 0:
        return False, 0
    for _ in range(9 - min(places, 9)):
        if value > INT64_MAX // 10:
            return False, 0
        value *= 10
    return True, -value if negative else value


@kernel
def _count(arena: Any, a: Any, b: Any) -> Any:
    """Read [a, b) as digits only; -1 for anything else or more than 18 digits."""
    if b - a < 1 or b - a > 18:
        return -1
    value: Any = np.int64(0)
    for i in range(a, b):
        c = np.int64(arena[i])
        if c < ZERO or c > NINE:
            return -1
        value = value * 10 + (c - ZERO)
    return value


@kernel
def _instant(arena: Any, a: Any, b: Any) -> Any:
    """Read YYYYMMDD-HH:MM:SS[.fraction] as ns since the UNIX epoch (digits below ns are cut off); NULL_INT64 else."""
    n = b - a
    if n < 17 or n == 18 or n > 30:
        return NULL_INT64
    if arena[a + 8] != MINUS or arena[a + 11] != 58 or arena[a + 14] != 58:
        return NULL_INT64
    year, month, day = _count(arena, a, a + 4), _count(arena, a + 4, a + 6), _count(arena, a + 6, a + 8)
    hour, minute, second = _count(arena, a + 9, a + 11), _count(arena, a + 12, a + 14), _count(arena, a + 15, a + 17)
    if year < 1700 or year > 2200 or month < 1 or month > 12 or day < 1:
        return NULL_INT64
    leap = (year % 4 == 0 and year % 100 != 0) or year % 400 == 0
    days = 31
    if month == 2:
        days = 29 if leap else 28
    elif month in (4, 6, 9, 11):
        days = 30
    if day > days or hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 60:
        return NULL_INT64
    fraction: Any = np.int64(0)
    if n > 17:
        if arena[a + 17] != DOT or _count(arena, a + 18, b) < 0:
            return NULL_INT64
        fraction = _count(arena, a + 18, min(b, a + 27))
        for _ in range(9 - min(n - 18, 9)):
            fraction *= 10
    y = year - (1 if month <= 2 else 0)  # days from civil: the year begins in March
    era = y // 400
    of_era = y - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    date = era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    return ((date * 24 + hour) * 60 + minute) * 60 * NANOS + second * NANOS + fraction


@kernel
def _text(arena: Any, a: Any, b: Any, out: Any, offset: Any, width: Any) -> Any:
    """Copy [a, b) without trailing spaces as printable ASCII; returns its length, which may exceed the width."""
    while b > a and arena[b - 1] == SPACE:
        b -= 1
    if b - a <= width:
        for i in range(a, b):
            c = arena[i]
            out[offset + i - a] = c if SPACE <= c <= TILDE else QUESTION
    return b - a


@kernel
def _fields(arena: Any, a: Any, b: Any, slots: Any, data_of: Any, spec: Any, row: Any, text: Any) -> None:
    """Read the fields of a body [a, b), of which the last byte is SOH, into one row of the table."""
    data_tag: Any = np.int64(-1)
    data_length: Any = np.int64(0)
    while a < b:
        tag: Any = np.int64(0)
        first = a
        while ZERO <= arena[a] <= NINE and a - first < TAG_DIGITS_MAX:  # ends at SOH at the latest
            tag = tag * 10 + np.int64(arena[a]) - ZERO
            a += 1
        if a == first or arena[first] == ZERO or arena[a] != EQUALS:
            row[VERDICT], row[FOUND] = FIELD, first
            return
        a += 1
        end = a
        if tag == data_tag:
            end = a + data_length
            if end >= b or arena[end] != SOH:
                row[VERDICT], row[TAG], row[EXPECTED], row[FOUND] = DATA_LENGTH, tag, data_length, first
                return
        else:
            while arena[end] != SOH:
                end += 1
        data_tag = np.int64(-1)
        if tag < TAGS:
            if data_of[tag] >= 0:
                data_tag, data_length = np.int64(data_of[tag]), _count(arena, a, end)
                if data_length < 0:
                    row[VERDICT], row[TAG], row[FOUND] = NUMBER, tag, first
                    return
            k = slots[tag]
            if k >= 0 and row[FIRST_TAG + k] == NULL_INT64:
                kind = spec[k, 0]
                if kind == TEXT:
                    n = _text(arena, a, end, text, spec[k, 1], spec[k, 2])
                    if n > spec[k, 2]:
                        row[VERDICT], row[TAG], row[EXPECTED], row[FOUND] = TOO_LONG, tag, spec[k, 2], n
                        return
                    row[FIRST_TAG + k] = n
                elif kind == DECIMAL:
                    right, value = _decimal(arena, a, end)
                    if not right:
                        row[VERDICT], row[TAG], row[FOUND] = NUMBER, tag, first
                        return
                    row[FIRST_TAG + k] = value
                elif kind == COUNT:
                    value = _count(arena, a, end)
                    if value < 0:
                        row[VERDICT], row[TAG], row[FOUND] = NUMBER, tag, first
                        return
                    row[FIRST_TAG + k] = value
                elif kind == INSTANT:
                    value = _instant(arena, a, end)
                    if value == NULL_INT64:
                        row[VERDICT], row[TAG], row[FOUND] = TIME, tag, first
                        return
                    row[FIRST_TAG + k] = value
                else:
                    row[FIRST_TAG + k] = np.int64(arena[a]) if end - a == 1 else 0
        a = end + 1


@kernel
def _seek(arena: Any, p: Any, end: Any) -> tuple[bool, Any]:
    """Find "8=FIX" in [p, end): (true, where), or (false, where a first part of it begins, at most 4 bytes)."""
    mark = (56, 61, 70, 73, 88)
    while p < end:
        n = 0
        while n < 5 and p + n < end and arena[p + n] == mark[n]:
            n += 1
        if n == 5:
            return True, p
        if p + n == end:
            return False, p
        p += 1
    return False, end


@kernel
def _like_trailer(arena: Any, p: Any, end: Any) -> Any:
    """Bytes at p that agree with 10=ddd␁."""
    shape = (49, ZERO, EQUALS, -1, -1, -1, SOH)
    n = 0
    while n < TRAILER_BYTES and p + n < end:
        c = np.int64(arena[p + n])
        if c != shape[n] and not (shape[n] < 0 and ZERO <= c <= NINE):
            break
        n += 1
    return n


@kernel
def _head(arena: Any, p: Any, end: Any, head: Any) -> Any:
    """Read 8=…␁9=…␁35= at p. head: 0 body start, 1 body length, 2 version, 3 deciding byte.

    Returns a verdict, OK, or -1 when bytes are missing.
    """
    for i in range(2):
        if p + i >= end:
            return -1
        if arena[p + i] != (56, EQUALS)[i]:
            head[3] = p + i
            return GARBLED
    at = p + 2
    while True:
        if at >= end:
            return -1
        if at - p - 2 >= BEGIN_BYTES_MAX or arena[at] == EQUALS:  # or another message begins inside
            head[3] = at
            return BEGIN_STRING
        if arena[at] == SOH:
            break
        at += 1
    head[2] = _version(arena, p + 2, at)
    for i in range(2):
        at += 1
        if at >= end:
            return -1
        if arena[at] != (NINE, EQUALS)[i]:
            head[3] = at
            return TAG_ORDER if head[2] != FOREIGN else BEGIN_STRING
    length: Any = np.int64(0)
    first = at + 1
    while True:
        at += 1
        if at >= end:
            return -1
        c = np.int64(arena[at])
        if c == SOH and at > first:
            break
        if c < ZERO or c > NINE or at - first >= LENGTH_DIGITS_MAX:
            head[1], head[3] = -1, at
            return BODY_LENGTH
        length = length * 10 + c - ZERO
    head[0], head[1], head[3] = at + 1, length, at
    if length > BODY_BYTES_MAX or (length < BODY_BYTES_MIN and head[2] != FOREIGN):
        return BODY_LENGTH
    if head[2] != FOREIGN:
        for i in range(3):
            at += 1
            if at >= end:
                return -1
            if arena[at] != (51, 53, EQUALS)[i]:  # 3 5 =
                head[3] = at
                return TAG_ORDER
    return OK


@kernel
def _trailer(arena: Any, p: Any, body: Any, t: Any, row: Any) -> bool:
    """Verify BodyLength and CheckSum of the message [p, t + 7) with a body [body, t); all of its bytes are there."""
    if arena[t - 1] != SOH or arena[t] != 49 or arena[t + 1] != ZERO or arena[t + 2] != EQUALS:
        row[VERDICT], row[FOUND], row[EXPECTED] = BODY_LENGTH, t - body, -1
        for i in range(body, t):  # where the checksum field really begins, if it is within
            if arena[i] == SOH and arena[i + 1] == 49 and arena[i + 2] == ZERO and arena[i + 3] == EQUALS:
                row[EXPECTED] = i + 1 - body
                break
        return False
    total: Any = np.int64(0)
    for i in range(p, t):
        total += np.int64(arena[i])
    row[EXPECTED], row[FOUND] = total & 255, _count(arena, t + 3, t + 6)
    if arena[t + 6] != SOH:
        row[FOUND] = -1
    if row[EXPECTED] != row[FOUND]:
        row[VERDICT] = CHECKSUM
        return False
    return True


@kernel
def scan(arena: Any, pieces: Any, slots: Any, data_of: Any, spec: Any, table: Any, text: Any, said: Any) -> Any:
    """Scan pieces into `table` and `text`; `said` tells how each piece ended.

    A piece is a row of start, end, state, bytes skipped so far, and whether FIX is expected by configuration.

    Returns the rows made, or -1 when the table is too small.
    """
    n, head = 0, np.zeros(4, np.int64)
    for k in range(pieces.shape[0]):
        p, end, state, skipped = pieces[k, 0], pieces[k, 1], pieces[k, 2], pieces[k, 3]
        if state == AFTER_GAP:
            state, skipped = SKIPPING, said[k - 1, P_SKIPPED]
            if said[k - 1, P_STATE] == JOINING:
                state = np.int64(JOINING)
        need: Any = np.int64(1)
        settled: Any = np.int64(p)
        while p < end:
            if n == table.shape[0]:
                return -1
            if state in (SKIPPING, JOINING):
                found, q = _seek(arena, p, end)
                if state == JOINING and pieces[k, 4] and skipped <= NOT_FIX_BYTES_MAX < skipped + q - p:
                    settled = p + NOT_FIX_BYTES_MAX - skipped
                    row = table[n]
                    row[PIECE], row[BEGIN], row[END], row[SETTLED], row[VERDICT] = (
                        k,
                        settled,
                        settled + 1,
                        settled,
                        NOT_FIX,
                    )
                    n += 1
                skipped += q - p
                p = q
                if n == table.shape[0]:
                    return -1
                if not found:
                    need = end - p + 1
                    break
                if state == JOINING and skipped > 0:
                    settled = max(settled, q + 4)
                    row = table[n]
                    row[PIECE], row[BEGIN], row[END], row[SETTLED] = k, q, q, settled
                    row[VERDICT], row[FOUND] = JOINED, skipped
                    n += 1
                state = IN_SYNC
                continue
            if state == AFTER_FOREIGN:
                like = _like_trailer(arena, p, end)
                if like > 0 and like < TRAILER_BYTES and p + like == end:
                    need = like + 1
                    break
                state = IN_SYNC
                if like == TRAILER_BYTES:
                    p += TRAILER_BYTES
                    continue
            verdict = _head(arena, p, end, head)
            if verdict == -1:
                need = end - p + 1
                break
            total: Any = np.int64(0)
            if verdict == OK:
                total = head[0] - p + head[1] + (TRAILER_BYTES if head[2] != FOREIGN else 0)
                if end - p < total:
                    need = total
                    break
            row = table[n]
            row[PIECE], row[BEGIN], row[TAG], row[VERSION] = k, p, CHECKSUM_TAG, head[2]
            n += 1
            if verdict != OK:
                row[TAG] = LENGTH_TAG
                row[VERDICT], row[END] = verdict, head[3] + 1
                row[EXPECTED], row[FOUND] = BODY_BYTES_MAX, head[1]
                if verdict == GARBLED and state == START:
                    row[VERDICT] = NOT_FIX
                state = SKIPPING
                p += 1
            else:
                row[END] = p + total
                if head[2] == FOREIGN:
                    row[VERDICT], state = BEGIN_STRING, AFTER_FOREIGN
                    p += total
                else:
                    state = IN_SYNC
                    body = head[0]
                    for j in range(FIRST_TAG, table.shape[1]):
                        row[j] = NULL_INT64
                    row[VERDICT] = OK
                    if _trailer(arena, p, body, body + head[1], row):
                        _fields(arena, body, body + head[1], slots, data_of, spec, row, text[n - 1])
                    if row[VERDICT] == BODY_LENGTH or (row[VERDICT] == CHECKSUM and row[FOUND] < 0):
                        state = SKIPPING
                        p += 1
                    else:
                        p += total
            settled = max(settled, row[END] - 1)
            row[SETTLED] = settled
        said[k, P_STATE], said[k, P_TAIL], said[k, P_NEED], said[k, P_SKIPPED] = state, p, need, skipped
    return n
