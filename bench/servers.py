"""How one WSGI application can be served by one worker process: the candidates that are measured against each other."""

import importlib.util
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to serve an application: `command` takes the application as `module:name` and the port."""

    name: str
    program: str
    options: tuple[str, ...]

    @property
    def missing(self) -> bool:
        """Whether its program is not installed here."""
        return importlib.util.find_spec(self.program) is None

    def command(self, application: str, port: int) -> list[str]:
        """The whole command line, for one worker process on the loopback interface."""
        python = [sys.executable, "-m", self.program]
        if self.program == "granian":
            where = ["--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
            return [*python, *where, *self.options, application]
        return [*python, "--bind", f"127.0.0.1:{port}", "--workers", "1", *self.options, application]


def granian(threads: int, *options: str) -> Candidate:
    """granian over HTTP/1 with a number of blocking threads."""
    fixed = ("--http", "1", "--no-ws", "--blocking-threads", str(threads), "--log-level", "warning")
    return Candidate(" ".join([f"granian, {threads} threads", *options]), "granian", (*fixed, *options))


def gunicorn(kind: str, *options: str) -> Candidate:
    """gunicorn with one kind of worker."""
    fixed = ("--worker-class", kind, "--keep-alive", "30", "--log-level", "warning")
    return Candidate(" ".join([f"gunicorn {kind}", *options]), "gunicorn", (*fixed, *options))


CANDIDATES = (
    granian(1),
    granian(4),
    granian(8),
    gunicorn("sync"),
    gunicorn("gthread", "--threads", "8"),
)
