"""`Do not ask again for this shop up to so much`: what a user chose, for one delegation, against fatigue.

A rule lifts only what the delegation's own `approval` asks of its user; never what the catalogue or a policy asks.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, select, update

from authserver.approvals.asking import USER, Asks
from authserver.approvals.records import ApprovalRecord
from authserver.audit.events import Record
from authserver.ids import new_id
from authserver.policy.details import ActionDetails
from authserver.schema import ApprovalRule, table_of
from authserver.values import Money

_TABLE = table_of(ApprovalRule)
_LIFTED = frozenset({"approval.above", "approval.actions"})


@dataclass(frozen=True, slots=True)
class Rule:
    """Up to `amount`, `action` at one seller of one resource server needs no approval."""

    id: str
    delegation_id: str
    client_id: str
    action: str
    resource_server_id: str
    merchant_id: str
    amount: Money
    created_at: datetime
    taken_back_at: datetime | None


_COLUMNS = select(
    *(_TABLE.c[name] for name in ("id", "delegation_id", "client_id", "action", "resource_server_id")),
    *(_TABLE.c[name] for name in ("merchant_id", "currency", "amount", "created_at", "taken_back_at")),
)
_STANDING = _TABLE.c.taken_back_at.is_(None)
_LIFTING = _COLUMNS.where(
    _STANDING,
    _TABLE.c.delegation_id == bindparam("delegation"),
    _TABLE.c.action == bindparam("what"),
    _TABLE.c.resource_server_id == bindparam("server"),
    _TABLE.c.merchant_id == bindparam("merchant"),
    _TABLE.c.currency == bindparam("money"),
    _TABLE.c.amount >= bindparam("minor"),
).limit(1)


def can_lift(asks: Asks, action: ActionDetails) -> bool:
    """Whether there can be a rule for this: the delegation asks its user, and amount and seller are known."""
    seller = action.merchant.id if action.merchant is not None else None
    return (
        asks.because in _LIFTED and asks.seats == (USER,) and action.amount is not None and seller is not None
    )


def lifting(
    connection: Connection, delegation_id: str, asks: Asks, action: ActionDetails, resource_server_id: str
) -> Rule | None:
    """The rule by which this action needs no approval, if the user made one."""
    if action.amount is None or action.merchant is None or not can_lift(asks, action):
        return None
    wanted = {
        "delegation": delegation_id,
        "what": action.action,
        "server": resource_server_id,
        "merchant": action.merchant.id,
        "money": action.amount.currency,
        "minor": action.amount.minor,
    }
    row = connection.execute(_LIFTING, wanted).first()
    return None if row is None else _rule(*row)


def make(
    connection: Connection,
    approval: ApprovalRecord,
    action: ActionDetails,
    amount: Money,
    *,
    by: str,
    now: datetime,
) -> str:
    """Record a rule for the seller of an approval's `action`, in place of an earlier one; returns its id."""
    if action.merchant is None or action.merchant.id is None:
        raise ValueError("no seller")
    same = {
        "delegation_id": approval.delegation_id,
        "client_id": approval.client_id,
        "action": approval.action,
        "resource_server_id": approval.resource_server_id,
        "merchant_id": action.merchant.id,
        "currency": amount.currency,
    }
    replaced = update(_TABLE).where(_STANDING, *(_TABLE.c[name] == value for name, value in same.items()))
    connection.execute(replaced.values(taken_back_at=now))
    row = same | {
        "id": new_id(),
        "amount": amount.minor,
        "created_at": now,
        "created_by": by,
    }
    connection.execute(_TABLE.insert(), row)
    return str(row["id"])


def rules_of(connection: Connection, delegation_id: str) -> list[Rule]:
    """The rules of a delegation that stand, oldest first."""
    query = _COLUMNS.where(_STANDING, _TABLE.c.delegation_id == delegation_id)
    return [_rule(*row) for row in connection.execute(query.order_by(_TABLE.c.created_at, _TABLE.c.id))]


def made_by(connection: Connection, user_id: str) -> list[Rule]:
    """The rules that stand of all delegations of a user, oldest first."""
    query = _COLUMNS.where(_STANDING, _TABLE.c.created_by == user_id)
    return [_rule(*row) for row in connection.execute(query.order_by(_TABLE.c.created_at, _TABLE.c.id))]


def find(connection: Connection, rule_id: str) -> Rule | None:
    """The rule of that id, whether or not it stands."""
    if "\x00" in rule_id:
        return None  # PostgreSQL would not even look for it
    row = connection.execute(_COLUMNS.where(_TABLE.c.id == rule_id)).first()
    return None if row is None else _rule(*row)


def take_back(connection: Connection, rule_id: str, now: datetime) -> bool:
    """End a rule; False where it had ended before."""
    ended = update(_TABLE).where(_TABLE.c.id == rule_id, _STANDING).values(taken_back_at=now)
    return connection.execute(ended).rowcount == 1


def take_back_all(connection: Connection, delegation_id: str, by: str, now: datetime) -> None:
    """End every rule of a delegation, whose user has chosen anew when to be asked."""
    for rule in rules_of(connection, delegation_id):
        if take_back(connection, rule.id, now):
            record = Record("approval_rule.taken_back", rule.client_id, delegation_id)
            record.changed(connection, now, approval_rule=rule.id, by=by)


def _rule(
    id: str,
    delegation_id: str,
    client_id: str,
    action: str,
    resource_server_id: str,
    merchant_id: str,
    currency: str,
    amount: int,
    created_at: datetime,
    taken_back_at: datetime | None,
) -> Rule:
    money = Money(currency, amount)
    return Rule(
        id,
        delegation_id,
        client_id,
        action,
        resource_server_id,
        merchant_id,
        money,
        created_at,
        taken_back_at,
    )
