"""The verbs of manage.py, run for real against a configuration and a database of the test's own."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result

from authserver.actors.workload_files import create_domain
from authserver.commands import main
from tests.fakes import SettableClock
from tests.world import World, running_world


class Manage:
    """Whoever types `python manage.py …` with the configuration in `folder`."""

    def __init__(self, folder: Path, configuration: str) -> None:
        self.folder = folder
        self.clock: SettableClock | None = None
        self.config = folder / "authserver.toml"
        self.config.write_text(configuration, encoding="utf-8")

    def run(self, *arguments: str, input: str | None = None) -> Result:
        """Run a verb. A defect of the program is raised here."""
        environment = {"AUTHSERVER_CONFIG": str(self.config)}
        result = CliRunner().invoke(main, arguments, input=input, env=environment, catch_exceptions=False)
        if self.clock is not None:
            # The clock of the server beside it, which stands still otherwise.
            self.clock.set(datetime.now(UTC))
        return result

    def prints(self, *arguments: str, input: str | None = None) -> str:
        """What a verb that succeeds prints; it has nothing to say on standard error."""
        result = self.run(*arguments, input=input)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout

    def json(self, *arguments: str, input: str | None = None) -> Any:
        """The same, where it is one JSON value."""
        return json.loads(self.prints(*arguments, input=input))

    def fails(self, *arguments: str, input: str | None = None) -> str:
        """The one line with which a verb that fails says why; it prints nothing else."""
        result = self.run(*arguments, input=input)
        assert (result.exit_code, result.stdout) == (1, "")
        line: str = result.stderr
        assert line.endswith("\n")
        assert line.count("\n") == 1
        return line[:-1]

    def file(self, name: str, content: object) -> str:
        """The path of a file with that text, or with that value as JSON."""
        path = self.folder / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return str(path)


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """The verbs configure logs for their process, which here is the tests'."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture
def manage(database_url: str, tmp_path: Path) -> Manage:
    """The verbs, on a database with today's schema and nothing in it: once on SQLite and once on PostgreSQL."""
    return operator_of(tmp_path, database_url)


@pytest.fixture
def sqlite_manage(sqlite_url: str, tmp_path: Path) -> Manage:
    """The same on SQLite alone, for what no database has a part in."""
    return operator_of(tmp_path, sqlite_url)


@pytest.fixture
def running(database_url: str, tmp_path: Path) -> Iterator[World]:
    """A running server with agents, resource servers and a user."""
    with running_world(database_url, tmp_path / "world") as world:
        yield world


@pytest.fixture
def beside(running: World, database_url: str, tmp_path: Path) -> Manage:
    """The verbs, beside that server: with its issuer, its database and its encryption key."""
    manage = operator_of(tmp_path / "world", database_url, running.issuer)
    manage.clock = running.clock
    return manage


def operator_of(folder: Path, database_url: str, issuer: str = "https://auth.example") -> Manage:
    """The verbs with two trust domains in files, example.org and cluster."""
    manage = Manage(
        folder,
        f"""
[server]
issuer = "{issuer}"

[database]
url = "{database_url}"

[[trust_domains]]
name = "example.org"
kind = "spiffe"
jwks_file = "example.org/jwks.json"

[[trust_domains]]
name = "cluster"
kind = "kubernetes"
issuer = "https://cluster"
jwks_file = "cluster/jwks.json"
""",
    )
    for name, kind in (("example.org", "spiffe"), ("cluster", "kubernetes")):
        if not (folder / name).exists():
            create_domain(name, kind, folder / name)
    return manage
