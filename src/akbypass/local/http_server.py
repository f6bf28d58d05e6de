"""ClickHouse's HTTP protocol in front of an engine: requests in, answers out; opens no directory, keeps no state.

It serves what clickhouse-connect's ordinary client uses: queries and inserts by GET and POST, settings, parameters,
database and query in the address, compressed bodies, the X-ClickHouse headers, errors with the engine's own codes.
It does not have sessions (a session_id is accepted and means nothing), users other than `default`, external tables,
native compression (compress=1), streamed results: a result is complete before its first byte is sent, so an error
always has its status.

Nobody but programs of this machine can reach it. So that a web page in a browser of this machine cannot either,
requests from a page (an Origin header) or under another host's name are refused.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from akbypass.bounded_server import BoundedServer
from akbypass.local import http_body
from akbypass.local.answers import RefusedError
from akbypass.local.engine import Engine
from akbypass.local.http_body import BodyError
from akbypass.local.statement import parse

QUERIES_MAX = 16  # at once; each may hold a body and a result in memory
QUEUE_WAIT_S = 30.0  # for a place among them
CONNECTIONS_MAX = 256
IDLE_S = 300.0  # a silent connection is closed
LINGER_S = 10.0  # how long a body that was refused is read, so that its sender hears why

# Parameters of the protocol; all others are settings, as on a server.
_TRANSPORT = {
    "query", "database", "default_format", "role", "user", "password", "query_id", "quota_key", "session_id",
    "session_timeout", "session_check", "wait_end_of_query", "buffer_size", "stacktrace", "client_protocol_version",
    "compress", "decompress",
}  # fmt: skip
_LOCAL_NAMES = {"127.0.0.1", "localhost", "::1"}
_FALSE = ("", "0", "false")


class StoreHTTPServer(BoundedServer):
    """A thread for each connection, a place for each query."""

    request_queue_size = 128

    def __init__(
        self, port: int, engine: Engine, queries_max: int = QUERIES_MAX, queue_wait_s: float = QUEUE_WAIT_S
    ) -> None:
        super().__init__(("127.0.0.1", port), Handler, CONNECTIONS_MAX)
        self.engine, self.queries_max, self.queue_wait_s = engine, queries_max, queue_wait_s
        self.places = threading.BoundedSemaphore(queries_max)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nobody's error; everything else is printed."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def drain(self, wait_s: float) -> None:
        """Wait until no query runs, at most `wait_s` seconds."""
        deadline = time.monotonic() + wait_s
        for _ in range(self.queries_max):
            if not self.places.acquire(timeout=max(0.0, deadline - time.monotonic())):
                return


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "akbypass-store", ""
    timeout = IDLE_S
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    server: StoreHTTPServer

    def do_GET(self) -> None:
        """Answer a ping, or a query that only reads."""
        path = urlsplit(self.path).path
        if path in ("/ping", "/replicas_status"):
            self._send(HTTPStatus.OK, b"Ok.\n")
        else:
            self._serve(read_only=True)

    def do_HEAD(self) -> None:
        """Answer as GET without the body."""
        self.do_GET()

    def do_POST(self) -> None:
        """Answer a query or an insert."""
        self._serve(read_only=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing per request."""

    def _serve(self, *, read_only: bool) -> None:
        server = self.server
        self._query_id = ""
        try:
            self._check_sender()
            if not server.places.acquire(timeout=server.queue_wait_s):
                text = f"Too many simultaneous queries. Maximum: {server.queries_max}. (TOO_MANY_SIMULTANEOUS_QUERIES)"
                raise BodyError(HTTPStatus.SERVICE_UNAVAILABLE, 202, text)
            try:
                self._run(read_only)
            finally:
                server.places.release()
        except BodyError as error:  # its body may be unread: the connection cannot go on
            self._fail(error.status, RefusedError(error.code, error.text), close=True)
        except RefusedError as error:
            self._fail(error.status, error)

    def _check_sender(self) -> None:
        path, host = urlsplit(self.path).path, urlsplit("//" + self.headers.get("Host", "127.0.0.1")).hostname
        if host not in _LOCAL_NAMES or self.headers.get("Origin"):
            text = "Requests from web pages or under another host's name are refused. (AUTHENTICATION_FAILED)"
            raise BodyError(HTTPStatus.FORBIDDEN, 516, text)
        if path not in ("/", "/query"):
            raise BodyError(
                HTTPStatus.NOT_FOUND, 79, f"There is no handle {path}; try / or /ping. (INCORRECT_FILE_NAME)"
            )

    def _run(self, read_only: bool) -> None:
        headers = self.headers
        parameters = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        body = http_body.read(self.rfile, headers.get("Content-Length"), headers.get("Transfer-Encoding"))
        body = http_body.unpack(body, headers.get("Content-Encoding"))
        content_type = headers.get("Content-Type", "")
        if content_type.lower().startswith("multipart/form-data"):
            parameters |= http_body.form_fields(body, content_type)
            body = b""
        self._query_id = parameters.get("query_id") or str(uuid.uuid4())
        self._check_user(parameters)
        head = parameters.get("query", "").rstrip().encode()
        statement = parse(b"\n".join(part for part in (head, body) if part))
        run = self.server.engine.run(
            statement,
            database=parameters.get("database", "") or headers.get("X-ClickHouse-Database", ""),
            settings={k: v for k, v in parameters.items() if k not in _TRANSPORT and not k.startswith("param_")},
            parameters={k.removeprefix("param_"): v for k, v in parameters.items() if k.startswith("param_")},
            role=parameters.get("role", ""),
            default_format=headers.get("X-ClickHouse-Format") or parameters.get("default_format") or "TabSeparated",
            read_only=read_only,
        )
        with run as answer:
            compress = parameters.get("enable_http_compression", "0").lower() not in _FALSE
            data, encoding = http_body.pack(answer.data, headers.get("Accept-Encoding") if compress else None)
            extra = {"X-ClickHouse-Summary": json.dumps(answer.summary, separators=(",", ":"))}
            if answer.format:
                extra["X-ClickHouse-Format"] = answer.format
            if encoding:
                extra["Content-Encoding"] = encoding
            zone = parameters.get("session_timezone") or self.server.engine.timezone
            self._send(HTTPStatus.OK, data, {"X-ClickHouse-Timezone": zone, **extra})

    def _check_user(self, parameters: Mapping[str, str]) -> None:
        user = parameters.get("user") or self.headers.get("X-ClickHouse-User") or "default"
        if user != "default":
            raise RefusedError(
                516, f"{user}: Authentication failed: the embedded store has no such user. (AUTHENTICATION_FAILED)"
            )
        for name in ("compress", "decompress"):
            if parameters.get(name, "0").lower() not in _FALSE:
                raise RefusedError(48, f"{name}=1 is not served here; use Content-Encoding. (NOT_IMPLEMENTED)")

    def _fail(self, status: HTTPStatus, error: RefusedError, *, close: bool = False) -> None:
        self.close_connection = self.close_connection or close
        headers = {"X-ClickHouse-Exception-Code": str(error.code)}
        self._send(status, error.body(self.server.engine.version), headers)
        if close:
            self._linger()

    def _send(self, status: HTTPStatus, data: Any, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=UTF-8")
        self.send_header("Content-Length", str(len(data)))
        if getattr(self, "_query_id", ""):
            self.send_header("X-ClickHouse-Query-Id", self._query_id)
        self.send_header("X-ClickHouse-Server-Display-Name", "akbypass")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.wfile.flush()

    def _linger(self) -> None:
        # Closing with unread bytes would reset the connection, and the sender would never read the answer.
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(1.0)
            deadline = time.monotonic() + LINGER_S
            while time.monotonic() < deadline and self.connection.recv(1 << 16):
                pass
