"""Token Status List (draft-ietf-oauth-status-list): one bit for each action token, set when it must not be used."""

import secrets
import threading
import zlib
from base64 import urlsafe_b64encode
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select, update
from sqlalchemy import exists as sql_exists

from authserver.clock import Clock
from authserver.db import Conflict, Database
from authserver.jose import LEEWAY
from authserver.schema import Action, StatusListBlock, table_of

_TABLE = table_of(StatusListBlock)
CAPACITY = 131_072
_BLOCK = 512
_ACTIONS = table_of(Action)
# A process uses a block for so long, or it could hand out a place in a list of last month.
_BLOCK_LIFE = timedelta(hours=1)
# After so long without being the newest, a list gets no more tokens from any process.
_NO_MORE_TOKENS = 3 * _BLOCK_LIFE


@dataclass(frozen=True, slots=True)
class StatusIndex:
    """Where a token's bit is: the list and the position in it."""

    list_id: int
    index: int


class StatusIndexes:
    """Hands out indices, in random order within blocks that each process takes for itself.

    The order tells nothing of which tokens belong together (draft §12.4: unlinkability).
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._lock = threading.Lock()
        self._free: deque[StatusIndex] = deque()
        self._taken_at = clock.now()

    def take(self) -> StatusIndex:
        """An index that no other token has. Not to be called inside a transaction: it may need one of its own."""
        with self._lock:
            now = self._clock.now()
            if abs(now - self._taken_at) > _BLOCK_LIFE:
                self._free.clear()
            if not self._free:
                self._free.extend(self._database.write(self._next_block))
                self._taken_at = now
            return self._free.popleft()

    def put_back(self, unused: StatusIndex) -> None:
        """Return an index that no token was made for."""
        with self._lock:
            self._free.append(unused)

    def _next_block(self, connection: Connection) -> list[StatusIndex]:
        list_id, start = _reserve_block(connection, self._clock.now())
        block = [StatusIndex(list_id, index) for index in range(start, start + _BLOCK)]
        secrets.SystemRandom().shuffle(block)
        return block


def _reserve_block(connection: Connection, now: datetime) -> tuple[int, int]:
    newest = connection.execute(
        select(_TABLE.c.id, _TABLE.c.next_index).order_by(_TABLE.c.id.desc()).limit(1)
    ).first()
    if newest is None or newest.next_index + _BLOCK > CAPACITY:
        made = _TABLE.insert().values(next_index=_BLOCK, created_at=now).returning(_TABLE.c.id)
        return connection.execute(made).scalar_one(), 0
    taken = connection.execute(
        update(_TABLE)
        .where(_TABLE.c.id == newest.id, _TABLE.c.next_index == newest.next_index)
        .values(next_index=newest.next_index + _BLOCK)
    )
    if taken.rowcount != 1:
        raise Conflict
    return newest.id, newest.next_index


def exists(connection: Connection, list_id: int) -> bool:
    """Whether there is such a list."""
    return connection.scalar(select(_TABLE.c.id).where(_TABLE.c.id == list_id)) is not None


def retire(connection: Connection, now: datetime, most: int) -> int:
    """Take away lists that nobody can need: full for hours, and with no token that could still be accepted.

    At most so many; returns how many. The tokens of such a list have expired, so that nothing refers to it.
    """
    newer = _TABLE.alias()
    followed = sql_exists().where(newer.c.id > _TABLE.c.id, newer.c.created_at < now - _NO_MORE_TOKENS)
    live = sql_exists().where(_ACTIONS.c.status_list == _TABLE.c.id, _ACTIONS.c.expires_at > now - LEEWAY)
    due = connection.scalars(select(_TABLE.c.id).where(followed, ~live).limit(most)).all()
    if not due:
        return 0
    return connection.execute(delete(_TABLE).where(_TABLE.c.id.in_(due))).rowcount


def encode(ended: Iterable[int]) -> str:
    """The `lst` member: one bit a token, least significant bit first, zlib, base64url (draft §4.1)."""
    bits = bytearray(CAPACITY // 8)
    for index in ended:
        bits[index >> 3] |= 1 << (index & 7)
    return urlsafe_b64encode(zlib.compress(bytes(bits), 9)).rstrip(b"=").decode()
