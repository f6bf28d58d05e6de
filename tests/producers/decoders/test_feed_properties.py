"""Properties of the feed decoder for any input: rows or rejected rows, never an exception, never a foreign byte."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from akbypass.config import Config
from akbypass.producers.decoders.feed import FeedDecoder
from akbypass.producers.frames import PacketBatch
from akbypass.rows import Rows
from tests.producers.decoders.feed_support import (
    CONFIGURED,
    GROUP,
    OPEN_NS,
    PORT,
    add,
    batch,
    decode,
    decode_file,
    delete,
    iex,
    itch,
    level,
    mold,
    plain,
)  # fmt: skip
from tests.support import ROOT, data

FAST = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
IEX_GROUP = ("233.215.21.4", 10_378)
BOTH = Config.model_validate(
    {
        "feeds": [
            *CONFIGURED.model_dump()["feeds"],
            {"name": "IEXG", "protocol": "deep-1.0/iex-tp", "lines": {"A": "233.215.21.4:10378"}},
        ]
    }
)
MOLD_PACKET = mold([add(1), delete(2), add(3)], sequence=10)
IEX_PACKET = iex([level(), level(letter=b"5"), b"SO" + OPEN_NS.to_bytes(8, "little")], sequence=10)


def accounted(rows: dict[str, Rows], packets: int) -> None:
    """Check that every packet of a configured line became a frame or a rejected row, within the columns' rules."""
    told = {
        r["capture_pos"] for name in ("feed_frames", "rejected") for r in rows.get(name, Rows.empty(name)).to_dicts()
    }
    assert len(told) == packets
    for row in rows.values():
        row.to_arrow()


messages = st.one_of(
    st.binary(max_size=60),
    st.builds(add, st.integers(0, 2**64 - 1), st.sampled_from([b"B", b"S", b"\xff"]), st.integers(0, 2**32 - 1), st.binary(min_size=8, max_size=8)),
    st.builds(itch, st.sampled_from("SRHYLVWKJhAFECXDUPQBINOz"), st.binary(max_size=50), st.integers(0, 65_535), st.integers(0, 2**48 - 1)),
    st.builds(level, st.binary(min_size=8, max_size=8), st.integers(0, 2**32 - 1), st.integers(-(2**63), 2**63 - 1)),
)  # fmt: skip
packets = st.one_of(
    st.binary(max_size=120),
    st.builds(mold, st.lists(messages, max_size=5), st.integers(0, 2**64 - 1), count=st.one_of(st.none(), st.integers(0, 65_535))),
    st.builds(iex, st.lists(messages, max_size=5), st.integers(0, 2**64 - 1), st.integers(0x8001, 0x8005)),
    st.sampled_from([MOLD_PACKET, IEX_PACKET]).flatmap(
        lambda p: st.builds(lambda i, b: p[:i] + bytes([b]) + p[i + 1 :], st.integers(0, len(p) - 1), st.integers(0, 255))
    ),
)  # fmt: skip


@FAST
@given(st.lists(st.tuples(packets, st.booleans()), max_size=6))
def test_any_bytes_give_rows_or_rejected_rows(chosen: list[tuple[bytes, bool]]) -> None:
    """Whatever arrives on configured lines is a frame or a rejected row; elsewhere it may be nothing, and never raises."""
    payloads = [payload for payload, _ in chosen]
    targets = [(GROUP, PORT) if first else IEX_GROUP for _, first in chosen]
    accounted(decode(payloads, BOTH, targets=targets), len(payloads))
    decode(payloads, targets=targets)


@FAST
@given(
    st.lists(packets, min_size=1, max_size=6),
    st.lists(st.integers(0, 6), max_size=3),
    st.binary(min_size=9, max_size=9),
)
def test_cuts_and_surroundings_change_nothing(payloads: list[bytes], cuts: list[int], around: bytes) -> None:
    """However packets are cut into batches, and whatever bytes lie around them, the rows are the same."""
    whole = FeedDecoder(BOTH).decode(batch(payloads))
    decoder, parts = FeedDecoder(BOTH), []
    edges = sorted({0, len(payloads), *(min(c, len(payloads)) for c in cuts)})
    for low, high in itertools.pairwise(edges):
        made = batch(payloads[low:high], first=low)
        gaps = np.ones(len(made.buffer), bool)
        for start, end in zip(made.payload_start, made.payload_end, strict=True):
            gaps[start:end] = False
        made.buffer[gaps] = np.resize(np.frombuffer(around, np.uint8), int(gaps.sum()))
        parts.append(decoder.decode(made))
    for name in ("feed_frames", "market_data", "rejected"):
        joined = [row for part in parts if name in part for row in part[name].to_dicts()]
        assert joined == (whole[name].to_dicts() if name in whole else [])


@pytest.mark.parametrize(("packet", "target"), [(MOLD_PACKET, (GROUP, PORT)), (IEX_PACKET, IEX_GROUP)])
def test_truncated_at_each_byte(packet: bytes, target: tuple[str, int]) -> None:
    """A packet cut at any byte, on the wire or by the snap length, is told; its whole messages keep their numbers."""
    complete = plain(decode([packet], BOTH, targets=[target])["market_data"])
    for size in range(len(packet)):
        for wire in (size, len(packet)):
            rows = decode([packet[:size]], BOTH, targets=[target], wire=[wire])
            accounted(rows, 1)
            assert len(rows["rejected"]) >= 1
            found = plain(rows["market_data"]) if "market_data" in rows else []
            assert found == complete[: len(found)]
            assert decode([packet[:size]], targets=[target]) == {}


@pytest.mark.parametrize(("packet", "target"), [(MOLD_PACKET, (GROUP, PORT)), (IEX_PACKET, IEX_GROUP)])
@pytest.mark.parametrize("tail", [b"\x00", b"\x00\x00", b"\x00\x13D", b"trailing bytes"])
def test_trailing_bytes(packet: bytes, target: tuple[str, int], tail: bytes) -> None:
    """Bytes behind the last message are one rejected row and change no message."""
    rows = decode([packet + tail], BOTH, targets=[target])
    assert [r["reason"] for r in plain(rows["rejected"])] == ["bytes_after_last_block"]
    assert rows["rejected"].to_dicts()[0]["bytes"] == tail.hex()
    assert plain(rows["market_data"]) == plain(decode([packet], BOTH, targets=[target])["market_data"])


@pytest.mark.parametrize("frames_max", [1, 7, 1_000])
def test_batches_of_a_capture_change_nothing(frames_max: int) -> None:
    """A recorded capture read in batches of any size gives the same rows."""
    path = data("omi-singles/Nasdaq/Nasdaq.Equities.TotalView.Itch.v5.0/Multiple.Packets.pcap")
    whole, cut = decode_file(path), decode_file(path, frames_max=frames_max)
    assert all(whole[name].to_dicts() == cut[name].to_dicts() for name in whole)


SAMPLE = """
import sys
from tests.producers.decoders.test_feed_properties import digest_of_sample
print(digest_of_sample())
"""


def digest_of_sample() -> str:
    """Hash of every row from a sample of good, cut, damaged and foreign packets."""
    payloads = [MOLD_PACKET, IEX_PACKET, mold([], 13), iex([], 13)]
    payloads += [p[:size] for p in (MOLD_PACKET, IEX_PACKET) for size in range(0, len(p), 11)]
    payloads += [mold([itch(x, bytes([k]) * k) for x in "SRHAQIV"]) for k in range(1, 60, 7)]
    payloads += [mold([b""] * 30), iex([level(price=-(2**62))]), iex([level()], channel=7), b"GET / HTTP/1.1\r\n" * 4]
    targets = [(GROUP, PORT) if i % 3 else IEX_GROUP for i in range(len(payloads))]
    digest = hashlib.sha256()
    for config in (Config(), BOTH):
        rows = FeedDecoder(config).decode(batch(payloads, targets))
        for name in sorted(rows):
            digest.update(b"\n".join(rows[name].to_json_lines()))
    return digest.hexdigest()


def test_the_same_without_the_compiler() -> None:
    """Interpreted as plain Python the engine gives the same rows as compiled."""
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", SAMPLE]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digest_of_sample()


def test_an_empty_batch() -> None:
    """No packets, no rows."""
    nothing = np.empty(0, np.int64)
    assert (
        FeedDecoder(Config()).decode(PacketBatch(Rows.empty("packets"), np.empty(0, np.uint8), nothing, nothing)) == {}
    )
