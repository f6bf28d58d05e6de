"""Claims about the edge: rows and watermarks do not depend on batches, counts add up, captures are merged fairly."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from akbypass.config import Config, Kafka, Point, Thresholds
from akbypass.errors import CaptureError
from akbypass.order import BEFORE_ALL, Merge, key_at
from akbypass.producers.edge import Decoder, Edge, EdgeBatch, make_decoders
from akbypass.producers.frames import PacketBatch
from akbypass.rows import Rows
from akbypass.topics import CAPTURE_TOPICS
from tests.producers.capture import writer as w
from tests.support import data

S = 1_000_000_000
T = 1_700_000_000 * S
GOOD = w.ethernet(w.ipv4(w.udp(b"good")))
ODD = w.ethernet(w.ipv4(w.udp(b"odd!")))
ARP = w.ethernet(bytes(28), 0x0806)
SHORT = w.ethernet(b"\x45")


class Echo:
    """A decoder for tests: two orders rows a datagram if asked, a rejected row for each that begins with "odd", one at the end."""

    def __init__(self, *, orders: bool) -> None:
        self.orders = orders

    def decode(self, batch: PacketBatch) -> dict[str, Rows]:
        """Make the rows."""
        rows = batch.packets
        twice = rows.take(np.repeat(np.arange(len(rows)), 2))
        orders = self._rows("orders", twice).with_columns(sub=np.tile([0, 1], len(rows)).astype(np.int32))
        starts = [batch.buffer[a : a + 3].tobytes() for a in batch.payload_start.tolist()]
        odd = rows.take(np.array([s == b"odd" for s in starts], bool))
        made = {"rejected": self._rows("rejected", odd)}
        return made | {"orders": orders} if self.orders else made

    def finish(self, run_ns: int, capture_id: int, capture_pos: int) -> dict[str, Rows]:
        """Make the last row."""
        return {"rejected": Rows.build("rejected", 1, run_ns=run_ns, capture_id=capture_id, capture_pos=capture_pos)}

    def _rows(self, name: str, of: Rows) -> Rows:
        return Rows.build(
            name, len(of), run_ns=of["run_ns"], capture_id=of["capture_id"], capture_pos=of["capture_pos"]
        )


def echoes(config: Config, wanted: Collection[str]) -> Sequence[Decoder]:
    """Two decoders, so that one frame can be rejected twice."""
    return [Echo(orders=True), Echo(orders=False)]


def none(config: Config, wanted: Collection[str]) -> Sequence[Decoder]:
    """No decoders."""
    return []


FRAMES = [
    (T, GOOD), (T + S // 2, ODD), (T + S // 2, SHORT), (T + S // 4, GOOD), (T + 3 * S, ARP), (T + 3 * S + 1, GOOD), (T + 4 * S, ODD),
]  # fmt: skip


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Seven frames over three seconds with one missing: odd ones, a malformed one, an ARP, time going back."""
    path = tmp_path / "seven.pcap"
    path.write_bytes(w.pcap(FRAMES))
    return path


def collected(batches: Iterator[EdgeBatch]) -> dict[str, Rows]:
    """All rows by topic, checked on the way: keys rise, nothing lies behind a watermark, captures end once."""
    parts: dict[str, list[Rows]] = {}
    last_key: dict[tuple[str, int], tuple[int, int, int, int]] = {}
    watermark: dict[int, int] = {}
    ended: set[int] = set()
    for batch in batches:
        assert batch.capture_id not in ended
        for topic, rows in batch.rows.items():
            assert len(rows)
            for i in range(len(rows)):
                key = key_at(rows, i)
                assert key > last_key.get((topic, batch.capture_id), BEFORE_ALL)
                assert batch.watermark_ns >= key[0] >= watermark.get(batch.capture_id, 0)
                last_key[topic, batch.capture_id] = key
            parts.setdefault(topic, []).append(rows)
        assert batch.watermark_ns >= watermark.get(batch.capture_id, 0)
        watermark[batch.capture_id] = batch.watermark_ns
        if batch.end_ns is not None:
            assert batch.end_ns == batch.watermark_ns + 1
            ended.add(batch.capture_id)
    assert ended == set(watermark)
    return {topic: Rows.concat(rows) for topic, rows in parts.items()}


def plain(rows: dict[str, Rows]) -> dict[str, list[dict[str, object]]]:
    """Rows as plain values, in order."""
    return {topic: r.sorted_by_order().to_dicts() for topic, r in rows.items()}


def test_captures_rows_by_hand(capture: Path) -> None:
    """One row a second of event time, at the key of the frame that ended it; the last one stands at the end."""
    edge = Edge(Config(points=[Point(name="tap-1", clock="ptp")]), [str(capture)], decoders=echoes)
    rows = collected(iter(edge))["captures"].to_dicts()
    positions = np.cumsum([24] + [16 + len(f) for _, f in FRAMES]).tolist()
    keys = [(T + 3 * S, positions[4]), (T + 4 * S, positions[6]), (T + 4 * S, positions[7])]
    assert [(r["run_ns"], r["capture_pos"]) for r in rows] == keys
    assert [(r["ts_start_ns"], r["ts_end_ns"]) for r in rows] == [(T + i * S, T + i * S + S) for i in (0, 3, 4)]
    assert [r["packets"] for r in rows] == [4, 2, 1]
    assert [r["published"] for r in rows] == [3, 1, 1]
    assert [r["dropped_not_ip"] for r in rows] == [0, 1, 0]
    assert [r["dropped_malformed"] for r in rows] == [1, 0, 0]
    assert [r["order_messages"] for r in rows] == [6, 2, 2]
    assert [r["rejected"] for r in rows] == [3, 0, 4]
    assert [r["bytes"] for r in rows] == [3 * len(GOOD) + len(SHORT), len(ARP) + len(GOOD), len(ODD)]
    assert {(r["point"], r["clock_source"], r["source"], r["ts_resolution_ns"]) for r in rows} == {
        ("tap-1", "ptp", str(capture), 1)
    }
    assert len({r["id"] for r in rows}) == 3


def test_counters_are_the_sums(capture: Path) -> None:
    """Totals, captures rows and the rows themselves agree."""
    edge = Edge(Config(), [str(capture), str(capture)], decoders=echoes)
    rows = collected(iter(edge))
    totals = edge.totals()
    assert totals == {name: int(rows["captures"][name].sum()) for name in totals}
    assert (totals["packets"], totals["published"], totals["order_messages"]) == (
        14,
        len(rows["packets"]),
        len(rows["orders"]),
    )
    assert totals["rejected"] == len(rows["rejected"]) == 14
    assert (edge.bytes_read, edge.bytes_total) == (2 * capture.stat().st_size,) * 2


@pytest.mark.parametrize("frames_max", [1, 2, 3, 16_384])
@pytest.mark.parametrize("speed", [None, 50.0])
def test_batches_do_not_show(capture: Path, frames_max: int, speed: float | None) -> None:
    """Rows, numbers and ids are the same however the frames are cut into batches, and paced or not."""
    sources = [str(capture), str(capture)]
    whole = collected(iter(Edge(Config(), sources, decoders=echoes)))
    assert set(whole) == {"packets", "orders", "captures", "rejected", "ledger"}
    cut = Edge(Config(), sources, decoders=echoes, frames_max=frames_max, speed=speed, sleep=lambda s: None)
    assert plain(collected(iter(cut))) == plain(whole)


def test_rejected_rows_of_one_frame_are_numbered(capture: Path) -> None:
    """What headers and several decoders reject of one frame is numbered as one sequence, with ids that differ."""
    rows = collected(iter(Edge(Config(), [str(capture)], decoders=echoes)))["rejected"].to_dicts()
    assert [r["sub"] for r in rows] == [0, 1, 0, 0, 1, 0, 1]
    assert len({r["id"] for r in rows}) == 7
    assert [r["reason"] for r in rows][2] == "ip_header_short"


def test_damage_is_reported_and_rejected(tmp_path: Path) -> None:
    """A cut capture delivers what is whole; its damage is a problem with a position and a rejected row at the end."""
    content = w.pcap(FRAMES)
    (tmp_path / "cut").write_bytes(content[:-3])
    edge = Edge(Config(), [str(tmp_path / "cut")], decoders=none)
    rows = collected(iter(edge))
    last = len(content) - len(ODD) - 16
    assert [(p.position, p.reason, p.source) for p in edge.problems] == [(last, "truncated", str(tmp_path / "cut"))]
    assert (len(rows["packets"]), rows["rejected"].to_dicts()[-1]["reason"]) == (4, "truncated")
    assert int(rows["captures"]["rejected"].sum()) == edge.counters["rejected"] == 2


def test_capture_without_frames(tmp_path: Path) -> None:
    """A capture of no frame has an account of no rows and ends at once; another one beside it is not disturbed."""
    (tmp_path / "none").write_bytes(w.pcap([]))
    (tmp_path / "some").write_bytes(w.pcap(FRAMES))
    (batch,) = Edge(Config(), [str(tmp_path / "none")], decoders=none)
    assert (batch.capture_id, batch.watermark_ns, batch.end_ns, set(batch.rows)) == (0, 0, 1, {"ledger"})
    assert batch.rows["ledger"]["rows"].tolist() == [0] * len(CAPTURE_TOPICS)
    rows = collected(iter(Edge(Config(), [str(tmp_path / n) for n in ("none", "some")], decoders=none)))
    assert len(rows["packets"]) == 5


def test_no_capture_among_several(capture: Path, tmp_path: Path) -> None:
    """When one of several files is no capture, the error comes before anything is delivered."""
    (tmp_path / "text").write_text("not a capture")
    with pytest.raises(CaptureError, match="text that begins with"):
        next(iter(Edge(Config(), [str(capture), str(tmp_path / "text")], decoders=none)))


def test_identity_of_a_run(capture: Path, tmp_path: Path) -> None:
    """run_id is 16 hexadecimal digits of bytes, order, meaning and salt; paths and the broker do not matter."""
    copy, other = tmp_path / "copy", tmp_path / "other"
    copy.write_bytes(capture.read_bytes())
    other.write_bytes(w.pcap(FRAMES[:3]))
    run_id = Edge(Config(), [str(capture)]).run_id
    assert len(run_id) == 16 and int(run_id, 16) >= 0
    assert Edge(Config(kafka=Kafka(bootstrap_servers="x:9")), [str(copy)]).run_id == run_id
    two = Edge(Config(), [str(capture), str(other)]).run_id
    others = [
        Edge(Config(), [str(other)]).run_id, two, Edge(Config(), [str(other), str(capture)]).run_id,
        Edge(Config(), [str(capture)], salt="again").run_id,
        Edge(Config(thresholds=Thresholds(window_ms=5)), [str(capture)]).run_id,
    ]  # fmt: skip
    assert len({run_id, *others}) == 6


def test_identity_of_streams() -> None:
    """What cannot be read twice is a run of its own by its start, or the one that the caller names."""
    assert Edge(Config(), ["-"], now_ns=lambda: 1).run_id != Edge(Config(), ["-"], now_ns=lambda: 2).run_id
    assert Edge(Config(), ["-"], stream_id="a", now_ns=lambda: 1).run_id == Edge(Config(), ["-"], stream_id="a").run_id
    live = [Edge(Config(), [], interface="lo", now_ns=lambda n=n: n).run_id for n in (1, 1, 2)]  # type: ignore[misc]
    assert (live[0] == live[1], live[0] == live[2]) == (True, False)


def test_merging_stays_bounded(tmp_path: Path) -> None:
    """Of several captures the one behind is read on: a merge below the watermarks holds few rows back."""
    ranges = [(0, 4_000, 1), (2_000, 4_000, 3), (50_000, 4_000, 1)]  # one dense, one sparse, one much later
    for number, (first, count, step) in enumerate(ranges):
        (tmp_path / str(number)).write_bytes(w.pcap([(T + (first + i * step) * 1_000, GOOD) for i in range(count)]))
    edge = Edge(Config(), [str(tmp_path / str(i)) for i in range(3)], decoders=none, frames_max=100)
    merge = Merge(["packets"])
    held, released = 0, 0
    for batch in edge:
        merge.add(
            "packets", batch.capture_id, edge.captures, batch.rows.get("packets"), batch.watermark_ns, batch.end_ns
        )
        held = max(held, sum(len(rows) for s in merge.sources["packets"].values() for rows in s.pending))
        ready = merge.release()
        released += len(ready.rows["packets"]) if ready is not None and ready.rows else 0
    assert released == 12_000
    assert held <= 400


def test_speed_paces_by_capture_time(tmp_path: Path) -> None:
    """At speed 2 a frame of capture time t leaves at clock t/2 or up to a slice later; gaps are slept through once."""
    seconds = [0, 0.001, 0.5, 0.501, 30]
    for name, shift in (("a", 0), ("b", 10 * S)):
        (tmp_path / name).write_bytes(w.pcap([(T + shift + int(s * S), GOOD) for s in seconds]))
    clock = [100.0]

    def sleep(left_s: float) -> None:
        clock[0] += left_s

    edge = Edge(
        Config(), [str(tmp_path / "b"), str(tmp_path / "a")], decoders=none, speed=2, monotonic=lambda: clock[0], sleep=sleep
    )  # fmt: skip
    seen = []
    for batch in edge:
        for run_ns in batch.rows["packets"]["run_ns"].tolist() if "packets" in batch.rows else []:
            seen.append(run_ns)
            assert -1e-6 < (clock[0] - 100.0) - (run_ns - T) / S / 2 < 0.2
    assert seen == sorted(seen)
    assert len(seen) == 10


@pytest.mark.parametrize("speed", [None, 0.001])
def test_files_that_are_stopped_do_not_end(capture: Path, speed: float | None) -> None:
    """A stop between two batches, or while a replay waits, is heard: no end marker, and what came is a beginning of all."""
    whole = list(Edge(Config(), [str(capture)], decoders=none, frames_max=1))
    edge = Edge(Config(), [str(capture)], decoders=none, frames_max=1, speed=speed)
    seen: list[EdgeBatch] = []
    for batch in edge:
        seen.append(batch)
        if speed is None:
            edge.stop()
        else:  # the next frame is due in minutes
            threading.Timer(0.1, edge.stop).start()
    assert (len(seen), edge.is_cut, edge.is_waiting) == (1, True, False)
    assert seen[0].end_ns is None
    assert plain(seen[0].rows) == plain(whole[0].rows)
    assert edge.totals()["packets"] == 1
    assert edge.watermark_ns == whole[0].watermark_ns


def test_a_file_that_ends_before_it_hears_of_a_stop_has_ended(capture: Path) -> None:
    """A stop after the last batch cuts nothing."""
    edge = Edge(Config(), [str(capture)], decoders=none)
    for batch in edge:
        if batch.end_ns is not None:
            edge.stop()
    assert not edge.is_cut


def test_only_wanted_topics(capture: Path) -> None:
    """Only wanted topics come out, and only decoders for them are made."""
    asked: list[Collection[str]] = []

    def recording(config: Config, wanted: Collection[str]) -> Sequence[Decoder]:
        asked.append(wanted)
        return []

    rows = collected(iter(Edge(Config(), [str(capture)], topics={"packets"}, decoders=recording)))
    assert (set(rows), asked) == ({"packets"}, [{"packets"}])
    assert make_decoders(Config(), {"packets"}) == []


def test_standard_input_is_a_capture(capture: Path) -> None:
    """`-` gives the rows of the same file."""
    code = (
        "from akbypass.producers.edge import Edge; from akbypass.config import Config\n"
        "e = Edge(Config(), ['-'], decoders=lambda c, t: [], stream_id='x')\n"
        "print(sum(len(b.rows.get('packets', ())) for b in e), e.bytes_total)"
    )
    with capture.open("rb") as file:
        done = subprocess.run([sys.executable, "-c", code], stdin=file, capture_output=True, text=True, check=True)
    assert done.stdout == "5 None\n"


@pytest.mark.parametrize(
    ("name", "published", "dropped"),
    [("marketdata/TOPS16.pcapng", 13_022, 0), ("link/vlan.pcap", 230, 165), ("link/exa.mode.fcs.pcap", 0, 21)],
)
def test_recorded_captures(name: str, published: int, dropped: int) -> None:
    """Every frame of a recorded capture is published or dropped with a reason; counts are tshark's."""
    edge = Edge(Config(), [str(data(name))], decoders=none)
    rows = collected(iter(edge))
    totals = edge.totals()
    assert totals["published"] == published == len(rows.get("packets", ()))
    assert sum(n for reason, n in totals.items() if reason.startswith("dropped_")) == dropped
    assert totals["packets"] == published + dropped
    assert set(rows) <= {*CAPTURE_TOPICS, "ledger"}
