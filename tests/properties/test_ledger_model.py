"""Invariants C1 to C5 and C7 to C9: random histories of exchanges, settlements and revocations agree with a model.

`ledger_model` says what must happen, `ledger_histories` makes it happen. A history that once failed is kept below.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.conftest import BOTH
from tests.postgresql import Cluster
from tests.properties.ledger_histories import OPEN_MOST, Histories
from tests.world import World, running_world

Fresh = Callable[[], AbstractContextManager[World]]
ALL = settings(
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


@pytest.fixture(params=BOTH)
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Fresh:
    """Opens a server on a database of its own, as often as it is called."""
    prepared: Callable[[Path], AbstractContextManager[str]] = request.getfixturevalue(
        f"_{request.param}_copies"
    )

    @contextmanager
    def opened() -> Iterator[World]:
        with (
            TemporaryDirectory(dir=tmp_path) as folder,
            prepared(Path(folder)) as url,
            running_world(url, Path(folder) / "world", ledger={"open_reservations": OPEN_MOST}) as world,
        ):
            yield world

    return opened


@pytest.fixture
def _sqlite_copies(_sqlite_template: Path) -> Callable[[Path], AbstractContextManager[str]]:
    @contextmanager
    def copy(folder: Path) -> Iterator[str]:
        yield f"sqlite:///{shutil.copy(_sqlite_template, folder / 'authserver.db')}"

    return copy


@pytest.fixture
def _postgresql_copies(
    postgresql_cluster: Cluster, _postgresql_template: str
) -> Callable[[Path], AbstractContextManager[str]]:
    @contextmanager
    def copy(_: Path) -> Iterator[str]:
        name = postgresql_cluster.create(_postgresql_template)
        yield postgresql_cluster.url(name)
        postgresql_cluster.drop(name)

    return copy


def test_random_histories_agree_with_the_model(fresh: Fresh) -> None:
    # The same ones each time: what is new is looked for by the long form.
    short = settings(ALL, max_examples=20, stateful_step_count=30, derandomize=True)
    run_state_machine_as_test(lambda: Histories(fresh), settings=short)


@pytest.mark.prove
def test_hundreds_of_random_histories_agree_with_the_model(fresh: Fresh) -> None:
    long = settings(ALL, max_examples=400, stateful_step_count=40)
    run_state_machine_as_test(lambda: Histories(fresh), settings=long)
