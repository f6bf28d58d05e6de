"""Order keys, identities and the merge: the ground that determinism stands on."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from akbypass import order, topics
from akbypass.order import Merge
from akbypass.rows import Rows


def packets(run_ns: list[int], capture_id: int = 0) -> Rows:
    """Packets rows at these times, positions counting up."""
    n = len(run_ns)
    return Rows.build(
        "packets", n, run_ns=np.array(run_ns, np.int64), capture_id=capture_id, capture_pos=np.arange(n) * 10
    )  # fmt: skip


def times(rows: Rows) -> list[tuple[int, int]]:
    """(run_ns, capture_id) of each row."""
    return list(zip(rows["run_ns"].tolist(), rows["capture_id"].tolist(), strict=True))


def test_rows_wait_for_the_slowest_source() -> None:
    """Nothing is released before every source has spoken, then only rows below the smallest watermark."""
    merge = Merge(["packets"])
    merge.add("packets", 0, 2, packets([1, 5, 9]), 9, None)
    assert merge.release() is None
    merge.add("packets", 1, 2, packets([2, 4], 1), 5, None)
    released = merge.release()
    assert released is not None
    assert times(released.rows["packets"]) == [(1, 0), (2, 1), (4, 1)]
    assert released.watermark_ns == 5


def test_equal_times_wait_for_the_watermark_to_pass() -> None:
    """A row at the watermark stays: the source may send more of the same nanosecond."""
    merge = Merge(["packets"])
    merge.add("packets", 0, 1, packets([1, 2, 2]), 2, None)
    released = merge.release()
    assert released is not None
    assert times(released.rows["packets"]) == [(1, 0)]


def test_end_releases_everything_with_the_latest_end() -> None:
    """The end of all sources releases what is left; end_ns is the largest."""
    merge = Merge(["packets"])
    merge.add("packets", 0, 2, packets([1]), 1, 2)
    merge.add("packets", 1, 2, packets([7], 1), 7, 8)
    released = merge.release()
    assert released is not None
    assert (times(released.rows["packets"]), released.end_ns) == ([(1, 0), (7, 1)], 8)
    assert merge.release() is None


def test_repeats_are_dropped_and_counted() -> None:
    """A source that starts again sends what is known; only what is new gets through."""
    merge = Merge(["packets"])
    merge.add("packets", 0, 1, packets([1, 2, 3]), 3, None)
    merge.add("packets", 0, 1, packets([1, 2, 3, 4]), 4, None)
    merge.add("packets", 0, 1, packets([1, 2, 3, 4]), 4, 5)
    released = merge.release()
    assert released is not None
    assert times(released.rows["packets"]) == [(1, 0), (2, 0), (3, 0), (4, 0)]
    assert merge.repeats == 7


def test_restart_drops_what_was_released() -> None:
    """A merge that was told how far it had come takes only rows from there on."""
    merge = Merge(["packets"], released_ns=3)
    merge.add("packets", 0, 1, packets([1, 2, 3, 4]), 5, None)
    released = merge.release()
    assert released is not None
    assert times(released.rows["packets"]) == [(3, 0), (4, 0)]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_release_does_not_depend_on_batches(data: st.DataObject) -> None:
    """However two sources are cut into batches and interleaved, the released sequence is the sorted whole."""
    sources = [sorted(data.draw(st.lists(st.integers(0, 40), max_size=30))) for _ in range(2)]
    whole = [packets(run_ns, i) for i, run_ns in enumerate(sources)]
    merge, at, got = Merge(["packets"]), [0, 0], []
    while any(at[i] <= len(sources[i]) for i in range(2)):
        i = data.draw(st.sampled_from([k for k in range(2) if at[k] <= len(sources[k])]))
        start, n = at[i], len(sources[i])
        stop = data.draw(st.integers(start, n))
        end = 100 if stop == n else None
        watermark = 0 if stop == 0 else sources[i][stop - 1]
        merge.add("packets", i, 2, whole[i].take(slice(start, stop)), watermark, end)
        at[i] = stop if stop < n else n + 1
        released = merge.release()
        if released is not None and "packets" in released.rows:
            got += times(released.rows["packets"])
    assert got == sorted((t, i) for i, run_ns in enumerate(sources) for t in run_ns)


def test_numbers_and_ids_come_from_the_cause() -> None:
    """Rows of one cause are numbered in the order made; ids are the same in every process and differ by cause."""
    rows = Rows.build("verdicts", 3, run_ns=np.array([5, 5, 6]), capture_pos=np.array([1, 1, 1]))
    first, second = order.number_rows(rows, "filtering", "r"), order.number_rows(rows, "filtering", "r")
    assert first["sub"].tolist() == [0, 1, 0]
    assert first["id"].tolist() == second["id"].tolist()
    assert len(set(first["id"].tolist())) == 3
    assert set(first["id"].tolist()).isdisjoint(order.number_rows(rows, "filtering", "s")["id"].tolist())


def test_hash_matches_the_published_algorithm() -> None:
    """The key hash is FNV-1a with a separator and MurmurHash3's finaliser, computed here in plain integers."""

    def expected(text: bytes) -> int:
        h = 0xCBF29CE484222325
        for b in text:
            h = ((h ^ b) * 0x100000001B3) % 2**64
        h = (h * 0x100000001B3) % 2**64
        for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            h = ((h ^ (h >> 33)) * multiplier) % 2**64
        return h ^ (h >> 33)

    for text in (b"XNAS", b"a", b"AAPL    "):
        assert int(order.hash_columns(np.array([text]))[0]) == expected(text)
        assert topics.partition_of(text, 4) == expected(text) % 4


def test_flow_key_is_symmetric() -> None:
    """Both directions of a flow meet in one partition, and flows spread over all partitions."""
    n = 400
    ips = np.zeros((n, 16), np.uint8)
    ips[:, 15], ips[:, 14] = np.arange(n) % 250, np.arange(n) // 250
    there = Rows.build(
        "packets", n, src_ip=ips, dst_ip=ips[::-1].copy(), src_port=np.arange(n), dst_port=np.full(n, 80)
    )
    back = Rows.build("packets", n, src_ip=ips[::-1].copy(), dst_ip=ips, src_port=np.full(n, 80), dst_port=np.arange(n))
    where = topics.partition_rows(there, 4)
    assert (where == topics.partition_rows(back, 4)).all()
    assert np.bincount(where, minlength=4).min() > n / 8
