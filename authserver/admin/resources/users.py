"""`/users`: the people whose authority is delegated, who approve, or who operate the server."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from authserver import disable, register
from authserver.accounts import api_tokens, users
from authserver.accounts.users import NewUser as Wanted
from authserver.accounts.users import User
from authserver.admin.bodies import NewEnrolment, NewUser, Nothing, Reason, UserChange, UsersQuery
from authserver.admin.operations import Call, Operation, Reply, conflict, must_match, not_found, shown
from authserver.admin.resources.listing import Resource
from authserver.admin.resources.merging import merged, said
from authserver.admin.shapes import Enrolment
from authserver.administration import lists
from authserver.administration.items import UserItem
from authserver.administration.lists import one_of
from authserver.administration.roles import Permission, require_reach, require_to_vouch
from authserver.errors import Refusal

_USERS = Resource("/users", "user", lists.USERS, UserItem, UsersQuery, "user_id")


def create(call: Call) -> Reply:
    """Make a user."""
    new = register.parse_user(said(call.sent(NewUser)))
    require_reach(call.caller.role, new.role)
    require_to_vouch(call.caller.role, _groups_of(call, new))
    enrolment = call.services.database.write(
        lambda connection: register.create_user(
            connection, new, call.services.issuer, call.caller.by, call.now
        )
    )
    return Reply(enrolment.to_json(), location=f"/users/{enrolment.user_id}")


def change(call: Call) -> Reply:
    """Give them another name, role or groups."""

    def write(connection: Connection) -> UserItem | None:
        with _an_owner_stays(call, connection):
            return written(connection)

    def written(connection: Connection) -> UserItem | None:
        seen, before = _there(call, connection)
        _may_change(call, seen)
        must_match(call, seen)
        wanted = register.parse_user(merged(register.members_of_user(before), call.sent(UserChange)))
        require_reach(call.caller.role, wanted.role)
        require_to_vouch(call.caller.role, set(wanted.groups) - set(before.groups))
        register.change_user(connection, wanted, before, call.caller.by, call.now)
        return one_of(call.looked(connection), lists.USERS, call.name)

    return shown(call.services.database.write(write), "user")


def put_out(call: Call) -> Reply:
    """Disable them."""

    @contextmanager
    def around(connection: Connection) -> Iterator[None]:
        with _an_owner_stays(call, connection):
            _may_change(call, _there(call, connection)[0])
            yield

    reason = call.sent(Reason).reason or "user disabled"
    disable.disable_user(
        call.services, call.name, by=call.caller.by, now=call.now, reason=reason, around=around
    )
    return _USERS.one_of(call, call.name)


def let_in(call: Call) -> Reply:
    """Enable them again."""

    def may(connection: Connection) -> None:
        _may_open(call, connection)

    disable.enable_user(call.services, call.name, by=call.caller.by, now=call.now, may=may)
    return _USERS.one_of(call, call.name)


def enrol(call: Call) -> Reply:
    """Make a new link to enrol with."""
    forget = call.sent(NewEnrolment).forget

    def write(connection: Connection) -> register.Enrolment:
        user = _may_open(call, connection)
        if user.disabled_at is not None:
            raise conflict("the user is disabled", "api.user_disabled")
        return register.invite_user(
            connection, user, call.services.issuer, call.caller.by, call.now, forget=forget
        )

    return Reply(call.services.database.write(write).to_json())


def _may_open(call: Call, connection: Connection) -> User:
    """The user, whose account the caller may open to whoever has its link. Raises `Refusal` (403, 404)."""
    seen, user = _there(call, connection)
    _may_change(call, seen)
    require_to_vouch(call.caller.role, _groups_of(call, user))
    return user


def _there(call: Call, connection: Connection) -> tuple[UserItem, User]:
    """The user that the path names, as shown and as recorded, whom nobody else changes meanwhile."""
    seen = one_of(call.looked(connection), lists.USERS, call.name, lock=True)
    user = users.by_id(connection, call.name)
    if seen is None or user is None:
        raise not_found("user")
    return seen, user


@contextmanager
def _an_owner_stays(call: Call, connection: Connection) -> Iterator[None]:
    """What is written leaves somebody who is an owner. Raises `Refusal` (409).

    That is a user, a token without an end, or a caller of the configuration: what expires would leave nobody soon.
    """
    before = users.lock_owners(connection)
    yield
    if users.lock_owners(connection) or not before:
        return
    configured = any(caller.role == "owner" for caller in call.services.settings.api.callers)
    if not configured and not api_tokens.has_lasting_owner(connection):
        raise conflict("nobody would be left who is an owner", "api.last_owner")


def _may_change(call: Call, user: UserItem) -> None:
    require_reach(call.caller.role, user.role)
    # Whoever could join a group could approve what they ask for themselves.
    if call.caller.by == f"user:{user.user_id}":
        raise Refusal("access_denied", "nobody changes their own record", rule="api.own_record", status=403)


def _groups_of(call: Call, user: User | Wanted) -> set[str]:
    """The groups of somebody, those that the configuration puts a user name in as well."""
    configured = call.services.settings.groups.members
    return {*user.groups, *(group for group, names in configured.items() if user.username in names)}


OPERATIONS = (
    *_USERS.reads(),
    Operation(
        "users.create",
        "POST",
        "/users",
        Permission.CHANGE,
        "Make a user, with a role up to the caller's own; groups are an owner's to give. The link is shown this once.",
        create,
        Enrolment,
        201,
        body=NewUser,
        once=True,
    ),
    Operation(
        "users.change",
        "PATCH",
        "/users/{user_id}",
        Permission.CHANGE,
        "Give a user another name, role or groups, which owners add; nobody changes their own, or somebody above them.",
        change,
        UserItem,
        body=UserChange,
        changes=True,
        shows_etag=True,
    ),
    Operation(
        "users.disable",
        "POST",
        "/users/{user_id}/disable",
        Permission.CHANGE,
        "Let a user sign in no more; all that they granted ends, for good.",
        put_out,
        UserItem,
        body=Reason,
        shows_etag=True,
        once=True,
    ),
    Operation(
        "users.enable",
        "POST",
        "/users/{user_id}/enable",
        Permission.CHANGE,
        "Let a user sign in again; one who approves, for an owner alone. Nothing that they had granted revives.",
        let_in,
        UserItem,
        body=Nothing,
        shows_etag=True,
        once=True,
    ),
    Operation(
        "users.enrolment",
        "POST",
        "/users/{user_id}/enrolment",
        Permission.CHANGE,
        "Make a new link to enrol with, shown this once; for one who approves, an owner alone. One from before ends.",
        enrol,
        Enrolment,
        201,
        body=NewEnrolment,
        once=True,
    ),
)
