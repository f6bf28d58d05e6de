"""Copies of frames: by hand, against the published vectors of the hash, and against editcap on real captures."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from akbypass.config import Config, Point
from akbypass.producers.capture.duplicates import FRAMES_MAX, Duplicates, siphash
from akbypass.producers.capture.formats import open_capture
from akbypass.producers.edge import Edge
from akbypass.rows import Rows
from tests.producers.capture import writer as w
from tests.producers.capture.support import frames_of
from tests.support import data

T, US = 1_700_000_000_000_000_000, 1_000
ONE = w.ethernet(w.ipv4(w.udp(b"one")))
TWO = w.ethernet(w.ipv4(w.udp(b"two")))


def copies_of(path: Path, window_us: int, frames_max: int = 4_096) -> list[bool]:
    """Whether each frame of a capture is a copy."""
    found, copies = Duplicates(window_us * US), list[bool]()
    for batch in open_capture(str(path), frames_max=frames_max):
        copies += found.find(batch).tolist()
    return copies


def test_the_hash_is_siphash_2_4() -> None:
    """Vectors 0 and 15 of the reference implementation, and words of every length tell frames apart."""
    key = np.frombuffer(bytes(range(16)), np.uint64)
    text = np.arange(64, dtype=np.uint8)
    assert int(siphash(text[:0], key[0], key[1])) == 0x726FDB47DD0E0E31
    assert int(siphash(text[:15], key[0], key[1])) == 0xA129CA6149BE45E5
    assert len({int(siphash(text[:n], key[0], key[1])) for n in range(65)}) == 65


@pytest.mark.parametrize("frames_max", [1, 2, 100])
def test_copies_by_hand(tmp_path: Path, frames_max: int) -> None:
    """A frame again within the window is a copy, and starts the window anew; another byte or length makes another frame."""
    times = [(0, ONE), (10, TWO), (50, ONE), (100, ONE), (151, ONE), (160, TWO), (170, ONE + b"\0")]
    path = tmp_path / "copies.pcap"
    longer = w.pcap_record(T + 171 * US, ONE, wire=len(ONE) + 1)
    path.write_bytes(w.pcap([(T + at * US, frame) for at, frame in times]) + longer)
    assert copies_of(path, 50, frames_max) == [False, False, True, True, False, False, False, False]
    assert not any(copies_of(path, 1, frames_max))


def test_no_more_is_remembered_than_told(tmp_path: Path) -> None:
    """A copy behind FRAMES_MAX others is not found, one frame nearer it is."""
    for others, is_copy in ((FRAMES_MAX - 1, True), (FRAMES_MAX, False)):
        path = tmp_path / "many.pcap"
        between = [(T + 1, w.ethernet(w.ipv4(w.udp(b"%d" % i)))) for i in range(others)]
        path.write_bytes(w.pcap([(T, ONE), *between, (T + 2, ONE)]))
        copies = copies_of(path, 1)
        assert copies == [False] * (others + 1) + [is_copy]


def test_copies_are_counted_and_dropped(tmp_path: Path) -> None:
    """captures rows have them, packets rows do not; without a window every frame counts."""
    path = tmp_path / "twice.pcap"
    path.write_bytes(w.pcap([(T + i * 100 * US + j, f) for i in range(5) for f in (ONE, TWO) for j in (0, 1)]))
    for window_us, dropped in ((0, 0), (10, 10)):
        edge = Edge(Config(points=[Point(name="span", duplicate_window_us=window_us)]), [str(path)])
        parts = [batch.rows for batch in edge]
        packets = Rows.concat([rows["packets"] for rows in parts if "packets" in rows])
        captures = Rows.concat([rows["captures"] for rows in parts if "captures" in rows]).to_dicts()
        assert len(packets) == 20 - dropped
        assert sum(r["packets"] for r in captures) == 20
        assert sum(r["published"] for r in captures) == 20 - dropped
        assert sum(r["dropped_duplicate"] for r in captures) == dropped == edge.totals()["dropped_duplicate"]


@pytest.mark.parametrize("name", ["orderentry/fix.pcap", "tcp/reddit.pcap", "marketdata/mcastpitch_realtime_useq.pcap"])
def test_what_is_left_equals_editcap(name: str, tmp_path: Path) -> None:
    """A real capture merged with itself 20 µs later, as a mirror port would: the same frames stay as with `editcap -w`."""
    later, both, once = (str(tmp_path / f"{part}.pcap") for part in ("later", "both", "once"))
    form = ["-F", "nsecpcap"]
    for command in (
        ["editcap", *form, "-t", "0.00002", str(data(name)), later],
        ["mergecap", *form, "-w", both, str(data(name)), later],
        ["editcap", *form, "-w", "0.0001", both, once],
    ):
        subprocess.run(command, check=True, capture_output=True)
    frames, _ = frames_of(Path(both))
    copies = copies_of(Path(both), 100)
    left = [(f[1], f[4:]) for f, copy in zip(frames, copies, strict=True) if not copy]
    assert left == [(f[1], f[4:]) for f in frames_of(Path(once))[0]]
    assert sum(copies) * 2 >= len(frames)
