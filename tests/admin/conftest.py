"""What the tests of the API share."""

from collections.abc import Callable

import pytest

from authserver.administration.roles import Role
from tests.admin.scene import Client, client_of
from tests.world import World


@pytest.fixture(scope="module")
def clients(shared_world: World) -> Callable[[Role], Client]:
    """A caller of each role at the file's server."""
    made = {role: client_of(shared_world, role) for role in Role}
    return made.__getitem__
