"""What the store answers: results, and errors with ClickHouse's own codes, texts and HTTP statuses; does no I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from http import HTTPStatus

# Statuses as a server gives them (src/Server/HTTP/exceptionCodeToHTTPStatus.cpp); every other code is a 500.
_CODES = {
    HTTPStatus.UNAUTHORIZED: (194,),
    HTTPStatus.FORBIDDEN: (192, 193, 497, 512, 516),
    HTTPStatus.BAD_REQUEST: (
        6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168, 223, 321, 376, 427, 441, 675, 676,
    ),
    HTTPStatus.NOT_FOUND: (46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (229,),
    HTTPStatus.NOT_IMPLEMENTED: (48,),
    HTTPStatus.SERVICE_UNAVAILABLE: (76, 202, 209, 439),  # 202 is ours: too many queries, so that clients try again
    HTTPStatus.LENGTH_REQUIRED: (381,),
    HTTPStatus.REQUEST_TIMEOUT: (159,),
}  # fmt: skip
STATUS = {code: status for status, codes in _CODES.items() for code in codes}
STD_EXCEPTION = 1001  # ClickHouse's code for an error that has none

_CODE = re.compile(r"Code: (\d+)\. DB::Exception: ")
_NESTED = re.compile(r"Code: \d+\. DB::Exception: (?=Code: \d+\. DB::Exception: )")
_VERSION = re.compile(r" \(version [^()]*(?:\([^()]*\))?\)")
_DOUBLED = re.compile(r"(?P<name> \([A-Z0-9_]+\))\. ?(?P=name)")


class RefusedError(Exception):
    """The store does not do it: `code` and `text` as the engine, or we in its words, say it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text

    @classmethod
    def from_engine(cls, message: str) -> RefusedError:
        """Read an error of chDB, which wraps the engine's own once or twice.

        >>> error = RefusedError.from_engine(
        ...     "Code: 115. DB::Exception: Code: 115. DB::Exception: Unknown setting 'x'. (UNKNOWN_SETTING) "
        ...     "(version 26.9.2.1). (UNKNOWN_SETTING)"
        ... )
        >>> error.code, error.text
        (115, "Unknown setting 'x'. (UNKNOWN_SETTING)")
        """
        found = _CODE.search(message)
        if found is None:
            return cls(STD_EXCEPTION, f"{message.strip()} (STD_EXCEPTION)")
        text = _NESTED.sub("", message[found.start() :])
        inner = _CODE.match(text)
        assert inner is not None
        return cls(int(inner[1]), _DOUBLED.sub(r"\g<name>", _VERSION.sub("", text[inner.end() :])).strip())

    @property
    def status(self) -> HTTPStatus:
        """HTTP status that a server would give."""
        return STATUS.get(self.code, HTTPStatus.INTERNAL_SERVER_ERROR)

    def body(self, version: str) -> bytes:
        """Text of the answer, as a server writes it."""
        return f"Code: {self.code}. DB::Exception: {self.text} (version {version} (embedded))\n".encode()


@dataclass
class Answer:
    """What a statement gave: the bytes of its result, their format ("" when it returns no rows), and the counts.

    `owner` holds the memory behind `data`: the engine's views do not, and freed memory is the next query's.
    """

    data: bytes | memoryview = b""
    format: str = ""
    summary: dict[str, str] = field(default_factory=dict)
    owner: object = None
