"""How a resource server says who it is (contract §3): with a secret, with a key of its own, or as a workload."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol, TypeAlias
from urllib.parse import quote_plus

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from authserver import jose
from authserver.clock import Clock, SystemClock
from authserver.discovery import IssuerUnavailable, WorkloadUnknown

_TYPE = "urn:ietf:params:oauth:client-assertion-type:"
_LASTS = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """The `id` and the secret that `resource-servers create` printed, by `client_secret_basic`."""

    client_id: str
    client_secret: str = field(repr=False)


class PrivateKey:
    """The `id` that `resource-servers create --auth private_key_jwt --jwks …` printed, and the key whose public half
    was in that file.
    """

    def __init__(
        self, client_id: str, pem: bytes, *, kid: str | None = None, clock: Clock | None = None
    ) -> None:
        """`pem` is a P-256 private key without a password, `kid` its name in the JWK Set, by default its thumbprint.

        Raises `ValueError` where it is no such key.
        """
        try:
            key = ECKey.import_key(pem)
        except (JoseError, ValueError, TypeError) as error:
            raise ValueError("takes a P-256 private key in PEM") from error
        if key.curve_name != "P-256" or not key.is_private:
            raise ValueError("takes a P-256 private key in PEM")
        self.client_id, self._clock = client_id, clock or SystemClock()
        self._key = jose.SigningKey(kid or key.thumbprint(), key)

    def assertion(self, audience: str) -> str:
        """A new assertion for one request (RFC 7523 §3)."""
        now = self._clock.now()
        claims: dict[str, object] = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": audience,
            "jti": secrets.token_urlsafe(16),
            "iat": int(now.timestamp()),
            "exp": int((now + _LASTS).timestamp()),
        }
        return jose.sign(claims, key=self._key, typ="client-authentication+jwt")


class AssertionSource(Protocol):
    """Whoever has a workload's JWT-SVID: each of the sources of `authserver.agent` is one."""

    def assertion(self, audience: str) -> str:
        """A JWT-SVID for that audience that is good now. It may block. Raises `WorkloadUnknown`."""


@dataclass(frozen=True, slots=True)
class AsWorkload:
    """A resource server that was registered with `--auth jwt-spiffe --subject …`, by a JWT-SVID of its workload.

    `source` is such as `authserver.agent.SpiffeWorkloadApi()`, or a function without arguments.
    """

    source: AssertionSource | Callable[[], str]

    def assertion(self, audience: str) -> str:
        """The workload's JWT-SVID, asked for anew. Raises `WorkloadUnknown`."""
        return self.source() if callable(self.source) else self.source.assertion(audience)


Credentials: TypeAlias = ClientSecret | PrivateKey | AsWorkload


def credentials_of(client_id: str | Credentials, client_secret: str | None) -> Credentials:
    """What was given, as credentials. Raises `ValueError` for an id without its secret."""
    if not isinstance(client_id, str):
        if client_secret is not None:
            raise ValueError("takes a client_secret with a client_id, and credentials alone")
        return client_id
    if client_secret is None:
        raise ValueError("takes client_id and client_secret, or credentials such as PrivateKey(…)")
    return ClientSecret(client_id, client_secret)


def header_of(credentials: Credentials) -> httpx.Auth:
    """What a request says in its `Authorization` header, if that is how; else it says nothing there."""
    if not isinstance(credentials, ClientSecret):
        return httpx.Auth()
    # RFC 6749 §2.3.1: both are form-encoded before they are joined.
    return httpx.BasicAuth(quote_plus(credentials.client_id), quote_plus(credentials.client_secret))


def parameters_of(credentials: Credentials, issuer: str) -> Mapping[str, str]:
    """What a request says in its body otherwise: made anew for each, since an assertion may be good once.

    Raises `IssuerUnavailable` where there is no assertion to be had: nothing can be asked then.
    """
    if isinstance(credentials, ClientSecret):
        return {}
    kind = "jwt-bearer" if isinstance(credentials, PrivateKey) else "jwt-spiffe"
    try:
        assertion = credentials.assertion(issuer)
    except WorkloadUnknown as error:
        raise IssuerUnavailable(f"this resource server cannot say who it is: {error}") from error
    return {"client_assertion_type": f"{_TYPE}{kind}", "client_assertion": assertion}


def bearer_of(credentials: Credentials, issuer: str) -> Mapping[str, str]:
    """The same as a header, for requests whose body is no form. Raises `IssuerUnavailable`."""
    assertion = parameters_of(credentials, issuer).get("client_assertion")
    return {} if assertion is None else {"Authorization": f"Bearer {assertion}"}


async def parameters_of_async(credentials: Credentials, issuer: str) -> Mapping[str, str]:
    """The same for an event loop, which a source may not hold up."""
    if isinstance(credentials, AsWorkload):
        return await asyncio.to_thread(parameters_of, credentials, issuer)
    return parameters_of(credentials, issuer)
