"""Bodies of requests and answers: every encoding there and back, and every way in which one can be broken."""

from __future__ import annotations

import gzip
import io
import zlib

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from akbypass.local import http_body
from akbypass.local.http_body import BodyError

PACKERS = {
    "lz4": lambda d: bytes(cramjam.lz4.compress(d)), "zstd": lambda d: bytes(cramjam.zstd.compress(d)),
    "gzip": gzip.compress, "deflate": zlib.compress,
}  # fmt: skip


def chunked(data: bytes, size: int) -> bytes:
    """Write a body in chunks, as RFC 9112 section 7.1 says."""
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    return b"".join(b"%x;x=y\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\nTrailer: t\r\n\r\n"


@given(st.binary(max_size=400), st.integers(1, 50))
def test_chunks_join_to_the_body_and_the_next_request_is_untouched(data: bytes, size: int) -> None:
    """Whatever the cuts, the body comes back and the reader stands behind it."""
    source = io.BufferedReader(io.BytesIO(chunked(data, size) + b"POST"))  # type: ignore[arg-type]
    assert http_body.read(source, None, "chunked") == data
    assert source.read() == b"POST"


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_body_that_breaks_off_is_never_taken_for_whole(data: bytes, draw: st.DataObject) -> None:
    """Every proper beginning of a chunked or measured body before its end is an error."""
    whole = chunked(data, 7)
    cut = draw.draw(st.integers(0, len(whole) - len(b"0\r\nTrailer: t\r\n\r\n")))
    with pytest.raises(BodyError, match="broke off"):
        http_body.read(io.BufferedReader(io.BytesIO(whole[:cut])), None, "chunked")  # type: ignore[arg-type]
    with pytest.raises(BodyError, match="broke off"):
        http_body.read(io.BufferedReader(io.BytesIO(data[:-1])), str(len(data)), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PACKERS)
def test_packed_bodies_unpack_also_in_several_frames(name: str) -> None:
    """One frame, and for all but deflate a second behind it; cut or changed ones are errors."""
    data = bytes(range(256)) * 40
    packed = PACKERS[name](data)
    assert http_body.unpack(packed, name) == data
    if name != "deflate":
        assert http_body.unpack(packed + packed, name) == data * 2
    for broken in (packed[:-1], packed[: len(packed) // 2], b"\x00" + packed):
        with pytest.raises(BodyError, match="Cannot decompress"):
            http_body.unpack(broken, name)


@pytest.mark.parametrize("name", PACKERS)
def test_a_small_body_cannot_unpack_to_a_huge_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpacking stops at the limit."""
    monkeypatch.setattr(http_body, "REQUEST_BYTES_MAX", 1_000_000)
    with pytest.raises(BodyError, match="larger than"):
        http_body.unpack(PACKERS[name](bytes(5_000_000)), name)


def test_sizes_beyond_the_limit_and_unknown_encodings_are_named() -> None:
    """Length, chunk and encoding are checked before anything is read."""
    for length, transfer, body in ((str(1 << 40), None, b""), (None, "chunked", b"ffffffffff\r\n")):
        with pytest.raises(BodyError, match="larger than"):
            http_body.read(io.BufferedReader(io.BytesIO(body)), length, transfer)  # type: ignore[arg-type]
    with pytest.raises(BodyError, match="no number"):
        http_body.read(io.BufferedReader(io.BytesIO(b"")), "-1", None)  # type: ignore[arg-type]
    with pytest.raises(BodyError, match="Unknown compression method: 'snappy'"):
        http_body.unpack(b"x", "snappy")


def test_answers_are_packed_as_the_client_asks() -> None:
    """The first that we have of what is accepted; nothing for small answers or without the wish."""
    data = b"x" * 10_000
    packed, name = http_body.pack(data, "br, zstd;q=0.5, gzip")
    assert name == "zstd"
    assert bytes(cramjam.zstd.decompress(packed)) == data
    assert http_body.pack(data, None) == (data, "")
    assert http_body.pack(b"small", "lz4") == (b"small", "")


def test_fields_of_a_form_are_read_and_files_refused() -> None:
    """As urllib3 writes them."""
    from urllib3 import encode_multipart_formdata

    body, content_type = encode_multipart_formdata({"query": "SELECT {a:String}\n -- ü", "param_a": ""})
    assert http_body.form_fields(body, content_type) == {"query": "SELECT {a:String}\n -- ü", "param_a": ""}
    body, content_type = encode_multipart_formdata({"t": ("t.csv", b"1,2")})
    with pytest.raises(BodyError, match="External tables"):
        http_body.form_fields(body, content_type)
