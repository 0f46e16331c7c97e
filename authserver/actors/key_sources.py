"""Where a trust domain's public keys come from, kept in memory for minutes.

A set that was fetched replaces the one before it, so a key that its domain removed is gone
(GHSA-675f-rq2r-jw82). While the domain cannot be reached the last good set serves on for a bounded time. No
token has a say in where keys are fetched.
"""

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import structlog

from authserver import strict_json
from authserver.actors.fetcher import MAX_BYTES, Fetcher, FetchFailed
from authserver.jose import KeysRefused, TokenRefused, VerificationKey, usable_keys

log = structlog.get_logger()

# RFC 7517 §4.2: a key without `use` may be used for signatures.
JWKS_USES: frozenset[str | None] = frozenset({"sig", None})
# SPIFFE Trust Domain and Bundle §4.2: only entries that say so are for JWT-SVIDs.
BUNDLE_USES: frozenset[str | None] = frozenset({"jwt-svid"})
# A JWKS of a SPIFFE trust domain is either of the two documents.
SPIFFE_JWKS_USES = JWKS_USES | BUNDLE_USES

BETWEEN_FETCHES = timedelta(seconds=10)
_LONGEST_BETWEEN_FETCHES = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class CurrentKeys:
    """The keys that count now, and when they were read."""

    keys: tuple[VerificationKey, ...]
    read_at: datetime
    identities: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "identities", frozenset(key.identity for key in self.keys))


@dataclass(frozen=True, slots=True)
class Freshness:
    """How old the keys of a trust domain are, for `/readyz` and the metrics.

    `usable`: tokens of the domain can be verified; `fresh`: the last attempt to read its keys succeeded.
    """

    usable: bool
    fresh: bool
    read_at: datetime | None
    keys: int

    @property
    def state(self) -> str:
        """`fresh`, `stale` or `unavailable`."""
        if not self.usable:
            return "unavailable"
        return "fresh" if self.fresh else "stale"


class KeySource(Protocol):
    """Whoever has the keys of a trust domain."""

    def current(self, now: datetime) -> CurrentKeys:
        """The keys that count at `now`, read anew when that is due. Raises
        `TokenRefused("keys.unavailable")`.
        """

    def after_unknown_kid(self, now: datetime) -> CurrentKeys:
        """The same when a token names a key that is not among them: read anew, but at most once in ten
        seconds.
        """

    def freshness(self, now: datetime) -> Freshness:
        """How things stand, without reading anything."""


class _Unreadable(Exception):
    """The keys could not be read; the message is a reason code."""


class _CachedKeys(ABC):
    """What all sources share: one reader at a time, and the last good set meanwhile and for a bounded time."""

    def __init__(
        self, name: str, uses: frozenset[str | None], refresh_after: timedelta, stale_for: timedelta
    ) -> None:
        self._name = name
        self._uses = uses
        self._refresh_after = refresh_after
        self._stale_for = stale_for
        self._current: CurrentKeys | None = None
        self._attempted_at: datetime | None = None
        self._pause = BETWEEN_FETCHES
        self._failed = False
        self._reading = threading.Lock()

    def current(self, now: datetime) -> CurrentKeys:
        if self._is_due(now):
            self._read(now)
        return self._usable(now)

    def after_unknown_kid(self, now: datetime) -> CurrentKeys:
        self._read(now)
        return self._usable(now)

    def freshness(self, now: datetime) -> Freshness:
        current = self._current
        if current is None or not self._may_serve(current, now):
            return Freshness(False, False, None if current is None else current.read_at, 0)
        return Freshness(bool(current.keys), not self._failed, current.read_at, len(current.keys))

    @abstractmethod
    def _document(self) -> object: ...

    def _is_due(self, now: datetime) -> bool:
        current = self._current
        return current is None or _apart(now, current.read_at) >= self._refresh_after

    def _may_serve(self, current: CurrentKeys, now: datetime) -> bool:
        return _apart(now, current.read_at) <= self._refresh_after + self._stale_for

    def _usable(self, now: datetime) -> CurrentKeys:
        current = self._current
        if current is None or not self._may_serve(current, now):
            raise TokenRefused("keys.unavailable")
        return current

    def _read(self, now: datetime) -> None:
        # While one thread reads, the others go on with what there is, or nothing: threads that waited for a domain
        # which is down would be missed by everybody else.
        if not self._reading.acquire(blocking=False):
            return
        try:
            if self._may_attempt(now):
                self._attempt(now)
        finally:
            self._reading.release()

    def _may_attempt(self, now: datetime) -> bool:
        return self._attempted_at is None or _apart(now, self._attempted_at) >= self._pause

    def _attempt(self, now: datetime) -> None:
        self._attempted_at = now
        try:
            self._current = CurrentKeys(usable_keys(self._document(), uses=self._uses), now)
        except (_Unreadable, FetchFailed, KeysRefused) as error:
            self._failed = True
            # A domain that is down for long must not cost every tenth second of a worker's time.
            longest = BETWEEN_FETCHES if self._current is None else _LONGEST_BETWEEN_FETCHES
            self._pause = min(self._pause * 2, longest)
            log.warning("keys.unreadable", trust_domain=self._name, reason=str(error))
        else:
            self._failed = False
            self._pause = BETWEEN_FETCHES
            log.info("keys.read", trust_domain=self._name, keys=len(self._current.keys))


class UrlKeys(_CachedKeys):
    """A JWK Set at a fixed URL."""

    def __init__(
        self,
        name: str,
        fetcher: Fetcher,
        url: str,
        *,
        uses: frozenset[str | None] = JWKS_USES,
        refresh_after: timedelta = timedelta(minutes=5),
        stale_for: timedelta = timedelta(hours=1),
    ) -> None:
        """`name` is the trust domain's, for the log; `uses` are the values of `use` that count."""
        super().__init__(name, uses, refresh_after, stale_for)
        self._fetcher = fetcher
        self._url = url

    def _document(self) -> object:
        return self._fetcher.get_json(self._url)


class BundleKeys(UrlKeys):
    """A SPIFFE bundle endpoint (profile `https_web`): the entries with `use: jwt-svid` count."""

    def __init__(
        self,
        name: str,
        fetcher: Fetcher,
        url: str,
        *,
        refresh_after: timedelta = timedelta(minutes=5),
        stale_for: timedelta = timedelta(hours=1),
    ) -> None:
        """`name` is the trust domain's, for the log."""
        super().__init__(
            name, fetcher, url, uses=BUNDLE_USES, refresh_after=refresh_after, stale_for=stale_for
        )


class DiscoveredKeys(_CachedKeys):
    """The JWK Set that an issuer's OpenID Connect discovery document names."""

    def __init__(
        self,
        name: str,
        fetcher: Fetcher,
        issuer: str,
        *,
        refresh_after: timedelta = timedelta(minutes=5),
        stale_for: timedelta = timedelta(hours=1),
    ) -> None:
        """`name` is the trust domain's, for the log; `issuer` is the configured one, which the document must
        repeat.
        """
        super().__init__(name, JWKS_USES, refresh_after, stale_for)
        self._fetcher = fetcher
        self._issuer = issuer

    def _document(self) -> object:
        # OpenID Connect Discovery §4.1 and §4.3.
        document = self._fetcher.get_json(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        if not isinstance(document, dict) or document.get("issuer") != self._issuer:
            raise _Unreadable("discovery.issuer")
        url = document.get("jwks_uri")
        if not isinstance(url, str):
            raise _Unreadable("discovery.jwks_uri")
        return self._fetcher.get_json(url)


class FileKeys(_CachedKeys):
    """A JWK Set in a file, read again when the file has changed. A broken one leaves the last good set for a
    while.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        uses: frozenset[str | None] = JWKS_USES,
        stale_for: timedelta = timedelta(hours=1),
    ) -> None:
        """`name` is the trust domain's, for the log; `uses` are the values of `use` that count."""
        super().__init__(name, uses, timedelta(0), stale_for)
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._broken_since: datetime | None = None

    def current(self, now: datetime) -> CurrentKeys:
        """The keys that the file holds now."""
        if self._file_version() != self._version:
            self._read(now)
        return self._usable(now)

    def after_unknown_kid(self, now: datetime) -> CurrentKeys:
        """The same: a file is looked at for every token as it is."""
        return self.current(now)

    def _may_attempt(self, now: datetime) -> bool:
        return self._file_version() != self._version

    def _attempt(self, now: datetime) -> None:
        version = self._file_version()
        super()._attempt(now)
        self._version = version
        self._broken_since = (self._broken_since or now) if self._failed else None

    def _may_serve(self, current: CurrentKeys, now: datetime) -> bool:
        return self._broken_since is None or _apart(now, self._broken_since) <= self._stale_for

    def _document(self) -> object:
        try:
            with self._path.open("rb") as file:
                return strict_json.parse(file.read(MAX_BYTES + 1), max_bytes=MAX_BYTES)
        except OSError as error:
            raise _Unreadable("file") from error
        except strict_json.JsonRefused as error:
            raise _Unreadable("json") from error

    def _file_version(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return status.st_mtime_ns, status.st_size, status.st_ino


def _apart(one: datetime, other: datetime) -> timedelta:
    # In both directions: after the clock was set back, keys "from the future" are read anew too.
    return abs(one - other)
