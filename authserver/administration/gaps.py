"""Where the catalogue names groups that nobody is in: actions that nobody answers for, approvals that nobody gives."""

import json
from collections import Counter
from collections.abc import Collection, Mapping
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


def owned(
    connection: Connection, catalogue: Catalogue, configured: Mapping[str, Collection[str]]
) -> list[Owned]:
    """All actions of the catalogue, in its order; `configured` are the groups of the configuration, by user name."""
    members = _members(connection, configured)
    return [_owned(entry, members) for entry in catalogue.entries.values()]


def _owned(entry: CatalogueEntry, members: Mapping[str, int]) -> Owned:
    escalates = [("escalation", group_of(step.to), 1) for step in entry.escalation]
    needed = [("owner", entry.owner, 1), ("approver", group_of(entry.approver), entry.approvals), *escalates]
    named = {group: members.get(group, 0) for _, group, _ in needed if group is not None}
    gaps = [role for role, group, least in needed if group is not None and named[group] < least]
    return Owned(entry, named, tuple(dict.fromkeys(gaps)))


def _members(connection: Connection, configured: Mapping[str, Collection[str]]) -> Counter[str]:
    """How many enabled users each group has."""
    by_name = {name for names in configured.values() for name in names}
    in_groups = (_USERS.c.groups != "[]") | _USERS.c.username.in_(sorted(by_name))
    people = select(_USERS.c.username, _USERS.c.groups).where(_USERS.c.disabled_at.is_(None), in_groups)
    counted = Counter[str]()
    for person in connection.execute(people.limit(_MOST_USERS)):
        by_configuration = {group for group, names in configured.items() if person.username in names}
        counted.update({*json.loads(person.groups), *by_configuration})
    return counted
