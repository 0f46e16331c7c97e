"""Putting somebody out of action: an agent, a resource server, a user. What they hold or granted ends for good."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime

from sqlalchemy import Connection

from authserver import register
from authserver.accounts import users
from authserver.revoke import Target, revoke
from authserver.services import Services

Around = Callable[[Connection], AbstractContextManager[object]]


def disable_agent(
    services: Services, client_id: str, *, by: str, now: datetime, reason: str = "agent disabled"
) -> None:
    """The agent may do nothing any more, and all that it holds ends. Raises `NotRegistered`."""
    services.database.write(lambda connection: register.disable_agent(connection, client_id, by, now))
    # Its live tokens end by a revocation like any other, which waits for running exchanges and gives back amounts.
    revoke(services, Target("agent", client_id), reason=reason, by=by, now=now)


def enable_agent(services: Services, client_id: str, *, by: str, now: datetime) -> None:
    """The agent may be allowed something again. Raises `NotRegistered`.

    INVARIANT: nothing that it held before it was disabled revives, whatever became of that revocation
    (test_an_agent_that_is_enabled_again_has_nothing_of_what_it_held).
    """

    def must_be_there(connection: Connection) -> None:
        register.known_agent(connection, client_id)

    services.database.read(must_be_there)
    revoke(services, Target("agent", client_id), reason="agent enabled again", by=by, now=now)
    services.database.write(lambda connection: register.enable_agent(connection, client_id, by, now))


def disable_user(
    services: Services,
    user_id: str,
    *,
    by: str,
    now: datetime,
    reason: str = "user disabled",
    around: Around = nullcontext,
) -> None:
    """The person can sign in no more, and all that they granted ends. Raises `NotRegistered`.

    `around` looks, in the same transaction, whether that may be, before it is done and after.
    """

    def write(connection: Connection) -> None:
        with around(connection):
            register.disable_user(connection, user_id, by, now)

    services.database.write(write)
    revoke(services, Target("user", user_id), reason=reason, by=by, now=now)


def enable_user(
    services: Services, user_id: str, *, by: str, now: datetime, may: Callable[[Connection], None]
) -> None:
    """The person can sign in again, and grant again. `may` looks whether that may be.

    INVARIANT: nothing that they had granted before they were disabled revives, whatever became of that revocation
    (test_a_user_who_is_enabled_again_has_nothing_of_what_they_granted).
    """

    def is_disabled(connection: Connection) -> bool:
        may(connection)
        user = users.by_id(connection, user_id)
        return user is not None and user.disabled_at is not None

    def write(connection: Connection) -> None:
        may(connection)
        register.enable_user(connection, user_id, by, now)

    # What somebody grants who is enabled already does not end by enabling them once more.
    if services.database.write(is_disabled):
        revoke(services, Target("user", user_id), reason="user enabled again", by=by, now=now)
        services.database.write(write)
