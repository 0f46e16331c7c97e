"""Resource servers: who validates and redeems action tokens."""

import hashlib
import json
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, literal, select, update
from sqlalchemy.exc import IntegrityError

from authserver.actors import AlreadyRegistered, NotRegistered
from authserver.policy.details import Merchant
from authserver.schema import Instant
from authserver.schema import ResourceServer as ResourceServerRow
from authserver.statements import Prepared

_servers = ResourceServerRow.__table__
_ALL = select(_servers)
_BY_ID = Prepared(_ALL.where(_servers.c.id == bindparam("id")))
_BY_IDENTIFIER = Prepared(_ALL.where(_servers.c.identifier == bindparam("identifier")))
_BY_SUBJECT = _ALL.where(_servers.c.subject == bindparam("subject"))


@dataclass(frozen=True, slots=True)
class ResourceServer:
    """A registered resource server. `identifier` is its RFC 8707 URI, compared as exact text.

    `merchant` are the facts on record where it is one merchant, `None` for a platform. `auth_method` is
    `client_secret_basic` (with `secret_hash`, SHA-256), `private_key_jwt` (with `jwks`, JSON text) or
    `jwt-spiffe` (with `subject`, a SPIFFE ID). A secret that was renewed is taken until `previous_secret_until`.
    """

    id: str
    identifier: str
    name: str
    merchant: Merchant | None
    auth_method: str
    secret_hash: bytes | None = field(repr=False)
    jwks: str | None
    subject: str | None
    created_at: datetime
    disabled_at: datetime | None
    previous_secret_hash: bytes | None = field(default=None, repr=False)
    previous_secret_until: datetime | None = None

    def secret_hashes(self, now: datetime) -> tuple[bytes, ...]:
        """The hashes of the secrets that are good at `now`: one, or two while a renewed one is still taken."""
        until = self.previous_secret_until
        previous = self.previous_secret_hash if until is not None and now < until else None
        return tuple(one for one in (self.secret_hash, previous) if one is not None)


def new_secret() -> tuple[str, bytes]:
    """A secret of 256 random bits, to be shown once, and the hash of it, to be kept."""
    secret = secrets.token_urlsafe(32)
    return secret, hash_secret(secret)


def hash_secret(secret: str) -> bytes:
    """What is kept of a secret. It has 256 random bits, so one round of SHA-256 is as good as many."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def find(connection: Connection, id: str) -> ResourceServer | None:
    """The resource server of that id, disabled or not."""
    row = _BY_ID.first(connection, {"id": id})
    return None if row is None else _resource_server(row)


def find_by_identifier(connection: Connection, identifier: str) -> ResourceServer | None:
    """The resource server of that identifier, disabled or not; compared as exact text (RFC 8707 §2)."""
    row = _BY_IDENTIFIER.first(connection, {"identifier": identifier})
    return None if row is None else _resource_server(row)


def find_by_subject(connection: Connection, subject: str) -> ResourceServer | None:
    """The resource server whose workload has that SPIFFE ID, disabled or not."""
    row = connection.execute(_BY_SUBJECT, {"subject": subject}).one_or_none()
    return None if row is None else _resource_server(row)


def list_all(connection: Connection) -> tuple[ResourceServer, ...]:
    """All resource servers, by identifier."""
    return tuple(_resource_server(row) for row in connection.execute(_ALL.order_by(_servers.c.identifier)))


def list_some(connection: Connection, after: str, most: int) -> tuple[ResourceServer, ...]:
    """Up to `most` resource servers by identifier, those after that one."""
    query = _ALL.where(_servers.c.identifier > after).order_by(_servers.c.identifier).limit(most)
    return tuple(_resource_server(row) for row in connection.execute(query))


def create(connection: Connection, server: ResourceServer) -> None:
    """Register a resource server. Raises `AlreadyRegistered` where its id, identifier or subject is taken;
    roll back then.
    """
    names = {"id": server.id, "identifier": server.identifier}
    times = {"created_at": server.created_at, "disabled_at": server.disabled_at}
    try:
        connection.execute(insert(ResourceServerRow), {**names, **_changeable(server), **times})
    except IntegrityError as error:
        raise AlreadyRegistered from error


def change(connection: Connection, server: ResourceServer) -> None:
    """Write all of a resource server that may change: never its id nor its identifier. Raises `NotRegistered`,
    and `AlreadyRegistered` where the subject is taken; roll back then.
    """
    of_server = update(ResourceServerRow).where(_servers.c.id == server.id)
    try:
        if connection.execute(of_server.values(_changeable(server))).rowcount != 1:
            raise NotRegistered
    except IntegrityError as error:
        raise AlreadyRegistered from error


def exchange_secret(connection: Connection, server: ResourceServer, instead_of: bytes | None) -> bool:
    """Write the secrets of `server`, where the hash of the present one is still `instead_of`; whether it was."""
    same = (_servers.c.id == server.id) & (_servers.c.secret_hash == instead_of)
    secrets_of_it = {
        "secret_hash": server.secret_hash,
        "previous_secret_hash": server.previous_secret_hash,
        "previous_secret_until": server.previous_secret_until,
    }
    return connection.execute(update(ResourceServerRow).where(same).values(secrets_of_it)).rowcount == 1


def disable(connection: Connection, id: str, now: datetime) -> None:
    """End what the resource server may do; the first time counts. Raises `NotRegistered`."""
    first = func.coalesce(_servers.c.disabled_at, literal(now, Instant()))
    changed = connection.execute(
        update(ResourceServerRow).where(_servers.c.id == id).values(disabled_at=first)
    )
    if changed.rowcount != 1:
        raise NotRegistered


def _changeable(server: ResourceServer) -> dict[str, object]:
    return {
        "name": server.name,
        "merchant": None if server.merchant is None else json.dumps(server.merchant.to_json()),
        "auth_method": server.auth_method,
        "secret_hash": server.secret_hash,
        "previous_secret_hash": server.previous_secret_hash,
        "previous_secret_until": server.previous_secret_until,
        "jwks": server.jwks,
        "subject": server.subject,
    }


def _resource_server(row: Row[Any]) -> ResourceServer:
    return ResourceServer(
        id=row.id,
        identifier=row.identifier,
        name=row.name,
        merchant=None if row.merchant is None else Merchant.parse(json.loads(row.merchant)),
        auth_method=row.auth_method,
        secret_hash=row.secret_hash,
        jwks=row.jwks,
        subject=row.subject,
        created_at=row.created_at,
        disabled_at=row.disabled_at,
        previous_secret_hash=row.previous_secret_hash,
        previous_secret_until=row.previous_secret_until,
    )
