"""Log lines of a process as text or JSON, one line each; no address, secret or payload leaves through them.

    {"ts": "2026-11-22T15:04:05.123456Z", "level": "WARNING", "stage": "worker", "logger": "akbypass.worker",
     "message": "run ended", "topology": "books", "partition": 2, "run_id": "9c0f…"}

Callers name an event and put what belongs to it into `extra`: `log.info("run ended", extra={"run_id": run_id})`.
Faust, aiokafka and librdkafka log through the same handler. Addresses that their words contain are blotted out here;
keeping symbols and foreign bytes out of messages is the callers' part. Of `extra` only FIELDS are written.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import orjson

from akbypass.telemetry.metrics import LOG_LINES

FORMAT_VARIABLE = "AKBYPASS_LOG_FORMAT"  # json or text
LEVEL_VARIABLE = "AKBYPASS_LOG"  # of our own loggers
FIELDS = ("topology", "sink", "run_id", "topic", "partition", "offset", "table", "part", "reason", "rows", "seconds")
LINE_CHARACTERS_MAX = 16_384  # of one message or traceback
OTHERS_LEVEL = logging.WARNING  # of libraries, unless ours is DEBUG

_CREDENTIALS = re.compile(r"//[^/\s@]+@")
_ASSIGNED = re.compile(r"(?i)\b(password|passwd|secret|token|sasl\.password)(['\"]?\s*[=:]\s*)[^\s,;&'\"]+")
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?::\d{1,5})?(?![\w.]*\d)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?![\w:])")


def redact(text: str) -> str:
    """Blot out addresses, credentials and what is called a password.

    >>> redact("http://me:pw@10.0.0.1:8123 refused, password=x1, at 12:34:56 from fe80::1")
    'http://…@<address> refused, password=…, at 12:34:56 from <address>'
    """
    text = _ASSIGNED.sub(r"\1\2…", _CREDENTIALS.sub("//…@", text))
    return _IPV6.sub(_unless_time, _IPV4.sub("<address>", text))


def _unless_time(found: re.Match[str]) -> str:
    word = found[0].rstrip(".:") if found[0] != "::" else found[0]
    try:
        ipaddress.IPv6Address(word)
    except ValueError:
        return found[0]
    return "<address>" + found[0][len(word) :]


class _Text(logging.Formatter):
    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage = stage

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{k}={v}" for k, v in _fields(record).items())
        head = f"{_time(record)} {record.levelname} {record.name} {_message(record)}"
        return "\n".join(part for part in (f"{head} {fields}".rstrip(), _traceback(record)) if part)


class _Json(_Text):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": _time(record), "level": record.levelname, "stage": self.stage, "logger": record.name, "message": _message(record),
            **_fields(record),
        }  # fmt: skip
        traceback = _traceback(record)
        if traceback:
            line["exception"] = traceback
        return orjson.dumps(line, default=str).decode()


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    return redact(record.getMessage())[:LINE_CHARACTERS_MAX]


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    found = {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
    return {k: redact(v) if isinstance(v, str) else v for k, v in found.items()}


def _traceback(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[0] is None:
        return ""
    return redact(logging.Formatter().formatException(record.exc_info))[-LINE_CHARACTERS_MAX:]


class _Counted(logging.StreamHandler):  # type: ignore[type-arg]  # generic only for type checkers
    def emit(self, record: logging.LogRecord) -> None:
        LOG_LINES.labels(record.levelname).inc()
        super().emit(record)


def is_json() -> bool:
    """Whether lines are to be JSON."""
    return os.environ.get(FORMAT_VARIABLE, "text") == "json"


def is_set_up() -> bool:
    """Whether this process sends its lines here."""
    return any(isinstance(handler, _Counted) for handler in logging.getLogger().handlers)


def setup(stage: str, level: str = "INFO") -> None:
    """Send all log lines of this process to standard error, uncaught exceptions among them.

    Args:
        stage: Named in every line.
        level: Of our own loggers, unless AKBYPASS_LOG says otherwise.
    """
    handler = _Counted(sys.stderr)
    handler.setFormatter(_Json(stage) if is_json() else _Text(stage))
    root = logging.getLogger()
    root.handlers = [handler]
    own = logging.getLevelName(os.environ.get(LEVEL_VARIABLE, level).upper())
    own = own if isinstance(own, int) else logging.INFO
    root.setLevel(own if own == logging.DEBUG else OTHERS_LEVEL)
    logging.getLogger("akbypass").setLevel(own)
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda found: _uncaught(found.exc_type, found.exc_value, found.exc_traceback)


def write_now(message: str) -> None:
    """Write one line past all locks of `logging`, for a signal handler or the last moment."""
    record = logging.LogRecord("akbypass", logging.CRITICAL, "", 0, message, None, None)
    handlers = logging.getLogger().handlers
    os.write(2, ((handlers[0].format(record) if handlers else message) + "\n").encode())


def _uncaught(
    kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None
) -> None:  # the signature that the interpreter wants
    if error is not None and not issubclass(kind, KeyboardInterrupt):
        logging.getLogger("akbypass").critical("uncaught exception", exc_info=(kind, error, traceback))
