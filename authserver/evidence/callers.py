"""Checks of who is calling: workloads, agents, resource servers, and the people and programs that administer."""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Row, func, select

from authserver.evidence.facts import SHOWN, Check, Facts, some
from authserver.schema import Action, Agent, Passkey, Revocation, User, table_of
from authserver.schema import ResourceServer as ResourceServerRow

_AGENTS, _ACTIONS, _SERVERS = table_of(Agent), table_of(Action), table_of(ResourceServerRow)
_REVOCATIONS, _USERS, _PASSKEYS = table_of(Revocation), table_of(User), table_of(Passkey)
_LONGEST_ASSERTION = 3_600  # seconds; an assertion that lives longer is a password
_OLDEST_SECRET = timedelta(days=365)
_UNUSED = timedelta(days=90)


def workload_identity(facts: Facts) -> tuple[bool, str, str]:
    """Assertions are short-lived."""
    domains = facts.services.settings.trust_domains
    said = "; ".join(
        f"{d.name}: {d.kind}, {', '.join(d.algorithms)}, at most {d.max_lifetime} s" for d in domains
    )
    return all(d.max_lifetime <= _LONGEST_ASSERTION for d in domains), said, "[[trust_domains]]"


def agents_without_secret(facts: Facts) -> tuple[bool, str, str]:
    """No agent has a secret: there is no column for one."""
    secrets = [column.name for column in _AGENTS.columns if "secret" in column.name]
    count = facts.connection.scalar(select(func.count()).select_from(_AGENTS))
    return (
        not secrets,
        f"{count} agents; columns of the table that could hold a secret: {some(secrets)}",
        "agents",
    )


def one_workload_each(facts: Facts) -> tuple[bool, str, str]:
    """No two agents are one workload."""
    workload = (_AGENTS.c.trust_domain, _AGENTS.c.subject)
    shared = facts.connection.execute(select(*workload).group_by(*workload).having(func.count() > 1)).all()
    return not shared, f"workloads of more than one agent: {some(row.subject for row in shared)}", "agents"


def _enabled_agents(facts: Facts, *conditions: ColumnElement[bool]) -> list[str]:
    query = select(_AGENTS.c.client_id).where(_AGENTS.c.disabled_at.is_(None), *conditions)
    return list(facts.connection.scalars(query))


def owned_agents(facts: Facts) -> tuple[bool, str, str]:
    """Every agent that may act has an owner."""
    names = _enabled_agents(facts, _AGENTS.c.owner.is_(None))
    return not names, f"agents without an owner: {some(names)}", "agents: owner"


def agents_bounded(facts: Facts) -> tuple[bool, str, str]:
    """Agents are registered for the actions that they are for."""
    names = _enabled_agents(facts, _AGENTS.c.actions.is_(None))
    return not names, f"agents that may be delegated any action: {some(names)}", "agents: actions"


def stale_agents(facts: Facts) -> tuple[bool, str, str]:
    """No agent that nobody uses is left enabled."""
    used = select(_ACTIONS.c.client_id).where(_ACTIONS.c.issued_at > facts.now - _UNUSED)
    old = _AGENTS.c.created_at < facts.now - _UNUSED
    names = _enabled_agents(facts, old, _AGENTS.c.client_id.not_in(used))
    return (
        not names,
        f"enabled agents that did nothing in {_UNUSED.days} days: {some(names)}",
        "agents, actions",
    )


def resource_server_secrets(facts: Facts) -> tuple[bool, str, str]:
    """No resource server uses a secret that is old."""
    enabled = (_SERVERS.c.disabled_at.is_(None)) & (_SERVERS.c.auth_method == "client_secret_basic")
    rows = facts.connection.execute(select(_SERVERS).where(enabled)).all()
    made = {row.identifier: _secret_made_at(row) for row in rows}
    old = [name for name, at in made.items() if at < facts.now - _OLDEST_SECRET]
    said = f"resource servers with a secret: {some(made)}; older than {_OLDEST_SECRET.days} days: {some(old)}"
    return not old, said, "resource_servers"


def _secret_made_at(row: Row[tuple[object, ...]]) -> datetime:
    # A renewed one is as old as the end of the time in which the one before it was still good.
    times = (row.created_at, row.previous_secret_until)
    return max(at for at in times if isinstance(at, datetime))


def operators_named(facts: Facts) -> tuple[bool, str, str]:
    """Who changed what is a person or a program that is named."""
    newest = select(_REVOCATIONS.c.revoked_by).order_by(_REVOCATIONS.c.id.desc()).limit(SHOWN)
    names = set(facts.connection.scalars(newest))
    return all(names), f"who revoked last: {some(names)}", "revocations: revoked_by"


def administrators_passkeys(facts: Facts) -> tuple[bool, str, str]:
    """Whoever administers has a passkey."""
    administers = _USERS.c.role.is_not(None) & _USERS.c.disabled_at.is_(None)
    without = administers & _USERS.c.user_id.not_in(select(_PASSKEYS.c.user_id))
    names = list(facts.connection.scalars(select(_USERS.c.username).where(without)))
    return not names, f"administrators without a passkey: {some(names)}", "users, passkeys"


CALLERS: tuple[Check, ...] = (
    workload_identity,
    agents_without_secret,
    one_workload_each,
    owned_agents,
    agents_bounded,
    stale_agents,
    resource_server_secrets,
    operators_named,
    administrators_passkeys,
)
