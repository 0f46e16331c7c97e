"""What attacks are made of: cases with names, changed rows, handed-on delegations, foreign grants, DPoP proofs."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey
from sqlalchemy import func, select, update

from authserver import jose, strict_json
from authserver.consent import Granted
from authserver.delegations.records import DelegationRecord, load_chain
from authserver.policy.delegation_details import parse_delegation
from authserver.schema import Base, Budget, Delegation, table_of
from authserver.tokens import grants
from authserver.tokens.grants import GrantClaims
from tests.world import World


def named(cases: Mapping[str, object]) -> list[Any]:
    """Cases for `pytest.mark.parametrize`, each with the name that reports show."""
    return [pytest.param(case, id=name) for name, case in cases.items()]


def change(world: World, row: type[Base], key: Mapping[str, object], **values: object) -> None:
    """Write to one row directly, as no request can."""
    table = table_of(row)
    statement = update(table).where(*(table.c[name] == value for name, value in key.items())).values(**values)
    assert world.services.database.write(lambda c: c.execute(statement)).rowcount == 1


def sizes(world: World) -> dict[str, int]:
    """How many rows each table has, but for what a running server writes by itself: it seals the audit."""

    def count(connection: Any) -> dict[str, int]:
        return {
            table.name: connection.scalar(select(func.count()).select_from(table))
            for table in Base.metadata.sorted_tables
            if table.name != "audit_batches"
        }

    return world.services.database.read(count)


def record_of(world: World, grant_id: str) -> DelegationRecord:
    """The delegation's row, with what it has spent."""
    chain = world.services.database.read(lambda c: load_chain(c, grant_id, world.services.stored))
    assert chain is not None
    return chain.leaf


def handed_on(
    world: World,
    parent: Granted,
    agent: str = "price-scout",
    details: dict[str, Any] | None = None,
    child_id: str | None = None,
) -> Granted:
    """A delegation below `parent` for another agent, written as rows: the same bounds unless `details` say others."""
    above = record_of(world, parent.grant_id)
    parsed = parent.details
    if details is not None:
        parsed = parse_delegation(strict_json.parse(json.dumps(details)), world.services.vocabulary)
    parsed = replace(parsed, not_before=parsed.not_before or above.not_before)
    child_id = child_id or secrets.token_urlsafe(16)
    delegation = {
        "root_id": above.root_id,
        "id": child_id,
        "path": " ".join((*above.path, child_id)),
        "user_id": above.user_id,
        "client_id": agent,
        "details": world.services.stored.write(parsed),
        "not_before": parsed.not_before,
        "expires_at": parsed.expires,
        "created_at": world.clock.now(),
        "created_by": above.client_id,
        "revocations_before": above.revocations_before,
    }
    budget = {
        "root_id": above.root_id,
        "delegation_id": child_id,
        "total_limit": parsed.limits.total.minor if parsed.limits else None,
        "count_limit": parsed.limits.count if parsed.limits else None,
    }

    def write(connection: Any) -> None:
        connection.execute(table_of(Delegation).insert(), delegation)
        connection.execute(table_of(Budget).insert(), budget)

    world.services.database.write(write)
    return Granted(child_id, grant_for(world, child_id), parsed)


def claims_for(world: World, grant_id: str) -> dict[str, Any]:
    """The claims of a delegation's grant, as its row has them."""
    record, services = record_of(world, grant_id), world.services
    claims = GrantClaims(
        issuer=services.issuer,
        subject=services.pairwise.user(record.user_id, record.client_id),
        client_id=record.client_id,
        may_act=services.actor(record.trust_domain, record.subject),
        grant_id=grant_id,
        issued_at=record.created_at,
        expires_at=record.expires_at,
        authorization_details=record.details.to_json(),
    )
    return claims.to_json()


def grant_for(world: World, grant_id: str, *, key: jose.SigningKey | None = None, **changes: object) -> str:
    """A grant that names a delegation: true and the server's own, unless another key or other claims are given."""
    signer = key or world.services.signing_keys.active()
    return jose.sign(claims_for(world, grant_id) | changes, key=signer, typ=grants.TYPE)


def foreign_key(kid: str = "foreign") -> jose.SigningKey:
    """A key that nobody knows, under a name that somebody may."""
    return jose.SigningKey(kid, ECKey.generate_key("P-256"))


def dpop_proof(world: World, key: ECKey, **changes: object) -> str:
    """A DPoP proof of `key` for the token endpoint, with a nonce of the server."""
    now = world.clock.now()
    claims: dict[str, object] = {
        "jti": secrets.token_urlsafe(16),
        "htm": "POST",
        "htu": world.services.token_endpoint,
        "iat": int(now.timestamp()),
        "nonce": world.services.nonces.make(now),
    }
    header = {"alg": "ES256", "typ": "dpop+jwt", "jwk": key.as_dict(private=False)}
    return jws.serialize_compact(header, json.dumps(claims | changes), key)
