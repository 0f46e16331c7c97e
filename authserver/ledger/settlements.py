"""What a redemption does to an action: authorize or capture, then capture, void or refund.

Each step is one conditional update of the action's row, then the transfers. An update that finds another state than was
read raises `Conflict`: the use case begins anew and sees why. `chain` is that of the action's delegation.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache

from sqlalchemy import Connection, bindparam, select, update

from authserver.db import Conflict
from authserver.delegations.records import Chain
from authserver.ledger import actions, transfers
from authserver.ledger.actions import ActionRecord
from authserver.ledger.steps import Move, State
from authserver.schema import Action, table_of
from authserver.statements import Prepared

_ACTIONS = table_of(Action)


class NothingToRefund(Exception):
    """Less was captured for the same reference than is to be given back; `left` is how much, in minor units."""

    def __init__(self, left: int) -> None:
        super().__init__(left)
        self.left = left


def redeem(
    connection: Connection,
    action: ActionRecord,
    amount: int,
    *,
    capture: bool,
    settle_within: timedelta | None,
    chain: Chain,
    now: datetime,
) -> ActionRecord:
    """Use a reserved action with the amount that really applied; what is left of the reservation is released.

    Raises `Conflict`, or `NothingToRefund` for a credit.
    """
    if action.budget == "credit":
        _give_back(connection, action, amount, chain, now)
    # Only a debit has something to wait for.
    if capture or action.budget != "debit" or settle_within is None:
        settled = _change(connection, action, state="captured", captured=amount, ends_at=None)
        moves = [Move("settle", amount)]
    else:
        ends_at = now + settle_within
        settled = _change(connection, action, state="authorized", authorized=amount, ends_at=ends_at)
        moves = [Move("authorize", amount)]
    if action.budget == "debit":
        if rest := action.amount - amount:
            moves.append(Move("release", rest))
        transfers.move(connection, action, moves, chain, now)
    return settled


def capture(
    connection: Connection, action: ActionRecord, amount: int, chain: Chain, now: datetime
) -> ActionRecord:
    """Take `amount` of what was authorized; the rest is given back. Raises `Conflict`."""
    settled = _change(connection, action, state="captured", authorized=0, captured=amount, ends_at=None)
    moves = [Move("capture", amount)]
    if rest := action.authorized - amount:
        moves.append(Move("return", rest))
    transfers.move(connection, action, moves, chain, now)
    return settled


def void(connection: Connection, action: ActionRecord, chain: Chain, now: datetime) -> ActionRecord:
    """Let what was authorized go. Raises `Conflict`."""
    settled = _change(connection, action, state="voided", authorized=0, ends_at=None)
    transfers.move(connection, action, [Move("cancel", action.authorized)], chain, now)
    return settled


def refund(
    connection: Connection, action: ActionRecord, amount: int, chain: Chain, now: datetime
) -> ActionRecord:
    """Give back `amount` of what was captured; all of it given back is the state `refunded`. Raises `Conflict`."""
    refunded = action.refunded + amount
    state: State = "refunded" if refunded == action.captured else "captured"
    settled = _change(connection, action, state=state, refunded=refunded)
    transfers.move(connection, action, [Move("refund", amount)], chain, now)
    return settled


def _give_back(
    connection: Connection, credit: ActionRecord, amount: int, chain: Chain, now: datetime
) -> None:
    """Refund the captures of the same reference at the same place, oldest first, until `amount` is given back."""
    captured = (
        select(*actions.COLUMNS)
        .where(
            _ACTIONS.c.root_id == credit.root_id,
            _ACTIONS.c.delegation_id == credit.delegation_id,
            _ACTIONS.c.resource_server_id == credit.resource_server_id,
            _ACTIONS.c.reference == credit.reference,
            _ACTIONS.c.budget == "debit",
            _ACTIONS.c.state == "captured",
        )
        .order_by(_ACTIONS.c.issued_at, _ACTIONS.c.id)
        .with_for_update()
    )
    paid = [ActionRecord(*row) for row in connection.execute(captured)]
    left = sum(action.captured - action.refunded for action in paid)
    if amount > left:
        raise NothingToRefund(left)
    for action in paid:
        if part := min(amount, action.captured - action.refunded):
            refund(connection, action, part, chain, now)
            amount -= part


@cache
def _changing(columns: tuple[str, ...]) -> Prepared:
    return Prepared(
        update(_ACTIONS)
        .where(
            _ACTIONS.c.root_id == bindparam("root"),
            _ACTIONS.c.id == bindparam("action"),
            _ACTIONS.c.state == bindparam("was"),
            _ACTIONS.c.refunded == bindparam("given_back"),
        )
        .values({name: bindparam(f"new_{name}", type_=_ACTIONS.c[name].type) for name in columns})
    )


def _change(connection: Connection, action: ActionRecord, **changes: object) -> ActionRecord:
    # INVARIANT: an action is redeemed at most once and its state moves only along the state machine
    # (test_A72_one_token_redeemed_by_fifty_clients_at_once_is_used_once): the update is the check.
    before = {"root": action.root_id, "action": action.id, "was": action.state, "given_back": action.refunded}
    after = {f"new_{name}": value for name, value in changes.items()}
    if _changing(tuple(changes)).change(connection, before | after) != 1:
        raise Conflict
    return replace(action, **changes)  # type: ignore[arg-type]  # the columns' own names and types
