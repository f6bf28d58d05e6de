"""The embedded broker: one real Apache Kafka in KRaft mode as a child; creates no topics.

Life of a start: lock the directory, choose ports (those of the last life when they are free), write the
configuration, format the log directory once, start the JVM, wait until an admin client gets an answer.
The lock's descriptor is handed to the JVM: while a killed broker is still dying, the next start waits for it.
"""

from __future__ import annotations

import base64
import logging
import os
import subprocess
import uuid
from pathlib import Path
from types import TracebackType

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from akbypass.errors import ServiceError
from akbypass.local import children, jars

log = logging.getLogger(__name__)

HEAP_MB_MAX = 512
START_TIMEOUT_S = 120.0  # a broker that was killed reads its logs again first
FORMAT_TIMEOUT_S = 60.0
START_TRIES_MAX = 3  # somebody may take a port between our choice and the broker's bind
MESSAGE_BYTES_MAX = 2 * 1024 * 1024
LOG4J = Path(__file__).with_name("log4j2.properties")

# Sizes for a small laptop. Segments are small because compaction and retention never touch the segment in use.
# The broker's session with its own controller is short because a broker that was killed may not register again before
# the old session has expired: a restart after kill -9 takes 5 s instead of 12 s.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log_dirs}
auto.create.topics.enable=false
message.max.bytes={message_bytes}
replica.fetch.max.bytes={message_bytes}
socket.request.max.bytes=16777216
group.initial.rebalance.delay.ms=0
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
offsets.topic.segment.bytes=4194304
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.state.log.segment.bytes=4194304
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
log.retention.hours={retention_hours}
log.retention.check.interval.ms=15000
log.segment.bytes=67108864
log.index.size.max.bytes=1048576
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=8388608
log.cleaner.backoff.ms=15000
num.network.threads=2
num.io.threads=4
num.replica.fetchers=1
num.recovery.threads.per.data.dir=2
background.threads=2
controlled.shutdown.enable=true
"""


class KafkaServer:
    """One Kafka broker on 127.0.0.1 with its data in one directory.

    >>> with KafkaServer(Path("data/kafka")) as server:  # doctest: +SKIP
    ...     print(server.bootstrap_servers)
    """

    def __init__(
        self, data_dir: Path, *, heap_mb: int = 384, java: str | None = None, retention_hours: int = 24
    ) -> None:
        """Describe a broker; nothing happens before `start`.

        Args:
            data_dir: Directory of topics, ports, configuration and log; made when absent.
            heap_mb: Java heap, at most 512; MiB.
            java: Java program; by default that of JAVA_HOME or on PATH.
            retention_hours: How long topics keep messages that are not compacted; hours.
        """
        assert 64 <= heap_mb <= HEAP_MB_MAX, f"expected 64 to {HEAP_MB_MAX} MiB of heap, found {heap_mb}"
        self.data_dir = Path(data_dir).resolve()
        self.heap_mb = heap_mb
        self.retention_hours = retention_hours
        self._java = java
        self._child: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._port = 0

    @property
    def bootstrap_servers(self) -> str:
        """Address for clients as host:port; empty before the first start."""
        return f"127.0.0.1:{self._port}" if self._port else ""

    @property
    def pid(self) -> int | None:
        """Process of the broker; None while none runs."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    @property
    def logs(self) -> tuple[Path, Path]:
        """What the JVM printed, and the broker's own log."""
        return self.data_dir / "kafka.out", self.data_dir / "kafka.log"

    def start(self) -> str:
        """Start the broker and return its bootstrap servers once it answers; one that runs already is fine.

        Raises:
            MissingError: Java or Maven is missing.
            ServiceError: The directory is in use, or the broker ended or stayed silent (with its last log lines).
        """
        if self.pid is not None and self._answers():
            return self.bootstrap_servers
        self.stop()  # one that was killed may still be dying
        java, classpath = jars.find_java(self._java), jars.resolve()
        self._lock = children.lock(self.data_dir, what="the embedded Kafka")
        try:
            for attempt in range(START_TRIES_MAX):
                try:
                    self._start(java, classpath, fresh_ports=attempt > 0)
                    break
                except ServiceError:
                    taken = not all(children.is_free(port) for port in children.kept_ports(self.data_dir / "ports"))
                    if not taken or attempt == START_TRIES_MAX - 1:
                        raise
        except BaseException:
            self.stop()
            raise
        return self.bootstrap_servers

    def stop(self) -> None:
        """Stop the broker in order; fine when none runs."""
        if self._child is not None:
            children.stop(self._child)
            self._child = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> KafkaServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, java: str, classpath: Path, *, fresh_ports: bool) -> None:
        port, controller_port = self._choose_ports(fresh=fresh_ports)
        self._port = port
        config = self.data_dir / "server.properties"
        config.write_text(
            PROPERTIES.format(
                port=port, controller_port=controller_port, log_dirs=self.data_dir / "log",
                message_bytes=MESSAGE_BYTES_MAX, retention_hours=self.retention_hours,
            )
        )  # fmt: skip
        machine = [
            java, f"-Xmx{self.heap_mb}m", "-Xms64m", "-Xss512k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true", f"-Dlog4j2.configurationFile={LOG4J}", f"-Dakbypass.log={self.logs[1]}",
            "-cp", f"{classpath}/*",
        ]  # fmt: skip
        if not (self.data_dir / "log" / "meta.properties").exists():
            self._format(machine, config)
        self._child = self._spawn([*machine, "kafka.Kafka", str(config)])
        children.wait_until(
            self._answers, self._child, what="the embedded Kafka", logs=self.logs, timeout_s=START_TIMEOUT_S
        )

    def _spawn(self, argv: list[str]) -> subprocess.Popen[bytes]:
        assert self._lock is not None
        return children.spawn(argv, output=self.logs[0], cwd=self.data_dir, keep_fds=[self._lock])

    def _choose_ports(self, *, fresh: bool) -> list[int]:
        file = self.data_dir / "ports"
        kept = children.kept_ports(file)
        if len(kept) == 2 and not fresh and all(children.is_free(port) for port in kept):
            return kept
        chosen = children.free_ports(2, avoid=kept)
        if kept:
            log.warning("port of the embedded Kafka changed from %d, which is taken, to %d", kept[0], chosen[0])
        children.keep_ports(file, chosen)
        return chosen

    def _format(self, machine: list[str], config: Path) -> None:
        # An identifier may not begin with a dash: the tool would take it for an option.
        cluster = "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
        arguments = ["kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", cluster, "-c", str(config)]
        child = self._spawn([*machine, *arguments])
        try:
            code = child.wait(FORMAT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            children.stop(child, wait_s=0)
            code = -1
        if code != 0:
            raise ServiceError(f"Kafka could not format {self.data_dir / 'log'}:\n{children.tail(*self.logs)}")

    def _answers(self) -> bool:
        if not children.listens(self._port):  # spares librdkafka's complaints about refused connections
            return False
        try:
            admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
            return bool(admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return False
