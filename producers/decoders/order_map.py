"""From FIX values to the canonical columns of orders: kinds, sides, venue and client of a connection; reads no bytes.

Kinds of an execution report, by ExecType (150), where it is absent by OrdStatus (39); up to FIX 4.2 ExecTransType (20)
comes first: 1 cancels and 2 corrects an execution (bust), 3 is a status.

    0 new → ack              4 canceled, C expired → canceled       8 rejected → reject
    1 2 F fills → fill       5 replaced → replaced                  G correct, H cancel of a trade → bust
    6 A E pending → pending  3 7 9 B D I L and others → status
"""

from __future__ import annotations

import hashlib

import numpy as np

from akbypass import schemas
from akbypass.config import Config
from akbypass.producers.decoders.fix import VERSION_4_2
from akbypass.producers.decoders.tcp_flow import Connection, reverse_key
from akbypass.rows import Array, address_text

_SCHEMA = schemas.load("orders")
VENUE_BYTES = _SCHEMA.by_name["venue"].width
SESSION_BYTES = _SCHEMA.by_name["session"].width
TO_VENUE = _SCHEMA.code("direction", "to_venue")
FROM_VENUE = _SCHEMA.code("direction", "from_venue")
FROM_CLIENT, FROM_EXCHANGE = b"DFG", b"89"  # message types that tell who sends


def _table(column: str, default: str, codes: dict[str, str]) -> Array:
    table = np.full(256, _SCHEMA.code(column, default), np.int8)
    for symbol, letters in codes.items():
        for letter in letters:
            table[ord(letter)] = _SCHEMA.code(column, symbol)
    return table


_KIND_OF_TYPE = _table("kind", "other", {
    "new": "D", "replace": "G", "cancel": "F", "status": "8", "cancel_reject": "9", "logon": "A", "logout": "5",
    "heartbeat": "0", "test_request": "1", "resend_request": "2", "sequence_reset": "4", "session_reject": "3",
    "business_reject": "j",
})  # fmt: skip
_KIND_OF_EXECUTION = _table("kind", "status", {
    "ack": "0", "fill": "12F", "canceled": "4C", "replaced": "5", "pending": "6AE", "reject": "8", "bust": "GH",
})  # fmt: skip
_KIND_OF_TRANSACTION = {ord("1"): "bust", ord("2"): "bust", ord("3"): "status"}
_SIDE = _table("side", "none", {"buy": "13", "sell": "2456"})


def letters(strings: Array) -> Array:
    """Byte of each one-byte string, 0 for others."""
    width = strings.dtype.itemsize
    matrix = np.ascontiguousarray(strings).view(np.uint8).reshape(len(strings), width)
    return np.where(matrix[:, 1] == 0, matrix[:, 0], 0)


def kinds(message_type: Array, exec_type: Array, ord_status: Array, transaction: Array, version: Array) -> Array:
    """Canonical kind of each message; `transaction` is the byte of ExecTransType."""
    types, execution = letters(message_type), letters(exec_type)
    out = _KIND_OF_TYPE[types]
    reports = np.flatnonzero(types == ord("8"))
    if len(reports):
        decisive = np.where(exec_type[reports] == b"", letters(ord_status[reports]), execution[reports])
        out[reports] = _KIND_OF_EXECUTION[decisive]
        old = version[reports] <= VERSION_4_2
        for code, symbol in _KIND_OF_TRANSACTION.items():
            out[reports[old & (transaction[reports] == code)]] = _SCHEMA.code("kind", symbol)
    return out


def sides(codes: Array) -> Array:
    """Canonical side of the bytes of tag 54; unknown ones are none."""
    known = (codes > 0) & (codes < 256)
    return np.where(known, _SIDE[np.where(known, codes, 0)], _SCHEMA.code("side", "none")).astype(np.int8)


def venue_text(packed: bytes) -> bytes:
    """Write an address as a venue; one too long (IPv6) as ip6: and twelve digits of its hash."""
    text = address_text(packed).encode()
    return text if len(text) <= VENUE_BYTES else b"ip6:" + hashlib.blake2b(packed, digest_size=6).hexdigest().encode()


class Roles:
    """Who is the venue of a connection: told once, kept for its life."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def decide(self, connection: Connection, sender: bytes, message_type: bytes) -> None:
        """Set client and venue from the configuration, the SYN, or else the first message and the ports."""
        for d in connection.directions:
            name = self._config.venue_of(address_text(d.key[18:34]), int.from_bytes(d.key[34:36], "big"))
            if name is not None:
                connection.client, connection.venue = d.key, name.encode("ascii", "replace")
                return
        connection.client = connection.syn_key or _by_message(sender, message_type)
        connection.venue = venue_text(connection.client[18:34])


def _by_message(sender: bytes, message_type: bytes) -> bytes:
    if len(message_type) == 1 and message_type in FROM_CLIENT:
        return sender
    if len(message_type) == 1 and message_type in FROM_EXCHANGE:
        return reverse_key(sender)
    return sender if sender[16:18] >= sender[34:36] else reverse_key(sender)
