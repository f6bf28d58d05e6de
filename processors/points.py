"""Watches the captures of runs that have several, and speaks for those that are silent; decides by `silence` alone.

What it says is on the log, in the partitions of the data and in the order of the data: a watermark of the silent
capture, as that would have said it itself. So every reader, today and in a replay, finds the same rows late. The
`control` row beside it tells people. Two of these at work at once, as while a worker is replaced, do no harm.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from confluent_kafka import Consumer

from akbypass import batch, beats, topics
from akbypass.batch import Batch, Message
from akbypass.config import Config
from akbypass.order import START_NS, make_id
from akbypass.rows import Rows
from akbypass.silence import Decision, Kind, Silence
from akbypass.transport import Publisher, client_options

log = logging.getLogger("akbypass.points")

LOOK_S = 0.5  # time between two looks


class Points:
    """A thread beside the topologies of a process; of all processes the one with partition 0 of `control` works."""

    def __init__(self, config: Config, bootstrap: str, publisher: Publisher) -> None:
        self.config, self.publisher = config, publisher
        self.silence = Silence(config.silence)
        self._own = False
        self._stopping = threading.Event()
        self._consumer = Consumer(
            {
                **client_options(config, bootstrap),
                "group.id": f"{config.kafka.prefix}points",
                "session.timeout.ms": 10_000,
                "enable.auto.commit": False,
                "auto.offset.reset": "latest",
            }
        )
        self._thread = threading.Thread(target=self._run, name="akbypass-points", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and leave the group."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        full = topics.full_name(self.config.kafka.prefix, beats.TOPIC)
        try:
            self._consumer.subscribe([full], on_assign=self._assigned, on_revoke=self._revoked)
            looked_s = time.monotonic()
            while not self._stopping.is_set():
                for message in self._consumer.consume(500, LOOK_S / 2):
                    self._take(message)
                if self._own and time.monotonic() - looked_s >= LOOK_S:
                    looked_s = time.monotonic()
                    self._carry_out(self.silence.look(looked_s))
        except Exception:
            log.exception("nobody would watch the capture points; the worker ends and starts again")
            logging.shutdown()
            os._exit(1)
        finally:
            self._consumer.close()

    def _assigned(self, consumer: Any, places: Any) -> None:
        self._own = any(place.partition == beats.PARTITION for place in places)
        self.silence = Silence(self.config.silence)

    def _revoked(self, consumer: Any, places: Any) -> None:
        self._own = False

    def _take(self, message: Any) -> None:
        if message.error() is not None:
            log.warning("broker: %s", message.error())
            self.silence.outage()
            return
        beat = beats.decode(message.value(), message.headers())
        if beat is not None and self._own:
            self._carry_out(self.silence.hear(beat, time.monotonic()))

    # -- speaking --------------------------------------------------------------------------------------------------

    def _carry_out(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            if decision.speaks:
                self._speak(decision)
            if decision.kind is not None:
                self._tell(decision)
                about = {"run_id": decision.run_id, "point": decision.point, "kind": decision.kind.value}
                log.warning("%s %s", decision.point, decision.detail, extra=about)

    def _speak(self, decision: Decision) -> None:
        """Say a watermark, or the end, for a capture, in every partition of everything that is merged."""
        ends = decision.kind is Kind.ENDED
        for topic in topics.CAPTURE_TOPICS if ends else topics.MARKED:
            end_ns = decision.watermark_ns + 1 if ends else None
            self._send(topic, range(self.config.kafka.partitions), decision, None, decision.watermark_ns, end_ns)

    def _tell(self, decision: Decision) -> None:
        """Write the `control` row, at the event time from which it holds."""
        assert decision.kind is not None
        number = list(Kind).index(decision.kind)
        row = Rows.build(
            "control", 1, run_ns=decision.watermark_ns, capture_id=decision.source, sub=number,
            id=make_id("control", decision.run_id, decision.kind.value, decision.source, decision.watermark_ns),
            ts_capture_ns=decision.watermark_ns, kind=decision.kind.value.encode(), entity=decision.point.encode()[:64],
            detail=[f"{decision.point} (capture {decision.source}) {decision.detail}"], capture_pos=np.array([0]),
        )  # fmt: skip
        self._send("control", range(self.config.kafka.partitions), decision, row, START_NS, None)

    def _send(
        self, topic: str, partitions: Iterable[int], decision: Decision, rows: Rows | None, watermark_ns: int, end_ns: int | None
    ) -> None:  # fmt: skip
        kafka = self.config.kafka
        said = Batch(
            topic, decision.run_id, decision.source, decision.sources, rows, watermark_ns, end_ns, publish_ns=time.time_ns()
        )  # fmt: skip
        for message in batch.encode(said, kafka.batch_rows_max, kafka.batch_bytes_max):
            marked = Message(message.key, message.value, [*message.headers, (beats.SPOKEN, b"1")], message.rows)
            for partition in partitions:
                self.publisher.send(topics.full_name(kafka.prefix, topic), partition, marked)
