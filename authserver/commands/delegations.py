"""`delegations`: what users allowed agents."""

import json
from pathlib import Path

import click
from sqlalchemy import Connection

from authserver import consent, revoke
from authserver.accounts import users
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
    read_json,
)
from authserver.delegations.records import Chain, list_delegations, load_chain
from authserver.delegations.standing import ending
from authserver.members import without_none
from authserver.policy.delegation_details import parse_delegation
from authserver.revoke import Target, UnknownTarget
from authserver.services import Services
from authserver.values import Money

_COLUMNS = ("grant_id", "user", "client_id", "actions", "state", "expires_at")


@click.group("delegations")
def verb() -> None:
    """Delegations: what users allowed agents, by consent or by an operator."""


@verb.command("create")
@click.option("--user", required=True, help="Whose authority it is: a user name or id.")
@click.option("--agent", required=True, help="Who may use it: a client id.")
@click.option(
    "--details",
    required=True,
    type=click.Path(path_type=Path),
    help="A file with one agent_delegation, or an array of one; - is standard input.",
)
@json_always
def create(user: str, agent: str, details: Path) -> None:
    """Record a delegation without the user's consent (for tests, migration and demonstrations); prints its grant."""
    unverified = read_json(details)
    if isinstance(unverified, list):
        if len(unverified) != 1:
            raise Failed(f"{details}: takes one agent_delegation, or an array of one")
        (unverified,) = unverified
    with opened() as services:
        granted = consent.grant(
            services,
            user=user,
            agent=agent,
            details=parse_delegation(unverified, services.vocabulary),
            by=operator(),
            now=services.clock.now(),
        )
    print_json({"grant_id": granted.grant_id, "grant": granted.grant})


@verb.command("list")
@json_option
def list_all(as_json: bool) -> None:
    """Show all delegations, the ended ones too."""

    def read(connection: Connection) -> list[dict[str, object]]:
        ids = [record.id for record in list_delegations(connection, services.stored)]
        return [_shown(services, connection, id) for id in ids]

    with opened() as services:
        found = services.database.read(read)
    print_records(found, _COLUMNS, as_json)


@verb.command("show", context_settings=TAKES_ANY_ID)
@click.argument("grant_id", metavar="ID")
@json_always
def show(grant_id: str) -> None:
    """Show one delegation: what it allows, what is spent, and whether it stands."""
    with opened() as services:
        found = services.database.read(lambda connection: _shown(services, connection, grant_id))
    print_json(found)


@verb.command("revoke", context_settings=TAKES_ANY_ID)
@click.argument("grant_id", metavar="ID")
@click.option("--reason", default="revoked by an operator", show_default=True, help="Why, for the audit.")
@json_always
def revoke_one(grant_id: str, reason: str) -> None:
    """End a delegation and all below it, now; prints what that ended."""
    target = Target("delegation", grant_id)
    with opened() as services:
        try:
            ended = revoke.revoke(services, target, reason=reason, by=operator(), now=services.clock.now())
        except UnknownTarget as error:
            raise Failed(str(error)) from error
    print_json({"grant_id": grant_id, "delegations": ended.delegations, "tokens": ended.tokens})


def _shown(services: Services, connection: Connection, grant_id: str) -> dict[str, object]:
    chain = load_chain(connection, grant_id, services.stored)
    if chain is None:
        raise Failed(f"{grant_id}: there is no such delegation")
    ended = ending(connection, chain, services.clock.now())
    leaf = chain.leaf
    user = users.find(connection, leaf.user_id)
    return without_none(
        grant_id=leaf.id,
        parent=leaf.path[-2] if len(leaf.path) > 1 else None,
        user=leaf.user_id if user is None else user.username,
        user_id=leaf.user_id,
        client_id=leaf.client_id,
        state="active" if ended is None else ended.rule.removeprefix("delegation."),
        actions=list(leaf.details.actions),
        spent=_spent(chain),
        created_at=instant(leaf.created_at),
        created_by=leaf.created_by,
        not_before=instant(leaf.not_before),
        expires_at=instant(leaf.expires_at),
        authorization_details=json.loads(leaf.details_text),
    )


def _spent(chain: Chain) -> dict[str, object] | None:
    limits = chain.leaf.details.limits
    if limits is None:
        return None
    return {
        "total": Money(limits.currency, chain.leaf.total_spent).to_json(),
        "count": chain.leaf.action_count,
        "open": chain.leaf.open_count,
    }
