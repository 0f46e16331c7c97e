"""The OpenAPI document is what the server does: schemathesis holds a running server to it."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.generation import GenerationMode

from authserver.admin.operations import Operation
from authserver.admin.resources import ALL
from authserver.administration.roles import Role
from tests.admin.scene import BASE, Client, client_of
from tests.world import World, running_world


@pytest.fixture(scope="module")
def roomy_world(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server that lets one caller ask as often as a fuzzer does."""
    directory = tmp_path_factory.mktemp("roomy") / "world"
    with running_world(module_database, directory, api={"requests_per_minute": 1_000_000}) as running:
        running.granted()
        yield running


@pytest.fixture(scope="module")
def owner(roomy_world: World) -> Client:
    return client_of(roomy_world, Role.OWNER)


@pytest.fixture(scope="module")
def api(roomy_world: World) -> Any:
    statuses = {"expected-statuses": ["2xx", "404", "409", "412", "422"]}
    # A character U+0000, which no text here has, cannot be described for members that are any object.
    says = {"checks": {"positive_data_acceptance": statuses}, "generation": {"allow-x00": False}}
    config = SchemathesisConfig.from_dict(says)
    return schemathesis.openapi.from_url(f"{roomy_world.url}{BASE}/openapi.json", config=config)


@pytest.mark.parametrize("operation", ALL, ids=lambda operation: operation.name)
def test_the_server_does_what_its_document_says(api: Any, owner: Client, operation: Operation) -> None:
    described = api[operation.path][operation.method]
    fitting = described.as_strategy(generation_mode=GenerationMode.POSITIVE)
    unfitting = described.as_strategy(generation_mode=GenerationMode.NEGATIVE)

    @settings(
        max_examples=6,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=fitting | unfitting)
    def holds(case: Any) -> None:
        case.call_and_validate(headers={"Authorization": f"Bearer {owner.token}"})

    holds()
