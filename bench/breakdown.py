"""Where the CPU of an exchange goes: the application called in one process without HTTP, first timed, then profiled.

`python -m bench.breakdown REQUESTS` runs with the server's configuration in its environment. cProfile makes Python
calls dearer than C calls, so its figures are used as shares of the time that was measured without it.
"""

import cProfile
import io
import json
import os
import pickle
import pstats
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from pathlib import Path

from bench.processes import SERVER_CORE
from bench.world import ROOT, World

# First match wins, by the path or the name of the function that the time was spent in.
_PARTS = (
    ("policy", ("authserver/policy", "authserver/values", "cedarpy")),
    ("database", ("sqlalchemy", "sqlite3", "psycopg", "authserver/db.py", "fcntl.flock", "alembic")),
    ("crypto", ("cryptography", "joserfc", "authserver/jose.py", "_rust", "hashlib", "hmac")),
    ("framework", ("flask", "werkzeug", "authlib", "blinker", "click", "granian", "structlog", "urllib")),
    ("authserver", ("authserver/",)),
)
OTHER = "python"


def of_exchange(world: World, requests: Iterable[bytes], count: int) -> dict[str, float]:
    """Microseconds of CPU for one exchange inside the application, by part; `application` is their sum."""
    with tempfile.NamedTemporaryFile(suffix=".requests") as file:
        bodies = [request.partition(b"\r\n\r\n")[2] for request in requests]
        pickle.dump((bodies, count), file)
        file.flush()
        ran = subprocess.run(
            ["taskset", "-c", str(SERVER_CORE), sys.executable, "-m", "bench.breakdown", file.name],
            cwd=ROOT,
            env={**os.environ, **world.environment},
            capture_output=True,
            timeout=300,
            check=True,
        )
    parts: dict[str, float] = json.loads(ran.stdout)
    return parts


def measure(bodies: list[bytes], count: int) -> dict[str, float]:
    """Call the configured application `count` times, and as often again under the profiler."""
    from authserver.app import create_app

    application = create_app()
    exchange = _caller(application.wsgi_app, bodies)
    for _ in range(min(count, 200)):
        exchange()
    started = time.process_time()
    for _ in range(count):
        exchange()
    each = 1e6 * (time.process_time() - started) / count
    profile = cProfile.Profile(time.process_time)
    with profile:
        for _ in range(count):
            exchange()
    shares = _shares(pstats.Stats(profile))
    return {"application": each, **{part: each * share for part, share in shares.items()}}


def _caller(application: Callable[..., Iterable[bytes]], bodies: list[bytes]) -> Callable[[], None]:
    following = iter(bodies * (1 + 100_000 // len(bodies)))
    statuses: list[str] = []

    def start_response(status: str, headers: object, exc_info: object = None) -> None:
        statuses.append(status)

    def exchange() -> None:
        b"".join(application(_environ(next(following)), start_response))
        if statuses.pop() != "200 OK":
            raise RuntimeError("an exchange was refused")

    return exchange


def _environ(body: bytes) -> dict[str, object]:
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/oauth/token",
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "127.0.0.1",
        "CONTENT_TYPE": "application/x-www-form-urlencoded",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.url_scheme": "http",
        "wsgi.version": (1, 0),
    }


def _shares(stats: pstats.Stats) -> Mapping[str, float]:
    spent: defaultdict[str, float] = defaultdict(float)
    entries: dict[tuple[str, int, str], tuple[int, int, float, float, object]] = stats.stats  # type: ignore[attr-defined]
    for (file, _line, name), (_calls, _all, own, _cumulative, _callers) in entries.items():
        spent[_part(f"{file} {name}")] += own
    total = sum(spent.values())
    return {part: own / total for part, own in sorted(spent.items(), key=itemgetter(1), reverse=True)}


def _part(where: str) -> str:
    for part, marks in _PARTS:
        if any(mark in where for mark in marks):
            return part
    return OTHER


if __name__ == "__main__":
    prepared, repetitions = pickle.loads(Path(sys.argv[1]).read_bytes())
    json.dump(measure(prepared, repetitions), sys.stdout)
