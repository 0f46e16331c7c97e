"""`keys`: what the server signs with."""

from datetime import datetime

import click

from authserver import rotate_keys
from authserver.commands.context import (
    instant,
    json_always,
    json_option,
    opened,
    operator,
    print_json,
    print_records,
)
from authserver.members import without_none
from authserver.tokens import signing_keys
from authserver.tokens.signing_keys import KeyRecord

_COLUMNS = ("kid", "state", "created_at", "activates_at", "retires_at", "removed_at")


@click.group("keys")
def verb() -> None:
    """The server's signing keys: pending, active or retired."""


@verb.command("list")
@json_option
def list_keys(as_json: bool) -> None:
    """Show all signing keys and when each signs; never a private key."""
    with opened() as services:
        found = services.database.read(signing_keys.list_keys)
        now = services.clock.now()
    print_records((_shown(key, now) for key in found), _COLUMNS, as_json)


@verb.command("rotate")
@json_always
def rotate() -> None:
    """Make a new signing key: published now, it signs after keys.publish_ahead seconds; prints it.

    The present keys stop signing then, and stay published for as long as anything that they signed may live.
    """

    with opened() as services:
        now = services.clock.now()
        key = rotate_keys.rotate(services, by=operator(), now=now)
    print_json(_shown(key, now))


def _shown(key: KeyRecord, now: datetime) -> dict[str, object]:
    return without_none(
        kid=key.kid,
        state=key.state(now),
        created_at=instant(key.created_at),
        activates_at=instant(key.activates_at),
        retires_at=instant(key.retires_at),
        removed_at=instant(key.removed_at),
        public_jwk=key.public_jwk,
    )
