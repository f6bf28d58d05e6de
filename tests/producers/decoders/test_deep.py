"""The slow path against tshark itself, and what it says when something is missing or wrong."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import psutil
import pytest

from akbypass.errors import CaptureError, ConfigError, MissingError
from akbypass.producers.decoders.deep import deep_fields
from tests.producers.decoders.tshark_support import tshark
from tests.support import data

SNI = "tls.handshake.extensions_server_name"
WEB = ("websocket.opcode", "websocket.payload_length", "http.request.uri", "tcp.srcport")


@pytest.fixture(autouse=True)
def _needs_tools() -> Iterator[None]:
    """Skip without tshark or pyshark, and leave no child process behind."""
    tshark("-v")
    pytest.importorskip("pyshark", reason="the extra akbypass[deep] is not installed")
    yield
    assert [child.name() for child in psutil.Process().children() if "tshark" in child.name()] == []


def fields_of(path: Path, names: tuple[str, ...], condition: str) -> list[list[str]]:
    """Frame number, time in ns and the fields as tshark writes them."""
    extra = [a for n in names for a in ("-e", n)]
    rows = tshark(
        "-r", str(path), "-Y", condition, "-T", "fields", "-e", "frame.number", "-e", "frame.time_epoch", *extra
    )
    return [[number, str(int(time.replace(".", ""))), *values] for number, time, *values in rows]


def as_text(rows: Iterator[dict[str, object]]) -> list[list[str]]:
    """Results as tshark's columns: several values joined by commas."""
    return [
        [",".join(map(str, v)) if isinstance(v, list) else "" if v is None else str(v) for v in row.values()]
        for row in rows
    ]


def test_websocket_fields_equal_tshark() -> None:
    """Opcode, length and the upgrade request of the WebSocket capture: same frames, times and values as tshark -T fields."""
    path = data("app/basic_websockets.pcap")
    ours = as_text(deep_fields(str(path), WEB[:3]))
    assert ours == fields_of(path, WEB[:3], " || ".join(WEB[:3]))
    assert len(ours) == 18


def test_server_names_equal_tshark() -> None:
    """The 60 TLS server names of the Reddit capture, over IPv4 and IPv6."""
    path = data("tcp/reddit.pcap")
    ours = as_text(deep_fields(str(path), [SNI]))
    assert ours == fields_of(path, (SNI,), SNI)
    assert len(ours) == 60


def test_a_display_filter_narrows() -> None:
    """Only packets that match the filter and have a field are dissected."""
    path = data("app/basic_websockets.pcap")
    only = "websocket.opcode == 1"
    assert as_text(deep_fields(str(path), WEB, only)) == fields_of(path, WEB, only)


def test_without_names_every_field_of_every_layer() -> None:
    """All 21 packets with their layers and tshark's own field names."""
    rows = list(deep_fields(str(data("app/basic_websockets.pcap"))))
    assert [r["frame_number"] for r in rows] == list(range(1, 22))
    assert rows[7]["layers"] == ["eth", "ip", "tcp", "websocket", "data-text-lines"]
    assert (rows[7]["websocket.opcode"], rows[7]["ip.version"]) == ("1", "4")


def test_stopping_early_leaves_nothing_behind() -> None:
    """A caller that stops reading ends tshark."""
    rows = deep_fields(str(data("tcp/reddit.pcap")))
    assert [r["frame_number"] for r in islice(rows, 2)] == [1, 2]
    assert any("tshark" in child.name() for child in psutil.Process().children())
    rows.close()  # type: ignore[attr-defined]


def test_a_damaged_capture_is_read_up_to_the_damage() -> None:
    """Every readable packet comes first, then the error says what tshark said."""
    path = data("tcp/out-of-order.pcap")
    seen = []
    with pytest.raises(CaptureError, match="cut short in the middle of a packet"):
        for row in deep_fields(str(path), ["frame.len"], "frame.number > 3200"):
            seen.append(row["frame_number"])
    assert seen == list(range(3_201, 3_215))


def test_errors_say_what_is_wrong(tmp_path: Path) -> None:
    """A text file, a missing file, an unknown field and a wrong filter: one clear error each."""
    text = tmp_path / "text"
    text.write_text("no capture")
    with pytest.raises(CaptureError, match="isn't a capture file"):
        list(deep_fields(str(text)))
    with pytest.raises(CaptureError, match="cannot be read"):
        list(deep_fields(str(tmp_path / "absent")))
    with pytest.raises(ConfigError, match=r"no\.such\.field"):
        deep_fields(str(text), ["no.such.field"])
    with pytest.raises(ConfigError, match="expected fields and a filter"):
        deep_fields(str(text), [], "tcp.port ==")


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tshark the package is named, without pyshark the extra."""
    importlib.import_module("pyshark.tshark.tshark")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        with pytest.raises(MissingError, match="Debian, Ubuntu: tshark; macOS: wireshark"):
            deep_fields("x")
    monkeypatch.setitem(sys.modules, "pyshark", None)
    with pytest.raises(MissingError, match=r"akbypass\[deep\]"):
        deep_fields("x")
