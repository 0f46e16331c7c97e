"""Fixtures of the attacks: a server that the many variants of one attack share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

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
