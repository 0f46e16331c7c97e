"""Workload assertions: which trust domain vouches for which workload (contract §3)."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from authserver.actors.fetcher import Fetcher
from authserver.actors.key_sources import (
    JWKS_USES,
    SPIFFE_JWKS_USES,
    BundleKeys,
    DiscoveredKeys,
    FileKeys,
    Freshness,
    KeySource,
    UrlKeys,
)
from authserver.config import ConfigurationError, TrustDomainSettings
from authserver.jose import (
    LEEWAY,
    TokenRefused,
    UnverifiedToken,
    VerificationKey,
    VerifiedTokens,
    key_for,
    numeric_date,
    read_compact,
    single_audience,
    text_claim,
    verify_with,
)
from authserver.values import NotAValue

FetcherFactory = Callable[[TrustDomainSettings], Fetcher]

# SPIFFE-ID §2.1 and §2.2: lower case, no empty or dot segments, no percent-encoding, no port, query or
# fragment. An ID without a path names a trust domain and no workload.
_SPIFFE_ID = re.compile(r"spiffe://([a-z0-9._-]{1,255})(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)+")
_SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:[a-z0-9.-]{1,253}:[a-z0-9.-]{1,253}")
_LONGEST_SUBJECT = 2048  # bytes of a SPIFFE ID (SPIFFE-ID §2.3)
_LONGEST_JTI = 256
# JWT-SVID §2.3 and OpenID Connect say `JWT` or nothing; every other kind of token says what it is (RFC 8725
# §3.11).
_ASSERTION_TYPES = frozenset({None, "jwt", "jose"})


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload that its trust domain vouches for.

    For SPIFFE `issuer` is `spiffe://` and the trust domain and `subject` the whole SPIFFE ID; for the other
    kinds they are the assertion's `iss` and `sub`. `jti` is there when `refuse_repeated_jti` says that it
    must not be seen twice.
    """

    trust_domain: str
    issuer: str
    subject: str
    jti: str | None
    issued_at: datetime | None
    expires_at: datetime
    refuse_repeated_jti: bool


@dataclass(frozen=True, slots=True)
class _Assertion:
    """The claims of an assertion that anything depends on."""

    workload: Workload
    audience: str
    not_before: datetime | None


@dataclass(frozen=True, slots=True)
class _TrustDomain:
    settings: TrustDomainSettings
    source: KeySource

    @property
    def issuer(self) -> str:
        return self.settings.issuer or f"spiffe://{self.settings.name}"


class TrustDomains:
    """The configured trust domains. One object serves all threads of a process."""

    def __init__(
        self,
        settings: Iterable[TrustDomainSettings],
        *,
        issuer: str,
        fetcher: FetcherFactory | None = None,
        remembered: int = 10_000,
    ) -> None:
        """`issuer` is this server's own; `fetcher` makes the one that a domain's keys are fetched with.

        Raises `ConfigurationError` where a domain's `ca_file` cannot be used.
        """
        self._own_issuer = issuer
        domains = [_TrustDomain(domain, _key_source(domain, fetcher or _fetcher_for)) for domain in settings]
        self._by_name = {domain.settings.name: domain for domain in domains}
        # A spiffe domain is found by SPIFFE IDs alone, the others by `iss` alone: none can speak for another.
        self._by_spiffe_id = {d.settings.name: d for d in domains if d.settings.kind == "spiffe"}
        self._by_issuer = {d.issuer: d for d in domains if d.settings.kind != "spiffe"}
        self._verified: VerifiedTokens[_Assertion] = VerifiedTokens(remembered)

    def verify(self, unverified_text: str, now: datetime, *, audiences: frozenset[str]) -> Workload:
        """The workload that a good assertion, for one of `audiences`, proves.

        The signature of a text that was good before is not computed again as long as its key is among the
        domain's current keys. Raises `TokenRefused`: the `jws.…` and `jwt.…` reasons of `jose`,
        `assertion.own_token`, `assertion.type`, `assertion.unknown_issuer`, `assertion.audience`,
        `assertion.subject`, `assertion.lifetime`, `assertion.expired`, `assertion.not_yet_valid`,
        `keys.unavailable`.
        """
        assertion = self._remembered(unverified_text, now)
        if assertion is not None:
            _check(assertion, self._by_name[assertion.workload.trust_domain].settings, now, audiences)
            return assertion.workload
        token = read_compact(unverified_text)
        domain = self._domain_of(token)
        assertion = _read_assertion(token, domain)
        _check(assertion, domain.settings, now, audiences)
        key = _verified_by(token, domain, now)
        self._verified.remember(unverified_text, key.identity, assertion.workload.expires_at, assertion)
        return assertion.workload

    def kind_of(self, name: str) -> str:
        """`spiffe`, `kubernetes` or `oidc`. Raises `KeyError` for a name that is not configured."""
        return self._by_name[name].settings.kind

    def issuer_of(self, name: str) -> str:
        """The `iss` of a trust domain's workloads, as `act` and `may_act` show it. Raises `KeyError`
        likewise.
        """
        return self._by_name[name].issuer

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the configured trust domains."""
        return tuple(self._by_name)

    def freshness(self, now: datetime) -> Mapping[str, Freshness]:
        """How old the keys of each trust domain are, for `/readyz` and the metrics."""
        return {name: domain.source.freshness(now) for name, domain in self._by_name.items()}

    def warm_up(self, now: datetime) -> None:
        """Read the keys of all trust domains, so that the first request need not. What fails is logged and
        tried again later.
        """
        for domain in self._by_name.values():
            try:
                domain.source.current(now)
            except TokenRefused:
                continue

    def _remembered(self, unverified_text: str, now: datetime) -> _Assertion | None:
        remembered = self._verified.recall(unverified_text, now)
        if remembered is None:
            return None
        key_identity, assertion = remembered
        if assertion is None:
            return None
        domain = self._by_name[assertion.workload.trust_domain]
        return assertion if key_identity in domain.source.current(now).identities else None

    def _domain_of(self, token: UnverifiedToken) -> _TrustDomain:
        """The domain whose keys must verify the token, by its `iss`, or by the SPIFFE ID where no `iss` is
        one of ours.
        """
        issuer = text_claim(token.claims, "iss", _LONGEST_SUBJECT)
        if issuer == self._own_issuer:
            raise TokenRefused("assertion.own_token")
        if _media_type(token.header.typ) not in _ASSERTION_TYPES:
            raise TokenRefused("assertion.type")
        domain = self._by_issuer.get(issuer or "")
        if domain is None:
            domain = self._by_spiffe_id.get(_spiffe_trust_domain(token.claims))
        if domain is None:
            raise TokenRefused("assertion.unknown_issuer")
        return domain


def parse_subject(unverified: object, kind: str, trust_domain: str) -> str:
    """Read the subject under which a workload of that trust domain is registered, as its assertions will say it.

    Raises `NotAValue` where no good assertion of the domain can have it.
    """
    if (
        not isinstance(unverified, str)
        or not 1 <= len(unverified) <= _LONGEST_SUBJECT
        or not unverified.isprintable()
    ):
        raise NotAValue("must be 1 to 2048 visible characters")
    if kind == "spiffe":
        spiffe_id = _SPIFFE_ID.fullmatch(unverified)
        if spiffe_id is None or spiffe_id[1] != trust_domain:
            raise NotAValue(f"must be a SPIFFE ID of its trust domain: spiffe://{trust_domain}/...")
    if kind == "kubernetes" and not _SERVICE_ACCOUNT.fullmatch(unverified):
        raise NotAValue("must be a service account: system:serviceaccount:NAMESPACE:NAME")
    return unverified


def _media_type(typ: str | None) -> str | None:
    # RFC 7515 §4.1.9: `application/` may be left out; media types have no letter case.
    return None if typ is None else typ.lower().removeprefix("application/")


def _spiffe_trust_domain(claims: Mapping[str, object]) -> str:
    match = _SPIFFE_ID.fullmatch(text_claim(claims, "sub", _LONGEST_SUBJECT) or "")
    if match is None:
        raise TokenRefused("assertion.unknown_issuer")
    return match[1]


def _read_assertion(token: UnverifiedToken, domain: _TrustDomain) -> _Assertion:
    claims, settings = token.claims, domain.settings
    expires_at = numeric_date(claims, "exp")
    if expires_at is None:
        raise TokenRefused("jwt.exp")
    issued_at = numeric_date(claims, "iat")
    # JWT-SVID §3 asks for `exp` only; the other kinds always say when they were issued.
    if issued_at is None and settings.kind != "spiffe":
        raise TokenRefused("jwt.iat")
    jti = text_claim(claims, "jti", _LONGEST_JTI)
    if jti is None and settings.refuse_repeated_jti:
        raise TokenRefused("jwt.jti")
    workload = Workload(
        settings.name,
        domain.issuer,
        _subject(claims, settings.kind),
        jti,
        issued_at,
        expires_at,
        settings.refuse_repeated_jti,
    )
    return _Assertion(workload, single_audience(claims), numeric_date(claims, "nbf"))


def _subject(claims: Mapping[str, object], kind: str) -> str:
    subject = text_claim(claims, "sub", _LONGEST_SUBJECT)
    if subject is None:
        raise TokenRefused("assertion.subject")
    if kind == "kubernetes" and not _SERVICE_ACCOUNT.fullmatch(subject):
        raise TokenRefused("assertion.subject")
    return subject


def _check(
    assertion: _Assertion, settings: TrustDomainSettings, now: datetime, audiences: frozenset[str]
) -> None:
    """What must hold at each presentation, remembered or not."""
    if assertion.audience not in audiences:
        raise TokenRefused("assertion.audience")
    workload = assertion.workload
    if now >= workload.expires_at + LEEWAY:
        raise TokenRefused("assertion.expired")
    for begin in (assertion.not_before, workload.issued_at):
        if begin is not None and begin > now + LEEWAY:
            raise TokenRefused("assertion.not_yet_valid")
    lifetime = workload.expires_at - (workload.issued_at or now)
    if lifetime > timedelta(seconds=settings.max_lifetime):
        raise TokenRefused("assertion.lifetime")


def _verified_by(token: UnverifiedToken, domain: _TrustDomain, now: datetime) -> VerificationKey:
    algorithms = domain.settings.algorithms
    try:
        key = key_for(token, domain.source.current(now).keys, algorithms)
    except TokenRefused as refused:
        if refused.reason != "jws.unknown_kid":
            raise
        key = key_for(token, domain.source.after_unknown_kid(now).keys, algorithms)
    verify_with(token, key)
    return key


def _fetcher_for(settings: TrustDomainSettings) -> Fetcher:
    try:
        return Fetcher(allow_private_network=settings.allow_private_network, ca_file=settings.ca_file)
    except OSError as error:
        raise ConfigurationError(
            f"trust_domains.{settings.name}.ca_file: takes a file of PEM certificates"
        ) from error


def _key_source(settings: TrustDomainSettings, fetcher: FetcherFactory) -> KeySource:
    uses = SPIFFE_JWKS_USES if settings.kind == "spiffe" else JWKS_USES
    refresh_after = timedelta(seconds=settings.refresh_after)
    stale_for = timedelta(seconds=settings.stale_for)
    if settings.jwks_file:
        return FileKeys(settings.name, settings.jwks_file, uses=uses, stale_for=stale_for)
    if settings.jwks_url:
        return UrlKeys(
            settings.name,
            fetcher(settings),
            settings.jwks_url,
            uses=uses,
            refresh_after=refresh_after,
            stale_for=stale_for,
        )
    if settings.bundle_endpoint_url:
        return BundleKeys(
            settings.name,
            fetcher(settings),
            settings.bundle_endpoint_url,
            refresh_after=refresh_after,
            stale_for=stale_for,
        )
    return DiscoveredKeys(
        settings.name,
        fetcher(settings),
        settings.issuer or "",
        refresh_after=refresh_after,
        stale_for=stale_for,
    )
