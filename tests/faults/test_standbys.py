"""Fault F13: a standby is behind. Decisions read the primary alone, and a server on a standby does not start."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from authserver import revoke
from authserver.revoke import Target
from tests.commands.conftest import operator_of
from tests.faults.clusters import Node, primary_and_standby
from tests.make import migrate
from tests.postgresql import Cluster
from tests.settling import settle, token_of
from tests.world import World, running_world


@pytest.fixture(scope="module")
def nodes(postgresql_cluster: Cluster) -> Iterator[tuple[Node, Node, str]]:
    """A primary, its standby, and the name of a database on both."""
    with primary_and_standby() as (primary, standby):
        name = primary.create()
        migrate(primary.url(name))
        yield primary, standby, name


@contextmanager
def stays_behind(standby: Node) -> Iterator[None]:
    """The standby keeps what it is sent, and shows nothing of it."""
    standby.ask("SELECT pg_wal_replay_pause()")
    try:
        yield
    finally:
        standby.ask("SELECT pg_wal_replay_resume()")


def test_F13_decisions_read_the_primary_alone_while_its_standby_is_behind(
    nodes: tuple[Node, Node, str], tmp_path: Path
) -> None:
    primary, standby, name = nodes
    # The standby is named first, so that whoever took the first that answers would read it.
    hosts = quote(f"{standby.folder},{primary.folder}", safe="")
    url = f"postgresql+psycopg://postgres@/{name}?host={hosts}&target_session_attrs=read-write"
    with running_world(url, tmp_path / "world") as world:
        grant, other = world.granted(), world.granted()
        first, second = (token_of(world, one.grant, "10.00") for one in (grant, other))
        with stays_behind(standby):
            now = world.clock.now()
            revoke.revoke(
                world.services, Target("delegation", grant.grant_id), reason="a test", by="me", now=now
            )
            assert settle(world, "redeem", {"token": second}).status_code == 201
            # What the standby shows is as it was; what every process decides by is not.
            assert standby.ask("SELECT count(*) FROM revocations", name) == [(0,)]
            for _ in range(4):
                refused = world.exchange(grant.grant)
                assert refused.json()["error_description"] == "the delegation was revoked"
                for token, status in ((first, 409), (second, 409)):
                    assert settle(world, "redeem", {"token": token}).status_code == status
                assert world.introspect(first) == {"active": False}


@pytest.mark.parametrize("verb", [("serve",), ("ledger", "check"), ("agents", "list")])
def test_F13_a_server_on_a_standby_does_not_start_and_says_why(
    nodes: tuple[Node, Node, str], tmp_path: Path, verb: tuple[str, ...]
) -> None:
    _, standby, name = nodes
    said = operator_of(tmp_path, standby.url(name)).fails(*verb)
    assert said.startswith("database.url: leads to a standby, which is read-only and may be behind")


def test_F13_no_setting_names_a_second_database_to_read_from(shared_world: World) -> None:
    assert set(type(shared_world.services.settings.database).model_fields) == {
        *("url", "pool_size", "statement_timeout", "prepared_statements")
    }
