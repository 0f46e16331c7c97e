"""`users`: the people whose authority is delegated, and those who operate the server."""

import sys

import click
from sqlalchemy import Connection

from authserver import register
from authserver.accounts import users
from authserver.accounts.users import User, UserExists
from authserver.commands.context import (
    Failed,
    instant,
    json_always,
    json_option,
    opened,
    operator,
    print_json,
    print_records,
)
from authserver.members import without_none
from authserver.register import Enrolment

_COLUMNS = ("user_id", "username", "name", "role", "groups", "disabled_at")


@click.group("users")
def verb() -> None:
    """Users: people whose authority is delegated, who approve, or who operate the server."""


@verb.command("create")
@click.option("--username", required=True, help="The name to sign in with; an address of mail is one.")
@click.option("--name", help="What people call them; the user name by default.")
@click.option("--role", type=click.Choice(register.ROLES), help="What they may do in the console.")
@click.option("--groups", help="The groups that they approve for, with commas between.")
@click.option("--password-stdin", is_flag=True, help="Read a first password from standard input, one line.")
@json_always
def create(
    username: str, name: str | None, role: str | None, groups: str | None, password_stdin: bool
) -> None:
    """Make a user; prints a link for one use within a day, to set a passkey or a password."""
    unverified = without_none(
        username=username,
        name=name,
        role=role,
        groups=None if groups is None else groups.split(","),
        password=_first_line() if password_stdin else None,
    )
    with opened() as services:
        new, now = register.parse_user(unverified), services.clock.now()
        try:
            enrolment = services.database.write(
                lambda connection: register.create_user(connection, new, services.issuer, operator(), now)
            )
        except UserExists as error:
            raise Failed(f"{username}: there is a user of that name already") from error
    print_json(enrolment.to_json())


@verb.command("link")
@click.argument("username")
@click.option(
    "--forget",
    is_flag=True,
    help="End what they sign in with today (a stolen device, a leaked password): passkeys, password and sessions.",
)
@json_always
def link(username: str, forget: bool) -> None:
    """A new link for a user who cannot sign in any more, good once within a day; one from before ends."""
    with opened() as services:
        now = services.clock.now()

        def write(connection: Connection) -> Enrolment:
            user = users.find(connection, username)
            if user is None or user.disabled_at is not None:
                raise Failed(f"{username}: there is no such enabled user")
            return register.invite_user(connection, user, services.issuer, operator(), now, forget=forget)

        enrolment = services.database.write(write)
    print_json(enrolment.to_json())


@verb.command("list")
@json_option
def list_users(as_json: bool) -> None:
    """Show all users; never a password nor a link."""
    with opened() as services:
        found = services.database.read(users.list_all)
    print_records(map(_shown, found), _COLUMNS, as_json)


def _first_line() -> str:
    return sys.stdin.readline().rstrip("\r\n")


def _shown(user: User) -> dict[str, object]:
    return {
        "user_id": user.user_id,
        **register.members_of_user(user),
        **without_none(created_at=instant(user.created_at), disabled_at=instant(user.disabled_at)),
    }
