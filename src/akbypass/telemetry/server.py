"""A few pages over HTTP beside the work: /metrics, /healthz, /readyz; changes nothing in the process.

/healthz and /readyz answer 200 or 503 with the report as JSON. Threads and times of connections are bounded.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from akbypass.bounded_server import BoundedServer
from akbypass.errors import ServiceError
from akbypass.telemetry.health import Health
from akbypass.telemetry.metrics import HEALTHY, READY, REGISTRY

REQUEST_S = 5.0  # longest silence of a client
CONNECTIONS_MAX = 8


class TelemetryServer(BoundedServer):
    """Serves one process; `url` says where. Port 0 takes a free one. Raises ServiceError when the port is taken."""

    def __init__(self, health: Health, host: str, port: int, registry: CollectorRegistry = REGISTRY) -> None:
        self.health, self.registry = health, registry
        try:
            super().__init__((host, port), _Handler, CONNECTIONS_MAX)
        except OSError as error:
            raise ServiceError(f"telemetry: expected to listen on {host}:{port}, found: {error}") from error
        self.url = f"http://{host}:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, name="akbypass-telemetry", daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that went away."""

    def close(self) -> None:
        """Stop serving."""
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: TelemetryServer
    timeout = REQUEST_S

    def do_GET(self) -> None:
        report = self.server.health.report()
        HEALTHY.set(report["healthy"])
        READY.set(report["ready"])
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
            self._answer(200, kind, encode(self.server.registry))
        elif path in ("/healthz", "/readyz"):
            good = report["healthy"] if path == "/healthz" else report["ready"]
            self._answer(200 if good else 503, "application/json", orjson.dumps(report))
        else:
            self._answer(404, "text/plain", b"/metrics /healthz /readyz\n")

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log no requests."""
