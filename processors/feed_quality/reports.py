"""Makes the rows of feed quality: gaps, windows with their score, alerts; decides nothing but the score's formula."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import akbypass
from akbypass.config import Config
from akbypass.order import make_id
from akbypass.processors.feed_quality import tally as t
from akbypass.processors.feed_quality.gaps import FILLED, LOST, OPEN, RECOVERED, Gap, Piece
from akbypass.processors.sequencing import Cause
from akbypass.rows import Array, Rows
from akbypass.schemas import NULL_INT64

if TYPE_CHECKING:
    from akbypass.processors.feed_quality.ledger import Session

EVIDENCE_MAX = 16  # ids in an alert
WARNING, FIRING, RESOLVED = 1, 0, 1  # ordinals in alerts


def simple_score(gaps: int, large_packets: int) -> float:
    """Score model `simple`: 0 to 100.

    >>> simple_score(0, 0), simple_score(1, 2), simple_score(20, 0)
    (100.0, 80.0, 0.0)
    """
    return float(max(0, 100 - 10 * gaps - 5 * large_packets))


SCORE_MODELS = {"simple": simple_score}  # thresholds.score_model → gaps, large packets → score


class Table:
    """Rows that are made one by one, kept as columns until the step ends."""

    def __init__(self, row_type: str) -> None:
        self.row_type = row_type
        self.values: list[dict[str, Any]] = []

    def take(self) -> Rows:
        """Return the rows made since the last call."""
        values, self.values = self.values, []
        if not values:
            return Rows.empty(self.row_type)
        columns: dict[str, Any] = {k: [v[k] for v in values] for k in values[0]}
        return Rows.build(self.row_type, len(values), **columns)


def _cause(cause: Cause) -> dict[str, int]:
    return dict(zip(("run_ns", "capture_id", "capture_pos"), cause, strict=True))


class GapRows(Table):
    """feed_gaps rows."""

    def __init__(self) -> None:
        super().__init__("feed_gaps")

    def add(
        self, gap: Gap, session: Session, line: bytes, cause: Cause, first: int, end: int, fate: int,
        piece: Piece | None = None, piece_id: bytes | None = None,
    ) -> None:  # fmt: skip
        """Add a version of a gap: open as it stands, or one of its pieces when it is settled."""
        delay = u = closed = NULL_INT64
        if piece is not None:
            closed = cause[0]
            if piece.delivered_ns is not None:
                delay = piece.delivered_ns - gap.opened_ns
                u = _half_width(gap.resolution_ns, piece.resolution_ns)
                closed = piece.delivered_ns if fate == FILLED else closed
        revision = gap.revision if fate == OPEN else gap.revision + 1 if piece_id is None else 0
        self.values.append({
            **_cause(cause), "id": piece_id or gap.id, "revision": revision, "feed": session.feed, "venue": session.venue,
            "line": line, "session": session.name, "first_seq": first, "last_seq": end - 1, "messages": end - first,
            "fate": fate, "opened_ns": gap.opened_ns, "closed_ns": closed, "fill_delay_ns": delay, "u_ns": u,
        })  # fmt: skip


def _half_width(a_ns: int, b_ns: int) -> int:
    """Uncertainty of the difference of two stamps that were cut to these resolutions; ns."""
    return (a_ns + b_ns + 1) // 2


class WindowRows(Table):
    """feed_quality rows, and the alerts that follow from their scores."""

    def __init__(self, config: Config, run_id: str) -> None:
        super().__init__("feed_quality")
        self.alerts = Table("alerts")
        self.run_id = run_id
        self.window_ns = config.thresholds.window_ms * 1_000_000
        self.threshold = config.thresholds.score_alert
        self.model = config.thresholds.score_model.encode()
        self.score = SCORE_MODELS[config.thresholds.score_model]
        self.clock = config.points[0].clock.encode() if config.points else b""
        self.firing: dict[bytes, tuple[str, int]] = {}  # feed → id and revision of the alert that holds

    def add(self, cause: Cause, end_ns: int, session: Session, line: bytes, counters: Array, leads: Array) -> float:
        """Add the window of a line that ends at end_ns; returns its score."""
        c = counters.tolist()
        start = end_ns - self.window_ns
        score = self.score(c[t.GAPS], c[t.LARGE])
        name = make_id(
            "feed_quality/feed_quality", self.run_id, session.feed, session.name, line, start, session.serial
        )
        lead = int(np.sort(leads)[(len(leads) - 1) // 2]) if len(leads) else NULL_INT64
        self.values.append({
            **_cause(cause), "id": name, "window_start_ns": start, "window_end_ns": end_ns, "feed": session.feed,
            "venue": session.venue, "line": line, "session": session.name, "score_model": self.model, "score": score,
            "packets": c[t.PACKETS], "messages": c[t.MESSAGES], "bytes": c[t.BYTES], "gaps": c[t.GAPS],
            "missing": c[t.MISSING], "recovered": c[t.RECOVERED], "filled_late": c[t.FILLED], "lost": c[t.LOST],
            "duplicates": c[t.DUPLICATES], "first_arrivals": c[t.FIRST], "heartbeats": c[t.HEARTBEATS],
            "resets": c[t.RESETS], "large_packets": c[t.LARGE], "lead_p50_ns": lead,
            "u_ns": c[t.RESOLUTION] if len(leads) else NULL_INT64, "n": len(leads), "lost_n": c[t.MISSING] + c[t.UNSAMPLED],
            "clock_source": self.clock, "decoder_version": akbypass.__version__.encode(),
        })  # fmt: skip
        return score

    def judge(self, cause: Cause, end_ns: int, session: Session, score: float) -> None:
        """Raise or resolve the feed's alert when its score crosses the threshold."""
        held = self.firing.get(session.feed)
        if score < self.threshold and held is None:
            alert_id = make_id(
                "feed_quality/alerts", self.run_id, session.feed, session.name, end_ns, session.serial
            ).decode()
            self.firing[session.feed] = (alert_id, 0)
            self._alert(cause, end_ns, session, score, FIRING)
        elif score >= self.threshold and held is not None:
            self.firing[session.feed] = (held[0], held[1] + 1)
            self._alert(cause, end_ns, session, score, RESOLVED)
            del self.firing[session.feed]

    def _alert(self, cause: Cause, end_ns: int, session: Session, score: float, state: int) -> None:
        alert_id, revision = self.firing[session.feed]
        feed = session.feed.decode("latin-1")
        what = "fell below" if state == FIRING else "is back at or above"
        self.alerts.values.append({
            **_cause(cause), "id": alert_id.encode(), "revision": revision, "ts_capture_ns": min(cause[0], end_ns),
            "topology": b"feed_quality", "kind": b"feed_score", "entity": session.feed, "severity": WARNING, "state": state,
            "value": score, "threshold": self.threshold, "unit": b"score",
            "description": f"The score of feed {feed} {what} {self.threshold:g}: {score:g}.",
            "evidence": list(session.evidence),
        })  # fmt: skip


__all__ = ["EVIDENCE_MAX", "FILLED", "LOST", "OPEN", "RECOVERED", "GapRows", "WindowRows", "simple_score"]
