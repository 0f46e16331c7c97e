"""Passkeys: to make one, to sign in with one, to take one away (WebAuthn). Each challenge is taken once."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from authserver import sign_in
from authserver.accounts import challenges, passkeys, tries, users
from authserver.accounts.passkeys import Made, Passkey, PasskeyRefused, RelyingParty
from authserver.accounts.sessions import Authentication, NewSession, Visitor
from authserver.accounts.tries import Bound
from authserver.accounts.users import User
from authserver.audit.events import Record
from authserver.errors import Refusal
from authserver.services import Services

# RFC 8176: a key was proved, of a device that had checked for its person.
PASSKEY = Authentication(("pop", "user", "mfa"), acr="phr")


@dataclass(frozen=True, slots=True)
class Asked:
    """A browser that this server asked for a passkey: `token` is the one of its forms."""

    token: str
    visitor: Visitor


def are_possible(services: Services) -> bool:
    """Whether this server's address can have passkeys at all."""
    return RelyingParty.of(services.issuer) is not None


def ask_to_make(services: Services, user: User, token: str, now: datetime) -> str:
    """What the browser takes to make a passkey, as JSON."""

    def write(connection: Connection) -> str:
        challenge = challenges.make(connection, "enrol", token, now, {"user": user.user_id})
        kept = passkeys.of_user(connection, user.user_id)
        return passkeys.options_to_make(
            _party(services), services.settings.pages.site_name, user, kept, challenge
        )

    return services.database.write(write)


def make(services: Services, user: User, unverified_answer: str, asked: Asked, now: datetime) -> None:
    """Record the passkey that a signed-in person's browser has made. Raises `Refusal` (400)."""
    made = _made(services, user, unverified_answer, asked, now)
    services.database.write(lambda connection: _keep(connection, user, made, asked, now))


def enrol(
    services: Services, unverified_link: str, unverified_answer: str, asked: Asked, now: datetime
) -> NewSession:
    """Record a first passkey by a link, which is used up, and sign in. Raises `Refusal` (400, 404)."""
    made = _made(services, sign_in.enrolling(services, unverified_link, now), unverified_answer, asked, now)

    def write(connection: Connection) -> NewSession:
        user = sign_in.use_link(connection, unverified_link, now)
        _keep(connection, user, made, asked, now)
        return sign_in.begin(services, connection, user, PASSKEY, asked.visitor, now)

    return services.database.write(write)


def remove(services: Services, user: User, passkey_id: str, now: datetime) -> None:
    """Take a passkey away. Raises `Refusal` (409) for the last one of somebody who has no password."""

    def write(connection: Connection) -> None:
        if not passkeys.remove(connection, user.user_id, passkey_id):
            return
        if not passkeys.count(connection, user.user_id) and not users.has_password(connection, user.user_id):
            raise Refusal("invalid_request", "it is the only way to sign in", "passkey.last", status=409)
        record = Record("passkey.removed", data={"user": user.user_id, "passkey": passkey_id})
        record.changed(connection, now)

    services.database.write(write)


def ask_to_sign_in(services: Services, token: str, now: datetime) -> str:
    """What the browser takes to sign in, as JSON; the same for everybody."""
    challenge = services.database.write(lambda connection: challenges.make(connection, "passkey", token, now))
    return passkeys.options_to_sign_in(_party(services), challenge)


def by_passkey(
    services: Services, unverified_answer: str, asked: Asked, now: datetime, instead_of: str | None = None
) -> NewSession:
    """Sign somebody in. Raises `Refusal`: 403, or 429 after too many tries from one address."""
    record = Record("sign_in", data={"amr": list(PASSKEY.amr), "address": asked.visitor.address})
    try:
        services.database.write(lambda connection: _count(services, connection, asked.visitor, now))
        passkey, sign_count = _proved(services, unverified_answer, asked, now)
        record.data["user"] = passkey.user_id

        def write(connection: Connection) -> NewSession:
            user = users.by_id(connection, passkey.user_id)
            if user is None or user.disabled_at is not None:
                raise _refused("user")
            if passkeys.use(connection, passkey, sign_count, now) != 1:
                raise _refused("counter")
            return sign_in.begin(services, connection, user, PASSKEY, asked.visitor, now, instead_of)

        return services.database.write(write)
    except Refusal as refusal:
        sign_in.audit_refused(services, record, refusal, now)
        raise


def _proved(services: Services, unverified_answer: str, asked: Asked, now: datetime) -> tuple[Passkey, int]:
    """Whose signature it is, and the counter that came with it."""
    try:
        credential, challenge = passkeys.read_assertion(unverified_answer)
        used = services.database.write(
            lambda connection: challenges.use(connection, challenge, "passkey", asked.token, now)
        )
        if used is None:
            raise PasskeyRefused("challenge")
        passkey = services.database.read(lambda connection: passkeys.find(connection, credential.raw_id))
        if passkey is None:
            raise PasskeyRefused("unknown")
        return passkey, passkeys.verify_assertion(_party(services), credential, challenge, passkey)
    except PasskeyRefused as error:
        raise _refused(str(error)) from error


def _made(services: Services, user: User, unverified_answer: str, asked: Asked, now: datetime) -> Made:
    try:
        credential, challenge = passkeys.read_registration(unverified_answer)
        used = services.database.write(
            lambda connection: challenges.use(connection, challenge, "enrol", asked.token, now)
        )
        if used is None or used["user"] != user.user_id:
            raise PasskeyRefused("challenge")
        return passkeys.verify_registration(_party(services), credential, challenge)
    except PasskeyRefused as error:
        refusal = _refused(str(error), status=400)
        sign_in.audit_refused(services, Record("passkey", data={"user": user.user_id}), refusal, now)
        raise refusal from error


def _keep(connection: Connection, user: User, made: Made, asked: Asked, now: datetime) -> None:
    try:
        passkey_id = passkeys.keep(connection, user.user_id, made, asked.visitor.browser, now)
    except PasskeyRefused as error:
        raise _refused(str(error), status=409) from error
    record = Record("passkey.added", data={"user": user.user_id, "passkey": passkey_id})
    record.changed(connection, now)


def _refused(code: str, status: int = 403) -> Refusal:
    return Refusal("access_denied", "the passkey was not accepted", f"passkey.{code}", status=status)


def _count(services: Services, connection: Connection, visitor: Visitor, now: datetime) -> None:
    pages = services.settings.pages
    bound = Bound(pages.tries_per_address, timedelta(seconds=pages.tries_window))
    tries.count(connection, tries.of_address(visitor.address), bound, now)


def _party(services: Services) -> RelyingParty:
    party = RelyingParty.of(services.issuer)
    if party is None:
        raise Refusal("not_found", "there are no passkeys at a bare address", "passkey.address", status=404)
    return party
