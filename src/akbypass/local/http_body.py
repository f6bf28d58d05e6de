"""Bodies of HTTP requests and answers: lengths and chunks, compression, form fields; bounded, knows no SQL."""

from __future__ import annotations

import email
import email.policy
import importlib
import sys
import zlib
from http import HTTPStatus
from io import BufferedIOBase
from typing import Any

import cramjam

REQUEST_BYTES_MAX = 256 << 20  # of a body, as sent and as unpacked; the writer's largest insert is 64 MiB
COMPRESS_BYTES_MIN = 1_024  # smaller answers are sent as they are
LINE_BYTES_MAX = 1_024  # of a chunk's size line
_LZ4, _ZSTD = "lz4.frame", "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"


class BodyError(Exception):
    """A body that cannot be taken: `status` and ClickHouse's `code` say why."""

    def __init__(self, status: HTTPStatus, code: int, text: str) -> None:
        super().__init__(text)
        self.status, self.code, self.text = status, code, text


TOO_LARGE = BodyError(
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    229,
    f"Request body is larger than {REQUEST_BYTES_MAX} bytes. (QUERY_IS_TOO_LARGE)",
)
BROKEN_OFF = BodyError(HTTPStatus.BAD_REQUEST, 33, "Request body broke off. (CANNOT_READ_ALL_DATA)")


def read(source: BufferedIOBase, length: str | None, transfer: str | None) -> bytes:
    """Read one body, by its length or in chunks; raises BodyError when it is too large or breaks off."""
    if transfer and transfer.lower() == "chunked":
        return _read_chunks(source)
    if not length:
        return b""
    if not length.isdecimal():
        raise BodyError(
            HTTPStatus.BAD_REQUEST, 381, f"Content-Length is no number: {length!r:.40}. (HTTP_LENGTH_REQUIRED)"
        )
    if int(length) > REQUEST_BYTES_MAX:
        raise TOO_LARGE
    return _exactly(source, int(length))


def _exactly(source: BufferedIOBase, size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise BROKEN_OFF
    return data


def _read_chunks(source: BufferedIOBase) -> bytes:
    parts, total = [], 0
    while True:
        line = source.readline(LINE_BYTES_MAX)
        try:
            size = int(line.split(b";")[0], 16)
        except ValueError:
            raise BROKEN_OFF from None
        total += size
        if size < 0 or total > REQUEST_BYTES_MAX:
            raise TOO_LARGE
        if size == 0:
            break
        parts.append(_exactly(source, size))
        _exactly(source, 2)
    while source.readline(LINE_BYTES_MAX).strip():  # trailers
        pass
    return b"".join(parts)


def unpack(data: bytes, encoding: str | None) -> bytes:
    """Undo a Content-Encoding; raises BodyError for one that is not known, for damage, and beyond the limit."""
    encoding = (encoding or "identity").lower()
    if encoding == "identity" or not data:
        return data
    parts, total = [], 0
    try:
        while data:
            decoder = _decoder(encoding)
            part = decoder.decompress(data, REQUEST_BYTES_MAX + 1 - total)
            total += len(part)
            if total > REQUEST_BYTES_MAX:
                raise TOO_LARGE
            if not decoder.eof:
                raise EOFError("it ends too early")
            parts.append(part)
            data = decoder.unused_data or b""  # a further frame
    except BodyError:
        raise
    except Exception as error:  # each codec has its own kind
        raise BodyError(
            HTTPStatus.BAD_REQUEST, 271, f"Cannot decompress {encoding}: {error}. (CANNOT_DECOMPRESS)"
        ) from error
    return b"".join(parts)


def _decoder(encoding: str) -> Any:
    if encoding == "gzip":
        return zlib.decompressobj(31)
    if encoding == "deflate":
        return zlib.decompressobj(15)
    try:
        if encoding == "lz4":
            return importlib.import_module(_LZ4).LZ4FrameDecompressor()
        if encoding == "zstd":
            return importlib.import_module(_ZSTD).ZstdDecompressor()
    except ImportError:
        pass
    text = (
        f"Unknown compression method: {encoding!r:.40}; known: lz4, zstd, gzip, deflate. (UNKNOWN_COMPRESSION_METHOD)"
    )
    raise BodyError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, 89, text)


def pack(data: bytes | memoryview, accepted: str | None) -> tuple[Any, str]:
    """Compress an answer by the cheapest encoding that the client accepts; returns it with the encoding, "" for none."""
    offers = {part.split(";")[0].strip().lower() for part in (accepted or "").split(",")}
    if len(data) >= COMPRESS_BYTES_MIN:
        for name, codec in (
            ("lz4", cramjam.lz4),
            ("zstd", cramjam.zstd),
            ("gzip", cramjam.gzip),
            ("deflate", cramjam.zlib),
        ):
            if name in offers:
                return memoryview(codec.compress(data)), name
    return data, ""


def form_fields(data: bytes, content_type: str) -> dict[str, str]:
    """Read the plain fields of multipart/form-data; raises BodyError for files (external tables)."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1")
    message = email.message_from_bytes(head + data, policy=email.policy.HTTP)
    fields = {}
    for part in message.iter_parts():
        if part.get_filename() is not None:
            raise BodyError(HTTPStatus.NOT_IMPLEMENTED, 48, "External tables are not served here. (NOT_IMPLEMENTED)")
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)  # a part of a form is no multipart itself
        fields[str(part.get_param("name", header="content-disposition"))] = payload.decode()
    return fields
