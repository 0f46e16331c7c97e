"""`/admin/delegations`: all of them, and one with its whole life; one token and its money; one task."""

from collections.abc import Callable
from typing import Any

from flask import Request, Response, request
from sqlalchemy import Connection, select

from authserver import revoke
from authserver.actors import agents, resource_servers
from authserver.administration.directory import NEWEST_FIRST, Whose, delegations
from authserver.administration.timeline import life
from authserver.delegations.records import load_chain
from authserver.errors import Refusal
from authserver.ledger import actions
from authserver.pages.admin.entrance import argument, enter, event_id, page
from authserver.pages.admin.told import happened, state_in_words
from authserver.policy.details import stored_action
from authserver.revoke import Target
from authserver.schema import Transfer, table_of
from authserver.services import Services
from authserver.values import Money

_MOST = 50
_STEPS = 40
_TRANSFERS = table_of(Transfer)


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    one = "/admin/delegations/<delegation_id>"
    return [
        ("GET", "/admin/delegations", lambda: list_all(services, request)),
        ("GET", one, lambda delegation_id: show(services, request, delegation_id)),
        ("GET", "/admin/actions/<action_id>", lambda action_id: show_action(services, request, action_id)),
        ("GET", "/admin/tasks/<task_id>", lambda task_id: show_task(services, request, task_id)),
    ]


def list_all(services: Services, request: Request) -> Response:
    """Delegations, the newest first; of an agent or a user where the address names one."""
    administrator, now = enter(services, request), services.clock.now()
    whose = Whose(argument(request, "agent"), argument(request, "user"))
    after = NEWEST_FIRST.known(request.args.get("after"))
    found = services.database.read(
        lambda connection: delegations(services, connection, whose, after, _MOST, now)
    )
    return page(
        "delegations",
        administrator,
        holdings=found.items,
        whose=whose,
        following=found.next_cursor,
        is_first=after is None,
        catalogue=services.vocabulary.catalogue,
    )


def show(services: Services, request: Request, delegation_id: str) -> Response:
    """One delegation: its terms, its tree, its money, and each step of its life."""
    administrator, now, before = enter(services, request), services.clock.now(), event_id(request, "before")
    found = services.database.read(
        lambda connection: life(services, connection, delegation_id, before, _STEPS, now)
    )
    catalogue = services.vocabulary.catalogue
    return page(
        "delegation",
        administrator,
        life=found,
        steps=[happened(one, catalogue) for one in found.steps],
        is_first=before is None,
        catalogue=catalogue,
    )


def show_action(services: Services, request: Request, action_id: str) -> Response:
    """One action: what was allowed, and each movement of its money."""
    administrator = enter(services, request)

    def read(connection: Connection) -> dict[str, Any]:
        action = actions.find(connection, action_id)
        if action is None:
            raise Refusal("not_found", "there is no such action", rule="console.unknown", status=404)
        details = stored_action(action.details)
        chain = load_chain(connection, action.delegation_id, services.stored)
        limits = chain.leaf.details.limits if chain else None
        currency = details.amount.currency if details.amount else limits.currency if limits else "EUR"
        return {
            "action": action,
            "details": details,
            "state": state_in_words(action),
            "agent": agents.find(connection, action.client_id),
            "place_shown": resource_servers.find(connection, action.resource_server_id),
            "transfers": [
                (row.at, row.kind, Money(currency, row.amount))
                for row in connection.execute(
                    select(_TRANSFERS)
                    .where(_TRANSFERS.c.root_id == action.root_id, _TRANSFERS.c.action_id == action.id)
                    .order_by(_TRANSFERS.c.step)
                    .limit(100)
                )
            ],
        }

    return page(
        "action", administrator, **services.database.read(read), catalogue=services.vocabulary.catalogue
    )


def show_task(services: Services, request: Request, task_id: str) -> Response:
    """One task: its newest tokens, whoever holds them."""
    administrator, now = enter(services, request), services.clock.now()
    found = (
        []
        if "\x00" in task_id
        else services.database.read(lambda connection: actions.tokens_of_task(connection, task_id, _MOST))
    )
    ends = revoke.would_end(services, Target("task", task_id.replace("\x00", "")), now)
    return page(
        "task",
        administrator,
        task_id=task_id,
        tokens=[(action, state_in_words(action)) for action in found],
        ends=ends,
        catalogue=services.vocabulary.catalogue,
    )
