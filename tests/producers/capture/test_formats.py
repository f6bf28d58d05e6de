"""Claims about the readers: formats, times, damage. Captures come from the tests' own writer."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from akbypass.errors import CaptureError
from akbypass.producers.capture.pcapng_walk import time_rule, to_ns
from akbypass.producers.capture.reader import PROBLEMS_MAX, RECORD_BYTES_MAX
from tests.producers.capture import writer as w
from tests.producers.capture.support import frames_of, rows_of, same_rows

T = 1_700_000_000_123_456_789
FRAME = w.ethernet(w.ipv4(w.udp(b"hello")))
Write = Callable[[bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write bytes to a file whose name tells nothing."""

    def made(content: bytes) -> Path:
        path = tmp_path / "capture.txt"
        path.write_bytes(content)
        return path

    return made


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "unit"), [(w.US, 1_000), (w.NS, 1), (w.MODIFIED, 1_000)])
def test_pcap_in_both_byte_orders_and_resolutions(write: Write, order: str, magic: int, unit: int) -> None:
    """Times, lengths, link type and positions of pcap records are exact in either byte order and resolution."""
    header = 24 if magic == w.MODIFIED else 16
    path = write(w.pcap([(T, FRAME), (T - 5_000, FRAME[:20])], order, magic, link=113))
    found, reader = frames_of(path)
    assert found == [
        (24, T // unit * unit, unit, 113, len(FRAME), len(FRAME), FRAME),
        (24 + header + len(FRAME), (T - 5_000) // unit * unit, unit, 113, 20, 20, FRAME[:20]),
    ]
    assert reader.problems == []


def test_pcap_link_type_without_fcs_bits(write: Write) -> None:
    """The bits above the link type, which tell of a frame check sequence, do not change it."""
    path = write(w.pcap_header(link=1 | 0x24000000) + w.pcap_record(T, FRAME))
    assert frames_of(path)[0][0][3] == 1


def test_captured_shorter_than_wire(write: Write) -> None:
    """A frame cut by the snapshot length keeps both lengths."""
    path = write(w.pcap_header() + w.pcap_record(T, FRAME[:30], wire=1514))
    assert frames_of(path)[0][0][4:6] == (30, 1514)


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_interfaces_have_their_own_clocks(write: Write, order: str) -> None:
    """Each interface's resolution (powers of 10 and of 2) and offset give exact ns."""
    content = w.section(order)
    content += (
        w.interface(1, order) + w.interface(113, order, resolution=9) + w.interface(12, order, resolution=0x80 | 30)
    )
    content += w.interface(276, order, resolution=3, offset=100) + w.interface(1, order, resolution=10)
    binary = (5 << 30) | 1  # 5 s and 2^-30 s
    units = [T // 1_000, T, binary, 7_001, T * 10 + 9]
    start = len(content)
    content += b"".join(w.packet(u, FRAME, i, order) for i, u in enumerate(units))
    found, reader = frames_of(write(content))
    assert [f[1] for f in found] == [T // 1_000 * 1_000, T, 5_000_000_000, 107_001_000_000, T]
    assert [f[2] for f in found] == [1_000, 1, 1, 1_000_000, 1]
    assert [f[3] for f in found] == [1, 113, 12, 276, 1]
    size = len(w.packet(T, FRAME))
    assert [f[0] for f in found] == [start + i * size for i in range(5)]
    assert {f[6] for f in found} == {FRAME}
    assert reader.problems == []


@given(st.integers(0, 2**64 - 1), st.integers(0, 255), st.integers(-(10**9), 10**9))
def test_times_are_exact_to_the_ns(units: int, resolution: int, offset_s: int) -> None:
    """Any count of any unit becomes the ns that exact fractions give, or is out of range."""
    rule, factor, _ = time_rule(resolution)
    k = resolution & 0x7F
    exact = int(Fraction(units * 10**9, 2**k if resolution & 0x80 else 10**k))
    expected = exact + offset_s * 10**9
    found = int(to_ns(np.uint64(units), rule, factor, offset_s * 10**9))
    fits = exact <= 9 * 10**18 and 0 <= expected <= 9 * 10**18
    if rule == 3 or (not resolution & 0x80 and k > 27):
        assert abs(found - expected) <= 1 or found == -1
    else:
        assert found == (expected if fits else -1)


def test_pcapng_sections_begin_anew(write: Write) -> None:
    """A new section brings its own byte order and forgets the interfaces of the one before."""
    content = w.section("<") + w.interface(1, "<") + w.packet(1, FRAME, 0, "<")
    content += (
        w.section(">") + w.interface(101, ">", resolution=9) + w.packet(2, FRAME, 0, ">") + w.packet(3, FRAME, 1, ">")
    )
    found, reader = frames_of(write(content))
    assert [(f[1], f[3]) for f in found] == [(1_000, 1), (2, 101)]
    assert [p.reason for p in reader.problems] == ["interface_unknown"]
    assert reader.problems[0].position == len(content) - len(w.packet(3, FRAME, 1, ">"))


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_other_packet_blocks(write: Write, order: str) -> None:
    """Obsolete and simple packets are read; a simple one takes the time before it and is cut at the snapshot length."""
    content = w.section(order) + w.interface(1, order, snap=40) + w.interface(113, order)
    content += w.old_packet(9, FRAME, 1, order) + w.block(0x40000BAD, b"custom", order) + w.block(4, bytes(8), order)
    content += w.simple_packet(FRAME[:40], order, wire=90)
    found, reader = frames_of(write(content))
    assert [f[1:6] for f in found] == [(9_000, 1_000, 113, len(FRAME), len(FRAME)), (9_000, 1_000, 1, 40, 90)]
    assert found[1][6] == FRAME[:40]
    assert reader.problems == []


def test_pcapng_statistics_are_kernel_drops(write: Write) -> None:
    """Drops of all interfaces and sections add up; later statistics of an interface replace earlier ones."""
    content = (
        w.section() + w.interface() + w.interface() + w.statistics(0, 3) + w.packet(1, FRAME) + w.statistics(0, 5, 1)
    )
    content += w.statistics(1, 7) + w.section(">") + w.interface(order=">") + w.statistics(0, 10, order=">")
    assert frames_of(write(content))[1].kernel_drops == 6 + 7 + 10


def test_large_unknown_block_is_passed_over(write: Write) -> None:
    """A block larger than the buffer is skipped in pieces; packets behind it are read."""
    content = w.section() + w.interface() + w.block(0x0BAD, bytes(900_000)) + w.packet(1, FRAME)
    assert len(frames_of(write(content), chunk_bytes=4_096)[0]) == 1
    found, reader = frames_of(write(content[: len(w.section() + w.interface()) + 700_000]))
    assert (found, [p.reason for p in reader.problems]) == ([], ["truncated"])


def test_bad_packets_are_left_out(write: Write) -> None:
    """A packet whose length or time is wrong is reported and left out; the next one is read."""
    content = w.section() + w.interface(resolution=9)
    bad_length, bad_time = w.packet(1, FRAME, captured=10_000), w.packet(2**64 - 1, FRAME)
    positions = [len(content), len(content + bad_length)]
    found, reader = frames_of(write(content + bad_length + bad_time + w.packet(5, FRAME)))
    assert [f[1] for f in found] == [5]
    assert [(p.position, p.reason) for p in reader.problems] == list(
        zip(positions, ["record_length", "time_range"], strict=True)
    )


def test_problems_are_bounded(write: Write) -> None:
    """Of many problems the first are kept and all are counted."""
    _, reader = frames_of(write(w.section() + w.interface() + w.packet(1, FRAME, 9) * (PROBLEMS_MAX + 50)))
    assert (len(reader.problems), reader.problems_total) == (PROBLEMS_MAX, PROBLEMS_MAX + 50)


@pytest.mark.parametrize("cut", [1, 15, 16, 20])
def test_pcap_cut_in_a_record(write: Write, cut: int) -> None:
    """Of a capture cut in the middle of a record, every whole record is delivered and the position of the cut one told."""
    content = w.pcap([(T, FRAME)])
    found, reader = frames_of(write(content + w.pcap_record(T, FRAME)[:cut]))
    assert len(found) == 1
    assert [(p.position, p.reason) for p in reader.problems] == [(len(content), "truncated")]


def test_pcapng_cut_in_a_block(write: Write) -> None:
    """The same for pcapng."""
    content = w.section() + w.interface() + w.packet(1, FRAME)
    found, reader = frames_of(write(content + w.packet(2, FRAME)[:-5]))
    assert (len(found), [(p.position, p.reason) for p in reader.problems]) == (1, [(len(content), "truncated")])


def test_pcap_corrupt_length(write: Write) -> None:
    """A captured length beyond any snapshot length ends the capture there, and says so."""
    content = w.pcap([(T, FRAME)])
    bad = bytearray(w.pcap_record(T, FRAME))
    bad[8:12] = (RECORD_BYTES_MAX + 1).to_bytes(4, "little")
    found, reader = frames_of(write(content + bytes(bad) + w.pcap_record(T, FRAME)))
    assert (len(found), [(p.position, p.reason) for p in reader.problems]) == (1, [(len(content), "record_length")])


@pytest.mark.parametrize(
    ("change", "reason"), [((4, 13), "block_length"), ((4, 0x40), "block_trailer"), ((-4, 1), "block_trailer")]
)
def test_pcapng_corrupt_framing(write: Write, change: tuple[int, int], reason: str) -> None:
    """A block whose two lengths are impossible or differ ends the capture there."""
    content, bad = w.section() + w.interface() + w.packet(1, FRAME), bytearray(w.packet(2, FRAME))
    bad[change[0]] = change[1]
    found, reader = frames_of(write(content + bytes(bad) + w.packet(3, FRAME)))
    assert (len(found), [(p.position, p.reason) for p in reader.problems]) == (1, [(len(content), reason)])


def test_gzip_of_several_members(write: Write) -> None:
    """gzip is recognised by its first bytes, also in several members and with padding behind."""
    content = w.pcap([(T + i, FRAME) for i in range(200)])
    squeezed = gzip.compress(content[:5_000]) + gzip.compress(content[5_000:]) + bytes(100)
    plain, _ = frames_of(write(content))
    for chunk in (7, 100, 1 << 20):
        found, reader = frames_of(write(squeezed), chunk_bytes=chunk)
        assert (found, reader.problems) == (plain, [])


def test_gzip_cut_and_corrupt(write: Write) -> None:
    """Damaged gzip delivers what came out before; the position is where the decompressed bytes end."""
    noise = random.Random(1)
    content = w.pcap([(T + i, FRAME + noise.randbytes(300)) for i in range(500)])
    squeezed = gzip.compress(content)
    cut, reader = frames_of(write(squeezed[: len(squeezed) // 2]))
    assert 100 < len(cut) < 400
    assert [p.reason for p in reader.problems] == ["gzip_truncated"]
    assert cut[-1][0] < reader.problems[0].position <= len(content) // 2 + 40_000
    broken = bytearray(squeezed)
    broken[-6] ^= 0xFF  # the checksum
    found, reader = frames_of(write(bytes(broken)))
    assert (len(found), [p.reason for p in reader.problems]) == (500, ["gzip_corrupt"])
    assert len(frames_of(write(gzip.compress(content) + b"rubbish"))[0]) == 500


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "found nothing: it is empty"),
        (b"8=FIX.4.2|9=5|", "found text that begins with '8=FIX.4.2|9=5|'"),
        (bytes(range(40)), "found the bytes 00 01 02"),
        (b"\x28\xb5\x2f\xfd" + bytes(30), "Zstandard"),
        (gzip.compress(b"just text"), "found text that begins with 'just text'"),
        (b"\x1f\x8b\x08\x00", "gzip_truncated"),
        (w.pcap_header()[:10], "expected 24 bytes of pcap header, found 10"),
        (w.section()[:20], "expected a pcapng section header, found only 20 of its 28 bytes"),
        (w.pcap_header()[:4] + b"\x09" + w.pcap_header()[5:], "expected pcap version 2, found 9.4"),
        (b"\x0a\x0d\x0d\x0a" + bytes(40), "the byte-order magic 00000000"),
    ],
)  # fmt: skip
def test_what_is_no_capture_at_all(write: Write, content: bytes, says: str) -> None:
    """A file that is no capture is an error that says what was expected and found."""
    with pytest.raises(CaptureError, match="expected") as raised:
        frames_of(write(content))
    assert says in str(raised.value)


def test_no_file_and_directory(tmp_path: Path) -> None:
    """A missing file and a directory are errors that name them."""
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(CaptureError, match=str(path)):
            frames_of(path)


def test_standard_input(write: Write) -> None:
    """`-` reads standard input, compressed or not."""
    path = write(gzip.compress(w.pcap([(T, FRAME)] * 3)))
    code = "from akbypass.producers.capture.formats import open_capture; print(sum(len(b) for b in open_capture('-')))"
    with path.open("rb") as file:
        done = subprocess.run([sys.executable, "-c", code], stdin=file, capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"


def _mixed() -> bytes:
    content = w.section() + w.interface() + w.interface(113, resolution=9)
    for i in range(60):
        payload = bytes(i * 13 % 700)
        content += w.packet(T // 1_000 + i, w.ethernet(w.ipv4(w.tcp(payload, seq=i), 6)))
        content += w.packet(T + i * 1_000, w.cooked(w.ipv4(w.udp(payload))), 1) + w.block(0xBAD, bytes(i))
    return content + w.section(">") + w.interface(101, ">") + w.packet(T // 1_000, w.ipv6(w.udp(b"x")), 0, ">")


@pytest.mark.parametrize("chunk", [7, 100, 4_096, 1 << 20])
@pytest.mark.parametrize("frames_max", [1, 50, 16_384])
def test_chunks_and_batches_do_not_show(write: Write, chunk: int, frames_max: int) -> None:
    """Rows are the same however many bytes a read brings and however many frames a batch holds."""
    path = write(_mixed())
    whole, _, _, payloads = rows_of(path)
    assert len(whole) == 121
    found, _, _, others = rows_of(path, chunk_bytes=chunk, frames_max=frames_max)
    assert same_rows(whole, found)
    assert payloads == others


VALID = [
    w.pcap([(T, FRAME)] * 4),
    w.pcap([(T, FRAME)], ">", w.US),
    _mixed()[:3_000],
    gzip.compress(w.pcap([(T, FRAME)] * 40)),
]
CHANGE = st.tuples(st.integers(0, 3_000), st.integers(0, 255))  # position, new byte


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([b"", *VALID]), st.lists(CHANGE, max_size=6), st.binary(max_size=60), st.booleans())
def test_any_bytes(tmp_path: Path, base: bytes, changes: list[tuple[int, int]], tail: bytes, cut: bool) -> None:
    """Any bytes give frames, problems or CaptureError and nothing else, and the headers of the frames can be parsed."""
    content = bytearray(base[: len(base) * 2 // 3] if cut else base)
    for at, value in changes:
        if at < len(content):
            content[at] = value
    path = tmp_path / "any"
    path.write_bytes(bytes(content) + tail)
    try:
        rows, rejected, status, _ = rows_of(path, chunk_bytes=64)
    except CaptureError:
        return
    assert len(rows) == status.count(0)
    assert len(rejected) == sum(s > 2 for s in status)
