"""The keys with which an issuer's tokens verify, kept so that verifying needs no network."""

import threading
from datetime import datetime, timedelta

import structlog

from authserver.discovery import Issuer, IssuerUnavailable
from authserver.jose import KeysRefused, VerificationKey, usable_keys
from authserver.resource_server.waiting import WouldWait

log = structlog.get_logger()

_REFRESH_EARLY = timedelta(minutes=4)  # in the background, so that no request waits for it
_REFRESH_AFTER = timedelta(minutes=5)  # a key that the issuer took back is believed for so long at most
_STALE_FOR = timedelta(hours=1)  # while the issuer cannot be reached
_BETWEEN_FETCHES = timedelta(seconds=10)  # whatever kids strangers make up
_USES = frozenset({None, "sig"})


class IssuerKeys:
    """The issuer's JWK Set. Threads may share it."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._keys: tuple[VerificationKey, ...] = ()
        self._fetched_at: datetime | None = None
        self._tried_at: datetime | None = None
        self._lock = threading.Lock()

    def current(
        self, now: datetime, kid: str | None = None, *, may_wait: bool = True
    ) -> tuple[VerificationKey, ...]:
        """The keys that count now; fetched anew where they are old, or `kid` is not among them.

        Raises `IssuerUnavailable` where none are known, or those known are older than an hour; `WouldWait` where they
        must be fetched and the caller may not wait.
        """
        if self._is_due(now, kid, _REFRESH_AFTER):
            if not may_wait:
                raise WouldWait
            with self._lock:
                if self._is_due(now, kid, _REFRESH_AFTER):
                    self._fetch(now)
        if self._fetched_at is None or now - self._fetched_at > _STALE_FOR:
            raise IssuerUnavailable("the issuer's keys cannot be had")
        return self._keys

    def refresh(self, now: datetime) -> None:
        """Fetch them anew where they will soon be old. For a thread of its own: nobody waits for it."""
        if self._fetched_at is not None and self._is_due(now, None, _REFRESH_EARLY):
            self._fetch(now)

    def _is_due(self, now: datetime, kid: str | None, after: timedelta) -> bool:
        # A clock that was set back tells no age: then they are fetched, too.
        if self._tried_at is not None and abs(now - self._tried_at) < _BETWEEN_FETCHES:
            return False
        if self._fetched_at is None or abs(now - self._fetched_at) > after:
            return True
        return kid is not None and all(key.kid != kid for key in self._keys)

    def _fetch(self, now: datetime) -> None:
        try:
            if self._fetched_at is not None:
                self._issuer.read_again()  # which tokens are for one use may change, too
            document = self._issuer.get_json(self._issuer.metadata().jwks_uri)
            self._keys, self._fetched_at = usable_keys(document, uses=_USES), now
        except (IssuerUnavailable, KeysRefused) as error:
            log.warning("issuer_keys.not_fetched", issuer=self._issuer.identifier, reason=str(error))
        finally:
            self._tried_at = now
