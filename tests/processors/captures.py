"""Recorded captures as packets rows through the real reader, and what tshark says about the same frames."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from akbypass.producers.capture.formats import open_capture
from akbypass.producers.capture.headers import HeaderParser
from akbypass.rows import Rows
from tests.support import data

FIELDS = (
    "frame.number", "frame.time_epoch", "tcp.stream", "tcp.srcport", "tcp.seq_raw", "tcp.ack_raw", "tcp.len", "tcp.flags",
    "tcp.analysis.ack_rtt", "tcp.analysis.acks_frame",
)  # fmt: skip


def packets_of(name: str) -> Rows:
    """All packets of a capture of the data folder."""
    parser = HeaderParser(0)
    return Rows.concat([parser.parse(frames).packets.packets for frames in open_capture(str(data(name)))])


@dataclass(frozen=True)
class Dissected:
    """What tshark says about one TCP frame; times in ns, numbers as on the wire, frames counted from 1."""

    number: int
    ts_ns: int
    stream: int
    src_port: int
    seq: int
    ack: int
    length: int
    flags: int
    rtt_ns: int | None
    acks_frame: int | None


def tshark_of(name: str, tmp_path: Path) -> list[Dissected]:
    """Dissect the TCP frames of a capture with tshark; skips when it is not installed."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    path = data(name)
    if path.suffix == ".gz":
        whole = tmp_path / path.stem
        whole.write_bytes(gzip.decompress(path.read_bytes()))
        path = whole
    options = [part for field in FIELDS for part in ("-e", field)]
    command = ["tshark", "-n", "-r", str(path), "-Y", "tcp", "-T", "fields", *options]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return [_dissected(line.split("\t")) for line in lines]


def _dissected(fields: list[str]) -> Dissected:
    number, ts, stream, port, seq, ack, length, flags, rtt, frame = (field.split(",")[0] for field in fields)
    numbers = (int(stream), int(port), int(seq), int(ack or 0), int(length or 0), int(flags, 16))
    return Dissected(int(number), _ns(ts), *numbers, _ns(rtt) if rtt else None, int(frame) if frame else None)


def _ns(seconds: str) -> int:
    whole, _, fraction = seconds.partition(".")
    return int(whole) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9])
