"""The store process: one chDB directory served over ClickHouse's HTTP protocol on 127.0.0.1; see `http_server`.

    python -m akbypass.local.store_server --path DIR [--port P]

DIR holds the database (db), its configuration, the lock and the port, which is kept from life to life.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from akbypass.errors import AkbypassError, ServiceError
from akbypass.local import children
from akbypass.local.engine import Engine
from akbypass.local.http_server import QUERIES_MAX, QUEUE_WAIT_S, StoreHTTPServer

STOP_WAIT_S = 10.0  # for running queries


def serve(directory: Path, port: int | None, queries_max: int, queue_wait_s: float) -> None:
    """Serve a directory until SIGTERM or SIGINT; raises MissingError and ServiceError."""
    directory = directory.resolve()
    lock = children.lock(directory, what="the embedded store")
    ports = directory / "ports"
    kept = children.kept_ports(ports)[:1]
    if port is None:
        port = kept[0] if kept and children.is_free(kept[0]) else children.free_ports(1, avoid=kept)[0]
        if kept and port != kept[0]:
            print(f"port changed from {kept[0]}, which is taken, to {port}", flush=True)
    engine = Engine(directory)
    try:
        server = StoreHTTPServer(port, engine, queries_max, queue_wait_s)
    except OSError as error:
        raise ServiceError(f"the embedded store cannot listen on 127.0.0.1:{port}: {error.strerror}") from error

    def stop(_: int, __: FrameType | None) -> None:
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    children.keep_ports(ports, [port, os.getpid()])
    print(f"ClickHouse engine {engine.version}, {directory}, http://127.0.0.1:{port}", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    server.drain(STOP_WAIT_S)
    engine.close()
    os.close(lock)


def main(arguments: list[str] | None = None) -> int:
    """Run the store process; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m akbypass.local.store_server", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--path", type=Path, required=True, help="data directory; made when absent")
    parser.add_argument("--port", type=int, help="port of 127.0.0.1; by default that of the last life, when it is free")
    parser.add_argument("--queries-max", type=int, default=QUERIES_MAX, help="queries that run at once")
    parser.add_argument(
        "--queue-wait-s", type=float, default=QUEUE_WAIT_S, help="how long a query waits for a place; s"
    )
    options = parser.parse_args(arguments)
    faulthandler.enable()
    try:
        serve(options.path, options.port, options.queries_max, options.queue_wait_s)
    except AkbypassError as error:
        print(f"error: {error}", flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # threads of idle connections and of the engine do not hold the exit up
