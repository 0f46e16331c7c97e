"""Where the catalogue names groups that nobody is in: actions that nobody answers for, approvals that nobody gives."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, select

from authserver.approvals.asking import group_of
from authserver.policy.catalogue import Catalogue, CatalogueEntry
from authserver.schema import User, table_of

_USERS = table_of(User)
_MOST_USERS = 100_000


@dataclass(frozen=True, slots=True)
class Owned:
    """One action with who answers for it; `gaps` names the roles of the entry that nobody can play."""

    entry: CatalogueEntry
    members: Mapping[str, int]  # of each group that the entry names
    gaps: tuple[str, ...]


def owned(connection: Connection, catalogue: Catalogue) -> list[Owned]:
    """All actions of the catalogue, in its order."""
    members = _members(connection)
    return [_owned(entry, members) for entry in catalogue.entries.values()]


def _owned(entry: CatalogueEntry, members: Mapping[str, int]) -> Owned:
    approver, escalates = group_of(entry.approver), group_of(entry.escalate_to)
    needed = {
        "owner": (entry.owner, 1),
        "approver": (approver, entry.approvals),
        "escalate_to": (escalates, 1),
    }
    named = {group: members.get(group, 0) for group, _ in needed.values() if group is not None}
    gaps = [role for role, (group, least) in needed.items() if group is not None and named[group] < least]
    return Owned(entry, named, tuple(gaps))


def _members(connection: Connection) -> Counter[str]:
    """How many enabled users each group has."""
    in_groups = select(_USERS.c.groups).where(_USERS.c.disabled_at.is_(None), _USERS.c.groups != "[]")
    groups = connection.scalars(in_groups.limit(_MOST_USERS))
    return Counter(group for text in groups for group in set(json.loads(text)))
