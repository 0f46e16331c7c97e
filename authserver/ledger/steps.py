"""The ledger's state machine: which step leads where, and what each one moves.

    reserved -> authorized -> captured -> refunded
        |            |
        +-> voided   +-> voided
        +-> expired  +-> expired

`reserved` may also become `captured` at once. A transfer is one movement of one amount; every running total is the
sum of its transfers (`ledger.check`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

State = Literal["reserved", "authorized", "captured", "refunded", "voided", "expired"]
Kind = Literal[
    "reserve",
    "authorize",
    "settle",
    "capture",
    "release",
    "return",
    "void",
    "cancel",
    "expire",
    "lapse",
    "refund",
]


@dataclass(frozen=True, slots=True)
class Effect:
    """What one transfer of an amount does to each total, in times of that amount.

    To `count`, which limits the debits of a delegation, and to `open`, the reservations that still stand, in times of
    one.
    """

    reserved: int = 0
    authorized: int = 0
    captured: int = 0
    refunded: int = 0
    windows: int = 0
    count: int = 0
    open: int = 0


EFFECTS: Mapping[Kind, Effect] = {
    "reserve": Effect(reserved=1, windows=1, count=1, open=1),
    "authorize": Effect(reserved=-1, authorized=1, open=-1),
    "settle": Effect(reserved=-1, captured=1, open=-1),
    "capture": Effect(authorized=-1, captured=1),
    # What was held and not needed.
    "release": Effect(reserved=-1, windows=-1),
    "return": Effect(authorized=-1, windows=-1),
    # The end of what was never captured gives back all three (contract §4): of a reservation, of an authorization.
    "void": Effect(reserved=-1, windows=-1, count=-1, open=-1),
    "expire": Effect(reserved=-1, windows=-1, count=-1, open=-1),
    "cancel": Effect(authorized=-1, windows=-1, count=-1),
    "lapse": Effect(authorized=-1, windows=-1, count=-1),
    # A refund gives back `total` only.
    "refund": Effect(refunded=1),
}


@dataclass(frozen=True, slots=True)
class Move:
    """One transfer to be written: its kind and its amount in minor units."""

    kind: Kind
    amount: int
