"""`apply`: agents, resource servers and users from TOML files, as often as one likes."""

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Connection

from authserver import register
from authserver.accounts import users
from authserver.accounts.users import User, UserExists
from authserver.actors import AlreadyRegistered, agents, resource_servers
from authserver.commands.context import Failed, json_option, opened, operator, print_json, read_json
from authserver.register import Enrolment, IssuedServer
from authserver.services import Services
from authserver.values import NotAValue

Members = Mapping[str, object]
Issued = IssuedServer | Enrolment


@dataclass(frozen=True, slots=True)
class _Kind:
    """What `apply` must know of one kind of record; `key` is the member that names a record."""

    title: str
    key: str
    fixed: frozenset[str]  # members that no record changes
    find: Callable[[Connection, str], Any]
    members_of: Callable[[Any], dict[str, object]]
    parse: Callable[[Members, Services, datetime], Any]
    create: Callable[[Connection, Services, Any, str, datetime], Issued | None]
    change: Callable[[Connection, Any, Any, str, datetime], Issued | None]


@dataclass(frozen=True, slots=True)
class _Table:
    """One table of a file."""

    source: str
    kind: _Kind
    name: str
    said: Members


@dataclass(frozen=True, slots=True)
class _Change:
    """One record that is to be made, or changed; two are equal where they would do the same."""

    kind: _Kind
    name: str
    before: Members
    after: Members
    found: Any = field(compare=False)
    wanted: Any = field(compare=False)

    @property
    def members(self) -> dict[str, dict[str, object]]:
        """`{"from", "to"}` of each member that would differ."""
        names = sorted(self.before.keys() | self.after.keys())
        both = {name: {"from": self.before.get(name), "to": self.after.get(name)} for name in names}
        return {name: change for name, change in both.items() if change["from"] != change["to"]}

    def to_json(self) -> dict[str, object]:
        """The change as a program reads it."""
        change = "create" if self.found is None else "change"
        return {"kind": self.kind.title, "name": self.name, "change": change, "members": self.members}


def _user(connection: Connection, username: str) -> User | None:
    found = users.find(connection, username)
    return found if found is not None and found.username == username else None


_AGENT = _Kind(
    title="agent",
    key="client_id",
    fixed=frozenset({"trust_domain", "subject"}),
    find=agents.find,
    members_of=register.members_of_agent,
    parse=register.parse_agent,
    create=lambda connection, services, wanted, by, now: register.create_agent(connection, wanted, by),
    change=lambda connection, wanted, found, by, now: register.change_agent(connection, wanted, by, now),
)
_RESOURCE_SERVER = _Kind(
    title="resource server",
    key="identifier",
    fixed=frozenset(),
    find=resource_servers.find_by_identifier,
    members_of=register.members_of_resource_server,
    parse=register.parse_resource_server,
    create=lambda connection, services, wanted, by, now: register.create_resource_server(
        connection, wanted, by
    ),
    change=register.change_resource_server,
)
_USER = _Kind(
    title="user",
    key="username",
    fixed=frozenset(),
    find=_user,
    members_of=register.members_of_user,
    parse=lambda said, services, now: register.parse_user(said),
    create=lambda connection, services, wanted, by, now: register.create_user(
        connection, wanted, services.issuer, by, now
    ),
    change=register.change_user,
)
_KINDS = {"agents": _AGENT, "resource_servers": _RESOURCE_SERVER, "users": _USER}


@click.command("apply")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--dry-run", is_flag=True, help="Only show the difference.")
@json_option
def verb(files: tuple[Path, ...], dry_run: bool, as_json: bool) -> None:
    """Make the agents, resource servers and users that the TOML FILEs name, or change them to what the files say.

    A file has [[agents]], [[resource_servers]] and [[users]], with the options of `agents create` and the others
    as keys (jwks_file is relative to the file). It shows the difference first. All of it is done, or nothing; what the
    files do not name is left alone. The secret of a new resource server and the link for a new user are shown once.
    """
    tables = _tables(files)
    with opened() as services:
        now = services.clock.now()
        changes = services.database.read(lambda connection: _plan(connection, services, tables, now))
        if not as_json:
            _print_difference(changes)
        issued: list[Issued] = []
        if changes and not dry_run:
            issued = services.database.write(
                lambda connection: _carry_out(connection, services, tables, changes, now)
            )
    shown = [one.to_json() for one in issued]
    if as_json:
        print_json(
            {"dry_run": dry_run, "changes": [change.to_json() for change in changes], "created": shown}
        )
    else:
        for one in shown:
            print_json(one)


# --- the files ----------------------------------------------------------------------------------------------------


def _tables(files: Iterable[Path]) -> list[_Table]:
    tables = [table for file in files for table in _tables_of(file)]
    named: dict[tuple[str, str], str] = {}
    for table in tables:
        key = (table.kind.title, table.name)
        if key in named:
            raise Failed(f"{table.source}: {table.kind.title} {table.name} is in {named[key]} already")
        named[key] = table.source
    return tables


def _tables_of(file: Path) -> Iterator[_Table]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Failed(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise Failed(f"{file}: {error}") from error
    for name, entries in document.items():
        kind = _KINDS.get(name)
        if kind is None or not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise Failed(f"{file}: {name}: takes [[agents]], [[resource_servers]] and [[users]]")
        for said in entries:
            yield _table(file, kind, dict(said))


def _table(file: Path, kind: _Kind, said: dict[str, object]) -> _Table:
    name = said.get(kind.key)
    if not isinstance(name, str):
        raise Failed(f"{file}: each {kind.title} takes a {kind.key}")
    if "password" in said:
        raise Failed(f"{file}: {kind.title} {name}: a password is not for a file")
    if "jwks_file" in said:
        said["jwks"] = read_json(file.parent / str(said.pop("jwks_file")))
    return _Table(str(file), kind, name, said)


# --- the difference -----------------------------------------------------------------------------------------------


def _plan(
    connection: Connection, services: Services, tables: Iterable[_Table], now: datetime
) -> list[_Change]:
    changes = [_change(connection, services, table, now) for table in tables]
    return [change for change in changes if change.members]


def _change(connection: Connection, services: Services, table: _Table, now: datetime) -> _Change:
    kind = table.kind
    found = kind.find(connection, table.name)
    before = {} if found is None else kind.members_of(found)
    try:
        wanted = kind.parse(_merged(before, table.said), services, now)
    except NotAValue as error:
        raise Failed(f"{table.source}: {kind.title} {table.name}: {error}") from error
    change = _Change(kind, table.name, before, kind.members_of(wanted), found, wanted)
    for member in kind.fixed & change.members.keys():
        if found is not None:
            # Users allowed that workload what they allowed, and no other.
            raise Failed(
                f"{table.source}: {kind.title} {table.name}: {member} cannot change; register another"
            )
    return change


def _merged(before: Members, said: Members) -> dict[str, object]:
    """What the record is to be: a member that the file leaves out stays as it is."""
    kept = dict(before)
    if "auth" in said and said["auth"] != before.get("auth"):
        # The other way of authentication comes with its own keys or subject.
        kept.pop("jwks", None)
        kept.pop("subject", None)
    return {**kept, **said}


def _print_difference(changes: list[_Change]) -> None:
    if not changes:
        click.echo("nothing differs")
    for change in changes:
        click.echo(f"{'+' if change.found is None else '~'} {change.kind.title} {change.name}")
        for name, member in change.members.items():
            before = "" if member["from"] is None else f"{member['from']!r} -> "
            click.echo(f"    {name}: {before}{member['to']!r}")


# --- and what becomes of it ---------------------------------------------------------------------------------------


def _carry_out(
    connection: Connection,
    services: Services,
    tables: Iterable[_Table],
    shown: list[_Change],
    now: datetime,
) -> list[Issued]:
    changes = _plan(connection, services, tables, now)
    if changes != shown:
        raise Failed("somebody changed one of these records meanwhile; nothing was done, try again")
    by = operator()
    issued = [_carry_out_one(connection, services, change, by, now) for change in changes]
    return [one for one in issued if one is not None]


def _carry_out_one(
    connection: Connection, services: Services, change: _Change, by: str, now: datetime
) -> Issued | None:
    kind = change.kind
    try:
        if change.found is None:
            return kind.create(connection, services, change.wanted, by, now)
        return kind.change(connection, change.wanted, change.found, by, now)
    except (AlreadyRegistered, UserExists) as error:
        raise Failed(f"{kind.title} {change.name}: its subject or its name is taken") from error
