"""Fixtures that every test can use; pytest finds them here."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.make import migrate
from tests.postgresql import Cluster, NotInstalledError, running_cluster
from tests.world import World, running_world

BOTH = ("sqlite", "postgresql")
POSTGRESQL_IS_REQUIRED = os.environ.get("AUTHSERVER_TEST_POSTGRESQL") == "required"


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Long values are called by their parameter's name: keys and secrets differ from process to process."""
    return argname if isinstance(val, str | bytes) and len(val) > 40 else None


@pytest.fixture(autouse=True)
def _nothing_is_configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of whoever runs the tests reaches the program under test; no test sets up the next one's logging."""
    for name in os.environ:
        if name.upper().startswith("AUTHSERVER_") or name == "FLASK_DEBUG":
            monkeypatch.delenv(name)
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def postgresql_cluster() -> Iterator[Cluster]:
    """A PostgreSQL of the tests' own. Where there is none to start, what needs it is skipped.

    With `AUTHSERVER_TEST_POSTGRESQL=required` it fails instead.
    """
    try:
        with running_cluster() as cluster:
            yield cluster
    except NotInstalledError as error:
        if POSTGRESQL_IS_REQUIRED:
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def _postgresql_template(postgresql_cluster: Cluster) -> str:
    name = postgresql_cluster.create()
    migrate(postgresql_cluster.url(name))
    return name


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "authserver.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="module")
def module_database(_sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SQLite database of a test file's own, with today's schema."""
    return f"sqlite:///{shutil.copy(_sqlite_template, tmp_path_factory.mktemp('module') / 'authserver.db')}"


@pytest.fixture(scope="module")
def shared_world(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One server on SQLite for all tests of a file that leave nothing behind; its clock stays where it is."""
    with running_world(module_database, tmp_path_factory.mktemp("shared") / "world") as running:
        yield running


@pytest.fixture
def sqlite_url(_sqlite_template: Path, tmp_path: Path) -> str:
    """A fresh SQLite database with today's schema."""
    path = shutil.copy(_sqlite_template, tmp_path / "authserver.db")
    return f"sqlite:///{path}"


@pytest.fixture
def postgresql_url(postgresql_cluster: Cluster, _postgresql_template: str) -> Iterator[str]:
    """A fresh PostgreSQL database with today's schema."""
    name = postgresql_cluster.create(_postgresql_template)
    yield postgresql_cluster.url(name)
    postgresql_cluster.drop(name)


@pytest.fixture(params=BOTH)
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh database with today's schema: the test runs once on SQLite and once on PostgreSQL."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=BOTH)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without any table, on each of the two."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    cluster: Cluster = request.getfixturevalue("postgresql_cluster")
    name = cluster.create()
    yield cluster.url(name)
    cluster.drop(name)


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    """A server over real HTTP with agents, resource servers and a user: once on SQLite and once on PostgreSQL."""
    with running_world(database_url, tmp_path / "world") as running:
        yield running


@pytest.fixture
def sqlite_world(sqlite_url: str, tmp_path: Path) -> Iterator[World]:
    """The same on SQLite alone, for what no database has a part in."""
    with running_world(sqlite_url, tmp_path / "world") as running:
        yield running
