"""Midnights of a time zone around a capture time, for stamps that count nanoseconds of a day; decodes nothing."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from akbypass.rows import Array

DAY_NS = 86_400_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CANDIDATES = range(-2, 3)  # local days around a UTC day: zones differ from UTC by up to 14 h, stamps may lie a day off
LIMIT_NS = 2**63 - 2**50  # leaves room to add a day's stamp at the ends of time


@functools.lru_cache(maxsize=4_096)
def midnights_ns(zone: str, utc_day: int) -> tuple[int, ...]:
    """Midnights in `zone` from two days before to two days after a UTC day (days since 1970); ns since the epoch.

    >>> midnights_ns("America/New_York", 19_591)[2] == 1_692_676_800 * 10**9  # 2023-08-22 04:00 UTC
    True
    """
    found = []
    for days in CANDIDATES:
        local = date(1970, 1, 1) + timedelta(days=utc_day + days)
        midnight = datetime(local.year, local.month, local.day, tzinfo=ZoneInfo(zone))
        found.append(max(-LIMIT_NS, min(LIMIT_NS, (midnight - EPOCH) // timedelta(seconds=1) * 10**9)))
    return tuple(found)


def candidates(zones: Sequence[str], ts_capture_ns: Array) -> tuple[Array, Array]:
    """Return each packet's row (int64) and the midnights as (zone, row, candidate); ns since the epoch."""
    days = ts_capture_ns // DAY_NS
    first, last = int(days.min()), int(days.max())
    if first == last:
        known, rows = np.array([first]), np.zeros(len(days), np.int64)
    else:
        known, rows = np.unique(days, return_inverse=True)
    table = [[midnights_ns(zone, int(day)) for day in known] for zone in zones]
    return rows.astype(np.int64, copy=False), np.array(table, np.int64).reshape(len(zones), len(known), len(CANDIDATES))
