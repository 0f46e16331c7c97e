"""Fixtures of the attacks: a server that the many variants of one attack share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.scene import Scene, running_scene
from tests.conftest import BOTH
from tests.postgresql import Cluster
from tests.world import World, running_world


@pytest.fixture(scope="module")
def shared_world(_sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One server on SQLite for all tests of a file that leave nothing behind; its clock stays where it is."""
    folder = tmp_path_factory.mktemp("shared")
    database = shutil.copy(_sqlite_template, folder / "authserver.db")
    with running_world(f"sqlite:///{database}", folder / "world") as running:
        yield running


@pytest.fixture(scope="module")
def shared_grant(shared_world: World) -> str:
    """A grant to basket-helper on the shared server, as `World.delegation` describes it."""
    return shared_world.granted().grant


@pytest.fixture(scope="module", params=BOTH)
def scene_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database for all tests of a file: once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        template: Path = request.getfixturevalue("_sqlite_template")
        yield f"sqlite:///{shutil.copy(template, tmp_path_factory.mktemp('scene') / 'authserver.db')}"
        return
    cluster: Cluster = request.getfixturevalue("postgresql_cluster")
    name = cluster.create(request.getfixturevalue("_postgresql_template"))
    yield cluster.url(name)
    cluster.drop(name)


@pytest.fixture(scope="module")
def scene(scene_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One server for all tests of a file, where every kind of token has its place; nothing may leave a trace in it."""
    with running_scene(scene_url, tmp_path_factory.mktemp("scene") / "world") as running:
        yield running
