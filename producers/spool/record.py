"""One message on disk; opens no file.

    u32 length of what follows the check   u32 CRC-32 of it
    u64 number   i32 partition   u16 topic   i32 key   i32 value   u16 headers      (lengths; -1: there is none; count)
    topic, key, value, then of each header: u16 name, u32 value (lengths), name, value

Little-endian. Numbers rise from record to record; they are the order in which messages were accepted.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from akbypass.batch import Headers

CHECK = struct.Struct("<II")
BODY = struct.Struct("<QiHiiH")
HEADER = struct.Struct("<HI")
LENGTH_MAX = 16 * 1024 * 1024  # eight times what a broker takes; a longer record is damage


@dataclass(frozen=True, slots=True)
class Record:
    """A message for a topic (full name) and partition, with its place in the order of all."""

    number: int
    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    def parts(self) -> list[bytes]:
        """The record as pieces to be written one behind the other."""
        topic, key, value = self.topic.encode(), self.key, self.value
        lengths = (-1 if key is None else len(key), -1 if value is None else len(value))
        body = [
            BODY.pack(self.number, self.partition, len(topic), *lengths, len(self.headers)),
            topic,
            key or b"",
            value or b"",
        ]
        for name, data in self.headers:
            encoded = name.encode()
            body += [HEADER.pack(len(encoded), len(data)), encoded, data]
        check, length = 0, 0
        for part in body:
            check, length = zlib.crc32(part, check), length + len(part)
        return [CHECK.pack(length, check), *body]

    def size(self) -> int:
        """Bytes of the record on disk."""
        headers = sum(HEADER.size + len(name.encode()) + len(data) for name, data in self.headers)
        return (
            CHECK.size + BODY.size + len(self.topic.encode()) + len(self.key or b"") + len(self.value or b"") + headers
        )


def parse(body: bytes) -> Record:
    """Read the body of a record whose check was right."""
    number, partition, topic, key, value, headers = BODY.unpack_from(body)
    at = BODY.size

    def take(length: int) -> bytes:
        nonlocal at
        at += length
        return body[at - length : at]

    name = take(topic).decode()
    kept_key = None if key < 0 else take(key)
    kept_value = None if value < 0 else take(value)
    found: Headers = []
    for _ in range(headers):
        lengths = HEADER.unpack(take(HEADER.size))
        found.append((take(lengths[0]).decode(), take(lengths[1])))
    return Record(number, name, partition, kept_key, kept_value, found)
