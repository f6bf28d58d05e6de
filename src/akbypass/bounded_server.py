"""An HTTP server with a thread for each connection and a bound on them; knows no page."""

from __future__ import annotations

import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class BoundedServer(ThreadingHTTPServer):
    """Listens from its making on; a connection beyond `connections_max` is closed at once. Raises OSError."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], connections_max: int) -> None:
        super().__init__(address, handler)
        self._free = threading.BoundedSemaphore(connections_max)

    def server_bind(self) -> None:
        """Bind without asking a name server who we are, as HTTPServer would."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Take a connection, or close it when there are too many."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its thread, and make place for the next."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()
