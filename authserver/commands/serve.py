"""`serve`: the server, over HTTP."""

import multiprocessing
import os
import resource
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import click
import structlog
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import Server

from authserver import guard, metrics
from authserver.commands.context import Failed, opened
from authserver.commands.heartbeat import Heartbeat
from authserver.config import MetricsSettings, ServerSettings
from authserver.errors import Refusal
from authserver.logs import configure_logging
from authserver.services import load_policies

log = structlog.get_logger()

APPLICATION = "authserver.wsgi:application"
# A thread waits here for each body that arrives slowly; `guard.Gate` lets few of them work. They are made when needed.
BLOCKING_THREADS = 1_024
# How long a connection may send its headers, be kept alive, or wait for an answer: in seconds.
SILENT_SECONDS = 10
MOST_CONNECTIONS = 16_384
# Running requests have this long after SIGTERM (F14: under 10 s in all).
STOP_SECONDS = 6
# A disk that is full would end a process that counts in a file of it.
_IN_MEMORY = Path("/dev/shm")  # noqa: S108  # a directory of our own is made in it


@click.command("serve")
@click.option("--host", help="The address to listen on; else the configured one.")
@click.option("--port", type=click.IntRange(1, 65535), help="The port to listen on; else the configured one.")
@click.option("--workers", type=click.IntRange(1, 256), help="Server processes; else the configured number.")
def verb(host: str | None, port: int | None, workers: int | None) -> None:
    """Serve until SIGTERM or Ctrl-C; running requests are finished then.

    It migrates nothing by itself: where the database's schema is behind, it says so and stops.
    """
    # Whatever stops the start is said here, once, before any process is made.
    with opened() as services:
        load_policies(services)
        settings = services.settings
    configure_logging(settings.log.level, settings.log.format)
    said = {"host": host, "port": port, "workers": workers}
    changes = {key: value for key, value in said.items() if value is not None}
    server = settings.server.model_copy(update=changes)
    with _counting(settings.metrics, server.workers):
        _run(server)


@contextmanager
def _counting(settings: MetricsSettings, workers: int) -> Iterator[None]:
    """Where the workers count together, for as long as they run; one alone needs no such place."""
    if workers == 1:
        yield
        return
    with _own_directory(settings.directory) as directory:
        metrics.share_between_processes(Path(directory))
        yield


def _own_directory(above: Path | None) -> tempfile.TemporaryDirectory[str]:
    """A directory for each start: nothing of another server's, and nothing of the last one's. Raises `Failed`."""
    try:
        if above is not None:
            above.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif os.access(_IN_MEMORY, os.W_OK):
            above = _IN_MEMORY
        return tempfile.TemporaryDirectory(prefix="authserver-metrics-", dir=above)
    except OSError as error:
        raise Failed(f"metrics.directory: {error.filename}: {error.strerror}") from error


def _run(settings: ServerSettings) -> None:
    server = Server(
        APPLICATION,
        address=_address(settings.host, settings.port),
        port=settings.port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        websockets=False,
        workers=settings.workers,
        blocking_threads=BLOCKING_THREADS,
        runtime_threads=1,
        backlog=4_096,
        backpressure=_connections(),
        http1_settings=HTTP1Settings(
            header_read_timeout=SILENT_SECONDS * 1_000, keep_alive=True, max_buffer_size=65_536
        ),
        workers_kill_timeout=STOP_SECONDS,
        respawn_failed_workers=True,
        log_level=LogLevels.error,
        log_dictconfig=_LOGGING,
    )
    server.on_startup(
        lambda: log.info("server.listening", host=settings.host, port=settings.port, workers=settings.workers)
    )
    server.on_shutdown(lambda: log.info("server.stopped"))
    # What is imported before the workers are made is shared by all of them.
    resolve_name("authserver.app")
    # Until a worker serves, SIGTERM ends it at once: the handler that it has from its parent would do nothing there.
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    heartbeat = Heartbeat()
    heartbeat.watch(lambda: _workers(server))
    server.serve(target_loader=partial(_load, settings.port, heartbeat))


def _workers(server: Any) -> list[int]:
    """The processes that serve, by their numbers."""
    # granian ends the whole server when one dies within 5.5 s of its replacement, as the kernel's killer may have it.
    # Forgotten every second, only who cannot even start is given up.
    server.respawned_wrks.clear()
    processes = [worker.inner for worker in server.wrks]
    return [process.pid for process in processes if isinstance(process, BaseProcess) and process.pid]


def _connections() -> int:
    """How many connections a process takes at once: each is an open file, and some are needed for other things."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return max(64, min(MOST_CONNECTIONS, most - 256))


def _address(host: str, port: int) -> str:
    """The IP address to listen on. Raises `Failed` where it is not ours or the port is taken."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        # granian would share the port with whoever else listens there, and half of the requests would go astray.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise Failed(f"cannot listen on {host}, port {port}: {error.strerror}") from error
    return str(address[0])


def _load(port: int, heartbeat: Heartbeat, target: str) -> Callable[..., Any]:
    """Build the application, in the process that will serve it."""
    heartbeat.beat()
    guard.end_silent_connections(port, SILENT_SECONDS)
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    while True:
        try:
            application: Callable[..., Any] = resolve_name(target)
        except Refusal:
            # The database is away. One that gave up here would be replaced once, and then granian would end the server.
            time.sleep(1)
        except SystemExit as error:
            # A file was broken after the start, which had checked it: others go on, this one waits until it is mended.
            log.error("worker.waits", reason=str(error))  # noqa: TRY400  # the reason says it all
            time.sleep(1)
        else:
            return application


def _end_with_parent() -> None:
    # A parent that was killed could not say so; nobody would ever end its workers.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


# What granian itself has to say, such as that a worker died, in the shape of all other events.
_LOGGING: dict[str, Any] = {
    "formatters": {
        "generic": {
            "()": "structlog.stdlib.ProcessorFormatter",
            "foreign_pre_chain": [
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        }
    },
    "handlers": {
        "console": {"formatter": "generic", "class": "logging.StreamHandler", "stream": "ext://sys.stderr"}
    },
    "loggers": {"_granian": {"handlers": ["console"], "propagate": False}},
}
