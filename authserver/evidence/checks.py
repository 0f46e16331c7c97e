"""What the running system shows: each check looks at the configuration or database in force, and says what is there.

A check is met or not by what it finds, never by what was intended. Adding one is a function here and its name in
`controls.toml`; those of who is calling are in `callers`.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from urllib.parse import urlsplit

from sqlalchemy import Connection, Row, func, select

from authserver import stream
from authserver.administration import gaps
from authserver.audit import batches
from authserver.evidence.callers import CALLERS
from authserver.evidence.facts import Check, Facts, Finding, some
from authserver.ledger.check import check as ledger_differences
from authserver.policies import states
from authserver.policies.files import read_files
from authserver.policy.catalogue import LONGEST_LIFETIME, CatalogueEntry
from authserver.schema import (
    Action,
    Agent,
    AuditEvent,
    Delegation,
    EventStream,
    Passkey,
    Revocation,
    User,
    table_of,
)
from authserver.schema import ResourceServer as ResourceServerRow
from authserver.tokens.signing_keys import list_keys
from authserver.verify_audit import verify_here

_AGENTS, _ACTIONS, _SERVERS = table_of(Agent), table_of(Action), table_of(ResourceServerRow)
_DELEGATIONS, _EVENTS, _REVOCATIONS = table_of(Delegation), table_of(AuditEvent), table_of(Revocation)
_STREAMS, _USERS, _PASSKEYS = table_of(EventStream), table_of(User), table_of(Passkey)
_OLDEST_KEY = timedelta(days=180)
_LONGEST_UNSEALED = 300.0  # seconds
_LAST_REVOCATIONS = 100
_CLOCKS_APART = timedelta(seconds=30)
# What a revocation of each of these levels covers.
_ENDED_BY = {
    "delegation": _DELEGATIONS.c.id,
    "agent": _DELEGATIONS.c.client_id,
    "user": _DELEGATIONS.c.user_id,
}


def _per_action(facts: Facts, value: Callable[[CatalogueEntry], object]) -> str:
    return ", ".join(f"{entry.name} {value(entry)}" for entry in facts.actions)


# --- tokens and the catalogue ---------------------------------------------------------------------------------------


def action_lifetimes(facts: Facts) -> tuple[bool, str, str]:
    """No action token lives longer than it may."""
    longest = max(entry.lifetime for entry in facts.actions)
    said = f"seconds for each action: {_per_action(facts, lambda entry: entry.lifetime)}"
    return longest <= LONGEST_LIFETIME, said, "catalogue: lifetime"


def single_use(facts: Facts) -> tuple[bool, str, str]:
    """What moves money is redeemed, once."""
    reusable = [entry.name for entry in facts.actions if entry.moves_money and not entry.redeem]
    return (
        not reusable,
        f"actions that move money and can be used again: {some(reusable)}",
        "catalogue: redeem",
    )


def sender_constraint(facts: Facts) -> tuple[bool, str, str]:
    """Some tokens are bound to a key (DPoP)."""
    bound = [entry.name for entry in facts.actions if entry.sender_constraint == "required"]
    return (
        bool(bound),
        f"actions whose tokens must be bound to a key: {some(bound)}",
        "catalogue: sender_constraint",
    )


def catalogue(facts: Facts) -> tuple[bool, str, str]:
    """Every action has an owner, an approver and somebody it escalates to."""
    without = [e.name for e in facts.actions if not (e.owner and e.approver and e.escalation)]
    said = f"{len(facts.actions)} actions; without owner, approver or escalation: {some(without)}"
    return not without, said, "catalogue: owner, approver, escalation"


def group_members(facts: Facts) -> tuple[bool, str, str]:
    """The groups that the catalogue names have people in them."""
    services = facts.services
    configured = services.settings.groups.members
    owned = gaps.owned(facts.connection, services.vocabulary.catalogue, configured)
    empty = [one.entry.name for one in owned if one.gaps]
    return not empty, f"actions with a group that nobody is in: {some(empty)}", "catalogue, users, [groups]"


def personal_data_asks(facts: Facts) -> tuple[bool, str, str]:
    """What opens personal data says which, and the export of it asks a person."""
    opening = [entry for entry in facts.actions if "datatypes" in entry.needs]
    asked = [entry.name for entry in opening if entry.approval == "always"]
    said = f"actions that open personal data: {some(entry.name for entry in opening)}"
    return bool(asked), f"{said}; a person is always asked for: {some(asked)}", "catalogue: needs, approval"


# --- policies and approvals -----------------------------------------------------------------------------------------


def policies(facts: Facts) -> tuple[bool, str, str]:
    """At least one set of policies decides."""
    moved = states.read_all(facts.connection)
    files = read_files(facts.services.settings.policies.directory)
    state = {file.name: moved.get(file.name, file.state) for file in files}
    said = ", ".join(f"{name} ({state[name]})" for name in sorted(state))
    return (
        "enforce" in state.values() and facts.services.policies.problem is None,
        f"sets: {said}",
        "policies.directory",
    )


def two_people(facts: Facts) -> tuple[bool, str, str]:
    """Nobody puts a set of policies in force alone."""
    on = facts.services.settings.policies.two_people
    said = "needs somebody else than whoever put it up for observation" if on else "can be done by one person"
    return on, f"to put a set in force {said}", "policies.two_people"


def approvals(facts: Facts) -> tuple[bool, str, str]:
    """A person is asked for something whatever a delegation says."""
    said = _per_action(facts, lambda entry: f"{entry.approval} by {entry.approvals} of {entry.approver}")
    return any(entry.approval == "always" for entry in facts.actions), said, "catalogue: approval, approver"


def approval_limits(facts: Facts) -> tuple[None, str, str]:
    """Nobody is asked without end."""
    settings = facts.services.settings.approvals.model_dump()
    return None, ", ".join(f"{name} {value}" for name, value in settings.items()), "[approvals]"


# --- delegations and money ------------------------------------------------------------------------------------------


def delegations_end(facts: Facts) -> tuple[bool, str, str]:
    """No delegation is for ever."""
    most = facts.services.settings.delegations.longest_days
    last = facts.connection.scalar(select(func.max(_DELEGATIONS.c.expires_at)))
    said = f"at most {most} days; the last of those recorded ends {last.date() if last else 'never: there is none'}"
    return last is None or last <= facts.now + timedelta(days=most), said, "delegations.longest_days"


def hand_over_depth(facts: Facts) -> tuple[None, str, str]:
    """How far delegations were handed on."""
    paths = facts.connection.scalars(select(_DELEGATIONS.c.path).where(_DELEGATIONS.c.expires_at > facts.now))
    deepest = max((path.count(" ") for path in paths), default=0)
    return None, f"the deepest chain that stands was handed on {deepest} times", "delegations"


def ledger(facts: Facts) -> tuple[bool, str, str]:
    """Every running total is the sum of its transfers."""
    # A transaction of its own, which begins with what it needs.
    found = facts.services.database.read(lambda c: list(ledger_differences(c, facts.services.stored)))
    wrong = {difference.delegation_id for difference in found}
    return (
        not wrong,
        f"delegations whose totals are not the sums of their transfers: {some(wrong)}",
        "ledger check",
    )


def open_reservations(facts: Facts) -> tuple[None, str, str]:
    """What an agent may hold at once is bounded."""
    most = facts.services.settings.ledger.open_reservations
    return None, f"at most {most} reservations of one delegation at once", "ledger.open_reservations"


def revocation_at_hand(facts: Facts) -> tuple[bool, str, str]:
    """What was ended, at which level; and after the last of it, nothing was issued on it any more."""
    levels = select(_REVOCATIONS.c.kind, func.count().label("times")).group_by(_REVOCATIONS.c.kind)
    rows = facts.connection.execute(levels.order_by(_REVOCATIONS.c.kind)).all()
    said = ", ".join(f"{row.kind} {row.times}" for row in rows) or "none yet"
    newest = select(_REVOCATIONS).where(_REVOCATIONS.c.kind.in_(_ENDED_BY))
    last = facts.connection.execute(newest.order_by(_REVOCATIONS.c.id.desc()).limit(_LAST_REVOCATIONS)).all()
    late = sum(_issued_after(facts.connection, revocation) for revocation in last)
    return (
        not late,
        f"revocations so far: {said}; tokens issued after the last {len(last)}: {late}",
        "revocations",
    )


def _issued_after(connection: Connection, revocation: Row[tuple[object, ...]]) -> int:
    covered = (_ENDED_BY[revocation.kind] == revocation.target) & (
        _DELEGATIONS.c.revocations_before < revocation.id
    )
    of_them = (_ACTIONS.c.root_id == _DELEGATIONS.c.root_id) & (_ACTIONS.c.delegation_id == _DELEGATIONS.c.id)
    after = _ACTIONS.c.issued_at > revocation.revoked_at + _CLOCKS_APART
    query = select(func.count()).select_from(_ACTIONS).join(_DELEGATIONS, of_them).where(covered, after)
    return connection.scalar(query) or 0


# --- keys and places ------------------------------------------------------------------------------------------------


def signing_keys(facts: Facts) -> tuple[bool, str, str]:
    """The key that signs is not old."""
    active = [key for key in list_keys(facts.connection) if key.state(facts.now) == "active"]
    newest = max((max(key.created_at, key.activates_at) for key in active), default=None)
    said = f"{len(active)} active, the newest since {newest.date() if newest else 'never'}; encrypted at rest"
    return newest is not None and newest > facts.now - _OLDEST_KEY, said, "signing_keys, keys.encryption_key"


def issuer_protected(facts: Facts) -> tuple[bool, str, str]:
    """The server is reached by https."""
    issuer = facts.services.issuer
    return urlsplit(issuer).scheme == "https", f"the issuer is {issuer}", "server.issuer"


# --- the audit ------------------------------------------------------------------------------------------------------


def audit_sealed(facts: Facts) -> tuple[bool, str, str]:
    """The audit is as it was written, and sealing is not behind."""
    found = verify_here(facts.services)  # with the witness's file, where there is one
    count, seconds = batches.lag(facts.connection, facts.now)
    said = f"{found.sealed} events sealed, {count} not yet; problems: {some(found.problems)}"
    return not found.problems and seconds <= _LONGEST_UNSEALED, said, "audit verify"


def audit_witnessed(facts: Facts) -> tuple[bool, str, str]:
    """Heads of the audit's tree are kept elsewhere."""
    names = [name for name in stream.destinations_of(facts.services) if name.startswith("witness:")]
    failing = set(stream.failing(facts.services)) & set(names)
    return bool(names) and not failing, f"witnesses: {some(names)}; failing: {some(failing)}", "[audit]"


def audit_streamed(facts: Facts) -> tuple[bool, str, str]:
    """Events go to somebody who watches."""
    names = [name for name in stream.destinations_of(facts.services) if name.startswith("stream:")]
    failing = set(stream.failing(facts.services)) & set(names)
    return (
        bool(names) and not failing,
        f"streams: {some(names)}; failing: {some(failing)}",
        "[[audit.streams]]",
    )


def resource_servers_told(facts: Facts) -> tuple[bool, str, str]:
    """Resource servers hear of revocations as security events."""
    status = select(_STREAMS.c.status, func.count().label("streams")).group_by(_STREAMS.c.status)
    streams = {row.status: row.streams for row in facts.connection.execute(status)}
    said = ", ".join(f"{name} {count}" for name, count in sorted(streams.items())) or "none"
    return streams.get("enabled", 0) > 0, f"event streams of resource servers: {said}", "event_streams"


CHECKS: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        *CALLERS,
        action_lifetimes,
        approval_limits,
        approvals,
        audit_sealed,
        audit_streamed,
        audit_witnessed,
        catalogue,
        delegations_end,
        group_members,
        hand_over_depth,
        issuer_protected,
        ledger,
        open_reservations,
        personal_data_asks,
        policies,
        resource_servers_told,
        revocation_at_hand,
        sender_constraint,
        signing_keys,
        single_use,
        two_people,
    )
}


def run(name: str, facts: Facts) -> Finding:
    """One check. Raises `KeyError` for a name that is none."""
    met, says, where = CHECKS[name](facts)
    return Finding(name, met, says, where)
