"""Everything on one machine: broker, store, worker and sink as children of one supervisor; decides no result.

`Places` says where things lie, `Stack` starts and watches them, `Endpoints` tells other commands where they answer.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from akbypass import config as configuration
from akbypass.config import Config
from akbypass.errors import ServiceError
from akbypass.local import children, pages
from akbypass.telemetry import logs
from akbypass.telemetry.health import Health
from akbypass.telemetry.metrics import PART_RESTARTS, PART_UP
from akbypass.telemetry.server import TelemetryServer

log = logging.getLogger("akbypass.stack")

FORMAT = 3  # of what the embedded servers keep; a change that older data cannot follow raises it
RESTARTS_MAX = 5  # of one child within RESTARTS_S; more means that a restart does not help
RESTARTS_S = 60.0
WATCH_S = 0.5
TAKEOVER_S = 90.0  # how long workers of an older version, which only a shared broker can have, may take to stop
STOP_MARGIN_S = 5.0  # beyond the time that a child has for draining
STARTED_S = 5.0  # psutil derives start times from the wall clock, which may be set a little between two looks


@dataclass(frozen=True)
class Places:
    """Where the embedded servers keep their data: $AKBYPASS_HOME, else the user's data directory."""

    home: Path

    @classmethod
    def default(cls) -> Places:
        """Places of this user."""
        own = os.environ.get("AKBYPASS_HOME")
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
        return cls(Path(own) if own else base / "akbypass")

    @property
    def kafka(self) -> Path:
        """Data of the embedded broker."""
        return self.home / "kafka"

    @property
    def store(self) -> Path:
        """Data of the embedded store."""
        return self.home / "store"

    @property
    def format(self) -> Path:
        """Format of the data, as a number."""
        return self.home / "format"

    @property
    def logs(self) -> Path:
        """Logs of worker, sink and supervisor."""
        return self.home / "logs"

    @property
    def config(self) -> Path:
        """Configuration of `akbypass up` when options changed it."""
        return self.home / "up.yaml"

    @property
    def state(self) -> Path:
        """What is up, as JSON."""
        return self.home / "up.json"

    @property
    def targets(self) -> Path:
        """Where Prometheus finds the pages of what is up."""
        return self.home / "prometheus-targets.json"


@dataclass
class Endpoints:
    """Where things answer, and the processes behind them."""

    supervisor_pid: int = 0
    supervisor_started_s: float = 0.0  # Unix time; with the pid it names one process
    bootstrap_servers: str = ""
    store_url: str = ""
    config_path: str = ""
    pids: dict[str, int] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)  # address of a part's /metrics, /healthz and /readyz
    ready: bool = False

    @classmethod
    def read(cls, places: Places) -> Endpoints | None:
        """What is up at these places, None when nothing is."""
        try:
            found = cls(**json.loads(places.state.read_text()))
            return found if found.supervisor() is not None else None
        except (OSError, ValueError, TypeError):
            return None

    @classmethod
    def of_this_process(cls, config_path: str) -> Endpoints:
        """Nothing up yet, supervised by this process."""
        return cls(os.getpid(), psutil.Process().create_time(), config_path=config_path)

    def supervisor(self) -> psutil.Process | None:
        """The process that supervises; None when it has ended, also when its number is another's by now."""
        try:
            process = psutil.Process(self.supervisor_pid)
            same = abs(process.create_time() - self.supervisor_started_s) < STARTED_S
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None

    def write(self, places: Places) -> None:
        """Publish atomically."""
        made = places.state.with_suffix(".new")
        made.write_text(json.dumps(asdict(self)))
        made.replace(places.state)
        pages.write_targets(places.targets, self.pages)


class Stack:
    """Broker and store as the configuration asks for (embedded where no address is given), worker and sink.

    Use as a context manager; leaving it stops the children, readers of data before their sources.
    """

    def __init__(self, places: Places, config: Config, config_path: str = "", workers: int = 1) -> None:
        self.places, self.config, self.config_path = places, config, config_path
        self.workers = workers
        self.endpoints = Endpoints.of_this_process(config_path)
        self._servers: dict[str, Any] = {}  # KafkaServer, StoreServer
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, list[str]] = {}
        self._logs: dict[str, tuple[Path, ...]] = {}
        self._restarted: dict[str, list[float]] = {}
        self._stopping = threading.Event()
        self._failure: ServiceError | None = None
        self._watcher = threading.Thread(target=self._watch, name="akbypass-watch", daemon=True)

    def __enter__(self) -> Stack:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, tell: Callable[[str], None] = lambda text: None) -> Endpoints:
        """Start everything and wait until it answers; raises MissingError or ServiceError."""
        from akbypass import store_client, transport
        from akbypass.local.kafka import KafkaServer
        from akbypass.local.store import StoreServer
        from akbypass.processors import all_topologies
        from akbypass.sinks.clickhouse.migrate import migrate
        from akbypass.takeover.handover import take_over

        self.places.logs.mkdir(parents=True, exist_ok=True)
        require_format(self.places)
        points = self.endpoints
        points.bootstrap_servers = self.config.kafka.bootstrap_servers
        if not points.bootstrap_servers:
            tell("starting Apache Kafka")
            broker = KafkaServer(self.places.kafka, retention_hours=self.config.retention.topics_hours)
            self._servers["kafka"], self._logs["kafka"] = broker, broker.logs
            points.bootstrap_servers = broker.start()
            points.pids["kafka"] = broker.pid or 0
        points.store_url = self.config.clickhouse.url
        if not points.store_url:
            tell("starting the ClickHouse store")
            store = StoreServer(self.places.store)
            self._servers["store"], self._logs["store"] = store, (store.log,)
            points.store_url = store.start()
            points.pids["store"] = store.pid or 0
        tell("preparing topics and tables")
        transport.declare_topics(self.config, points.bootstrap_servers, transport.known_topics(), all_topologies())
        take_over(all_topologies(), self.config, points.bootstrap_servers, TAKEOVER_S, tell)
        with store_client.connect(self.config, points.store_url, database="") as client:
            migrate(client, store_client.database_of(self.config, points.store_url))
        tell("starting workers and sinks")
        for i in range(self.workers):
            self.add(f"worker-{i}", ["process", "--member", f"worker-{i}"])
        self.add("sink", ["sink", "clickhouse", "audit"])
        points.ready = True
        points.write(self.places)
        self._watcher.start()
        return points

    def add(self, name: str, arguments: list[str]) -> None:
        """Start one of our own commands as a child that is started again when it ends."""
        common = ["--bootstrap-servers", self.endpoints.bootstrap_servers]
        if self.config_path:
            common += ["--config", self.config_path]
        if arguments[0] == "sink":
            common += ["--store-url", self.endpoints.store_url]
        self._commands[name] = [sys.executable, "-m", "akbypass.cli", *arguments, *common]
        self._spawn(name)

    def _spawn(self, name: str) -> None:
        output = self.places.logs / f"{name}.log"
        self._logs[name] = (output,)
        port = children.free_ports(1)[0]
        self.endpoints.pages[name] = pages.page_url(self.config.telemetry.host, port)
        command = [*self._commands[name], "--telemetry-port", str(port)]
        if output.exists():
            output.replace(output.with_suffix(".log.1"))
        self._children[name] = children.spawn(command, output=output, cwd=self.places.home)
        self.endpoints.pids[name] = self._children[name].pid

    def remove(self, name: str) -> None:
        """Stop a child for good."""
        child = self._children.pop(name)
        self.endpoints.pids.pop(name, None)
        self.endpoints.pages.pop(name, None)
        self._stop_child(child)

    def _stop_child(self, child: subprocess.Popen[bytes]) -> None:
        children.stop(child, self.config.shutdown.drain_s + STOP_MARGIN_S)

    def lives(self, name: str) -> bool:
        """Whether a part lives."""
        if name in self._servers:
            return self._servers[name].pid is not None
        child = self._children.get(name)
        return child is not None and child.poll() is None

    def serve(self) -> TelemetryServer:
        """Tell of all parts on a page of their supervisor's own."""
        health = Health(self.config.telemetry.stalled_s)
        health.begun = True
        health.dependencies = {name: partial(self.lives, name) for name in [*self._servers, *self._children]}
        telemetry = self.config.telemetry
        server = TelemetryServer(health, telemetry.host, children.free_ports(1)[0])
        self.endpoints.pages["supervisor"] = pages.page_url(telemetry.host, server.server_address[1])
        self.endpoints.write(self.places)
        return server

    def pid(self, name: str) -> int:
        """Process of a part, as it was last started."""
        return self.endpoints.pids[name]

    def check(self) -> None:
        """Raise ServiceError when a part could not be kept alive."""
        if self._failure is not None:
            raise self._failure

    def _watch(self) -> None:
        try:
            while not self._stopping.wait(WATCH_S):
                for name in [*self._servers, *self._children]:
                    PART_UP.labels(name).set(self.lives(name))
                for name, server in self._servers.items():  # first, as the children need them
                    if server.pid is None:
                        self._start_again(name, self._start_server)
                for name, child in list(self._children.items()):
                    if child.poll() is not None and name in self._children:
                        self._start_again(name, self._spawn)
        except Exception as error:  # whatever it is: nobody would see a watcher that ended
            if not self._stopping.is_set():
                self._failure = error if isinstance(error, ServiceError) else ServiceError(str(error))

    def _start_again(self, name: str, start: Callable[[str], None]) -> None:
        if self._stopping.is_set():
            return
        recent = [t for t in self._restarted.get(name, []) if time.monotonic() - t < RESTARTS_S]
        if len(recent) >= RESTARTS_MAX:
            last = children.tail(*self._logs[name])
            raise ServiceError(f"{name} ended {len(recent)} times within {RESTARTS_S:.0f} s; its log ends:\n{last}")
        log.warning("%s ended; starting it again", name, extra={"part": name})
        PART_RESTARTS.labels(name).inc()
        self._restarted[name] = [*recent, time.monotonic()]
        start(name)
        self.endpoints.restarts[name] = self.endpoints.restarts.get(name, 0) + 1
        self.endpoints.write(self.places)

    def _start_server(self, name: str) -> None:
        """Start an embedded server again, with its data and at its address."""
        server = self._servers[name]
        points = self.endpoints
        known = points.bootstrap_servers if name == "kafka" else points.store_url
        try:
            found = server.start()
        except ServiceError as error:  # it may have been killed while it started; RESTARTS_MAX ends the tries
            log.warning("%s did not come back: %s", name, error)
            return
        points.pids[name] = server.pid or 0
        if found != known:
            raise ServiceError(f"{name} came back at {found} because its port was taken; everybody knows it at {known}")

    def stop(self) -> None:
        """Stop everything: workers and sinks first, then store and broker."""
        self._stopping.set()
        if self._watcher.is_alive():
            self._watcher.join()
        for child in self._children.values():
            child.terminate()
        for child in self._children.values():
            self._stop_child(child)
        for server in reversed(self._servers.values()):
            server.stop()
        self._children, self._servers = {}, {}
        own = Endpoints.read(self.places)
        if own is not None and own.supervisor_pid == os.getpid():
            self.places.state.unlink(missing_ok=True)
            self.places.targets.unlink(missing_ok=True)


def supervise(places: Places, config_path: str, workers: int) -> None:
    """Run a stack until SIGTERM or SIGINT; the body of the background process of `akbypass up`."""
    stopping = threading.Event()
    logs.setup("supervisor")
    stack = Stack(places, configuration.load(config_path or None), config_path, workers)

    def end(*_: Any) -> None:
        first = not stopping.is_set()
        stopping.set()
        if first and not stack.endpoints.ready:
            raise SystemExit(0)  # a start may take minutes; leaving it stops what it has started

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    with stack:
        stack.serve()
        while not stopping.wait(WATCH_S):
            stack.check()


def require_format(places: Places) -> None:
    """Mark new data with our format; raises ServiceError when there is data of another."""
    has_data = places.kafka.is_dir() and any(places.kafka.iterdir())  # the store migrates what it has
    found = places.format.read_text().strip() if places.format.exists() else "1" if has_data else str(FORMAT)
    if found != str(FORMAT):
        raise ServiceError(
            f"{places.home}: expected data of format {FORMAT}, found format {found[:20]} of another version of AK-Bypass; "
            "`akbypass reset` deletes it, AKBYPASS_HOME names another folder"
        )
    places.format.write_text(f"{FORMAT}\n")


def reset(places: Places) -> None:
    """Delete everything that the embedded servers keep."""
    for part in (places.kafka, places.store, places.logs, places.home / "demo"):
        shutil.rmtree(part, ignore_errors=True)
    for file in (places.state, places.config, places.format):
        file.unlink(missing_ok=True)
