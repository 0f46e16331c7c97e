"""`agents`: the software that acts, registered under its workload."""

from datetime import datetime
from pathlib import Path

import click

from authserver import register
from authserver.actors import AlreadyRegistered, NotRegistered, agents
from authserver.actors.agents import Agent
from authserver.agent_documents import DocumentRefused, as_published
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
from authserver.disable import disable_agent
from authserver.members import without_none
from authserver.policy.facts import RISKS
from authserver.services import Services

_COLUMNS = ("client_id", "name", "trust_domain", "subject", "owner", "risk", "actions", "disabled_at")


@click.group("agents")
def verb() -> None:
    """Agents: OAuth clients that are each bound to one workload."""


@verb.command("create")
@click.option(
    "--client-id",
    required=True,
    help="Its name as an OAuth client: 1 to 100 of A-Z a-z 0-9 . _ -, or the https URL of its metadata document.",
)
@click.option("--trust-domain", required=True, help="The configured trust domain that vouches for it.")
@click.option(
    "--subject", required=True, help="Its workload's subject there: a SPIFFE ID, or what `sub` says."
)
@click.option("--name", help="What people call it; the client id by default.")
@click.option("--owner", help="Who answers for it.")
@click.option("--risk", type=click.Choice(RISKS), help="How risky it is, for policies.")
@click.option(
    "--actions", help="All that it may ever be allowed, with commas between; else whatever users delegate."
)
@click.option(
    "--redirect-uri", "redirect_uris", multiple=True, help="Where consent may send the browser back to."
)
@click.option(
    "--jwks", type=click.Path(path_type=Path), help="A file with its public keys for private_key_jwt."
)
@json_always
def create(
    client_id: str,
    trust_domain: str,
    subject: str,
    name: str | None,
    owner: str | None,
    risk: str | None,
    actions: str | None,
    redirect_uris: tuple[str, ...],
    jwks: Path | None,
) -> None:
    """Register an agent; prints it."""
    unverified = without_none(
        client_id=client_id,
        trust_domain=trust_domain,
        subject=subject,
        name=name,
        owner=owner,
        risk=risk,
        actions=None if actions is None else actions.split(","),
        redirect_uris=list(redirect_uris),
        jwks=None if jwks is None else read_json(jwks),
    )
    with opened() as services:
        now = services.clock.now()
        agent = register.parse_agent(unverified, services, now)
        agent = _with_document(services, agent, now)
        try:
            services.database.write(lambda connection: register.create_agent(connection, agent, operator()))
        except AlreadyRegistered as error:
            raise Failed(f"{client_id}: that client id or that workload is registered already") from error
    print_json(_shown(agent))


@verb.command("list")
@json_option
def list_agents(as_json: bool) -> None:
    """Show all agents, the disabled ones too."""
    with opened() as services:
        found = services.database.read(agents.list_all)
    print_records(map(_shown, found), _COLUMNS, as_json)


@verb.command("disable", context_settings=TAKES_ANY_ID)
@click.argument("client_id")
@json_always
def disable(client_id: str) -> None:
    """End what the agent CLIENT_ID may do, for good: none of its delegations can be used any more."""

    with opened() as services:
        try:
            disable_agent(services, client_id, by=operator(), now=services.clock.now())
        except NotRegistered as error:
            raise Failed(f"{client_id}: there is no such agent") from error
        agent = services.database.read(lambda connection: agents.find(connection, client_id))
    if agent is not None:
        print_json(_shown(agent))


def _with_document(services: Services, agent: Agent, now: datetime) -> Agent:
    """The agent as its document has it, which is read before anything is written."""
    try:
        return as_published(services, agent, now)
    except DocumentRefused as error:
        raise Failed(f"{agent.client_id}: the document cannot be used: {error.reason}") from error


def _shown(agent: Agent) -> dict[str, object]:
    return {
        **register.members_of_agent(agent),
        **({"redirect_uris": list(agent.redirect_uris)} if agent.has_document else {}),
        **without_none(created_at=instant(agent.created_at), disabled_at=instant(agent.disabled_at)),
    }
