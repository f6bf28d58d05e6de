"""Java and the broker's jars: finds the one, lets Maven resolve the others into a cache; starts no broker."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from akbypass.errors import MissingError, ServiceError

POM = Path(__file__).with_name("pom.xml")
KAFKA_VERSION = "4.3.0"
JAVA_MIN = 17  # what Kafka 4 brokers need
RESOLVE_TIMEOUT_S = 900.0

_GET_JAVA = "install a Java runtime (Debian/Ubuntu: apt-get install openjdk-17-jre-headless) or set JAVA_HOME"
_GET_MAVEN = "install Maven (Debian/Ubuntu: apt-get install maven)"


def cache_root() -> Path:
    """Directory of everything downloaded: $AKBYPASS_CACHE, else ~/.cache/akbypass."""
    return Path(os.environ.get("AKBYPASS_CACHE") or Path.home() / ".cache" / "akbypass")


def find_java(java: str | None = None) -> str:
    """Return a Java that can run the broker; raises MissingError that says what is missing and how to get it."""
    home = os.environ.get("JAVA_HOME")
    wanted = java or (f"{home}/bin/java" if home else "java")
    path = shutil.which(wanted)
    if path is None:
        raise MissingError(f"the embedded Kafka needs Java {JAVA_MIN} or newer, found no {wanted}; {_GET_JAVA}")
    shown = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=60, check=False).stderr
    match = re.search(r'version "(?:1\.)?(\d+)', shown)
    if match is None or int(match[1]) < JAVA_MIN:
        found = f"Java {match[1]}" if match else f"{shown.strip() or 'no version'!r:.200}"
        raise MissingError(f"the embedded Kafka needs Java {JAVA_MIN} or newer, found {found} at {path}; {_GET_JAVA}")
    return path


def jar_directory() -> Path:
    """Directory of the jars that our pom names, whether they are there or not; another pom has another directory."""
    digest = hashlib.sha256(POM.read_bytes()).hexdigest()[:8]
    return cache_root() / f"kafka-{KAFKA_VERSION}-{digest}"


def resolve() -> Path:
    """Return the directory of the jars; the first time Maven downloads some 45 MB.

    The directory appears under its name only when it is complete: a download that was killed is done again.
    Raises MissingError without Maven, ServiceError when Maven fails.
    """
    target = jar_directory()
    if target.is_dir():
        return target
    maven = shutil.which("mvn")
    if maven is None:
        raise MissingError(
            f"the embedded Kafka's jars are not in {target} and Maven (mvn) is not on PATH; {_GET_MAVEN}"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.part-", dir=target.parent) as part:
        _download(maven, Path(part))
        try:
            (Path(part) / "jars").rename(target)
        except OSError:  # another process was faster; its jars are the same
            if not target.is_dir():
                raise
    return target


def _download(maven: str, part: Path) -> None:
    shutil.copy(POM, part / "pom.xml")
    command = [
        maven, "--batch-mode", "--quiet", "--file", str(part / "pom.xml"), "dependency:copy-dependencies",
        f"-DoutputDirectory={part / 'jars'}",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RESOLVE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ServiceError(f"Maven did not deliver Kafka's jars within {RESOLVE_TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        lines = "\n".join(f"  {line}" for line in (done.stdout + done.stderr).strip().splitlines()[-12:])
        raise ServiceError(f"Maven could not deliver Kafka's jars, exit code {done.returncode}:\n{lines}")
    if not any((part / "jars").glob(f"kafka_2.13-{KAFKA_VERSION}.jar")):
        raise ServiceError(f"Maven delivered no kafka_2.13-{KAFKA_VERSION}.jar; is {POM} as shipped?")
