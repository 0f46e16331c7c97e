"""`keys`: what the server signs with."""

from datetime import datetime

import click

from authserver import reencrypt, rotate_keys
from authserver.commands.context import (
    TAKES_ANY_ID,
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
from authserver.tokens import signing_keys
from authserver.tokens.sealing import SealBroken
from authserver.tokens.signing_keys import KeyRecord, UnknownKey

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


@verb.command("revoke", context_settings=TAKES_ANY_ID)
@click.argument("kid")
@click.option("--reason", required=True, help="Why, for the audit.")
@json_always
def revoke(kid: str, reason: str) -> None:
    """Take back a signing key that others may have: all that it signed ends, grants and tokens; prints what signs.

    Where no other key signs, a new one is made that does. Server processes notice within two seconds.
    """

    with opened() as services:
        now = services.clock.now()
        try:
            rotate_keys.revoke(services, kid, reason=reason, by=operator(), now=now)
        except UnknownKey as error:
            raise Failed(f"there is no key {kid}, or it is gone already") from error
        found = services.database.read(signing_keys.list_keys)
    signing = [key for key in found if key.state(now) == "active"]
    print_json(_shown(max(signing, key=lambda key: (key.activates_at, key.kid)), now))


@verb.command("reencrypt")
@json_always
def reencrypt_all() -> None:
    """Encrypt every stored secret with the present encryption key, after it was exchanged; prints how many had another.

    The key before it is read from keys.other_encryption_key or other_encryption_key_file, and can go afterwards.
    """
    with opened() as services:
        try:
            renewed = reencrypt.reencrypt(services, operator(), services.clock.now())
        except SealBroken as error:
            raise Failed(f"{error} was encrypted with neither key; nothing was changed") from error
    print_json({"reencrypted": renewed})


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
