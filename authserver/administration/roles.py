"""What each role may do."""

from collections.abc import Collection, Mapping
from enum import StrEnum

from authserver.errors import Refusal


class Role(StrEnum):
    """Who operates the server; each may do what the one before it may."""

    VIEWER = "viewer"
    REVOKER = "revoker"
    OPERATOR = "operator"
    OWNER = "owner"


class Permission(StrEnum):
    """What a role may do."""

    READ = "read"
    REVOKE = "revoke"
    CHANGE = "change"
    OWN = "own"


_LEAST: Mapping[Permission, Role] = {
    Permission.READ: Role.VIEWER,
    Permission.REVOKE: Role.REVOKER,
    Permission.CHANGE: Role.OPERATOR,
    Permission.OWN: Role.OWNER,
}


def require(role: Role, permission: Permission) -> None:
    """Raises `Refusal` (403) where the role may not."""
    if not _reaches(role, _LEAST[permission]):
        raise Refusal("access_denied", "the role does not allow this", rule="role", status=403)


def require_reach(role: Role, others: str | None) -> None:
    """Nobody gives a role above their own, nor changes somebody who has one. Raises `Refusal` (403)."""
    if others is not None and not _reaches(role, Role(others)):
        raise Refusal("access_denied", "that role is above the caller's own", rule="role.above", status=403)


def require_to_vouch(role: Role, groups: Collection[str]) -> None:
    """Who approves is an owner's to say: else one person could be two of those who have to agree.

    `groups` are those that somebody would be let into, or, where their account would be opened, that they are in.
    Raises `Refusal` (403).
    """
    if groups and role is not Role.OWNER:
        raise Refusal("access_denied", "who is in a group is an owner's to say", "role.groups", status=403)


def _reaches(role: Role, least: Role) -> bool:
    order = list(Role)
    return order.index(role) >= order.index(least)
