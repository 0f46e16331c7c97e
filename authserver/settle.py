"""Settling: the one use of an action token, with what really happened (contract §7).

A resource server redeems a token; then it captures, voids or refunds what the redemption authorized.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Connection

from authserver import jose, strict_json
from authserver.actors.resource_servers import ResourceServer
from authserver.audit.events import Record
from authserver.db import Conflict, hold_off_revocations
from authserver.delegations.records import Chain, load_chain
from authserver.delegations.standing import ending
from authserver.errors import Refusal, Violation
from authserver.ledger import actions, idempotency, settlements
from authserver.ledger.actions import ActionRecord
from authserver.ledger.idempotency import Request
from authserver.ledger.reservations import release
from authserver.policy.catalogue import CatalogueEntry
from authserver.policy.decide import merchant_violations
from authserver.policy.details import ActionDetails, Merchant, stored_action
from authserver.services import Services
from authserver.values import Money

_FACTS = {"id": "merchants.ids", "category": "merchants.categories", "country": "merchants.countries"}
_SHOWN = _FACTS | {"name": "merchants.name"}


@dataclass(frozen=True, slots=True)
class Redemption:
    """What a resource server says when it redeems; left out, `amount` and `merchant` are the token's own."""

    unverified_token: str = field(repr=False)
    amount: Money | None
    merchant: Merchant | None
    capture: bool
    request: Request | None  # its Idempotency-Key and what it stands for


@dataclass(frozen=True, slots=True)
class Step:
    """A capture, void or refund of a redemption; `amount` left out is all that there is."""

    redemption_id: str
    amount: Money | None
    request: Request | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered, now and to every retry with the same key; `action` is what it is about."""

    status: int
    body: dict[str, object]
    action: ActionRecord | None = None


@dataclass(frozen=True, slots=True)
class _Used:
    """A token's action that the caller may settle, with everything that decides how."""

    action: ActionRecord
    details: ActionDetails
    chain: Chain
    entry: CatalogueEntry


def redeem(
    services: Services, redemption: Redemption, caller: ResourceServer, record: Record, now: datetime
) -> Answer:
    """Use a token, once. Raises `Refusal` (404, 409, 422) after which everything stands as before."""

    # Before the transaction: to verify may need the database, and nobody waits for one connection with another.
    jti = _jti(services, redemption.unverified_token, now)

    def settle(connection: Connection) -> Answer:
        used = _by_id(services, connection, jti, caller)
        _note(record, used.action)
        _unused(services, connection, used, now)
        if broken := _broken_facts(services, redemption.merchant, used):
            return _voided(services, connection, used, broken, record, now)
        amount = _actual(redemption.amount, used)
        _same_merchant(redemption.merchant, used)
        settled = _redeemed(services, connection, used, amount, redemption.capture, now)
        return _settled(connection, record, settled, used, amount, 201, now)

    return _once(services, "redemption", redemption.request, caller, settle, record, now)


def capture(services: Services, step: Step, caller: ResourceServer, record: Record, now: datetime) -> Answer:
    """Take what was authorized, or less. A revocation since then does not matter (contract §7), but is recorded."""

    def settle(connection: Connection) -> Answer:
        used = _redemption(services, connection, step.redemption_id, caller)
        _note(record, used.action)
        _authorized(used.action, now)
        if ended := ending(connection, used.chain, now, used.action.task_id):
            record.data["although"] = ended.rule
        amount = _money(step.amount, used, used.action.authorized)
        settled = settlements.capture(connection, used.action, amount, used.chain, now)
        return _settled(connection, record, settled, used, amount, 200, now)

    return _once(services, "capture", step.request, caller, settle, record, now)


def void(services: Services, step: Step, caller: ResourceServer, record: Record, now: datetime) -> Answer:
    """Let an authorization go; all that it held is given back."""

    def settle(connection: Connection) -> Answer:
        used = _redemption(services, connection, step.redemption_id, caller)
        _note(record, used.action)
        _authorized(used.action, now)
        held = used.action.authorized
        if _money(step.amount, used, held) != held:
            raise _conflict("an authorization is voided as a whole", "settle.amount")
        settled = settlements.void(connection, used.action, used.chain, now)
        return _settled(connection, record, settled, used, held, 200, now)

    return _once(services, "void", step.request, caller, settle, record, now)


def refund(services: Services, step: Step, caller: ResourceServer, record: Record, now: datetime) -> Answer:
    """Give back what was captured, or some of it; never more than that, however often."""

    def settle(connection: Connection) -> Answer:
        used = _redemption(services, connection, step.redemption_id, caller)
        _note(record, used.action)
        _in_state(used.action, "captured")
        if used.action.budget != "debit":
            raise _conflict("nothing was taken that could be given back", "settle.state")
        amount = _money(step.amount, used, used.action.captured - used.action.refunded)
        settled = settlements.refund(connection, used.action, amount, used.chain, now)
        return _settled(connection, record, settled, used, amount, 200, now)

    return _once(services, "refund", step.request, caller, settle, record, now)


def _once(
    services: Services,
    event: str,
    request: Request | None,
    caller: ResourceServer,
    settle: Callable[[Connection], Answer],
    record: Record,
    now: datetime,
) -> Answer:
    """Run `settle` in one transaction, or give the answer that the same key brought before."""
    party = f"resource_server:{caller.id}"

    def write(connection: Connection) -> Answer:
        record.reset(event)
        record.data["resource_server"] = caller.identifier
        hold_off_revocations(connection)
        if answered := _answered_before(connection, party, request):
            return answered
        try:
            answer = settle(connection)
        except Refusal:
            # The same request may have been settled by another process since the look above.
            if answered := _answered_before(connection, party, request):
                return answered
            raise
        if request is not None and answer.action is not None:
            idempotency.remember(
                connection,
                party,
                request,
                root_id=answer.action.root_id,
                action_id=answer.action.id,
                answer=strict_json.write([answer.status, answer.body]),
                expires_at=now + idempotency.KEPT,
            )
        return answer

    return services.database.write(write)


def _answered_before(connection: Connection, party: str, request: Request | None) -> Answer | None:
    earlier = None if request is None else idempotency.find(connection, party, request.key)
    if request is None or earlier is None:
        return None
    if earlier.request_hash != request.fingerprint or earlier.answer is None:
        raise Refusal(
            "idempotency_key_reused",
            "the Idempotency-Key stood for another request",
            rule="idempotency_key.reused",
            status=422,
        )
    status, body = json.loads(earlier.answer)
    return Answer(status, body)


def _jti(services: Services, unverified_token: str, now: datetime) -> str:
    try:
        return services.action_tokens.read(unverified_token, now)
    except jose.TokenRefused as error:
        raise _not_found("token") from error


def _redemption(
    services: Services, connection: Connection, redemption_id: str, caller: ResourceServer
) -> _Used:
    used = _by_id(services, connection, redemption_id, caller)
    if used.action.state == "reserved":
        raise _not_found("redemption")  # the token is there, and nobody has redeemed it
    return used


def _by_id(services: Services, connection: Connection, action_id: str, caller: ResourceServer) -> _Used:
    # A redemption has its action's id: there is one of each.
    action = actions.find(connection, action_id)
    if action is None or action.resource_server_id != caller.id:
        raise _not_found("action")
    chain = load_chain(connection, action.delegation_id, services.stored)
    entry = services.vocabulary.catalogue.get(action.action)
    if chain is None or entry is None:
        raise _not_found("action")
    return _Used(action, stored_action(action.details), chain, entry)


def _unused(services: Services, connection: Connection, used: _Used, now: datetime) -> None:
    action = used.action
    if not used.entry.redeem:
        raise _conflict("a token for this action is not redeemed", "settle.not_redeemable")
    if action.state in ("authorized", "captured", "refunded"):
        raise _conflict("the token was redeemed before", "settle.redeemed")
    ended = ending(connection, used.chain, now, action.task_id)
    if not action.is_live(now) or ended is not None:
        raise _conflict("the token has ended", ended.rule if ended else "settle.ended")


def _actual(said: Money | None, used: _Used) -> int:
    if used.details.amount is None:
        if said is not None:
            raise _conflict("this action has no amount", "settle.amount", said)
        return 0
    return _money(said, used, used.action.amount)


def _money(said: Money | None, used: _Used, most: int) -> int:
    """The amount of a step in minor units: what was said, or all there is. Raises `Refusal` (409) above `most`."""
    allowed = used.details.amount
    if allowed is None or most <= 0:
        raise _conflict("there is no amount left", "settle.amount")
    if said is None:
        return most
    if said.currency != allowed.currency:
        raise _conflict("the currency is another", "settle.currency", said, allowed)
    if said.minor > most:
        raise _conflict("the amount is too high", "settle.amount", said, Money(allowed.currency, most))
    return said.minor


def _redeemed(
    services: Services, connection: Connection, used: _Used, amount: int, capture: bool, now: datetime
) -> ActionRecord:
    try:
        return settlements.redeem(
            connection,
            used.action,
            amount,
            capture=capture,
            settle_within=used.entry.settle_within,
            chain=used.chain,
            now=now,
        )
    except settlements.NothingToRefund as error:
        raise _conflict("less was captured for this reference", "settle.refund") from error


def _broken_facts(services: Services, actual: Merchant | None, used: _Used) -> tuple[Violation, ...]:
    """Where the merchant that really applies is one that the delegation does not allow."""
    if actual is None:
        return ()
    granted = used.details.merchant or Merchant()
    facts = Merchant(
        actual.id or granted.id,
        actual.category or granted.category,
        actual.country or granted.country,
        granted.name,
    )
    delegated = [link.details for link in used.chain.links]
    return merchant_violations(delegated, replace(used.details, merchant=facts), services.vocabulary)


def _voided(
    services: Services,
    connection: Connection,
    used: _Used,
    violations: tuple[Violation, ...],
    record: Record,
    now: datetime,
) -> Answer:
    # An agent that lied about the merchant gains nothing: its token is spent, and what it held is given back.
    if not release(connection, used.action, "void", services.stored, now):
        raise Conflict
    refusal = Refusal(
        "merchant_facts",
        "the merchant is not one that the delegation allows; the reservation was voided",
        rule=violations[0].constraint,
        violations=violations,
        status=409,
        extra={"voided": True},
    )
    record.refused(connection, now, refusal)
    return Answer(409, refusal.to_problem(services.issuer), used.action)


def _same_merchant(actual: Merchant | None, used: _Used) -> None:
    granted = used.details.merchant
    if actual is None or granted is None:
        return
    said, had = actual.to_json(), granted.to_json()
    # What a person approved is exactly what was shown: a fact that was not shown cannot come in here (contract §8).
    shown = used.action.approval_id is not None
    differing = tuple(
        Violation(constraint, said[fact], had.get(fact))
        for fact, constraint in (_SHOWN if shown else _FACTS).items()
        if fact in said and (shown or fact in had) and said[fact] != had.get(fact)
    )
    if differing:
        raise Refusal(
            "merchant_facts",
            "the token was made for another merchant",
            rule=differing[0].constraint,
            violations=differing,
            status=409,
        )


def _authorized(action: ActionRecord, now: datetime) -> None:
    _in_state(action, "authorized")
    # What it held may be given back at any moment; the answer must not depend on whether it was.
    if action.ends_at is not None and now >= action.ends_at:
        raise _conflict("the authorization has expired", "settle.lapsed")


def _in_state(action: ActionRecord, state: str) -> None:
    if action.state != state:
        raise _conflict(f"the redemption is {action.state}, not {state}", "settle.state")


def _note(record: Record, action: ActionRecord) -> None:
    record.client_id, record.delegation_id, record.action_id = (
        action.client_id,
        action.delegation_id,
        action.id,
    )


def _settled(
    connection: Connection,
    record: Record,
    settled: ActionRecord,
    used: _Used,
    amount: int,
    status: int,
    now: datetime,
) -> Answer:
    body: dict[str, object] = {"redemption_id": settled.id, "state": settled.state, "action_id": settled.id}
    if used.details.amount is not None:
        body["amount"] = Money(used.details.amount.currency, amount).to_json()
    record.data |= body
    record.rule = "permit"
    record.permitted(connection, now)
    return Answer(status, body, settled)


def _not_found(what: str) -> Refusal:
    # Contract §7: one answer for what is unknown, forged, or another's, whatever the reason.
    return Refusal(
        "not_found", "there is nothing of this kind to settle here", rule=f"settle.no_{what}", status=404
    )


def _conflict(
    description: str, rule: str, said: Money | None = None, allowed: Money | None = None
) -> Refusal:
    crossed = () if said is None else (Violation("amount", said.to_json(), allowed and allowed.to_json()),)
    return Refusal("conflict", description, rule=rule, violations=crossed, status=409)
