"""The upstream OpenID provider: its discovery document, its token endpoint, and what its ID tokens prove."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self
from urllib.parse import quote, urlencode

from authserver.actors.fetcher import Fetcher, FetchFailed
from authserver.actors.trust_domains import TrustDomains
from authserver.config import ConfigurationError, TrustDomainSettings, UpstreamSettings
from authserver.jose import TokenRefused, numeric_date, read_compact, text_claim

_KEPT = timedelta(minutes=10)
_LONGEST_ID_TOKEN = 86_400  # seconds


class ProviderFailed(Exception):
    """The provider could not be asked, or what it said proves nothing; `reason` is a short code for the audit."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Asking:
    """One sign-in under way: what goes with the browser, and what must come back in the ID token."""

    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    anew: bool  # whether the person shall prove it again, though the provider knows them


@dataclass(frozen=True, slots=True)
class Person:
    """Whom an ID token is about. `username` is None where it has no such claim, or an address that is not verified."""

    subject: str
    username: str | None
    name: str | None
    groups: tuple[str, ...] | None
    amr: tuple[str, ...]
    acr: str | None
    authenticated_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Metadata:
    authorization_endpoint: str
    token_endpoint: str
    says_iss: bool
    read_at: datetime


class OpenIdProvider:
    """The configured provider. One object serves all threads of a process."""

    def __init__(self, settings: UpstreamSettings, upstream: str, issuer: str) -> None:
        """`upstream` is the provider's issuer, `issuer` this server's. Raises `ConfigurationError`."""
        self._settings, self.issuer = settings, upstream
        self._redirect_uri = f"{issuer}/sign-in/upstream/callback"
        self._fetcher = _fetcher(settings)
        domain = TrustDomainSettings(
            name="upstream",
            kind="oidc",
            issuer=upstream,
            discovery=True,
            max_lifetime=_LONGEST_ID_TOKEN,
            allow_private_network=settings.allow_private_network,
            ca_file=settings.ca_file,
        )
        self._tokens = TrustDomains((domain,), issuer=issuer)
        self._metadata: _Metadata | None = None

    @classmethod
    def of(cls, settings: UpstreamSettings, issuer: str) -> Self | None:
        """The provider, or None where none is configured."""
        return None if settings.issuer is None else cls(settings, settings.issuer, issuer)

    def authorization_url(self, asking: Asking, now: datetime) -> str:
        """Where the browser goes (OpenID Connect Core §3.1.2.1, PKCE). Raises `ProviderFailed`."""
        challenge = hashlib.sha256(asking.verifier.encode()).digest()
        parameters = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": " ".join(self._settings.scopes),
            "state": asking.state,
            "nonce": asking.nonce,
            "code_challenge": base64.urlsafe_b64encode(challenge).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        if asking.anew:
            parameters |= {"prompt": "login", "max_age": "0"}
        endpoint = self._known(now).authorization_endpoint
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(parameters)}"

    def person(
        self, unverified_code: str, unverified_iss: str | None, asking: Asking, now: datetime
    ) -> Person:
        """Whom the code stands for. Raises `ProviderFailed`."""
        known = self._known(now)
        # RFC 9207 §2.4: another provider's answer is not taken to this one's token endpoint.
        if unverified_iss != self.issuer and (known.says_iss or unverified_iss is not None):
            raise ProviderFailed("iss")
        form = {
            "grant_type": "authorization_code",
            "code": unverified_code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": asking.verifier,
        }
        try:
            answer = self._fetcher.post_form(known.token_endpoint, form, self._credentials())
        except FetchFailed as error:
            raise ProviderFailed(f"token_{error.reason}") from error
        id_token = answer.get("id_token") if isinstance(answer, dict) else None
        if not isinstance(id_token, str):
            raise ProviderFailed("no_id_token")
        try:
            return self._read(id_token, asking, now)
        except TokenRefused as error:
            raise ProviderFailed(f"id_token_{error.reason}") from error

    def _read(self, unverified_text: str, asking: Asking, now: datetime) -> Person:
        """OpenID Connect Core §3.1.3.7."""
        client_id = self._settings.client_id
        workload = self._tokens.verify(unverified_text, now, audiences=frozenset({client_id}))
        claims = read_compact(unverified_text).claims
        nonce = text_claim(claims, "nonce", 256) or ""
        if not hmac.compare_digest(nonce.encode(), asking.nonce.encode()):
            raise ProviderFailed("nonce")
        if claims.get("azp", client_id) != client_id:
            raise ProviderFailed("azp")
        at = numeric_date(claims, "auth_time")
        if asking.anew and (at is None or at < now - timedelta(minutes=10)):
            raise ProviderFailed("auth_time")
        return Person(
            subject=workload.subject,
            username=self._username(claims),
            name=text_claim(claims, "name", 100) if _is_short(claims.get("name")) else None,
            groups=self._groups(claims),
            amr=_texts(claims.get("amr")),
            acr=text_claim(claims, "acr", 256),
            authenticated_at=at,
        )

    def _username(self, claims: Mapping[str, object]) -> str | None:
        name = self._settings.username_claim
        if name == "email" and claims.get("email_verified") is not True:
            return None
        value = claims.get(name)
        return value if isinstance(value, str) else None

    def _groups(self, claims: Mapping[str, object]) -> tuple[str, ...] | None:
        name = self._settings.groups_claim
        return None if name is None else _texts(claims.get(name))

    def _credentials(self) -> str:
        # RFC 6749 §2.3.1: both parts are encoded as in a form first.
        secret = self._settings.client_secret.get_secret_value()
        pair = f"{quote(self._settings.client_id, safe='')}:{quote(secret, safe='')}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    def _known(self, now: datetime) -> _Metadata:
        known = self._metadata
        if known is None or not timedelta() <= now - known.read_at < _KEPT:
            known = self._metadata = self._discovered(now)
        return known

    def _discovered(self, now: datetime) -> _Metadata:
        try:
            found = self._fetcher.get_json(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        except FetchFailed as error:
            raise ProviderFailed(f"discovery_{error.reason}") from error
        if not isinstance(found, dict) or found.get("issuer") != self.issuer:
            raise ProviderFailed("discovery_issuer")
        endpoints = [found.get(name) for name in ("authorization_endpoint", "token_endpoint")]
        authorization, token = (self._endpoint(one) for one in endpoints)
        says_iss = found.get("authorization_response_iss_parameter_supported") is True
        return _Metadata(authorization, token, says_iss, now)

    def _endpoint(self, unverified: object) -> str:
        schemes = ("https://", "http://") if self._settings.allow_private_network else ("https://",)
        if not isinstance(unverified, str) or not unverified.startswith(schemes) or "#" in unverified:
            raise ProviderFailed("discovery_endpoint")
        if not unverified.isascii() or not unverified.isprintable() or " " in unverified:
            raise ProviderFailed("discovery_endpoint")
        return unverified


def _fetcher(settings: UpstreamSettings) -> Fetcher:
    try:
        return Fetcher(allow_private_network=settings.allow_private_network, ca_file=settings.ca_file)
    except OSError as error:
        raise ConfigurationError("upstream.ca_file: takes a file of PEM certificates") from error


def _is_short(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 100


def _texts(value: object) -> tuple[str, ...]:
    entries = value if isinstance(value, list) else []
    return tuple(entry for entry in entries[:100] if isinstance(entry, str) and len(entry) <= 100)
