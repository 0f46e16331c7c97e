"""Signing in and out, and what ends sessions. Each is one verb; the pages shape what a person sees of it.

Whoever tries gets one answer and waits as long, whether or not there is such a user (threats A117).
"""

from datetime import datetime, timedelta

from sqlalchemy import Connection

from authserver.accounts import passwords, sessions, tries, users
from authserver.accounts.sessions import Authentication, Lasting, NewSession, Session, Visitor
from authserver.accounts.tries import Bound
from authserver.accounts.users import User
from authserver.audit.events import Record
from authserver.errors import Refusal
from authserver.services import Services

PASSWORD = Authentication(("pwd",))


def lasting(services: Services) -> Lasting:
    """How long sessions last here."""
    pages = services.settings.pages
    return Lasting(timedelta(seconds=pages.session_idle), timedelta(seconds=pages.session_longest))


def signed_in(services: Services, unverified_secret: str, now: datetime) -> tuple[Session, User] | None:
    """Whose session that is, or None where it has ended, or the person may no longer sign in."""

    def read(connection: Connection) -> tuple[Session, User] | None:
        session = sessions.find(connection, unverified_secret, lasting(services), now)
        user = None if session is None else users.by_id(connection, session.user_id)
        return None if session is None or user is None or user.disabled_at else (session, user)

    found = services.database.read(read)
    if found and found[0].should_be_seen(now):
        services.database.write(lambda connection: sessions.see(connection, found[0].session_id, now))
    return found


def by_password(
    services: Services,
    unverified_username: str,
    unverified_password: str,
    visitor: Visitor,
    now: datetime,
    instead_of: str | None = None,
) -> NewSession:
    """Sign somebody in; `instead_of` is the id of the session that this one takes the place of.

    Raises `Refusal`: 403 where the name or the password is not right, 429 after too many tries.
    """
    record = Record("sign_in", data={"amr": list(PASSWORD.amr), "address": visitor.address})
    try:
        services.database.write(
            lambda connection: _count(services, connection, unverified_username, visitor, now)
        )
        known = services.database.read(lambda connection: users.to_sign_in(connection, unverified_username))
        if known is not None:
            record.data["user"] = known[0].user_id
        if not passwords.matches(known and known[1], unverified_password) or known is None:
            raise Refusal(
                "access_denied", "the user name or the password is not right", "sign_in.password", status=403
            )
    except Refusal as refusal:
        audit_refused(services, record, refusal, now)
        raise
    user = known[0]

    def write(connection: Connection) -> NewSession:
        tries.forget(connection, tries.of_account(unverified_username))
        return begin(services, connection, user, PASSWORD, visitor, now, instead_of)

    return services.database.write(write)


def begin(
    services: Services,
    connection: Connection,
    user: User,
    how: Authentication,
    visitor: Visitor,
    now: datetime,
    instead_of: str | None = None,
) -> NewSession:
    """Begin the session of somebody who has proved who they are, and record it."""
    if instead_of is not None:
        sessions.end(connection, instead_of)
    made = sessions.begin(connection, user.user_id, how, visitor, lasting(services), now)
    record = Record("sign_in", data={"user": user.user_id, "amr": list(how.amr), "address": visitor.address})
    record.data["session"] = made.session_id
    record.permitted(connection, now)
    return made


def audit_refused(services: Services, record: Record, refusal: Refusal, now: datetime) -> None:
    """Write down that somebody was refused; not where the database could not even be asked."""
    if refusal.status != 503:
        services.database.write(lambda connection: record.refused(connection, now, refusal))


def end_session(services: Services, user: User, session_id: str, now: datetime) -> None:
    """Sign out: of this browser, or of another one."""

    def write(connection: Connection) -> None:
        if sessions.end(connection, session_id, of=user.user_id):
            record = Record("session.ended", data={"user": user.user_id, "session": session_id})
            record.changed(connection, now)

    services.database.write(write)


def change_password(
    services: Services, user: User, password: str, visitor: Visitor, how: Authentication, now: datetime
) -> NewSession:
    """Give a signed-in person another password; all their sessions end, and one begins anew (threats A114)."""
    password_hash = passwords.hash_of(password)

    def write(connection: Connection) -> NewSession:
        _set_password(connection, user, password_hash, now)
        return begin(services, connection, user, how, visitor, now)

    return services.database.write(write)


def enrolling(services: Services, unverified_secret: str, now: datetime) -> User:
    """Who may set a passkey or a password by that link. Raises `Refusal` (404) where it was used or is too old."""
    user = services.database.read(lambda connection: users.to_enrol(connection, unverified_secret, now))
    if user is None:
        raise _link_is_over()
    return user


def enrol_password(
    services: Services, unverified_secret: str, password: str, visitor: Visitor, now: datetime
) -> NewSession:
    """Set a first password by a link, which is used up, and sign in. Raises `Refusal` (404)."""
    enrolling(services, unverified_secret, now)  # before it is hashed, which takes long
    password_hash = passwords.hash_of(password)

    def write(connection: Connection) -> NewSession:
        user = use_link(connection, unverified_secret, now)
        _set_password(connection, user, password_hash, now)
        return begin(services, connection, user, PASSWORD, visitor, now)

    return services.database.write(write)


def use_link(connection: Connection, unverified_secret: str, now: datetime) -> User:
    """Use an enrolment link up; gives whose it is. Raises `Refusal` (404)."""
    user = users.to_enrol(connection, unverified_secret, now)
    if user is None or users.use_enrolment(connection, unverified_secret, now) != 1:
        raise _link_is_over()
    return user


def _link_is_over() -> Refusal:
    return Refusal("not_found", "the link was used or is too old", rule="enrolment.over", status=404)


def _set_password(connection: Connection, user: User, password_hash: str, now: datetime) -> None:
    users.set_password(connection, user.user_id, password_hash)
    ended = sessions.end_all(connection, user.user_id)
    record = Record("user.password_changed", data={"user": user.user_id, "sessions_ended": ended})
    record.changed(connection, now)


def may_ask(services: Services, visitor: Visitor, now: datetime) -> None:
    """One challenge more for somebody who is not signed in: each is a row. Raises `Refusal` (429) after too many."""
    pages = services.settings.pages
    bound = Bound(pages.tries_per_address, timedelta(seconds=pages.tries_window))
    key = f"challenge:{tries.of_address(visitor.address)}"
    services.database.write(lambda connection: tries.count(connection, key, bound, now))


def _count(
    services: Services, connection: Connection, username: str, visitor: Visitor, now: datetime
) -> None:
    pages = services.settings.pages
    window = timedelta(seconds=pages.tries_window)
    tries.count(connection, tries.of_address(visitor.address), Bound(pages.tries_per_address, window), now)
    tries.count(connection, tries.of_account(username), Bound(pages.tries_per_account, window), now)
