"""`/admin/agents`, `/admin/users`, `/admin/resource-servers`: who is registered, and what each of them holds."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from flask import Request, Response, request
from sqlalchemy import Connection

from authserver import disable, revoke
from authserver.accounts import users
from authserver.actors import NotRegistered, agents, resource_servers
from authserver.administration import decisions
from authserver.administration.decisions import Wanted
from authserver.administration.directory import Whose, delegations
from authserver.administration.roles import Permission
from authserver.errors import Refusal
from authserver.pages import answers
from authserver.pages.admin.decisions import lines
from authserver.pages.admin.entrance import Administrator, argument, enter, is_a_reason, page, read_form
from authserver.revoke import Target
from authserver.services import Services
from authserver.texts import _

_MOST = 50
_SOME = 10  # of what a page only begins to list
Item = TypeVar("Item")


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    return [
        ("GET", "/admin/agents", lambda: list_agents(services, request)),
        ("POST", "/admin/agents", lambda: switch_agent(services, request)),
        ("GET", "/admin/agents/<path:client_id>", lambda client_id: show_agent(services, request, client_id)),
        ("GET", "/admin/users", lambda: list_users(services, request)),
        ("GET", "/admin/users/<user_id>", lambda user_id: show_user(services, request, user_id)),
        ("GET", "/admin/resource-servers", lambda: list_servers(services, request)),
        ("GET", "/admin/resource-servers/<id>", lambda id: show_server(services, request, id)),
    ]


def list_agents(services: Services, request: Request) -> Response:
    """Agents by their ids."""
    return _list(services, request, "agents", agents.list_some, lambda agent: agent.client_id)


def list_users(services: Services, request: Request) -> Response:
    """Users by their names."""
    return _list(services, request, "users", users.list_some, lambda user: user.username)


def list_servers(services: Services, request: Request) -> Response:
    """Resource servers by their identifiers."""
    some = resource_servers.list_some
    return _list(services, request, "resource_servers", some, lambda server: server.identifier)


def _list(
    services: Services,
    request: Request,
    what: str,
    some: Callable[[Connection, str, int], Sequence[Item]],
    name: Callable[[Item], str],
) -> Response:
    """A page of what is found after a name, and where the next one goes on."""
    administrator, after = enter(services, request), argument(request, "after", 2_048) or ""
    found = services.database.read(lambda connection: some(connection, after, _MOST + 1))
    following = name(found[_MOST - 1]) if len(found) > _MOST else None
    return page(what, administrator, found=found[:_MOST], following=following, after=after)


def show_agent(services: Services, request: Request, client_id: str) -> Response:
    """One agent: who it is, what it holds, what it did."""
    administrator = enter(services, request)
    done = {
        "disabled": _("The agent is blocked, and all that it held has ended."),
        "enabled": _("It is let in again."),
    }
    return _agent(services, administrator, client_id, done=done.get(request.args.get("done", "")))


def switch_agent(services: Services, request: Request) -> Response:
    """Block an agent, which ends all that it holds, or let it in again; with a reason to block it."""
    administrator, form = read_form(services, request, Permission.CHANGE)
    client_id, switch = form.one("client_id") or "", form.one("switch")
    reason, by, now = (form.one("reason") or "").strip(), administrator.by, services.clock.now()
    if switch not in ("disable", "enable"):
        raise _unknown("switch")
    if switch == "disable" and not is_a_reason(reason):
        return _agent(services, administrator, client_id, message=_("Say why: it stands in the audit."))
    try:
        if switch == "disable":
            disable.disable_agent(services, client_id, by=by, now=now, reason=reason)
        else:
            disable.enable_agent(services, client_id, by=by, now=now)
    except NotRegistered as error:
        raise _unknown("agent") from error
    return answers.redirect(f"/admin/agents/{quote(client_id, safe='')}?done={switch}d")


def _agent(
    services: Services,
    administrator: Administrator,
    client_id: str,
    *,
    done: str | None = None,
    message: str | None = None,
) -> Response:
    now = services.clock.now()

    def read(connection: Connection) -> dict[str, Any]:
        agent = None if "\x00" in client_id else agents.find(connection, client_id)
        if agent is None:
            raise _unknown("agent")
        done = decisions.decisions(connection, Wanted(agent=client_id), None, _SOME)
        return {
            "agent": agent,
            "holdings": delegations(services, connection, Whose(agent=client_id), None, _SOME, now).items,
            "lines": lines(services, done.decisions),
        }

    found = services.database.read(read)
    ends = revoke.would_end(services, Target("agent", client_id), now)
    return page(
        "agent",
        administrator,
        400 if message else 200,
        **found,
        ends=ends,
        catalogue=services.vocabulary.catalogue,
        done=done,
        message=message,
    )


def show_user(services: Services, request: Request, user_id: str) -> Response:
    """One user: who they are and what they allowed."""
    administrator, now = enter(services, request), services.clock.now()

    def read(connection: Connection) -> dict[str, Any]:
        user = None if "\x00" in user_id else users.by_id(connection, user_id)
        if user is None:
            raise _unknown("user")
        found = delegations(services, connection, Whose(user=user_id), None, _SOME, now)
        return {"user": user, "holdings": found.items}

    found = services.database.read(read)
    ends = revoke.would_end(services, Target("user", user_id), now)
    return page("user", administrator, **found, ends=ends, catalogue=services.vocabulary.catalogue)


def show_server(services: Services, request: Request, id: str) -> Response:
    """One resource server."""
    administrator = enter(services, request)
    found = services.database.read(
        lambda connection: None if "\x00" in id else resource_servers.find(connection, id)
    )
    if found is None:
        raise _unknown("resource server")
    return page("resource_server", administrator, server=found)


def _unknown(what: str) -> Refusal:
    return Refusal("not_found", f"there is no such {what}", rule="console.unknown", status=404)
