"""The server's signing keys: `pending` until they sign, `active`, `retired` until nothing that they signed can live.

What a key may do follows from times alone, so that all processes agree without speaking to each other.
"""

import json
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from joserfc.jwk import ECKey
from sqlalchemy import Connection, Row, select, update

from authserver import jose
from authserver.clock import Clock
from authserver.db import Database
from authserver.schema import SigningKey, table_of
from authserver.tokens.sealing import Seal

_TABLE = table_of(SigningKey)
State = Literal["pending", "active", "retired", "removed"]
# How old a process's view of the keys may be; far below the shortest useful `publish_ahead`.
_VIEW_SECONDS = 2.0
# No machine's clock is as far behind as that.
_ANY_CLOCK = timedelta(days=1)


class UnknownKey(Exception):
    """There is no such key, or it is gone already."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One signing key as operators see it: never its private part."""

    kid: str
    public_jwk: dict[str, str]
    created_at: datetime
    activates_at: datetime
    retires_at: datetime | None
    removed_at: datetime | None

    def state(self, now: datetime) -> State:
        """What the key may do at `now`: published only, signing, published only, or gone."""
        if now < self.activates_at:
            return "pending"
        if self.retires_at is None or now < self.retires_at:
            return "active"
        return "retired" if self.removed_at is None or now < self.removed_at else "removed"


class SigningKeys:
    """The keys as one process sees them; read again from the database every few seconds."""

    def __init__(self, database: Database, seal: Seal, clock: Clock) -> None:
        self._database, self._seal, self._clock = database, seal, clock
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._records: tuple[KeyRecord, ...] = ()
        self._private: dict[str, jose.SigningKey] = {}
        self._public: dict[str, jose.VerificationKey] = {}

    def active(self) -> jose.SigningKey:
        """The key that signs now: of several, the one that became active last."""
        self._look()
        now = self._clock.now()
        signing = [record for record in self._records if record.state(now) == "active"]
        return self._private[max(signing, key=lambda record: (record.activates_at, record.kid)).kid]

    def published(self) -> tuple[jose.VerificationKey, ...]:
        """All keys with which something that is still alive may have been signed, or soon will be."""
        self._look()
        now = self._clock.now()
        return tuple(self._public[r.kid] for r in self._records if r.state(now) != "removed")

    def for_token(self, kid: str | None) -> tuple[jose.VerificationKey, ...]:
        """The published keys, looked up once more where `kid` is not among them: another process may have rotated."""
        keys = self.published()
        if kid is not None and all(key.kid != kid for key in keys):
            self._look(at_most_every=0.5)
            keys = self.published()
        return keys

    def jwks(self) -> dict[str, object]:
        """The public JSON Web Key Set (RFC 7517 §5)."""
        self._look()
        now = self._clock.now()
        return {"keys": [r.public_jwk for r in self._records if r.state(now) != "removed"]}

    def forget(self) -> None:
        """Read the keys anew at the next use."""
        self._read_at = float("-inf")

    def _look(self, at_most_every: float = _VIEW_SECONDS) -> None:
        if time.monotonic() - self._read_at < at_most_every:
            return
        with self._lock:
            if time.monotonic() - self._read_at < at_most_every:
                return
            rows = self._database.read(lambda connection: connection.execute(select(_TABLE)).all())
            self._private |= {r.kid: self._unsealed(r) for r in rows if r.kid not in self._private}
            self._public |= {
                r.kid: jose.VerificationKey(r.kid, ECKey.import_key(json.loads(r.public_jwk)))
                for r in rows
                if r.kid not in self._public
            }
            self._records = tuple(_record(row) for row in rows)
            self._read_at = time.monotonic()

    def _unsealed(self, row: Row[tuple[object, ...]]) -> jose.SigningKey:
        pem = self._seal.open(row.encrypted_private_key, purpose_of(row.kid))
        return jose.SigningKey(row.kid, ECKey.import_key(pem))


def purpose_of(kid: str) -> str:
    """What the private key is sealed for."""
    return f"signing-key:{kid}"


def list_keys(connection: Connection) -> tuple[KeyRecord, ...]:
    """All keys, oldest first."""
    rows = connection.execute(select(_TABLE).order_by(_TABLE.c.activates_at, _TABLE.c.kid))
    return tuple(_record(row) for row in rows)


def all_public(connection: Connection) -> tuple[jose.VerificationKey, ...]:
    """Every key that this server ever signed with, for what was signed long ago: heads of the audit's tree."""
    return tuple(_verification_key(record) for record in list_keys(connection))


def _verification_key(record: KeyRecord) -> jose.VerificationKey:
    return jose.VerificationKey(record.kid, ECKey.import_key(dict(record.public_jwk)))


def has_keys(connection: Connection) -> bool:
    """Whether any key was made yet."""
    return connection.scalar(select(_TABLE.c.kid).limit(1)) is not None


def ensure_key(connection: Connection, seal: Seal, now: datetime) -> None:
    """Make the first key, which signs at once, where there is none yet."""
    if not has_keys(connection):
        # Long ago, so that it signs at once on a machine whose clock is behind, too (F07).
        _make_key(connection, seal, now, activates_at=now - _ANY_CLOCK)


def rotate(
    connection: Connection, seal: Seal, now: datetime, *, publish_ahead: timedelta, longest_life: timedelta
) -> KeyRecord:
    """Make a new key, published now and signing after `publish_ahead`; the present ones stop signing then.

    They stay published for `longest_life` more, the longest that anything signed by them may live.
    """
    switch = now + publish_ahead
    connection.execute(
        update(_TABLE)
        .where((_TABLE.c.retires_at.is_(None)) | (_TABLE.c.retires_at > now))
        .values(retires_at=switch, removed_at=switch + longest_life)
    )
    return _make_key(connection, seal, now, activates_at=switch)


def revoke(connection: Connection, seal: Seal, kid: str, now: datetime) -> KeyRecord | None:
    """Take a key back at once: nothing that it signed is good any more, wherever keys are looked up.

    Where no key is left that signs, a new one is made that does; answers with it. Raises `UnknownKey`, also of a key
    that is gone already.
    """
    # Before now, for a machine whose clock is behind, too (F07).
    then = now - _ANY_CLOCK
    stands = (_TABLE.c.kid == kid) & (_TABLE.c.removed_at.is_(None) | (_TABLE.c.removed_at > now))
    over = {"activates_at": then, "retires_at": then, "removed_at": then}
    if connection.execute(update(_TABLE).where(stands).values(over)).rowcount != 1:
        raise UnknownKey
    if any(key.state(now) == "active" for key in list_keys(connection)):
        return None
    return _make_key(connection, seal, now, activates_at=then)


def _make_key(connection: Connection, seal: Seal, now: datetime, activates_at: datetime) -> KeyRecord:
    key = ECKey.generate_key("P-256", private=True)
    public = {name: str(value) for name, value in key.as_dict(private=False).items()}
    kid = jose.thumbprint(public)
    public_jwk = {"kid": kid, "use": "sig", "alg": "ES256"} | {n: public[n] for n in ("kty", "crv", "x", "y")}
    row = {
        "kid": kid,
        "public_jwk": json.dumps(public_jwk),
        "encrypted_private_key": seal.close(key.as_pem(private=True), purpose_of(kid)),
        "created_at": now,
        "activates_at": activates_at,
    }
    connection.execute(_TABLE.insert(), row)
    return KeyRecord(kid, public_jwk, now, activates_at, None, None)


def _record(row: Row[tuple[object, ...]]) -> KeyRecord:
    return KeyRecord(
        row.kid, json.loads(row.public_jwk), row.created_at, row.activates_at, row.retires_at, row.removed_at
    )
