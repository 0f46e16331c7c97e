"""Fault F09: an upgrade without down time, and a migration that is killed (docs/upgrading.md).

Today's program stands for the old version. The new one is a copy of it whose schema has moved on by one migration, as
the next version's will have. That migrations only add, so that this holds for all of them, is tested for each.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, MetaData, insert, inspect, select, text

from authserver.db import Database
from authserver.migration import pending, upgrade
from tests.attacks.serving import ROOT, configuration
from tests.faults.servers import Server, server
from tests.faults.storm import Storm, is_sound, storm
from tests.pages.scene import a_life
from tests.settling import settle, token_of
from tests.world import World

NEXT = '''"""What the next version needs."""

import sqlalchemy as sa
from alembic import op

revision = "9998"
down_revision = "{newest}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("regions", sa.Column("name", sa.String(), primary_key=True))
    op.add_column("resource_servers", sa.Column("region", sa.String(), nullable=True))
    {then}op.add_column("actions", sa.Column("weight", sa.Integer(), nullable=False, server_default="1"))
    op.create_index("ix_actions_weight", "actions", ["weight"])


def downgrade() -> None:
    op.drop_index("ix_actions_weight", "actions")
    op.drop_column("actions", "weight")
    op.drop_column("resource_servers", "region")
    op.drop_table("regions")
'''
# Stops half-way, for whoever wants to kill it there.
HALF_WAY = '__import__("pathlib").Path({flag!r}).touch() or __import__("time").sleep(60)\n    '


@dataclass(frozen=True)
class Version:
    """A checkout of its own, whose schema is one migration ahead."""

    root: Path

    def migration(self, then: str = "") -> None:
        """Write the migration; `then` is run in the middle of it."""
        versions = self.root / "migrations" / "versions"
        newest = max(path.name[:4] for path in versions.glob("[0-9]*.py") if path.name[:4] < "9998")
        (versions / "9998_regions.py").write_text(NEXT.format(newest=newest, then=then))

    def manage(self, configured: Path, *verb: str) -> "subprocess.Popen[str]":
        """Begin a verb of this version."""
        environment = {**os.environ, "AUTHSERVER_CONFIG": str(configured), "PYTHONPATH": str(self.root)}
        return subprocess.Popen(
            [sys.executable, "manage.py", *verb],
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def runs(self, configured: Path, *verb: str) -> str:
        """What a verb prints that succeeds."""
        output, errors = self.manage(configured, *verb).communicate(timeout=60)
        assert not errors, errors
        return output


@pytest.fixture
def new(tmp_path: Path) -> Version:
    """The next version: its program reads the column that its migration adds."""
    root = tmp_path / "new"
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("authserver", "config", "migrations"):
        shutil.copytree(ROOT / folder, root / folder, ignore=ignored)
    for file in ("manage.py", "pyproject.toml"):
        shutil.copy(ROOT / file, root / file)
    schema = root / "authserver" / "schema.py"
    mapped = "    previous_secret_until: Mapped[datetime | None]\n"
    mapping = schema.read_text(encoding="utf-8")
    assert mapped in mapping
    schema.write_text(mapping.replace(mapped, f"{mapped}    region: Mapped[str | None]\n"), encoding="utf-8")
    version = Version(root)
    version.migration()
    return version


def let_some_pass(shopping: Storm, many: int = 10) -> None:
    before, deadline = shopping.answers, time.monotonic() + 30
    while shopping.answers < before + many:
        shopping.goes_on()
        assert time.monotonic() < deadline


def test_F09_old_and_new_serve_one_schema_and_nobody_waits(
    world: World, new: Version, tmp_path: Path
) -> None:
    configured = configuration(world, tmp_path)
    environment = {"PYTHONPATH": str(new.root)}
    grant = world.granted().grant
    with server(configured) as old, storm(world, old.url, shoppers=1, seed=5) as shopping:
        let_some_pass(shopping)
        issued_before = token_of(world, grant, "1.00")
        assert "applied 9998" in new.runs(configured, "migrate")
        let_some_pass(shopping)
        with server(configured, environment=environment, program=new.root) as newer:
            with httpx.Client(base_url=newer.url) as client:
                for token in (issued_before, token_of(world, grant, "1.00")):
                    assert settle(world, "redeem", {"token": token}, client=client).status_code == 201
                issued = client.post("/oauth/token", data=world.form(grant)).json()["access_token"]
                with httpx.Client(base_url=old.url) as older:
                    assert settle(world, "redeem", {"token": issued}, client=older).status_code == 201
            let_some_pass(shopping)
            shopping.end()
            # No request had to be sent again: not during the migration, nor beside the new version.
            assert shopping.resent == 0
            assert old.terminate(10) == 0
            assert client_gets(newer, "/readyz") == 200
        shopping.holds(shopping.answered())
    is_sound(world)


def client_gets(running: Server, path: str) -> int:
    return httpx.get(f"{running.url}{path}", timeout=10).status_code


def test_F09_a_migration_that_is_killed_half_way_leaves_nothing_and_goes_on_later(
    world: World, new: Version, tmp_path: Path
) -> None:
    configured, flag = configuration(world, tmp_path), tmp_path / "half-way"
    before = tables(world.services.database)
    new.migration(HALF_WAY.format(flag=str(flag)))
    migrating = new.manage(configured, "migrate")
    deadline = time.monotonic() + 30
    while not flag.exists():
        assert migrating.poll() is None, migrating.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    migrating.kill()
    migrating.communicate()
    wait_for_the_rollback(world)
    assert tables(world.services.database) == before
    assert world.exchange(world.granted().grant).status_code == 200
    new.migration()
    assert new.runs(configured, "migrate") == "applied 9998\nthe schema is up to date\n"
    assert "regions" in tables(world.services.database)
    assert world.exchange(world.granted().grant).status_code == 200


def wait_for_the_rollback(world: World) -> None:
    """PostgreSQL notices that its client is gone a moment later; until then the migration's locks stand."""
    if not world.services.database.is_sqlite:
        deadline = time.monotonic() + 20
        busy = text(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE state = 'idle in transaction' AND datname = current_database()"
        )
        while world.services.database.read(lambda c: c.scalar(busy)):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def tables(database: Database) -> dict[str, list[str]]:
    """Every table with its columns."""

    def read(connection: Connection) -> dict[str, list[str]]:
        found = inspect(connection)
        return {name: [c["name"] for c in found.get_columns(name)] for name in found.get_table_names()}

    return database.read(read)


# --- every migration that there is --------------------------------------------------------------------------------


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Database]:
    database = Database(empty_database_url)
    yield database
    database.dispose()


@dataclass(frozen=True)
class Shape:
    """What old code relies on of one table."""

    columns: dict[str, tuple[str, bool, str | None]]  # type, whether it takes null, default
    key: list[str]
    unique: set[tuple[str, ...]]
    checks: dict[str, str]


def shapes(database: Database) -> dict[str, Shape]:
    def read(connection: Connection) -> dict[str, Shape]:
        found = inspect(connection)
        return {name: shape(found, name) for name in found.get_table_names() if name != "alembic_version"}

    return database.read(read)


def shape(found: Any, table: str) -> Shape:
    uniques = found.get_unique_constraints(table) + [i for i in found.get_indexes(table) if i["unique"]]
    return Shape(
        columns={c["name"]: (str(c["type"]), c["nullable"], c["default"]) for c in found.get_columns(table)},
        key=found.get_pk_constraint(table)["constrained_columns"],
        unique={tuple(one["column_names"]) for one in uniques},
        checks={check["name"]: check["sqltext"] for check in found.get_check_constraints(table)},
    )


def test_F09_every_migration_leaves_old_programs_what_they_write_and_read(empty: Database) -> None:
    first, *others = pending(empty)
    upgrade(empty, first)
    before = shapes(empty)
    for revision in others:
        upgrade(empty, revision)
        after = shapes(empty)
        for table, old in before.items():
            new = after[table]
            assert old.columns.items() <= new.columns.items(), (revision, table)
            assert (old.key, old.unique, old.checks) == (new.key, new.unique, new.checks), (revision, table)
            for name in new.columns.keys() - old.columns.keys():
                _, takes_null, default = new.columns[name]
                assert takes_null or default is not None, (
                    f"{revision}: old programs do not know {table}.{name}"
                )
        before = after


def test_F09_rows_as_each_earlier_version_writes_them_fit_todays_schema(
    sqlite_world: World, empty: Database
) -> None:
    """Real rows, cut to the columns of their time, go in as they are and are read back."""
    a_life(sqlite_world, "eve")
    rows = all_rows(sqlite_world.services.database)
    assert {"actions", "audit_events", "delegations", "transfers", "budgets", "users"} <= rows.keys()
    known: list[dict[str, list[str]]] = []
    for revision in pending(empty):
        upgrade(empty, revision)
        known.append(tables(empty))

    def write(connection: Connection) -> None:
        today = MetaData()
        today.reflect(connection)
        for version in known:
            nested = connection.begin_nested()
            for name, columns in version.items():
                cut = [{c: row[c] for c in columns} for row in rows.get(name, [])]
                if cut:
                    connection.execute(insert(today.tables[name]), cut)
                    of_its_time = select(*(today.tables[name].c[column] for column in columns))
                    assert len(connection.execute(of_its_time).all()) == len(cut)
            nested.rollback()

    empty.write(write)


def all_rows(database: Database) -> dict[str, list[dict[str, Any]]]:
    def read(connection: Connection) -> dict[str, list[dict[str, Any]]]:
        today = MetaData()
        today.reflect(connection)
        found = {
            name: [dict(row) for row in connection.execute(select(table)).mappings()]
            for name, table in today.tables.items()
        }
        return {name: rows for name, rows in found.items() if rows and name != "alembic_version"}

    return database.read(read)


def test_the_migration_of_these_tests_is_one_that_this_rule_allows() -> None:
    added = re.findall(r'nullable=(\w+)(?:, server_default="(\w+)")?', NEXT)
    assert added == [("True", ""), ("False", "1")]
