"""The program itself, as operators start it: `manage.py serve` on a world's database, in processes of its own."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from examples.processes import free_port, running
from tests.world import World

ROOT = Path(__file__).resolve().parent.parent.parent
SERVE = (sys.executable, "manage.py", "serve")


@dataclass(frozen=True)
class Served:
    """A server program that answers: its address, its process id, and the file with all that it writes."""

    url: str
    port: int
    pid: int
    log: Path


def configuration(
    world: World, folder: Path, *, log_format: str = "json", database_url: str | None = None
) -> Path:
    """A configuration file with which another process is the same server as `world`, on its database or another."""
    settings, path = world.services.settings, folder / "authserver.toml"
    says = {
        "server": {"issuer": world.issuer},
        "database": {"url": database_url or settings.database.url.get_secret_value()},
        "keys": {"encryption_key_file": str(settings.keys.encryption_key_file)},
        "log": {"level": "debug", "format": log_format},
        "[trust_domains]": {
            "name": "example.org",
            "kind": "spiffe",
            "jwks_file": str(world.domain / "jwks.json"),
        },
    }
    path.write_text("".join(_section(name, keys) for name, keys in says.items()), encoding="utf-8")
    return path


def _section(name: str, keys: dict[str, str]) -> str:
    return f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())


@contextmanager
def serving(configured: Path, *, workers: int = 1) -> Iterator[Served]:
    """Start the server of that configuration on a free port; it is ended with the block."""
    port = free_port()
    log = configured.parent / f"serve-{port}.log"
    command = (*SERVE, "--port", str(port), "--workers", str(workers))
    environment = {**os.environ, "AUTHSERVER_CONFIG": str(configured)}
    with running(command, environment, ROOT, log) as program:
        program.wait_until_ready(f"http://127.0.0.1:{port}/readyz")
        yield Served(f"http://127.0.0.1:{port}", port, program.process.pid, log)
