"""`revoke`: end all that an agent, a user, a trust domain, a task or everybody holds."""

from dataclasses import asdict

import click
from sqlalchemy import Connection

from authserver import revoke
from authserver.administration.targets import target_of
from authserver.commands.context import Failed, json_always, opened, operator, print_json
from authserver.delegations.standing import Kind, agent_party, user_party
from authserver.revoke import Target, UnknownTarget
from authserver.services import Services


@click.command("revoke")
@click.option("--agent", metavar="CLIENT_ID", help="Every delegation that this agent holds.")
@click.option("--user", help="Every delegation of this user: a user name or id.")
@click.option(
    "--trust-domain", metavar="NAME", help="Every delegation that an agent of this trust domain holds."
)
@click.option("--task", metavar="ID", help="Every token of this task.")
@click.option("--all", "everything", is_flag=True, help="Every delegation there is.")
@click.option("--reason", default="revoked by an operator", show_default=True, help="Why, for the audit.")
@click.option("--dry-run", is_flag=True, help="Only count what it would end.")
@json_always
def verb(
    agent: str | None,
    user: str | None,
    trust_domain: str | None,
    task: str | None,
    everything: bool,
    reason: str,
    dry_run: bool,
) -> None:
    """End delegations and their tokens, now, with all below them; prints how many.

    Takes exactly one of --agent, --user, --trust-domain, --task and --all; a task may be that of one agent or one user
    only. What is granted afterwards stands, but a task is over for good.
    """
    named: dict[Kind, str | None] = {
        "agent": agent,
        "user": user,
        "trust_domain": trust_domain,
        "task": task,
        "all": "" if everything else None,
    }
    said = [(kind, name) for kind, name in named.items() if name is not None]
    of = said.pop(0) if len(said) == 2 and said[0][0] in ("agent", "user") and task is not None else None
    if len(said) != 1:
        raise click.UsageError("takes exactly one of --agent, --user, --trust-domain, --task and --all")
    with opened() as services:
        target = services.database.read(lambda connection: _target(services, connection, *said[0], of))
        now = services.clock.now()
        try:
            ended = (
                revoke.would_end(services, target, now)
                if dry_run
                else revoke.revoke(services, target, reason=reason, by=operator(), now=now)
            )
        except UnknownTarget as error:
            raise Failed(str(error)) from error
    print_json(
        {
            "kind": target.kind,
            "target": target.name,
            **({"party": target.party} if target.party else {}),
            **asdict(ended),
            "dry_run": dry_run,
        }
    )


def _target(
    services: Services, connection: Connection, kind: Kind, name: str, of: tuple[Kind, str] | None = None
) -> Target:
    if of is not None:
        whose = _target(services, connection, *of)
        party = user_party(whose.name) if whose.kind == "user" else agent_party(whose.name)
        return Target("task", name, party)
    try:
        return target_of(services, connection, kind, name)
    except UnknownTarget as error:
        raise Failed(str(error)) from error
