"""When a capture counts as silent, as dialogues: what is heard and what is decided, with a clock of the test's own."""

from __future__ import annotations

import pytest

from akbypass import beats
from akbypass.beats import Beat
from akbypass.config import Silence as Settings
from akbypass.silence import RUNS_MAX, Decision, Kind, Silence

SETTINGS = Settings(after_s=5, end_after_s=20)


class Story:
    """Two captures of one run, looked at twice a second."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.silence, self.now_s = Silence(settings), 100.0
        self.decisions: list[Decision] = []

    def hear(self, source: int, watermark_ns: int, *, ended: bool = False, sources: int = 2) -> None:
        """One sign of life."""
        beat = Beat("r1", source, sources, watermark_ns, ended, f"tap-{source}")
        self.decisions += self.silence.hear(beat, self.now_s)

    def passes(self, seconds: float, alive: tuple[int, ...] = (), at_ns: int = 0) -> None:
        """Time passes; captures that are alive come a nanosecond further with every half second."""
        for step in range(round(seconds * 2)):
            self.now_s += 0.5
            for source in alive:
                self.hear(source, at_ns + step)
            self.decisions += self.silence.look(self.now_s)

    def told(self) -> list[tuple[Kind, int, int]]:
        """Kind, capture and time of what became a record, since the last call."""
        made = [(d.kind, d.source, d.watermark_ns) for d in self.decisions if d.kind is not None]
        self.decisions = []
        return made


def test_a_capture_that_others_wait_for_is_declared_silent() -> None:
    """Capture 1 stops at 50 while capture 0 goes on: after five seconds of waiting it is spoken for, as far as 0 is."""
    story = Story()
    story.hear(0, 100)
    story.hear(1, 50)
    story.passes(4.5, (0,), 100)
    assert story.told() == []
    story.passes(1.5, (0,), 110)
    assert [(kind, source) for kind, source, _ in story.told()] == [(Kind.SILENT, 1)]
    story.passes(2, (0,), 120)
    assert [(d.source, d.watermark_ns, d.speaks) for d in story.decisions] == [
        (1, t, True) for t in (120, 121, 122, 123)
    ]


def test_who_is_ahead_is_not_silent() -> None:
    """Nobody waits for a capture that is further than the others, however long it says nothing."""
    story = Story()
    story.hear(1, 10_000)
    story.passes(60, (0,), 100)
    assert story.told() == []


def test_when_nobody_is_heard_nobody_is_silent() -> None:
    """An outage of the broker is no silence, and the wait begins anew behind it."""
    story = Story()
    story.hear(0, 100)
    story.hear(1, 50)
    story.passes(4, (0,), 100)
    story.silence.outage()
    story.passes(300)
    story.passes(4, (0,), 200)
    assert story.told() == []
    story.passes(2, (0,), 300)
    assert [kind for kind, _, _ in story.told()] == [Kind.SILENT]


def test_coming_back_late_and_catching_up() -> None:
    """A capture that is heard again behind what was said for it is late, once; when it has caught up it is back."""
    story = Story()
    story.hear(1, 50)
    story.passes(6, (0,), 100)
    assert [kind for kind, _, _ in story.told()] == [Kind.SILENT]
    story.hear(1, 60)
    story.hear(1, 70)
    assert story.told() == [(Kind.LATE, 1, 111)]
    story.passes(1, (0,), 200)  # it is spoken for meanwhile
    assert [d.watermark_ns for d in story.decisions] == [200, 201]
    story.decisions = []
    story.hear(1, 201)
    assert story.told() == [(Kind.BACK, 1, 201)]
    story.passes(3, (0, 1), 300)
    assert story.decisions == []
    story.passes(6, (0,), 400)
    assert [kind for kind, _, _ in story.told()] == [Kind.SILENT]


def test_one_that_never_spoke() -> None:
    """A member of a group that was never started is spoken for too."""
    story = Story()
    story.passes(7, (0,), 100)
    (decision, *_) = story.decisions
    assert (decision.kind, decision.source, "it never spoke" in decision.detail) == (Kind.SILENT, 1, True)


def test_a_run_is_ended_for_the_one_that_is_missing() -> None:
    """When all others have ended, the silent one is waited for longer, and then its run is ended for it."""
    story = Story()
    story.hear(1, 50)
    story.hear(0, 100, ended=True)
    story.passes(6)
    assert story.told() == [(Kind.SILENT, 1, 100)]
    story.passes(13)
    assert story.told() == []
    story.passes(2)
    assert story.told() == [(Kind.ENDED, 1, 100)]
    assert story.silence.runs == {}


def test_three_captures_go_on_with_the_slower_of_two() -> None:
    """What is said for the silent one is never further than the slowest that speaks."""
    story = Story()
    for source, watermark in ((0, 500), (1, 300), (2, 10)):
        story.hear(source, watermark, sources=3)
    for _ in range(14):
        story.now_s += 0.5
        story.hear(0, 900, sources=3)
        story.hear(1, 400, sources=3)
        story.decisions += story.silence.look(story.now_s)
    assert story.told() == [(Kind.SILENT, 2, 400)]


def test_a_run_of_one_capture_is_not_watched() -> None:
    """Nobody waits for the only capture of a run; memory is bounded."""
    story = Story()
    story.hear(0, 1, sources=1)
    assert story.silence.runs == {}
    for number in range(RUNS_MAX + 10):
        story.silence.hear(Beat(f"run{number}", 0, 2, 1, False, ""), number)
    assert len(story.silence.runs) == RUNS_MAX
    assert "run0" not in story.silence.runs


@pytest.mark.parametrize("ended", [False, True])
def test_signs_of_life_survive_the_wire(ended: bool) -> None:
    """A sign of life is read as it was written; rows of control and foreign bytes are none."""
    beat = Beat("r1", 1, 3, 1_700_000_000_000_000_000, ended, "tap-1")
    message = beats.encode(beat, 5)
    assert beats.decode(message.value, message.headers) == beat
    assert beats.decode(message.value, []) is None
    assert beats.decode(b"\x00", message.headers) is None
    assert beats.decode(None, None) is None
