"""Fixtures of the attacks: a server that the many variants of one attack share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.scene import Scene, running_scene
from tests.conftest import BOTH
from tests.pages.browser import Visit, signed_in
from tests.postgresql import Cluster
from tests.world import World, running_world


@pytest.fixture(scope="module")
def shared_grant(shared_world: World) -> str:
    """A grant to basket-helper on the shared server, as `World.delegation` describes it."""
    return shared_world.granted().grant


@pytest.fixture(scope="module", params=BOTH)
def either_world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The same for one attack of each family: once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        yield request.getfixturevalue("shared_world")
        return
    cluster: Cluster = request.getfixturevalue("postgresql_cluster")
    name = cluster.create(request.getfixturevalue("_postgresql_template"))
    with running_world(cluster.url(name), tmp_path_factory.mktemp("either") / "world") as running:
        yield running
    cluster.drop(name)


@pytest.fixture(scope="module")
def scene(_sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A server on SQLite where every kind of token has its place; whatever is tried there leaves no trace."""
    folder = tmp_path_factory.mktemp("scene")
    database = shutil.copy(_sqlite_template, folder / "authserver.db")
    with running_scene(f"sqlite:///{database}", folder / "world") as running:
        yield running


@pytest.fixture(scope="module", params=BOTH)
def either_scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The same for one attack of each family: once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        yield request.getfixturevalue("scene")
        return
    cluster: Cluster = request.getfixturevalue("postgresql_cluster")
    name = cluster.create(request.getfixturevalue("_postgresql_template"))
    with running_scene(cluster.url(name), tmp_path_factory.mktemp("scene") / "world") as running:
        yield running
    cluster.drop(name)


@pytest.fixture(scope="module")
def shared_visit(shared_world: World) -> Iterator[Visit]:
    """Ada at her browser, signed in at the shared server."""
    with signed_in(shared_world) as visit:
        yield visit
