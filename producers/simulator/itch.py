"""Writes Nasdaq TotalView-ITCH 5.0 messages in MoldUDP64 packets; does not read any, and keeps no book.

    MoldUDP64 packet   session[10] sequence of the first message[8] count[2] then count blocks: length[2] message
                       count 0: heartbeat, 0xFFFF: end of session; both carry the next sequence number
    ITCH message       type[1] stock locate[2] tracking number[2] timestamp[6]: ns since midnight in New York, then

    S system event   event[1]
    R directory      stock[8] category[1] status[1] round lot[4] lots only[1] class[1] sub-type[2] authenticity[1]
                     short sale[1] IPO[1] LULD tier[1] ETP[1] leverage[4] inverse[1]
    H trading action stock[8] state[1] reserved[1] reason[4]
    A add            reference[8] side[1] shares[4] stock[8] price[4]
    E executed       reference[8] shares[4] match[8]
    C with price     reference[8] shares[4] match[8] printable[1] price[4]
    X cancel         reference[8] shares[4]
    D delete         reference[8]
    U replace        reference[8] new reference[8] shares[4] price[4]
    P trade          reference[8]=0 side[1] shares[4] stock[8] price[4] match[8]

Big-endian; prices in 1e-4 currency units. Source: "Nasdaq TotalView-ITCH 5.0", sections 1.1 to 1.6; "MoldUDP64" 1.00.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

END_OF_SESSION = 0xFFFF
MESSAGES_MAX = 8  # messages in one packet here; keeps frames far below any large-packet limit
PRICE_PER_TICK = 100  # a tick is 0.01
_MOLD = struct.Struct(">10sQH")
_SYSTEM = struct.Struct(">HcHHHIc")
_DIRECTORY = struct.Struct(">HcHHHI8sccIcc2scccccIc")
_TRADING = struct.Struct(">HcHHHI8scc4s")
_ADD = struct.Struct(">HcHHHIQcI8sI")
_EXECUTE = struct.Struct(">HcHHHIQIQ")
_EXECUTE_PRICE = struct.Struct(">HcHHHIQIQcI")
_CANCEL = struct.Struct(">HcHHHIQI")
_DELETE = struct.Struct(">HcHHHIQ")
_REPLACE = struct.Struct(">HcHHHIQQII")
_TRADE = struct.Struct(">HcHHHIQcI8sIQ")


class Messages:
    """Blocks of one feed that wait for their packet; every method appends one message, stamped `ts` ns after midnight.

    `stock` is padded to 8 bytes with spaces, `ticks` are 0.01 currency units.
    """

    __slots__ = ("blocks",)

    def __init__(self) -> None:
        self.blocks: list[bytes] = []

    def system(self, ts: int, event: bytes) -> None:
        """S: O start of messages, S start of system hours, Q start of market hours, M, E and C their ends."""
        self.blocks.append(_SYSTEM.pack(12, b"S", 0, 0, ts >> 32, ts & 0xFFFFFFFF, event))

    def directory(self, ts: int, locate: int, stock: bytes) -> None:
        """R: one stock and its number for the day."""
        head = (39, b"R", locate, 0, ts >> 32, ts & 0xFFFFFFFF)
        rest = (b"Q", b"N", 100, b"N", b"C", b"Z ", b"P", b"N", b"N", b"1", b"N", 0, b"N")
        self.blocks.append(_DIRECTORY.pack(*head, stock, *rest))

    def trading(self, ts: int, locate: int, stock: bytes) -> None:
        """H: the stock trades."""
        self.blocks.append(_TRADING.pack(25, b"H", locate, 0, ts >> 32, ts & 0xFFFFFFFF, stock, b"T", b" ", b"    "))

    def add(self, ts: int, locate: int, stock: bytes, ref: int, buy: bool, shares: int, ticks: int) -> None:
        """A: an order rests."""
        head = (36, b"A", locate, 0, ts >> 32, ts & 0xFFFFFFFF)
        self.blocks.append(_ADD.pack(*head, ref, b"B" if buy else b"S", shares, stock, ticks * PRICE_PER_TICK))

    def execute(self, ts: int, locate: int, ref: int, shares: int, match: int) -> None:
        """E: a resting order trades at its price."""
        self.blocks.append(_EXECUTE.pack(31, b"E", locate, 0, ts >> 32, ts & 0xFFFFFFFF, ref, shares, match))

    def execute_price(self, ts: int, locate: int, ref: int, shares: int, match: int, ticks: int) -> None:
        """C: a resting order trades at another price."""
        head = (36, b"C", locate, 0, ts >> 32, ts & 0xFFFFFFFF)
        self.blocks.append(_EXECUTE_PRICE.pack(*head, ref, shares, match, b"Y", ticks * PRICE_PER_TICK))

    def cancel(self, ts: int, locate: int, ref: int, shares: int) -> None:
        """X: some shares of an order are withdrawn."""
        self.blocks.append(_CANCEL.pack(23, b"X", locate, 0, ts >> 32, ts & 0xFFFFFFFF, ref, shares))

    def delete(self, ts: int, locate: int, ref: int) -> None:
        """D: an order is withdrawn."""
        self.blocks.append(_DELETE.pack(19, b"D", locate, 0, ts >> 32, ts & 0xFFFFFFFF, ref))

    def replace(self, ts: int, locate: int, ref: int, new_ref: int, shares: int, ticks: int) -> None:
        """U: an order is replaced by another one on the same side."""
        head = (35, b"U", locate, 0, ts >> 32, ts & 0xFFFFFFFF)
        self.blocks.append(_REPLACE.pack(*head, ref, new_ref, shares, ticks * PRICE_PER_TICK))

    def trade(self, ts: int, locate: int, stock: bytes, shares: int, ticks: int, match: int) -> None:
        """P: a trade against an order that the feed does not show."""
        head = (44, b"P", locate, 0, ts >> 32, ts & 0xFFFFFFFF)
        self.blocks.append(_TRADE.pack(*head, 0, b"B", shares, stock, ticks * PRICE_PER_TICK, match))


def packet(session: bytes, first_seq: int, blocks: Sequence[bytes]) -> bytes:
    """Write a data packet, or a heartbeat when there are no blocks."""
    return _MOLD.pack(session, first_seq, len(blocks)) + b"".join(blocks)


def end_of_session(session: bytes, next_seq: int) -> bytes:
    """Write an end-of-session packet."""
    return _MOLD.pack(session, next_seq, END_OF_SESSION)
