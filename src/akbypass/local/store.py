"""The embedded store as its users see it: start, stop, address. Speaks no SQL and does not know chDB."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import urllib3

from akbypass.errors import MissingError
from akbypass.local import children

START_TIMEOUT_S = 60.0


class StoreServer:
    """One store process on 127.0.0.1 with its data in one directory.

    >>> with StoreServer(Path("data/store")) as server:  # doctest: +SKIP
    ...     client = clickhouse_connect.get_client(dsn=server.url)
    """

    def __init__(self, data_dir: Path) -> None:
        """Describe a store; nothing happens before `start`. `data_dir` is made when absent."""
        self.data_dir = Path(data_dir).resolve()
        self._child: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Address for clients as http://host:port; empty before the first start."""
        return f"http://127.0.0.1:{self._port}" if self._port else ""

    @property
    def pid(self) -> int | None:
        """Process of the store; None while none runs."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    @property
    def log(self) -> Path:
        """What the process printed in this life."""
        return self.data_dir / "store.log"

    def start(self) -> str:
        """Start the store and return its address once it answers; one that runs already is fine.

        Raises:
            MissingError: The package chdb is not installed.
            ServiceError: The directory is in use, or the store ended or stayed silent (with its last log lines).
        """
        if self.pid is not None and self._answers():
            return self.url
        self.stop()  # one that was killed may still be dying
        if importlib.util.find_spec("chdb") is None:
            raise MissingError(
                "the embedded store needs the chdb package; install it with: pip install 'akbypass[local]'"
            )
        self.data_dir.mkdir(parents=True, exist_ok=True)
        log = self.log
        if _in_use(self.data_dir):  # its log is another's
            log = self.data_dir / "refused.log"
        command = [sys.executable, "-P", "-m", "akbypass.local.store_server", "--path", str(self.data_dir)]
        self._child = children.spawn(command, output=log, cwd=self.data_dir)
        try:
            children.wait_until(
                self._answers, self._child, what="the embedded store", logs=[log], timeout_s=START_TIMEOUT_S
            )
        except BaseException:
            self.stop()
            raise
        return self.url

    def stop(self) -> None:
        """Stop the store in order; fine when none runs."""
        if self._child is not None:
            children.stop(self._child)
            self._child = None

    def __enter__(self) -> StoreServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _answers(self) -> bool:
        assert self._child is not None
        kept = children.kept_ports(self.data_dir / "ports")
        if len(kept) != 2 or kept[1] != self._child.pid:  # written by the process itself once it listens
            return False
        self._port = kept[0]
        try:
            pool = urllib3.HTTPConnectionPool("127.0.0.1", kept[0], timeout=2, retries=False)
            with pool:
                return pool.request("GET", "/ping").status == 200
        except urllib3.exceptions.HTTPError:
            return False


def _in_use(directory: Path) -> bool:
    kept = children.kept_ports(directory / "ports")
    return len(kept) == 2 and Path(f"/proc/{kept[1]}").exists() and children.listens(kept[0])
