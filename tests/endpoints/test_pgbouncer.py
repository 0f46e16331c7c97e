"""The server behind PgBouncer in transaction mode, set up as docs/postgresql.md says; and what that document claims."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from authserver import revoke, upkeep
from authserver.commands import main
from authserver.db import Database
from authserver.migration import upgrade
from authserver.revoke import Target
from authserver.schema import Base
from tests.attacks.serving import configuration
from tests.pgbouncer import block, running_pgbouncer
from tests.postgresql import Cluster, NotInstalledError
from tests.settling import at_once, eur, redeemed, settle, the_ledger_is_right, token_of
from tests.world import World, running_world

ROLE = "authserver"
LIMITS = {"currency": "EUR", "per_action": "80.00", "total": "100.00"}


@dataclass(frozen=True)
class Pooled:
    """A database behind a PgBouncer, and the PostgreSQL that it is in."""

    cluster: Cluster
    database: str
    url: str

    @property
    def end_all(self) -> str:
        """SQL that ends every connection to the database."""
        return f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.database}'"

    def administer(self, *statements: str) -> None:
        """Run SQL on PostgreSQL itself."""
        with psycopg.connect(host=str(self.cluster.folder), user="postgres", autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


@pytest.fixture
def pooled(postgresql_cluster: Cluster, _postgresql_template: str) -> Iterator[Pooled]:
    """A fresh database with today's schema behind a PgBouncer; skipped where there is none to start.

    The role that it connects as has the documented time limits.
    """
    name = postgresql_cluster.create(_postgresql_template)
    made = Pooled(postgresql_cluster, name, "")
    made.administer(f"CREATE ROLE {ROLE} LOGIN SUPERUSER", *block("sql", "ALTER ROLE").strip().split("\n"))
    try:
        with running_pgbouncer(postgresql_cluster, name, ROLE) as url:
            yield Pooled(postgresql_cluster, name, url)
    except NotInstalledError as error:
        pytest.skip(str(error))
    finally:
        postgresql_cluster.drop(name)
        made.administer(f"DROP ROLE {ROLE}")


@pytest.fixture
def world(pooled: Pooled, tmp_path: Path) -> Iterator[World]:
    """A server behind it."""
    database = {"url": pooled.url, "prepared_statements": False, "pool_size": 8}
    with running_world(pooled.url, tmp_path / "world", database=database) as running:
        yield running


def test_everything_works_behind_pgbouncer_in_transaction_mode(world: World) -> None:
    granted = world.granted(limits=LIMITS, actions=["payment.finalize", "refund.initiate"])
    action = world.action(amount=eur("10.00"))
    answers = at_once(40, lambda _: world.exchange(granted.grant, action=action))
    assert Counter(answer.status_code for answer in answers) == {200: 10, 400: 30}
    tokens = [answer.json()["access_token"] for answer in answers if answer.status_code == 200]
    redeemed_at_once = at_once(20, lambda number: settle(world, "redeem", {"token": tokens[number % 2]}))
    assert Counter(answer.status_code for answer in redeemed_at_once) == {201: 2, 409: 18}
    path = redeemed(world, tokens[2], capture=False)
    assert settle(world, f"{path}/capture", {}, key="once").status_code == 200
    assert settle(world, f"{path}/refund", {}, key="twice").status_code == 200
    world.clock.advance(seconds=120)
    assert upkeep.tidy(world.services, world.clock.now()).reservations == 7
    token = token_of(world, granted.grant, "30.00")
    target = Target("delegation", granted.grant_id)
    revoke.revoke(world.services, target, reason="a test", by="operator", now=world.clock.now())
    assert world.introspect(token) == {"active": False}
    the_ledger_is_right(world)


def test_no_statement_is_looked_for_on_a_connection_that_never_saw_it(world: World) -> None:
    # psycopg prepares what one connection has committed five times, so each of them is used more often than that.
    action = world.action(actions=["catalog.search"], amount=None, merchant=None)
    grant = world.granted().grant
    for _ in range(15):
        answers = _at_once_without_another_try(16, lambda: world.exchange(grant, action=action))
        assert Counter(answers) == {200: 16}


def _at_once_without_another_try(many: int, send: Callable[[], httpx.Response]) -> list[int]:
    with ThreadPoolExecutor(many) as pool:
        return [sent.result().status_code for sent in [pool.submit(send) for _ in range(many)]]


def test_the_servers_of_the_pool_may_go_without_a_request_failing(world: World, pooled: Pooled) -> None:
    grant = world.granted(limits=LIMITS).grant
    for _ in range(3):
        assert world.exchange(grant, action=world.action(amount=eur("1.00"))).status_code == 200
        pooled.administer(pooled.end_all)
    the_ledger_is_right(world)


def test_the_role_carries_the_time_limits_and_doctor_says_so_where_it_does_not(
    pooled: Pooled, world: World, tmp_path: Path
) -> None:
    assert _doctor(world, tmp_path)["time limits"]["ok"]
    pooled.administer(f"ALTER ROLE {ROLE} RESET statement_timeout", pooled.end_all)
    found = _doctor(world, tmp_path)["time limits"]
    assert not found["ok"]
    assert "statement_timeout is 0 ms" in found["detail"]


def _doctor(world: World, folder: Path) -> dict[str, Any]:
    environment = {
        "AUTHSERVER_CONFIG": str(configuration(world, folder)),
        "AUTHSERVER_DATABASE__PREPARED_STATEMENTS": "false",
    }
    ran = CliRunner().invoke(main, ["doctor", "--json"], env=environment, catch_exceptions=False)
    return {finding["check"]: finding for finding in json.loads(ran.stdout)}


def test_an_empty_database_is_migrated_behind_pgbouncer(pooled: Pooled) -> None:
    database = Database(pooled.url, prepared_statements=False)
    database.write(lambda connection: connection.execute(text("DROP SCHEMA public CASCADE")))
    database.write(lambda connection: connection.execute(text("CREATE SCHEMA public")))
    assert upgrade(database)
    database.dispose()


# --- without PgBouncer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prepared", [True, False])
def test_statements_are_prepared_unless_the_configuration_says_no(
    postgresql_url: str, prepared: bool
) -> None:
    database = Database(postgresql_url, pool_size=1, prepared_statements=prepared)
    for _ in range(10):
        database.write(lambda connection: connection.execute(text("SELECT count(*) FROM users")))
    count = text("SELECT count(*) FROM pg_prepared_statements")
    assert bool(database.read(lambda connection: connection.scalar(count))) == prepared
    database.dispose()


def test_the_time_limits_are_in_force_without_a_pooler(postgresql_url: str) -> None:
    database = Database(postgresql_url, statement_timeout=4_000)
    for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
        show = text(f"SHOW {name}")
        assert database.read(lambda connection, show=show: connection.scalar(show)) == "4s"
    database.dispose()


def test_all_nodes_of_a_cluster_may_be_in_the_url() -> None:
    (url,) = re.findall(
        r'url = "(\S*target_session_attrs=read-write)"', block("toml", "target_session_attrs")
    )
    database = Database(url)
    _, arguments = database.engine.dialect.create_connect_args(database.url)
    assert arguments["host"] == "pg1,pg2,pg3"
    assert arguments["port"] == "5432,5432,5432"
    assert arguments["target_session_attrs"] == "read-write"


def test_the_tables_for_citus_are_all_there_are() -> None:
    commands = block("sql", "create_distributed_table")
    distributed = re.findall(r"create_distributed_table\('(\w+)', 'root_id'", commands)
    referenced = re.findall(r"create_reference_table\('(\w+)'\)", commands)
    tables = Base.metadata.tables.values()
    assert {*distributed} == {table.name for table in tables if "root_id" in table.primary_key.columns}
    assert sorted(distributed + referenced) == sorted(table.name for table in tables)
    triggers = re.findall(r"DROP TRIGGER (\w+) ON (\w+);", commands)
    kept = ("transfers", "audit_events", "audit_batches", "audit_retention", "revocations")
    append_only = [(f"{table}_append_only", table) for table in kept]
    assert sorted(triggers) == sorted([*append_only, ("audit_events_kept", "audit_events")])
