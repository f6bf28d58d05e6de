"""The page of buffers names keys that exist, and every key that is a limit on what may wait."""

from __future__ import annotations

import re

import pytest

from akbypass.config import Buffers, Config, Kafka, Spool
from akbypass.errors import ConfigError
from tests.support import ROOT

PAGE = (ROOT / "docs" / "reference" / "buffers.md").read_text()
KEYS = set(re.findall(r"`([a-z]+\.[a-z_]+)`", PAGE)) - {"configuration.md"}


def test_every_key_on_the_page_exists() -> None:
    """No buffer is described by a key that the configuration does not have."""
    parts = {name: getattr(Config(), name) for name in Config.model_fields}
    assert {key for key in KEYS if not hasattr(parts[key.split(".")[0]], key.split(".")[1])} == set()


def test_every_limit_is_on_the_page() -> None:
    """All of `buffers`, and the sizes of spool and producers, are described."""
    limits = {f"buffers.{name}" for name in Buffers.model_fields}
    limits |= {f"spool.{name}" for name in Spool.model_fields if name.endswith(("bytes", "bytes_max"))}
    limits |= {f"kafka.{name}" for name in Kafka.model_fields if name.endswith(("bytes_max", "rows_max"))}
    assert limits <= KEYS


def test_a_spool_that_cannot_take_the_queue_is_refused() -> None:
    """What waits in the producer goes to disk first, so there must be room for it beside the reserves."""
    from akbypass.config import parse

    with pytest.raises(ConfigError, match=r"expected spool\.bytes_max to hold kafka\.queue_bytes_max = 33554432"):
        parse("spool: {bytes_max: 1700000000}")
