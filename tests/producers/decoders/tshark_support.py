"""tshark as an independent oracle."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def tshark(*arguments: str) -> list[list[str]]:
    """Run tshark and split its lines at tabs; skips without tshark, fails then under AKBYPASS_REQUIRE_SERVICES=1."""
    if shutil.which("tshark") is None:
        reason = "tshark is not installed (Debian, Ubuntu: tshark; macOS: wireshark)"
        if os.environ.get("AKBYPASS_REQUIRE_SERVICES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    done = subprocess.run(["tshark", "-n", *arguments], capture_output=True, check=True)
    return [line.split("\t") for line in done.stdout.decode(errors="replace").splitlines()]
