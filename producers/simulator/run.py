"""Makes a day: plans it, lets every part play, merges the frames, and writes capture, truth, configuration and note.

The same seed, length and rate give the same bytes on every machine; no clock is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson
import yaml

from akbypass.producers.simulator import answers, intruders, lines, market, network, stories, writer
from akbypass.producers.simulator.answers import Played, Talk
from akbypass.producers.simulator.day import LATENCY_TARGET_US, VENUES, Plan, make_plan
from akbypass.producers.simulator.exchange import Stream
from akbypass.producers.simulator.lines import Delivery
from akbypass.producers.simulator.truth import Row
from akbypass.producers.simulator.writer import Tape

MESSAGES_PER_SECOND = 2_500  # of all venues together; 60 s make about 150,000 frames
NOTE = """Simulated. Nothing in this folder was traded or recorded.

capture.pcap  what a tap would have captured: seed {seed}, {seconds} s
truth.json    what there is to find in it, and what nobody can decide
config.yaml   the configuration that goes with it
"""


@dataclass(frozen=True, slots=True)
class SimulatedDay:
    """Files of a simulated day."""

    capture: Path
    truth: Path
    config: Path


def simulate(out_dir: Path, seed: int, seconds: float, messages_per_second: int = MESSAGES_PER_SECOND) -> SimulatedDay:
    """Write a simulated day into a folder, which is made; `seconds` is its length, `messages_per_second` of all venues.

    Raises ValueError for a day that is too short or too quiet to hold one event of every kind.
    """
    capture, played = _play(make_plan(seed, seconds, messages_per_second))
    settings = configuration()
    out_dir.mkdir(parents=True, exist_ok=True)
    day = SimulatedDay(out_dir / "capture.pcap", out_dir / "truth.json", out_dir / "config.yaml")
    writer.write(day.capture, capture)
    found = answers.tree(played, settings["rules"])
    day.truth.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")
    day.config.write_text("# Goes with a simulated day.\n" + yaml.safe_dump(settings, sort_keys=False))
    (out_dir / "README.txt").write_text(NOTE.format(seed=seed, seconds=seconds))
    return day


def _play(plan: Plan) -> tuple[Tape, Played]:
    """Let all parts play, then put their frames on one tape; what is known of them moves to the final times."""
    streams = [market.trade_day(plan, v) for v in range(len(VENUES))]
    deliveries, feed_tapes = _feeds(plan, streams)
    sessions = [*(stories.trader(plan, v) for v in range(len(VENUES))), stories.rogue(plan)]
    talks = [s.frames() for s in sessions]
    tcp_tapes = [*(t for t, _ in talks), intruders.scan(plan), *intruders.clients(plan)]
    capture, times = writer.merge([*feed_tapes, *tcp_tapes])
    feed_times, tcp_times = iter(times[: len(feed_tapes)]), times[len(feed_tapes) :]
    settled = [{line: Delivery(d.packet, next(feed_times)) for line, d in carried.items()} for carried in deliveries]
    frames = [f for t, ts in zip(tcp_tapes, tcp_times, strict=True) for f in zip(ts.tolist(), t.frames, strict=True)]
    talked = [Talk(s, talk[1], ts) for s, talk, ts in zip(sessions, talks, tcp_times, strict=False)]
    return capture, Played(plan, len(capture.frames), streams, settled, talked, sessions[-1].client.ip, frames)


def _feeds(plan: Plan, streams: list[Stream]) -> tuple[list[dict[str, Delivery]], list[Tape]]:
    """Carry every stream over its lines: deliveries by venue and line, and the tapes in the same order."""
    deliveries, tapes = [], []
    for venue, stream in enumerate(streams):
        carried = lines.deliver(plan, venue, stream, lines.plan_faults(plan, venue, stream))
        sums = network.word_sums(stream.payload)
        tapes += [lines.tape(venue, line, stream, d, sums) for line, d in carried.items()]
        deliveries.append(carried)
    return deliveries, tapes


def configuration() -> Row:
    """The configuration of every simulated day, as a tree."""
    return {
        "exchanges": [
            {
                "name": v.name,
                "ip_address": v.gateway.ip,
                "ports": [v.gateway.port],
                "protocol": "FIX/TCP",
                "latency_target_us": LATENCY_TARGET_US,
            }
            for v in VENUES
        ],
        "feeds": [
            {
                "name": v.name,
                "venue": v.name,
                "protocol": "itch-5.0/moldudp64",
                "lines": {line: f"{group.ip}:{group.port}" for line, group in v.groups.items()},
            }
            for v in VENUES
        ],
        "rules": [
            {
                "name": "Block_Unauthorized_Trading",
                "protocol": "tcp",
                "dst_port": VENUES[0].gateway.port,
                "src_ip": "!192.168.1.0/24",
                "action": "BLOCK",
                "priority": 1,
                "description": "Only the trading network may reach the gateway.",
            },
            {
                "name": "Watch_Telnet",
                "protocol": "tcp",
                "dst_port": 23,
                "action": "LOG",
                "priority": 50,
                "description": "Nobody has business with telnet here.",
            },
        ],
    }
