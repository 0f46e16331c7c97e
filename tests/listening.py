"""Servers that run in a thread of the test's own process."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseServer

import uvicorn


@contextmanager
def listening(server: BaseServer) -> Iterator[None]:
    """Let it answer until the end."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def listening_async(config: uvicorn.Config) -> Iterator[uvicorn.Server]:
    """The same for an ASGI application."""
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 10
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join()
