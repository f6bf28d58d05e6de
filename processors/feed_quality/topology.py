"""Declares the topology `feed_quality`: market-data packets in, gaps, windows and alerts out; no arithmetic."""

from __future__ import annotations

from akbypass.processors.feed_quality.scorer import FeedQualityCore
from akbypass.topology import Topology

PLACE = ("feed", "session", "line", "venue", "kind", "first_seq", "count")
FRAMES = frozenset((*PLACE, "ts_capture_ns", "ts_resolution_ns", "wire_length"))
TOPOLOGY = Topology(
    name="feed_quality",
    version=1,
    inputs=("feed_frames",),  # keyed by feed: all lines of a feed meet
    outputs=("feed_gaps", "feed_quality", "alerts.feed_quality"),
    make_core=FeedQualityCore,
    ordinal=4,
    reads={"feed_frames": FRAMES},
)
