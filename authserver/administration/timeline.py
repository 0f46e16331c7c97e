"""One delegation's whole life: who agreed to it, each step under it and what decided that, how it ended."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, or_, select

from authserver import my_agents
from authserver.accounts import users
from authserver.accounts.users import User
from authserver.delegations.records import Chain, load_chain
from authserver.delegations.standing import Kind, covering_targets
from authserver.errors import Refusal
from authserver.my_agents import Happened, Held, Seen
from authserver.schema import Revocation, table_of
from authserver.services import Services

_REVOCATIONS = table_of(Revocation)
MOST_IN_TREE = 200


@dataclass(frozen=True, slots=True)
class Revoked:
    """A revocation that covers the delegation; `target` is empty for `all`."""

    id: int
    kind: Kind
    target: str
    reason: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Life:
    """All of one delegation. `tree` is the whole hand-over from its root, each after the one above it."""

    chain: Chain
    held: Held
    user: User | None
    tree: Sequence[Held]
    seen: Sequence[Seen]
    revoked: Sequence[Revoked]
    steps: Sequence[Happened]
    older: int | None

    @property
    def tree_is_cut(self) -> bool:
        """Whether there may be more in the tree than is shown."""
        return len(self.tree) >= MOST_IN_TREE


def life(
    services: Services,
    connection: Connection,
    delegation_id: str,
    before: int | None,
    most: int,
    now: datetime,
) -> Life:
    """The delegation of that id, with up to `most` steps before the event `before`. Raises `Refusal` (404)."""
    chain = None if "\x00" in delegation_id else load_chain(connection, delegation_id, services.stored)
    if chain is None:
        raise Refusal("not_found", "there is no such delegation", "delegation.unknown", status=404)
    (held,) = my_agents.as_held(connection, [chain], now)
    root = Chain(chain.links[:1], chain.newest_revocation)
    steps = my_agents.history(connection, chain.leaf, before, most + 1)
    return Life(
        chain=chain,
        held=held,
        user=users.by_id(connection, chain.leaf.user_id),
        tree=my_agents.family(services, connection, root, now, MOST_IN_TREE),
        seen=my_agents.personal_data(connection, chain.leaf),
        revoked=tuple(revocations_of(connection, chain)),
        steps=steps[:most],
        older=steps[most - 1].event.id if len(steps) > most else None,
    )


def revocations_of(connection: Connection, chain: Chain) -> Iterator[Revoked]:
    """Every revocation that ended the delegation or one above it, the first one first; twenty at most."""
    covering = [
        and_(
            _REVOCATIONS.c.kind == kind,
            _REVOCATIONS.c.target == target,
            _REVOCATIONS.c.id > link.revocations_before,
        )
        for link in chain.links
        for kind, target in covering_targets(link)
    ]
    query = select(_REVOCATIONS).where(or_(*covering)).order_by(_REVOCATIONS.c.id).limit(20)
    for row in connection.execute(query):
        yield Revoked(row.id, row.kind, row.target, row.reason, row.revoked_by, row.revoked_at)
