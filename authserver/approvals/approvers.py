"""Who may answer: the user whose delegation it is, or a member of the group that is asked (threats A85)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, or_, select

from authserver.approvals.asking import USER, group_of
from authserver.approvals.records import ApprovalRecord
from authserver.schema import User, table_of

_USERS = table_of(User)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may be an approver: who they are and the groups they are in, as of this transaction."""

    user_id: str
    groups: frozenset[str]


Groups = Mapping[str, Sequence[str]]  # as the configuration has them: the user names of each


def person(connection: Connection, user_id: str, configured: Groups) -> Person | None:
    """The enabled user of that id, in the groups of their record and of the configuration."""
    query = select(_USERS.c.groups, _USERS.c.username)
    row = connection.execute(
        query.where(_USERS.c.user_id == user_id, _USERS.c.disabled_at.is_(None))
    ).one_or_none()
    if row is None:
        return None
    named = (name for name, members in configured.items() if row.username in members)
    return Person(user_id, frozenset((*json.loads(row.groups), *named)))


def may_answer(approval: ApprovalRecord, who: Person, now: datetime) -> bool:
    """Whether this person is asked, at first or since it escalated."""
    return any(_may_take(seat, approval, who, now) for seat in approval.seats)


def have_agreed(approval: ApprovalRecord, people: Sequence[Person], now: datetime) -> bool:
    """Whether every seat is taken by one of these people, and nobody takes two."""
    taken = dict[int, int]()  # the seat of each person who has one

    def seated(seat: int, tried: set[int]) -> bool:
        for number, who in enumerate(people):
            if number in tried or not _may_take(approval.seats[seat], approval, who, now):
                continue
            tried.add(number)
            # Whoever sits there may take another seat instead.
            if number not in taken or seated(taken[number], tried):
                taken[number] = seat
                return True
        return False

    return all(seated(seat, set()) for seat in range(len(approval.seats)))


def _may_take(seat: str, approval: ApprovalRecord, who: Person, now: datetime) -> bool:
    if _is_meant(seat, approval, who):
        return True
    asked_as_well = (step.to for step in approval.steps if now >= step.at)
    return seat == approval.seats[0] and any(_is_meant(to, approval, who) for to in asked_as_well)


def _is_meant(approver: str, approval: ApprovalRecord, who: Person) -> bool:
    if approver == USER:
        return who.user_id == approval.user_id
    # Nobody decides for a group about what was asked on their own behalf.
    return who.user_id != approval.user_id and group_of(approver) in who.groups


def people_asked(
    connection: Connection, approval: ApprovalRecord, approver: str, configured: Groups
) -> list[str]:
    """The ids of the enabled users whom `approver` means."""
    name = group_of(approver)
    if name is None:
        return [approval.user_id]
    members = configured.get(name, ())
    mentioned = select(_USERS.c.user_id, _USERS.c.username, _USERS.c.groups).where(
        _USERS.c.disabled_at.is_(None),
        _USERS.c.user_id != approval.user_id,
        or_(_USERS.c.groups.contains(f'"{name}"', autoescape=True), _USERS.c.username.in_(members)),
    )
    rows = connection.execute(mentioned.order_by(_USERS.c.user_id))
    return [row.user_id for row in rows if row.username in members or name in json.loads(row.groups)]
