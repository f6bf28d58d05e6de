"""One direction of one TCP connection: puts segments in order and says where bytes are missing; knows no FIX, no batch.

RFC 9293, sections 3.4 (sequence numbers are modulo 2^32) and 3.10.7 (acceptable segments):

    next_seq
       │
    ───┼──────────────┬─────────┬──────────▶ sequence number
       │    hole      │  held   │
    a segment that ends at or before next_seq   was seen: its range is remembered as repeated
    one that begins before and ends behind      is trimmed to what is new
    one that begins at next_seq                 is delivered, and with it what was held behind
    one that begins behind next_seq             is held until the hole fills, or is given up

A hole is given up when too much is held behind it, when it is too old, or when the connection ends. Bytes that the
capture cut off (captured length below wire length) are a hole that is given up at once. What was seen first counts:
a retransmission with other bytes does not replace it.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable

SEQUENCE_SPACE = 1 << 32
SEQUENCE_MASK = SEQUENCE_SPACE - 1
HELD_SEGMENTS_MAX = 64  # segments behind a hole; three duplicate ACKs (RFC 5681) start a retransmission much earlier
HELD_BYTES_MAX = 128 * 1024  # bytes behind a hole: half of what one direction may keep
MESSAGE_BYTES_MAX = 128 * 1024  # bytes of an unfinished message: the other half
FLOW_BYTES_MAX = HELD_BYTES_MAX + MESSAGE_BYTES_MAX
HOLE_AGE_NS_MAX = 2_000_000_000  # two initial retransmission timeouts (RFC 6298 section 2)

assert FLOW_BYTES_MAX == 256 * 1024

# How a direction's bytes are to be read from here on.
IN_SYNC = 0  # a message begins here
AFTER_FOREIGN = 1  # a message begins here, or the checksum field of a foreign one
SKIPPING = 2  # somewhere inside; the loss is already reported
JOINING = 3  # the capture began inside the stream; to be reported where the first message begins
START = 4  # first byte of a connection to a configured FIX gateway
AFTER_GAP = 5  # bytes are missing here: JOINING when it was so before, else SKIPPING

# Why delivery breaks off.
GAP, CLOSE, LIMIT = 0, 1, 2

Meta = tuple[int, int, int, int, int]  # run_ns, capture_id, capture_pos, ts_capture_ns, ts_resolution_ns of a frame
Held = tuple[int, int, bytes, int, Meta]  # stream offset, capture_pos, bytes, bytes on the wire, frame


class Direction:
    """One direction of a connection; a frame is named by its index in the current batch, a kept one by -1, -2, ….

    chunks   (bytes, frame that carried them, frame that delivered them), in stream order, since the last scan
    breaks   (chunks before it, cause, bytes missing, frame, stream offset behind it)
    repeats  (stream offset, end, frame): bytes that were seen again
    tail     (bytes, frame's meta): scanned or postponed bytes of a message that is not complete
    """

    __slots__ = (
        "accounted", "breaks", "chunks", "connection", "finished", "held", "held_bytes", "hole_ns", "isn", "key", "listed",
        "need", "next_seq", "offset", "plain", "repeats", "scan_offset", "serial", "skipped", "state",
        "tail", "tail_bytes",
    )  # fmt: skip

    def __init__(self, key: bytes, connection: Connection, serial: int) -> None:
        self.serial = serial  # order of rows that one frame brings for several directions
        self.key = key  # source address and port, destination address and port: 36 bytes
        self.connection = connection
        self.isn = -1  # sequence number of the SYN, when it was seen
        self.next_seq = -1  # unknown until the first segment or SYN
        self.offset = 0  # of the next byte to deliver, in the stream
        self.held: list[Held] = []
        self.held_bytes = 0
        self.hole_ns = 0  # run_ns when the hole was first seen
        self.chunks: list[tuple[bytes | memoryview, int, int]] = []
        self.breaks: list[tuple[int, int, int, int, int]] = []
        self.repeats: list[tuple[int, int, int]] = []
        self.tail: list[tuple[bytes, Meta]] = []
        self.tail_bytes = 0
        self.scan_offset = 0  # stream offset of the first byte that the scanner has not settled
        self.state = JOINING
        self.skipped = 0  # bytes passed over since the direction was joined
        self.need = 1  # bytes from scan_offset on without which the scanner cannot say more
        self.listed = False  # has something for the scanner
        self.finished = False  # FIN was seen
        self.plain = False  # nothing is held and the connection speaks FIX: the short way is open
        self.accounted = 0  # bytes that the reassembler counts as kept here

    def start(self, isn: int, state: int) -> None:
        """Begin behind a SYN."""
        self.isn, self.next_seq, self.state = isn, (isn + 1) & SEQUENCE_MASK, state

    def segment(
        self, seq: int, data: bytes | memoryview, length: int, frame: int, meta_of: Callable[[int], Meta]
    ) -> None:
        """Take one segment of `length` bytes on the wire, of which `data` was captured."""
        if self.next_seq < 0:
            self.next_seq = seq
        ahead = (seq - self.next_seq) & SEQUENCE_MASK
        if ahead >= SEQUENCE_SPACE // 2:
            ahead -= SEQUENCE_SPACE
        if ahead > 0:
            self._hold(ahead, data, length, frame, meta_of(frame))
            return
        if ahead < 0:
            behind = min(-ahead, length)
            self.repeats.append((self.offset + ahead, self.offset + ahead + behind, frame))
            if behind == length:
                return
            data, length = data[behind:], length - behind
        self._deliver(data, length, frame, frame)

    def _deliver(self, data: bytes | memoryview, length: int, carrier: int, frame: int) -> None:
        taken = len(data)
        if taken:
            self.chunks.append((data, carrier, frame))
        self.offset += taken
        if taken < length:
            self.breaks.append((len(self.chunks), GAP, length - taken, frame, self.offset + length - taken))
            self.offset += length - taken
        self.next_seq = (self.next_seq + length) & SEQUENCE_MASK

    def _hold(self, ahead: int, data: bytes | memoryview, length: int, frame: int, meta: Meta) -> None:
        begin = self.offset + ahead
        for offset, _, _, size, _ in self.held:
            if begin < offset + size and offset < begin + length:
                self.repeats.append((max(begin, offset), min(begin + length, offset + size), frame))
                if offset <= begin and begin + length <= offset + size:
                    return
        if not self.held:
            self.hole_ns = meta[0]
        insort(self.held, (begin, meta[2], bytes(data), length, meta))
        self.held_bytes += len(data)

    def overfull(self, run_ns: int) -> bool:
        """Whether the hole must be given up."""
        return bool(self.held) and (
            len(self.held) > HELD_SEGMENTS_MAX
            or self.held_bytes > HELD_BYTES_MAX
            or run_ns - self.hole_ns > HOLE_AGE_NS_MAX
        )

    def drain(self, frame: int, run_ns: int, keep: list[Meta]) -> None:
        """Deliver what is held and now in order; its frames' metas go to `keep`."""
        while self.held and self.held[0][0] <= self.offset:
            begin, _, data, length, meta = self.held.pop(0)
            self.held_bytes -= len(data)
            self.hole_ns = run_ns  # what is still held lies behind another hole
            behind = self.offset - begin
            if behind < length:
                keep.append(meta)
                self._deliver(data[behind:], length - behind, -len(keep), frame)

    def give_up(self, frame: int, run_ns: int, keep: list[Meta], *, all_holes: bool) -> None:
        """Declare the first hole lost, or all of them, and deliver what is held behind."""
        while self.held:
            missing = self.held[0][0] - self.offset
            if missing > 0:
                self.breaks.append((len(self.chunks), GAP, missing, frame, self.offset + missing))
                self.offset += missing
                self.next_seq = (self.next_seq + missing) & SEQUENCE_MASK
            self.drain(frame, run_ns, keep)
            if not all_holes:
                return

    def close(self, frame: int, run_ns: int, keep: list[Meta]) -> None:
        """End the stream here: nothing more comes."""
        self.give_up(frame, run_ns, keep, all_holes=True)
        self.breaks.append((len(self.chunks), CLOSE, 0, frame, self.offset))

    def forget(self, frame: int) -> None:
        """Drop what is kept for want of room and join the stream again at its next segment."""
        dropped, self.held_bytes = self.held_bytes, 0
        self.held = []
        self.breaks.append((len(self.chunks), LIMIT, dropped, frame, self.offset + dropped))
        self.offset += dropped
        self.next_seq = -1


class Connection:
    """Two directions with one fate: whether they speak FIX, who is the venue."""

    __slots__ = ("client", "configured", "directions", "is_fix", "syn_key", "venue")

    def __init__(self, key: bytes, configured: bool, serial: int) -> None:
        self.directions = (Direction(key, self, 2 * serial), Direction(reverse_key(key), self, 2 * serial + 1))
        self.is_fix = configured  # else: open until five bytes are known
        self.configured = configured  # one end is a configured FIX gateway
        self.syn_key: bytes | None = None  # key of the side that sent the SYN
        self.client: bytes | None = None  # key of the client's direction, once decided
        self.venue = b""


def reverse_key(key: bytes) -> bytes:
    """Key of the opposite direction."""
    return key[18:] + key[:18]
