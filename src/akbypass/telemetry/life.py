"""One process's life: signals, logs, health, probes and the pages that tell of them; does none of its work."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from akbypass import __version__
from akbypass.config import Config
from akbypass.telemetry import logs
from akbypass.telemetry.health import Health, Part
from akbypass.telemetry.metrics import BUILD_INFO
from akbypass.telemetry.probes import Probe
from akbypass.telemetry.server import TelemetryServer
from akbypass.telemetry.shutdown import Shutdown


class Life:
    """Make it first, in the main thread; then `begin` the work, `on_stop` says how to end it, `end` is the last word.

    Args:
        config: Address of the pages, patience, bound.
        stage: Named in logs and metrics: capture, worker, sink, supervisor.
        port: Port of the pages; None for that of the configuration, 0 there or here for none.
        level: Of our own log lines, unless AKBYPASS_LOG says otherwise.

    Raises:
        ServiceError: The port is taken.
    """

    def __init__(self, config: Config, stage: str, port: int | None = None, level: str = "INFO") -> None:
        logs.setup(stage, level)
        BUILD_INFO.labels(stage, __version__).set(1)
        telemetry = config.telemetry
        self.health = Health(telemetry.stalled_s)
        self.shutdown = Shutdown(config.shutdown.drain_s)
        self._probes: list[Probe] = []
        chosen = telemetry.port if port is None else port
        self.server = TelemetryServer(self.health, telemetry.host, chosen) if chosen else None

    def begin(self, parts: Sequence[Part], probes: Sequence[Probe]) -> None:
        """Watch the parts of this process and what they depend on."""
        self.health.parts += parts
        self.health.begun = True
        for probe in probes:
            self.health.dependencies[probe.name] = functools.partial(getattr, probe, "up")
            self._probes.append(probe)
            probe.start()

    def on_stop(self, ask: Callable[[], None]) -> None:
        """Say what a signal asks; see Shutdown.on_stop."""

        def stop() -> None:
            self.health.stopping = True
            ask()

        self.shutdown.on_stop(stop)

    def end(self) -> None:
        """Say that everything is delivered and committed."""
        for probe in self._probes:
            probe.stop()
        self.shutdown.done()
        if self.server is not None:
            self.server.close()
