"""Rows as administrators are shown them."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select, tuple_

from authserver import strict_json
from authserver.accounts import users
from authserver.administration.items import (
    ActionItem,
    AgentItem,
    Amount,
    ApprovalAnswerItem,
    ApprovalItem,
    DelegationItem,
    EventItem,
    KeyItem,
    RedemptionItem,
    ResourceServerItem,
    Spent,
    TransferItem,
    TrustDomainItem,
    UserItem,
)
from authserver.approvals.records import ApprovalRecord, answers_to
from authserver.audit.events import Event
from authserver.delegations.records import Chain, load_chains
from authserver.delegations.standing import Ending, endings
from authserver.policy.reading import instant_text
from authserver.schema import Transfer, table_of
from authserver.services import Services
from authserver.tokens.signing_keys import KeyRecord
from authserver.values import Money

_TRANSFERS = table_of(Transfer)


def instant(at: datetime | None) -> str | None:
    """An instant as records show it: RFC 3339 in UTC."""
    return None if at is None else _at(at)


def _at(at: datetime) -> str:
    return instant_text(at)


def agent(row: Row[Any]) -> AgentItem:
    """An agent's row."""
    return AgentItem(
        client_id=row.client_id,
        trust_domain=row.trust_domain,
        subject=row.subject,
        name=row.name,
        redirect_uris=json.loads(row.redirect_uris),
        created_at=_at(row.created_at),
        owner=row.owner,
        risk=row.risk,
        actions=None if row.actions is None else json.loads(row.actions),
        jwks=None if row.jwks is None else json.loads(row.jwks),
        disabled_at=instant(row.disabled_at),
    )


def resource_server(row: Row[Any]) -> ResourceServerItem:
    """A resource server's row."""
    return ResourceServerItem(
        id=row.id,
        identifier=row.identifier,
        name=row.name,
        auth=row.auth_method,
        created_at=_at(row.created_at),
        merchant=None if row.merchant is None else json.loads(row.merchant),
        subject=row.subject,
        jwks=None if row.jwks is None else json.loads(row.jwks),
        disabled_at=instant(row.disabled_at),
    )


def user(row: Row[Any]) -> UserItem:
    """A user's row."""
    return UserItem(
        user_id=row.user_id,
        username=row.username,
        name=row.name,
        groups=json.loads(row.groups),
        created_at=_at(row.created_at),
        role=row.role,
        disabled_at=instant(row.disabled_at),
    )


def trust_domains(services: Services, now: datetime) -> list[TrustDomainItem]:
    """All configured trust domains."""
    domains = services.trust_domains
    return [
        TrustDomainItem(
            name=name,
            kind=domains.kind_of(name),  # type: ignore[arg-type]  # the settings know no other kind
            issuer=domains.issuer_of(name),
            keys=fresh.keys,
            state=fresh.state,  # type: ignore[arg-type]
            read_at=instant(fresh.read_at),
        )
        for name, fresh in domains.freshness(now).items()
    ]


def delegations(
    services: Services, connection: Connection, ids: Sequence[str], now: datetime
) -> list[DelegationItem]:
    """The delegations of these ids, in their order."""
    chains = load_chains(connection, ids, services.stored)
    ended = endings(connection, tuple(chains.values()), now)
    people = users.by_ids(connection, {chain.leaf.user_id for chain in chains.values()})
    return [
        _delegation(
            chain, ended.get(id), whose.username if (whose := people.get(chain.leaf.user_id)) else None
        )
        for id in ids
        if (chain := chains.get(id)) is not None
    ]


def _delegation(chain: Chain, ended: Ending | None, username: str | None) -> DelegationItem:
    leaf = chain.leaf
    return DelegationItem(
        grant_id=leaf.id,
        root_id=leaf.root_id,
        user_id=leaf.user_id,
        client_id=leaf.client_id,
        state="active" if ended is None else ended.rule.removeprefix("delegation."),
        actions=list(leaf.details.actions),
        created_at=_at(leaf.created_at),
        created_by=leaf.created_by,
        not_before=_at(leaf.not_before),
        expires_at=_at(leaf.expires_at),
        authorization_details=json.loads(leaf.details_text),
        user=username,
        parent=leaf.path[-2] if len(leaf.path) > 1 else None,
        spent=_spent(chain),
        paused_at=instant(leaf.paused_at),
        task_id=chain.task_id,
    )


def _spent(chain: Chain) -> Spent | None:
    limits, leaf = chain.leaf.details.limits, chain.leaf
    if limits is None:
        return None
    return Spent(_money(limits.currency, leaf.total_spent), leaf.action_count, leaf.open_count)


def _money(currency: str, minor: int) -> Amount:
    money = Money(currency, minor)
    return Amount(money.currency, money.text)


def action(row: Row[Any]) -> ActionItem:
    """An action's row."""
    details = _details(row)
    amounts = _amounts(row, details)
    return ActionItem(
        id=row.id,
        delegation_id=row.delegation_id,
        root_id=row.root_id,
        client_id=row.client_id,
        resource_server_id=row.resource_server_id,
        action=row.action,
        state=row.state,
        details=details,
        issued_at=_at(row.issued_at),
        expires_at=_at(row.expires_at),
        amount=amounts.get("amount"),
        authorized=amounts.get("authorized"),
        captured=amounts.get("captured"),
        refunded=amounts.get("refunded"),
        reference=row.reference,
        task_id=row.task_id,
        approval_id=row.approval_id,
    )


def _details(row: Row[Any]) -> dict[str, object]:
    details = strict_json.parse(row.details, max_bytes=1_000_000)
    return details if isinstance(details, dict) else {}


def _currency(details: dict[str, object]) -> str | None:
    amount = details.get("amount")
    return str(amount["currency"]) if isinstance(amount, dict) else None


def _amounts(row: Row[Any], details: dict[str, object]) -> dict[str, Amount]:
    currency = _currency(details)
    if currency is None:
        return {}
    return {
        name: _money(currency, row._mapping[name])
        for name in ("amount", "authorized", "captured", "refunded")
    }


def redemptions(connection: Connection, rows: Sequence[Row[Any]]) -> list[RedemptionItem]:
    """Actions that were redeemed, each with its movements."""
    keys = [(row.root_id, row.id) for row in rows]
    query = select(_TRANSFERS).where(tuple_(_TRANSFERS.c.root_id, _TRANSFERS.c.action_id).in_(keys))
    moves = dict[str, list[Row[Any]]]()
    for move in connection.execute(query.order_by(_TRANSFERS.c.step)) if keys else ():
        moves.setdefault(move.action_id, []).append(move)
    return [_redemption(row, moves.get(row.id, [])) for row in rows]


def _redemption(row: Row[Any], moves: Sequence[Row[Any]]) -> RedemptionItem:
    details = _details(row)
    amounts, currency = _amounts(row, details), _currency(details)
    return RedemptionItem(
        id=row.id,
        delegation_id=row.delegation_id,
        client_id=row.client_id,
        resource_server_id=row.resource_server_id,
        action=row.action,
        state=row.state,
        transfers=[
            TransferItem(
                move.step, move.kind, _at(move.at), _money(currency, move.amount) if currency else None
            )
            for move in moves
        ],
        authorized=amounts.get("authorized"),
        captured=amounts.get("captured"),
        refunded=amounts.get("refunded"),
        reference=row.reference,
    )


def approvals(connection: Connection, rows: Sequence[Row[Any]], now: datetime) -> list[ApprovalItem]:
    """Approvals with what people said."""
    return [_approval(connection, ApprovalRecord(**row._mapping), now) for row in rows]


def _approval(connection: Connection, found: ApprovalRecord, now: datetime) -> ApprovalItem:
    answers = answers_to(connection, found.id)
    return ApprovalItem(
        id=found.id,
        state=found.state_at(now),
        delegation_id=found.delegation_id,
        user_id=found.user_id,
        client_id=found.client_id,
        resource_server_id=found.resource_server_id,
        action=found.action,
        details=json.loads(found.details),
        because=found.because,
        approver=list(found.seats),
        required=found.required,
        escalate_to=found.escalate_to,
        created_at=_at(found.created_at),
        expires_at=_at(found.expires_at),
        answers=[ApprovalAnswerItem(one.user_id, one.answer, _at(one.at)) for one in answers],
        escalated_at=instant(found.escalated_at),
        answered_at=instant(found.answered_at),
        task_id=found.task_id,
        action_id=found.action_id,
    )


def key(row: Any, now: datetime) -> KeyItem:
    """A signing key's row, or its record."""
    public = row.public_jwk if isinstance(row.public_jwk, dict) else json.loads(row.public_jwk)
    record = KeyRecord(row.kid, public, row.created_at, row.activates_at, row.retires_at, row.removed_at)
    return KeyItem(
        kid=record.kid,
        state=record.state(now),
        created_at=_at(record.created_at),
        activates_at=_at(record.activates_at),
        public_jwk=record.public_jwk,
        retires_at=instant(record.retires_at),
        removed_at=instant(record.removed_at),
    )


def event(found: Event) -> EventItem:
    """An audit event."""
    return EventItem(
        id=found.id,
        at=_at(found.at),
        event=found.event,
        data=found.data,
        client_id=found.client_id,
        delegation_id=found.delegation_id,
        action_id=found.action_id,
        rule=found.rule,
    )
