"""How segments become messages: order, repetition, holes, beginnings and ends, limits, batches."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from akbypass.config import Config, ExchangeConnection, Thresholds
from akbypass.producers.decoders import tcp_flow
from akbypass.producers.decoders.orders import OrderDecoder
from tests.producers.decoders.fix_support import (
    ACK,
    FIN,
    RST,
    SYN,
    T0,
    VENUE,
    Decoded,
    Segment,
    back,
    batch,
    decode,
    order,
    seal,
    stream,
)  # fmt: skip

GATEWAY = Config(exchanges=[ExchangeConnection(name="XNAS", ip_address=VENUE[0], ports=[VENUE[1]])])
MESSAGES = [order(n) for n in range(1, 9)]
DATA = b"".join(MESSAGES)
NUMBERS = list(range(1, 9))


def numbers(found: Decoded) -> list[object]:
    """Sequence numbers of what was decoded."""
    return found.column("msg_seq_num")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 100, 101, 500, 100_000])
@pytest.mark.parametrize("syn", [True, False])
def test_messages_do_not_depend_on_segments(size: int, syn: bool) -> None:
    """Whole, byte by byte, several messages a segment and a message over several segments: the same messages."""
    found = decode(stream(DATA, size, syn=syn))
    assert (numbers(found), found.rejected) == (NUMBERS, [])


def test_a_row_names_its_first_and_last_frame() -> None:
    """A message over three segments has the order key of the third and remembers the first."""
    first = len(MESSAGES[0])
    rows = decode([
        Segment(1, MESSAGES[0] + MESSAGES[1][:10]), Segment(first + 11, MESSAGES[1][10:20]),
        Segment(first + 21, MESSAGES[1][20:] + MESSAGES[2]),
    ]).orders  # fmt: skip
    assert [(r["capture_pos_first"], r["capture_pos"], r["segments"], r["sub"]) for r in rows] == [
        (0, 0, 1, 0), (0, 200, 3, 0), (200, 200, 1, 1)
    ]  # fmt: skip
    assert [(r["ts_first_ns"], r["ts_capture_ns"]) for r in rows] == [
        (T0, T0),
        (T0, T0 + 2_000),
        (T0 + 2_000, T0 + 2_000),
    ]
    assert [r["run_ns"] for r in rows] == [T0, T0 + 2_000, T0 + 2_000]


def test_a_retransmission_is_not_decoded_twice() -> None:
    """Bytes seen before are dropped, whole or in part; complete messages stay unmarked."""
    cut = stream(DATA, 60)
    found = decode([s for s in cut for _ in range(3)] + cut[1:])
    assert (numbers(found), found.rejected) == (NUMBERS, [])


def test_a_message_with_a_repeated_segment_is_marked() -> None:
    """Only the message whose bytes were seen again before it was complete is marked retransmitted."""
    m1, m2, m3 = MESSAGES[:3]
    segments = [Segment(1, m1 + m2[:20]), Segment(1, m1 + m2[:20]), Segment(1 + len(m1) + 20, m2[20:] + m3)]
    for step in (1, 2, 3):
        assert decode(segments, step).column("retransmitted") == [False, True, False]


def test_an_overlap_is_trimmed() -> None:
    """A segment that repeats the end of the last one gives only its new bytes; the message is marked."""
    m1, m2 = MESSAGES[:2]
    whole = m1 + m2
    found = decode([Segment(1, whole[: len(m1) + 30]), Segment(1 + len(m1) + 10, whole[len(m1) + 10 :])])
    assert (numbers(found), found.column("retransmitted")) == ([1, 2], [False, True])


def test_out_of_order_segments_wait_for_the_hole() -> None:
    """What lies behind a hole is decoded when the hole fills, under the key of the frame that filled it."""
    a, b, c = (Segment(1 + sum(map(len, MESSAGES[:n])), MESSAGES[n]) for n in range(3))
    rows = decode([a, c, b]).orders
    assert [(r["msg_seq_num"], r["capture_pos"], r["sub"], r["capture_pos_first"]) for r in rows] == [
        (1, 0, 0, 0), (2, 200, 0, 200), (3, 200, 1, 100)
    ]  # fmt: skip


def test_sequence_numbers_wrap_around() -> None:
    """A stream that passes 2^32 goes on, in order and out of order."""
    for seq in (2**32 - 1, 2**32 - 50, 2**32 - len(DATA)):
        cut = stream(DATA, 40, seq=seq)
        assert numbers(decode(cut)) == NUMBERS
        cut[3], cut[4] = cut[4], cut[3]
        assert numbers(decode(cut)) == NUMBERS


def lossy(missing: int) -> list[Segment]:
    """One message a segment, one of them missing."""
    starts = [1 + sum(map(len, MESSAGES[:n])) for n in range(8)]
    return [Segment(0, flags=SYN)] + [
        Segment(s, m) for n, (s, m) in enumerate(zip(starts, MESSAGES, strict=True)) if n != missing
    ]


def test_a_hole_that_never_fills_is_reported_at_the_end() -> None:
    """At the end of the capture what is held is decoded and the hole is one rejected row with its size."""
    found = decode(lossy(3))
    assert (numbers(found), found.reasons()) == ([1, 2, 3, 5, 6, 7, 8], ["stream_gap"])
    assert f"{len(MESSAGES[3])} bytes missing, 0 bytes" in str(found.rejected[0]["detail"])


@pytest.mark.parametrize("end", [RST, RST | ACK])
def test_a_reset_ends_the_wait(end: int) -> None:
    """A reset settles the hole at once, under its own frame's key."""
    segments = [*lossy(3), Segment(999, flags=end), back(Segment(1, order(1)))]
    found = decode(segments, finish=False)
    assert numbers(found) == [1, 2, 3, 5, 6, 7, 8, 1]
    assert found.rejected[0]["capture_pos"] == 800


def test_a_fin_may_overtake_its_data() -> None:
    """A FIN behind a hole waits for it to fill; the other side's FIN says that it never will."""
    whole = [
        Segment(0, flags=SYN),
        Segment(1, MESSAGES[0]),
        Segment(1 + len(MESSAGES[0] + MESSAGES[1]), MESSAGES[2], FIN | ACK),
    ]
    late = Segment(1 + len(MESSAGES[0]), MESSAGES[1])
    assert numbers(decode([*whole, late], finish=False)) == [1, 2, 3]
    found = decode([*whole, back(Segment(9, flags=FIN | ACK))], finish=False)
    assert (numbers(found), found.reasons()) == ([1, 3], ["stream_gap"])


def test_too_much_behind_a_hole_gives_it_up() -> None:
    """After HELD_SEGMENTS_MAX segments the hole is lost and the stream goes on at the next message."""
    messages = [order(n) for n in range(200)]
    starts = [1 + sum(map(len, messages[:n])) for n in range(200)]
    segments = [Segment(s, m) for n, (s, m) in enumerate(zip(starts, messages, strict=True)) if n != 5]
    found = decode(segments, finish=False)
    assert (numbers(found), found.reasons()) == ([n for n in range(200) if n != 5], ["stream_gap"])
    assert found.rejected[0]["capture_pos"] == 100 * (5 + tcp_flow.HELD_SEGMENTS_MAX)


def test_an_old_hole_is_given_up() -> None:
    """A hole older than HOLE_AGE_NS_MAX is lost at the next segment, so a quiet session is not held for hours."""
    segments = lossy(3)
    late = segments.pop()
    late = Segment(late.seq, late.data, at_ns=T0 + tcp_flow.HOLE_AGE_NS_MAX + 1_000_000)
    found = decode([*segments, late], finish=False)
    assert (numbers(found), found.reasons()) == ([1, 2, 3, 5, 6, 7, 8], ["stream_gap"])


def test_a_gap_inside_a_message_loses_that_message_only() -> None:
    """The scanner finds the next message behind a gap; the torn ends are counted."""
    cut = stream(DATA, 40)
    del cut[4]
    found = decode([*cut, Segment(0, flags=RST)], finish=False)
    torn = {n for n in NUMBERS if sum(map(len, MESSAGES[:n])) > 120 and sum(map(len, MESSAGES[: n - 1])) < 160}
    assert numbers(found) == [n for n in NUMBERS if n not in torn]
    assert found.reasons() == ["stream_gap"]
    assert "40 bytes missing" in str(found.rejected[0]["detail"])


def test_bytes_that_were_not_captured_are_a_gap() -> None:
    """A segment cut by the snapshot length loses its message and is told with the byte count; nothing waits."""
    starts = [1 + sum(map(len, MESSAGES[:n])) for n in range(3)]
    found = decode(
        [Segment(s, m, cut=25 if n == 1 else 0) for n, (s, m) in enumerate(zip(starts, MESSAGES, strict=False))],
        finish=False,
    )
    assert (numbers(found), found.reasons()) == ([1, 3], ["stream_gap"])
    assert f"25 bytes missing, {len(MESSAGES[1]) - 25} bytes of an unfinished message" in str(
        found.rejected[0]["detail"]
    )


def test_an_unfinished_message_is_rejected_at_the_end() -> None:
    """What is incomplete when the capture ends is one rejected row with its bytes."""
    found = decode(stream(DATA[:-5], 64))
    assert (numbers(found), found.reasons()) == (NUMBERS[:-1], ["incomplete_message"])
    assert found.rejected[0]["bytes"] == MESSAGES[-1][:-5].hex()


def test_a_syn_begins_a_new_stream() -> None:
    """The same addresses and ports with a new SYN are a new connection, whatever its sequence numbers."""
    again = stream(b"".join(MESSAGES), 90, seq=77)
    found = decode([*stream(DATA[:-5], 64), *again])
    assert (numbers(found), found.reasons()) == (NUMBERS[:-1] + NUMBERS, ["incomplete_message"])


def test_a_repeated_syn_changes_nothing() -> None:
    """A SYN seen twice, even late, belongs to the same connection."""
    cut = stream(DATA, 64)
    assert numbers(decode([cut[0], *cut, cut[0]])) == NUMBERS


def test_joining_inside_a_message_tells_so() -> None:
    """A capture that begins inside a message: one rejected row for the torn part, then everything."""
    found = decode(
        [Segment(1, DATA[30 : len(MESSAGES[0])]), Segment(1 + len(MESSAGES[0]) - 30, DATA[len(MESSAGES[0]) :])]
    )
    assert (numbers(found), found.reasons()) == (NUMBERS[1:], ["stream_gap"])
    assert f"found {len(MESSAGES[0]) - 30} bytes before the first" in str(found.rejected[0]["detail"])


def test_other_protocols_are_not_followed() -> None:
    """HTTP on any port leaves no row and no state, also when its connection was seen from the SYN on."""
    decoder = OrderDecoder(Config())
    web = [
        Segment(9, flags=SYN), back(Segment(99, flags=SYN | ACK)), Segment(10, b"GET / HTTP/1.1\r\n\r\n"),
        back(Segment(100, b"HTTP/1.1 200 OK\r\n\r\n")), back(Segment(119, b"8")), back(Segment(120, b"8=F")),
    ]  # fmt: skip
    assert decoder.decode(batch(web)) == {}
    assert (decoder.streams.syns, decoder.finish(T0, 0, 0)) == ({}, {})


def test_fix_is_recognised_by_structure_on_any_port() -> None:
    """The first bytes decide, even when they come one by one and in disorder behind a SYN."""
    cut = stream(DATA, 1)
    cut[1], cut[2], cut[3] = cut[3], cut[1], cut[2]
    found = decode(cut)
    assert (numbers(found), found.rejected) == (NUMBERS, [])


def test_another_protocol_at_a_fix_gateway_is_rejected_once() -> None:
    """A configured FIX gateway that is spoken to otherwise gives one row per direction that did, from the SYN on."""
    web = [
        Segment(9, flags=SYN), back(Segment(99, flags=SYN | ACK)), Segment(10, b"GET / HTTP/1.1\r\n\r\n"),
        Segment(28, b"GET / HTTP/1.1\r\n\r\n"), back(Segment(100, b"HTTP/1.1 200 OK\r\n\r\n" + order(3))),
    ]  # fmt: skip
    for step in (1, 9):
        found = decode(web, step, GATEWAY)
        assert (numbers(found), found.reasons()) == ([3], ["not_fix", "not_fix"])
    assert decode(web[:-1]).reasons() == []


def test_another_protocol_joined_in_midstream_at_a_gateway() -> None:
    """Without a SYN it takes NOT_FIX_BYTES_MAX bytes, or the end, to say that it is not FIX; the row says it once."""
    noise = bytes(range(14, 254)) * 100
    for size, step in ((100, 1), (700, 1), (700, 7), (24_000, 9)):
        found = decode(stream(noise, size, syn=False), step, GATEWAY)
        assert (found.orders, found.reasons()) == ([], ["not_fix"])
        assert found.rejected[0]["capture_pos"] == 4_096 // size * 100
    assert decode(stream(noise[:900], 100, syn=False), 2, GATEWAY).reasons() == ["not_fix"]


def test_a_gateway_of_another_protocol_is_left_alone() -> None:
    """not_fix is only said where the configuration expects FIX."""
    boe = Config(exchanges=[ExchangeConnection(name="BATS", ip_address=VENUE[0], ports=[VENUE[1]], protocol="BOE/TCP")])
    assert decode([Segment(9, flags=SYN), Segment(10, b"\xba\xba\x00")], config=boe).reasons() == []


def limited(**limits: int) -> Config:
    """A configuration whose reassembly has these limits."""
    return Config(thresholds=Thresholds(**limits))


def test_connections_are_bounded() -> None:
    """Beyond reassembly_flows_max the oldest connection goes, and what it held is a rejected row."""
    decoder = OrderDecoder(limited(reassembly_flows_max=3))
    segments = [Segment(1, MESSAGES[0][:-n], src=("192.0.2.1", 1_000 + n)) for n in range(1, 6)]
    rows = decoder.decode(batch(segments))
    assert rows["rejected"].to_dicts()[0]["reason"] == "stream_limit"
    assert [r["src_port"] for r in rows["rejected"].to_dicts()] == [1_001, 1_002]
    assert (len(decoder.streams.directions), decoder.counters["flows_dropped_total"]) == (6, 2)


def test_kept_bytes_are_bounded() -> None:
    """Beyond reassembly_bytes_max the direction that has kept bytes longest gives them up, told; it is then joined anew."""
    ends = [("192.0.2.1", 1_000 + n) for n in range(3)]
    first = [Segment(1, MESSAGES[0][:80], src=e) for e in ends]
    rest = [Segment(81, MESSAGES[0][80:] + MESSAGES[1], src=e) for e in ends]
    found = decode([*first, *rest], 3, config=limited(reassembly_bytes_max=150))
    assert found.reasons() == ["stream_limit", "stream_limit"]
    assert sorted(zip(found.column("src_port"), numbers(found), strict=True)) == [
        (1_000, 2),
        (1_001, 2),
        (1_002, 1),
        (1_002, 2),
    ]


def test_syns_are_bounded() -> None:
    """A SYN flood leaves reassembly_flows_max entries."""
    decoder = OrderDecoder(limited(reassembly_flows_max=10))
    decoder.decode(batch([Segment(n, flags=SYN, src=("192.0.2.1", n)) for n in range(1, 50)]))
    assert len(decoder.streams.syns) == 10


def test_a_long_message_is_kept_up_to_the_limit() -> None:
    """A message near MESSAGE_BYTES_MAX over many segments is decoded; its bytes are not scanned again each time."""
    big = seal(f"35=B|34=1|49=A|56=B|58={'x' * 120_000}|")
    found = decode(stream(big + order(2), 1_448), 1)
    assert (numbers(found), found.orders[0]["segments"]) == ([1, 2], len(big) // 1_448 + 1)


def disturbed(cut: list[Segment], seed: int) -> list[Segment]:
    """Repeat and reorder segments, a few places each; the SYN stays first."""
    dice = random.Random(seed)
    body = [s for s in cut[1:] for _ in range(dice.choice([1, 1, 1, 2, 3]))]
    for _ in range(len(body)):
        i = dice.randrange(len(body))
        j = min(i + dice.randrange(8), len(body) - 1)
        body[i : j + 1] = dice.sample(body[i : j + 1], j + 1 - i)
    return [cut[0], *body]


def torn(data: bytes, seed: int, seq: int) -> list[Segment]:
    """Cut bytes into segments of random sizes, some of them overlapping the next."""
    dice, out, at = random.Random(seed), [Segment((seq - 1) % 2**32, flags=SYN)], 0
    while at < len(data):
        size = dice.choice([1, 2, 5, 20, 60, 200, 500])
        out.append(Segment((seq + at) % 2**32, data[at : at + size + dice.choice([0, 0, 0, 3, 30])]))
        at += size
    return out


WORDS = st.lists(
    st.one_of(
        st.integers(1, 999).map(order),
        st.integers(1, 999).map(lambda n: order(n)[:-4] + b"999\x01"),
        st.integers(1, 999).map(lambda n: order(n).replace(b"\x019=", b"\x019=1", 1)),
        st.binary(min_size=1, max_size=40).filter(lambda b: b"8" not in b),
        st.just(b"8=O\x019=9\x0135=P\x01\x00\x01\x02\x03"),
        st.integers(1, 99).map(lambda n: seal(f"35=B|34={n}|95=4|96=a|b||")),
    ),
    min_size=1, max_size=12,
)  # fmt: skip
FRAME = {
    "run_ns",
    "capture_pos",
    "sub",
    "ts_capture_ns",
    "ts_first_ns",
    "capture_pos_first",
    "segments",
    "retransmitted",
}


def meaning(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Rows without what tells of frames."""
    return [{k: v for k, v in row.items() if k not in FRAME} for row in rows]


@given(WORDS, st.integers(0), st.sampled_from([1_001, 2**32 - 5]))
@settings(deadline=None, max_examples=60)
def test_segmentation_repetition_and_order_do_not_matter(words: list[bytes], seed: int, seq: int) -> None:
    """Good, bad, foreign messages and noise: any cut, repeated and reordered, gives the same messages and rejections."""
    data = order(1) + b"".join(words) + order(2)
    whole = decode(stream(data, 1 << 20, seq), finish=False)
    assert numbers(whole)[0] == 1
    for segments in (stream(data, 1, seq), torn(data, seed, seq), disturbed(torn(data, seed, seq), seed)):
        found = decode(segments, finish=False)
        assert meaning(found.orders) == meaning(whole.orders)
        assert meaning(found.rejected) == meaning(whole.rejected)


@given(WORDS, st.integers(0))
@settings(deadline=None, max_examples=60)
def test_batches_do_not_matter(words: list[bytes], seed: int) -> None:
    """The same packets in batches of 1, 7 and all give the same rows in every column, with losses and two directions."""
    dice = random.Random(seed)
    cut = disturbed(torn(order(1) + b"".join(words), seed, 1_001), seed)
    cut = [s for n, s in enumerate(cut) if n == 0 or dice.random() > 0.1]
    answer = [back(s) for s in torn(b"".join(words), seed, 5_001)[1:]]
    segments = [s for pair in zip(cut, answer * (len(cut) // max(len(answer), 1) + 1), strict=False) for s in pair]
    segments.insert(dice.randrange(len(segments)), Segment(3, flags=dice.choice([FIN | ACK, RST, ACK])))
    for config in (None, GATEWAY):
        whole = decode(segments, config=config)
        assert decode(segments, 1, config) == whole
        assert decode(segments, 7, config) == whole


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"8=FIX.4.2\x01", b"8=FIX.4.2\x019=40\x0135=D\x01", b"8=FIX"]),
    st.integers(1, 40),
)
@settings(deadline=None, max_examples=200)
def test_random_bytes_give_rows_or_nothing(noise: bytes, head: bytes, size: int) -> None:
    """Any bytes, also behind the beginning of a message or sealed as one, end as rows; a good message before them stays."""
    found = decode(stream(order(1) + head + noise, size))
    assert numbers(found)[0] == 1
    found = decode(stream(order(1) + seal(b"35=D\x01" + noise + b"\x01"), size), 3, GATEWAY)
    assert numbers(found)[0] == 1
    assert len(found.orders) + len(found.rejected) == 2
