"""The slow path: fields of any tshark dissector, by pyshark; for what no layout knows. Makes no rows.

pyshark (extra `akbypass[deep]`) runs tshark and reads its PDML: about 800 packets a second, so it is asked for by name
(`--deep`) and never stands in the way of capture. tshark counts frames from 1 and does not know their byte offset, so
a result names `frame_number`, not `capture_pos`. It runs an event loop of its own and must not be called from inside
a running one.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import subprocess
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from akbypass.errors import CaptureError, ConfigError, MissingError

EMPTY_CAPTURE = bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000")  # a pcap header without a record
TSHARK_START_S = 60  # the longest that tshark may take to judge a filter

Value = str | list[str]


def deep_fields(path: str, fields: Sequence[str] = (), display_filter: str = "") -> Iterator[dict[str, object]]:
    """Dissect a capture with tshark; yields one dictionary a packet, in file order.

    Args:
        path: Capture file in any format that tshark reads.
        fields: tshark field names, as `tls.handshake.extensions_server_name`; a packet without any of them is left
            out. Without names, every packet gives all of its fields, and `layers`, the protocols in it.
        display_filter: tshark display filter that a packet must match besides.

    Returns:
        Dictionaries with `frame_number` (from 1), `ts_capture_ns` (ns since the UNIX epoch) and a value by field
        name: text as tshark shows it, a list of texts where the field occurs more than once, None where it is absent.

    Raises:
        MissingError: pyshark or tshark is not installed.
        ConfigError: tshark does not know a field or understand the filter.
        CaptureError: the file cannot be read, or is damaged; what was readable has been delivered before.
    """
    pyshark = _pyshark()
    wanted = " || ".join(fields)
    condition = " && ".join(f"({part})" for part in (display_filter, wanted) if part)
    _check_filter(_tshark(), condition)
    return _dissect(pyshark, path, tuple(fields), condition)


def _pyshark() -> Any:
    try:
        return importlib.import_module("pyshark")
    except ImportError as error:
        raise MissingError("expected pyshark, found none; install akbypass[deep]") from error


def _tshark() -> str:
    module = importlib.import_module("pyshark.tshark.tshark")
    try:
        return str(module.get_process_path())
    except module.TSharkNotFoundException as error:
        raise MissingError(
            "expected tshark, found none; install it (Debian, Ubuntu: tshark; macOS: wireshark)"
        ) from error


def _check_filter(tshark: str, condition: str) -> None:
    """Let tshark judge the filter on an empty capture: pyshark would lose the reason."""
    if not condition:
        return
    command = [tshark, "-n", "-r", "-", "-Y", condition]
    done = subprocess.run(command, input=EMPTY_CAPTURE, capture_output=True, timeout=TSHARK_START_S, check=False)
    if done.returncode:
        said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.startswith("tshark: ")]
        reason = said[0].removeprefix("tshark: ") if said else f"exit code {done.returncode}"
        raise ConfigError(f"expected fields and a filter that tshark knows, found {condition!r}: {reason}")


def _dissect(pyshark: Any, path: str, fields: tuple[str, ...], condition: str) -> Iterator[dict[str, object]]:
    crash = importlib.import_module("pyshark.capture.capture").TSharkCrashException
    loop = asyncio.new_event_loop()
    try:
        try:
            capture = _file_capture(pyshark)(path, keep_packets=False, display_filter=condition or None, eventloop=loop)
        except OSError as error:
            raise CaptureError(f"{path}: cannot be read: {error}") from error
        try:
            for packet in capture:
                yield _result(packet, fields)
        except crash as error:
            raise CaptureError(f"{path}: {_last_words(error)}") from error
        finally:
            capture.close()
    finally:
        loop.close()


def _file_capture(pyshark: Any) -> Any:
    """Make the class of a capture that leaves nothing behind: no process, no open pipe, no exit code unread."""

    class FileCapture(pyshark.FileCapture):  # type: ignore[misc]  # pyshark carries no types
        async def _cleanup_subprocess(self, process: Any) -> None:
            self._running_processes.discard(process)
            if not self._eof_reached:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await process.stdout.read()  # to its end: only then the pipe closes
            await process.wait()
            await asyncio.gather(*self._stderr_handling_tasks)
            await super()._cleanup_subprocess(process)  # judges the exit code

    return FileCapture


def _last_words(error: Exception) -> str:
    """Find what tshark said in pyshark's complaint."""
    lines = [line for line in str(error).splitlines() if "error line: " in line]
    return lines[0].partition("error line: ")[2].removeprefix("tshark: ") if lines else str(error)


def _result(packet: Any, fields: tuple[str, ...]) -> dict[str, object]:
    layers = [packet.frame_info, *packet.layers]
    result: dict[str, object] = {"frame_number": int(packet.number), "ts_capture_ns": _time_ns(packet.frame_info)}
    if fields:
        return result | {name: _value(layers, name) for name in fields}
    result["layers"] = [layer.layer_name for layer in packet.layers]
    names = dict.fromkeys(f.name for layer in layers for f in _all_fields(layer) if f.name)
    return result | {name: _value(layers, name) for name in names}


def _time_ns(frame: Any) -> int:
    return int(Decimal(str(frame.get_field("frame.time_epoch"))).scaleb(9))


def _all_fields(layer: Any) -> Iterator[Any]:
    for name in layer.field_names:
        yield from layer.get_field(name).all_fields


def _value(layers: Sequence[Any], name: str) -> Value | None:
    """All values of a field over the layers of a packet."""
    values = []
    for layer in layers:
        container = layer.get_field(name)
        if container is not None:
            values += [str(f.get_default_value()) for f in container.all_fields if f.name == name]
    return (values[0] if len(values) == 1 else values) or None
