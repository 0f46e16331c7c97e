"""Signing in with the upstream OpenID provider: off to it with a state that is taken once, and back with a code."""

import base64
import secrets
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from authserver import sign_in
from authserver.accounts import challenges, upstream_identities, users
from authserver.accounts.sessions import Authentication, NewSession, Visitor
from authserver.accounts.users import NewUser, User
from authserver.audit.events import Record
from authserver.errors import Refusal
from authserver.members import parse_groups, parse_username
from authserver.openid_provider import Asking, OpenIdProvider, Person, ProviderFailed
from authserver.services import Services
from authserver.values import NotAValue, parse_name


@dataclass(frozen=True, slots=True)
class Returned:
    """What a browser brings back from the provider; `token` is the one of its forms here."""

    token: str
    visitor: Visitor
    unverified_state: str
    unverified_code: str | None
    unverified_iss: str | None


def leave(services: Services, token: str, next_path: str, now: datetime, *, anew: bool) -> str:
    """The address at the provider. Raises `Refusal` (404 without a provider, 502 where it cannot be reached)."""
    provider = _provider(services)
    data = {
        "nonce": secrets.token_urlsafe(32),
        "verifier": secrets.token_urlsafe(48),
        "next": next_path,
        "anew": "yes" if anew else "",
    }
    state = services.database.write(lambda c: challenges.make(c, "upstream", token, now, data))
    try:
        return provider.authorization_url(_asking(_text(state), data), now)
    except ProviderFailed as error:
        raise _failed(error) from error


def come_back(
    services: Services, returned: Returned, now: datetime, instead_of: str | None = None
) -> tuple[NewSession, str]:
    """Sign in whoever the provider names; gives the session and where the person wanted to be. Raises `Refusal`."""
    record = Record("sign_in", data={"upstream": True, "address": returned.visitor.address})
    try:
        provider = _provider(services)
        data = _data(services, returned, now)
        if returned.unverified_code is None:
            raise _refused("denied")
        asking = _asking(returned.unverified_state, data)
        try:
            person = provider.person(returned.unverified_code, returned.unverified_iss, asking, now)
        except ProviderFailed as error:
            raise _failed(error) from error

        def write(connection: Connection) -> NewSession:
            user = _user(services, connection, provider, person, now)
            how = Authentication(person.amr, person.acr, person.authenticated_at)
            return sign_in.begin(services, connection, user, how, returned.visitor, now, instead_of)

        return services.database.write(write), data["next"]
    except Refusal as refusal:
        sign_in.audit_refused(services, record, refusal, now)
        raise


def _data(services: Services, returned: Returned, now: datetime) -> dict[str, str]:
    try:
        state = base64.urlsafe_b64decode(f"{returned.unverified_state}=")
    except ValueError as error:
        raise _refused("state") from error
    data = services.database.write(lambda c: challenges.use(c, state, "upstream", returned.token, now))
    if data is None:
        raise _refused("state")
    return data


def _user(
    services: Services, connection: Connection, provider: OpenIdProvider, person: Person, now: datetime
) -> User:
    user_id = upstream_identities.find(connection, provider.issuer, person.subject)
    user = (
        users.by_id(connection, user_id) if user_id else _linked(services, connection, provider, person, now)
    )
    if user is None or user.disabled_at is not None:
        raise _refused("no_user")
    return _with_groups(connection, user, person, now)


def _linked(
    services: Services, connection: Connection, provider: OpenIdProvider, person: Person, now: datetime
) -> User | None:
    """The user of that name, who is this person from now on."""
    try:
        username = parse_username(person.username)
    except NotAValue as error:
        raise _refused("username") from error
    found = users.to_sign_in(connection, username)
    user = found[0] if found else _created(services, connection, username, person, now)
    if user is None:
        return None
    # A second person at the provider who got the first one's name is somebody else.
    if upstream_identities.is_linked(connection, provider.issuer, user.user_id):
        raise _refused("linked")
    upstream_identities.link(connection, provider.issuer, person.subject, user.user_id, now)
    Record("user.linked", data={"user": user.user_id}).changed(connection, now, by="upstream")
    return user


def _created(
    services: Services, connection: Connection, username: str, person: Person, now: datetime
) -> User | None:
    taken = users.find(connection, username) is not None
    if not services.settings.upstream.create_users or taken:
        return None
    try:
        name = parse_name(person.name)
    except NotAValue:
        name = username
    user_id, secret = users.create(connection, NewUser(username, name), now)
    users.use_enrolment(connection, secret, now)  # the provider is how this person signs in
    Record("user.created", data={"user": {"user_id": user_id}}).changed(connection, now, by="upstream")
    return users.by_id(connection, user_id)


def _with_groups(connection: Connection, user: User, person: Person, now: datetime) -> User:
    if person.groups is None:
        return user
    groups = tuple(dict.fromkeys(name for name in person.groups if _is_group(name)))
    if groups == user.groups:
        return user
    changed = replace(user, groups=groups)
    users.change(connection, changed)
    record = Record("user.changed", data={"user": {"user_id": user.user_id, "groups": list(groups)}})
    record.changed(connection, now, by="upstream")
    return changed


def _is_group(name: str) -> bool:
    try:
        parse_groups([name])
    except NotAValue:
        return False
    return True


def _asking(state: str, data: dict[str, str]) -> Asking:
    return Asking(state, data["nonce"], data["verifier"], anew=bool(data["anew"]))


def _text(state: bytes) -> str:
    return base64.urlsafe_b64encode(state).decode().rstrip("=")


def _provider(services: Services) -> OpenIdProvider:
    if services.upstream is None:
        raise Refusal("not_found", "there is no upstream provider", "upstream.none", status=404)
    return services.upstream


def _refused(code: str) -> Refusal:
    return Refusal("access_denied", "the upstream sign-in was not accepted", f"upstream.{code}", status=403)


def _failed(error: ProviderFailed) -> Refusal:
    if error.reason.startswith(("discovery_", "token_")):
        description = "the upstream provider gives no answer"
        return Refusal("temporarily_unavailable", description, f"upstream.{error.reason}", status=502)
    return _refused(error.reason)
