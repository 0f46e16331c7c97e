"""Passkeys as rows (WebAuthn credentials), and what a browser's answer proves."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self, TypeVar
from urllib.parse import urlsplit

import webauthn
from sqlalchemy import Connection, Row, and_, delete, func, literal, or_, select, update
from sqlalchemy.exc import IntegrityError
from webauthn.helpers import (
    parse_authentication_credential_json,
    parse_client_data_json,
    parse_registration_credential_json,
)
from webauthn.helpers.structs import (
    AuthenticationCredential,
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    RegistrationCredential,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from authserver.accounts.users import User
from authserver.ids import new_id
from authserver.schema import Passkey as PasskeyRow
from authserver.schema import table_of

_TABLE = table_of(PasskeyRow)
Value = TypeVar("Value")


class PasskeyRefused(Exception):
    """What a browser sent proves nothing; the message is a short code for the audit."""


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """This server as authenticators know it: they sign only for its origin, and keep keys for its host."""

    id: str
    origin: str

    @classmethod
    def of(cls, issuer: str) -> Self | None:
        """None where the issuer's host is a bare address, for which there are no passkeys (WebAuthn §5.1.2)."""
        parts = urlsplit(issuer)
        host = parts.hostname or ""
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return cls(host, f"{parts.scheme}://{parts.netloc}")
        return None


@dataclass(frozen=True, slots=True)
class Passkey:
    """One key of a person."""

    passkey_id: str
    credential_id: bytes = field(repr=False)
    user_id: str
    public_key: bytes = field(repr=False)
    sign_count: int
    browser: str
    created_at: datetime
    used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Made:
    """A key that an authenticator has just made, proved by its signature."""

    credential_id: bytes
    public_key: bytes
    sign_count: int


def options_to_make(party: RelyingParty, site: str, user: User, kept: list[Passkey], challenge: bytes) -> str:
    """What `navigator.credentials.create` takes, as JSON: a key that finds its user and checks for a person."""
    options = webauthn.generate_registration_options(
        rp_id=party.id,
        rp_name=site,
        user_name=user.username,
        user_id=user.user_id.encode(),
        user_display_name=user.name,
        challenge=challenge,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED,
            user_verification=UserVerificationRequirement.REQUIRED,
        ),
        exclude_credentials=[PublicKeyCredentialDescriptor(one.credential_id) for one in kept],
    )
    return webauthn.options_to_json(options)


def options_to_sign_in(party: RelyingParty, challenge: bytes) -> str:
    """What `navigator.credentials.get` takes, as JSON. It names no key, so it tells nobody who has one (A117)."""
    options = webauthn.generate_authentication_options(
        rp_id=party.id, challenge=challenge, user_verification=UserVerificationRequirement.REQUIRED
    )
    return webauthn.options_to_json(options)


def read_registration(unverified_text: str) -> tuple[RegistrationCredential, bytes]:
    """A new key as a browser sent it, with the challenge that it says it answers. Raises `PasskeyRefused`."""

    def read() -> tuple[RegistrationCredential, bytes]:
        credential = parse_registration_credential_json(unverified_text)
        return credential, parse_client_data_json(credential.response.client_data_json).challenge

    return _refusing(read, "malformed")


def read_assertion(unverified_text: str) -> tuple[AuthenticationCredential, bytes]:
    """The same for a signature with a key."""

    def read() -> tuple[AuthenticationCredential, bytes]:
        credential = parse_authentication_credential_json(unverified_text)
        return credential, parse_client_data_json(credential.response.client_data_json).challenge

    return _refusing(read, "malformed")


def verify_registration(party: RelyingParty, unverified: RegistrationCredential, challenge: bytes) -> Made:
    """WebAuthn §7.1. Raises `PasskeyRefused`."""

    def verify() -> Made:
        verified = webauthn.verify_registration_response(
            credential=unverified,
            expected_challenge=challenge,
            expected_rp_id=party.id,
            expected_origin=party.origin,
            require_user_verification=True,
        )
        return Made(verified.credential_id, verified.credential_public_key, verified.sign_count)

    return _refusing(verify, "registration")


def verify_assertion(
    party: RelyingParty, unverified: AuthenticationCredential, challenge: bytes, passkey: Passkey
) -> int:
    """WebAuthn §7.2; gives the new counter. Raises `PasskeyRefused`, also where the counter has gone back."""

    def verify() -> int:
        handle = unverified.response.user_handle
        if handle is not None and handle != passkey.user_id.encode():
            raise PasskeyRefused("user_handle")
        verified = webauthn.verify_authentication_response(
            credential=unverified,
            expected_challenge=challenge,
            expected_rp_id=party.id,
            expected_origin=party.origin,
            credential_public_key=passkey.public_key,
            credential_current_sign_count=passkey.sign_count,
            require_user_verification=True,
        )
        return verified.new_sign_count

    return _refusing(verify, "assertion")


def _refusing(work: Callable[[], Value], code: str) -> Value:
    try:
        return work()
    except PasskeyRefused:
        raise
    except Exception as error:  # whatever the library makes of a stranger's bytes
        raise PasskeyRefused(code) from error


def keep(connection: Connection, user_id: str, made: Made, browser: str, now: datetime) -> str:
    """Record a new key; returns its id. Raises `PasskeyRefused` where somebody has that key already."""
    row = {
        "credential_id": made.credential_id,
        "passkey_id": new_id(),
        "user_id": user_id,
        "public_key": made.public_key,
        "sign_count": made.sign_count,
        "browser": browser,
        "created_at": now,
    }
    try:
        connection.execute(_TABLE.insert(), row)
    except IntegrityError as error:
        raise PasskeyRefused("taken") from error
    return str(row["passkey_id"])


def find(connection: Connection, credential_id: bytes) -> Passkey | None:
    """The key of that id."""
    row = connection.execute(select(_TABLE).where(_TABLE.c.credential_id == credential_id)).first()
    return None if row is None else _passkey(row)


def of_user(connection: Connection, user_id: str) -> list[Passkey]:
    """A person's keys, oldest first."""
    query = (
        select(_TABLE).where(_TABLE.c.user_id == user_id).order_by(_TABLE.c.created_at, _TABLE.c.passkey_id)
    )
    return [_passkey(row) for row in connection.execute(query)]


def use(connection: Connection, passkey: Passkey, sign_count: int, now: datetime) -> int:
    """Write down a use; returns 1, or 0 where the counter has not gone up since: two hold copies of one key.

    A counter that stays at 0 is of an authenticator that has none (WebAuthn §6.1.1).
    """
    goes_up = or_(_TABLE.c.sign_count < sign_count, and_(_TABLE.c.sign_count == 0, literal(sign_count) == 0))
    used = update(_TABLE).where(_TABLE.c.credential_id == passkey.credential_id, goes_up)
    return connection.execute(used.values(sign_count=sign_count, used_at=now)).rowcount


def remove(connection: Connection, user_id: str, passkey_id: str) -> int:
    """Forget one key of that person; returns how many."""
    condition = and_(_TABLE.c.user_id == user_id, _TABLE.c.passkey_id == passkey_id)
    return connection.execute(delete(_TABLE).where(condition)).rowcount


def remove_all(connection: Connection, user_id: str) -> int:
    """Forget all keys of a person; returns how many."""
    return connection.execute(delete(_TABLE).where(_TABLE.c.user_id == user_id)).rowcount


def count(connection: Connection, user_id: str) -> int:
    """How many keys a person has."""
    query = select(func.count()).select_from(_TABLE).where(_TABLE.c.user_id == user_id)
    return int(connection.scalar(query) or 0)


def _passkey(row: Row[tuple[object, ...]]) -> Passkey:
    return Passkey(
        row.passkey_id,
        row.credential_id,
        row.user_id,
        row.public_key,
        row.sign_count,
        row.browser,
        row.created_at,
        row.used_at,
    )
