"""Where the processes of the embedded stack tell of themselves: asks their pages, and lists them for Prometheus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3

ASK_S = 2.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not listened on


def page_url(host: str, port: int) -> str:
    """Address under which this machine reaches the pages of a process that listens on `host`."""
    known = _EVERYWHERE.get(host, host)
    return f"http://[{known}]:{port}" if ":" in known else f"http://{known}:{port}"


def report_of(url: str) -> dict[str, Any] | None:
    """What /healthz says, whatever the verdict; None when nobody answers."""
    try:
        answer = urllib3.request("GET", f"{url}/healthz", retries=False, timeout=ASK_S)
        found = json.loads(answer.data)
        return found if isinstance(found, dict) else None
    except (urllib3.exceptions.HTTPError, ValueError):
        return None


def summary(report: Mapping[str, Any] | None) -> tuple[str, str, int | None, float | None]:
    """Health, readiness, lag (messages) and oldest checkpoint (s) of one process, for a table."""
    if report is None:
        return "no answer", "no answer", None, None
    parts = report["parts"]
    lags = [p["lag_messages"] for p in parts if p["lag_messages"] is not None]
    ages = [p["checkpoint_age_s"] for p in parts if "checkpoint_age_s" in p]
    why = report["reasons"][0] if report["reasons"] else "no"
    health = "yes" if report["healthy"] else why
    return health, "yes" if report["ready"] else why, sum(lags) if lags else None, max(ages) if ages else None


def write_targets(file: Path, pages: Mapping[str, str]) -> None:
    """List the pages in Prometheus' own format of file_sd_configs, atomically."""
    listed = [{"targets": [urlsplit(url).netloc], "labels": {"part": part}} for part, url in sorted(pages.items())]
    made = file.with_suffix(".new")
    made.write_text(json.dumps(listed, indent=1))
    made.replace(file)
