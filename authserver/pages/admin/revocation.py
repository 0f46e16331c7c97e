"""`/admin/revoke`: first what it would end, then, with a reason, the end of it."""

from collections.abc import Callable
from typing import get_args
from urllib.parse import quote

from flask import Request, Response, request
from sqlalchemy import Connection

from authserver import revoke
from authserver.accounts import users
from authserver.actors import agents
from authserver.administration.roles import Permission
from authserver.delegations.standing import Kind
from authserver.errors import Refusal
from authserver.pages import words
from authserver.pages.admin.entrance import Administrator, argument, enter, is_a_reason, page, read_form
from authserver.revoke import Target, UnknownTarget
from authserver.services import Services
from authserver.texts import _

_KINDS: tuple[Kind, ...] = get_args(Kind)
_LONGEST_NAME = 2_048
CONFIRMATION = "revoke everything"  # what is typed to end all there is; the same in every language


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    return [
        ("GET", "/admin/revoke", lambda: ask(services, request)),
        ("POST", "/admin/revoke", lambda: end(services, request)),
    ]


def ask(services: Services, request: Request) -> Response:
    """What it would end, or the choice of what to end where the address names nothing."""
    administrator = enter(services, request, Permission.REVOKE, recent=True)
    kind = request.args.get("kind")
    if kind is None:
        domains = services.trust_domains.names
        return page("revoke_what", administrator, domains=domains)
    target = _target(kind, argument(request, "target", _LONGEST_NAME) or "")
    return _asked(services, administrator, target)


def end(services: Services, request: Request) -> Response:
    """End it."""
    administrator, form = read_form(services, request, Permission.REVOKE)
    target = _target(form.one("kind") or "", form.one("target") or "")
    reason = (form.one("reason") or "").strip()
    if not is_a_reason(reason):
        return _asked(services, administrator, target, _("Say why: it stands in the audit."), reason)
    if target.kind == "all" and (form.one("confirmation") or "").strip() != CONFIRMATION:
        said = _("Nothing was revoked. Type the words exactly as they are shown.")
        return _asked(services, administrator, target, said, reason)
    try:
        ended = revoke.revoke(services, target, reason=reason, by=administrator.by, now=services.clock.now())
    except UnknownTarget as error:
        raise _unknown() from error
    name = services.database.read(lambda connection: _named(connection, target))
    return page("revoked", administrator, target=target, name=name, ended=ended, back=path_of(target))


def _asked(
    services: Services,
    administrator: Administrator,
    target: Target,
    message: str | None = None,
    reason: str = "",
) -> Response:
    try:
        ends = revoke.would_end(services, target, services.clock.now())
    except UnknownTarget as error:
        raise _unknown() from error
    name = services.database.read(lambda connection: _named(connection, target))
    return page(
        "revoke",
        administrator,
        400 if message else 200,
        target=target,
        name=name,
        ends=ends,
        message=message,
        reason=reason,
        confirmation=CONFIRMATION,
        back=path_of(target),
    )


def _target(unverified_kind: str, unverified_name: str) -> Target:
    kind = next((known for known in _KINDS if known == unverified_kind), None)
    if kind is None or (kind == "all") != (not unverified_name) or "\x00" in unverified_name:
        raise _unknown()
    return Target(kind, unverified_name)


def path_of(target: Target) -> str:
    """The page of what is to end."""
    name = quote(target.name, safe="")
    return {
        "delegation": f"/admin/delegations/{name}",
        "agent": f"/admin/agents/{name}",
        "user": f"/admin/users/{name}",
        "trust_domain": "/admin/trust-domains",
    }.get(target.kind, "/admin/revoke")


def _named(connection: Connection, target: Target) -> str:
    """What people call it."""
    if target.kind == "agent":
        agent = agents.find(connection, target.name)
        return words.shown_name(agent.name).text if agent else target.name
    if target.kind == "user":
        user = users.by_id(connection, target.name)
        return words.shown_name(user.name).text if user else target.name
    return target.name


def _unknown() -> Refusal:
    return Refusal(
        "not_found", "there is nothing of that name to revoke", rule="revocation.unknown_target", status=404
    )
