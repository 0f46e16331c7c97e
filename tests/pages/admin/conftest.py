"""Fixtures of the console's tests."""

from collections.abc import Iterator

import pytest

from tests.pages.admin.scene import Company, a_company
from tests.world import World, running_world


@pytest.fixture(scope="module")
def company(
    module_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[World, Company]]:
    """One company for all tests of a file that change nothing in it."""
    with running_world(module_database, tmp_path_factory.mktemp("console") / "world") as world:
        yield world, a_company(world)
