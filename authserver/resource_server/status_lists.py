"""Whether tokens were ended before their time, known without a call: status lists, kept and refreshed."""

import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from authserver import jose
from authserver.discovery import Issuer, IssuerUnavailable
from authserver.resource_server.action_token import StatusReference
from authserver.resource_server.keys import IssuerKeys
from authserver.resource_server.status_list import StatusList, read_status_list
from authserver.resource_server.waiting import WouldWait

log = structlog.get_logger()

LONGEST_AGE = timedelta(seconds=15)  # contract §7
_BETWEEN_TRIES = timedelta(seconds=1)
_IN_USE_FOR = timedelta(minutes=1)
_MOST_LISTS = 1_000


@dataclass(slots=True)
class _Kept:
    """One list as it was last had, if ever; when that was, and when it was last tried and last needed.

    `lock` is held by whoever fetches it, `trouble` is why that failed the last time.
    """

    list: StatusList | None = None
    etag: str | None = None
    confirmed_at: datetime | None = None
    tried_at: datetime | None = None
    used_at: datetime | None = None
    trouble: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class StatusLists:
    """The status lists of one issuer. Threads may share it."""

    def __init__(self, issuer: Issuer, keys: IssuerKeys, longest_age: timedelta = LONGEST_AGE) -> None:
        """An answer counts for `longest_age` at most, and never for longer than the list itself says (`ttl`)."""
        self._issuer, self._keys = issuer, keys
        self._longest_age = min(longest_age, LONGEST_AGE)
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()

    def check(
        self, status: StatusReference | None, now: datetime, *, fails_closed: bool, may_wait: bool = True
    ) -> None:
        """Go on unless the token was ended.

        Where nobody can tell, because the server cannot be reached or what it serves is no good: `fails_closed` says
        whether that is a no. If not, the last answer counts, however old, and no answer is a yes.
        Raises `jose.TokenRefused("token.ended")`, `IssuerUnavailable`, and `WouldWait` where the caller may not wait.
        """
        if status is None or not status.uri.startswith(f"{self._issuer.identifier}/"):
            raise jose.TokenRefused("token.status")  # a list elsewhere is not this issuer's to vouch by
        kept = self._kept.get(status.uri) or self._new(status.uri)
        kept.used_at = now
        if not self._is_fresh(kept, now):
            self._wait_for(status.uri, kept, now, may_wait=may_wait)
        if fails_closed and not self._is_fresh(kept, now):
            raise IssuerUnavailable("whether the token was ended cannot be known now")
        if kept.list is not None and kept.list.status(status.index):
            raise jose.TokenRefused("token.ended")

    def refresh(self, now: datetime) -> bool:
        """Fetch each list that is in use anew. For a thread of its own. False where none is in use any more."""
        in_use = False
        for uri, kept in list(self._kept.items()):
            if kept.used_at is None or abs(now - kept.used_at) > _IN_USE_FOR:
                continue
            in_use = True
            with kept.lock:
                self._fetch(uri, kept, now)
        return in_use

    def _new(self, uri: str) -> _Kept:
        with self._lock:
            while len(self._kept) >= _MOST_LISTS:
                del self._kept[next(iter(self._kept))]
            return self._kept.setdefault(uri, _Kept())

    def _is_fresh(self, kept: _Kept, now: datetime) -> bool:
        if kept.list is None or kept.confirmed_at is None or now >= kept.list.expires_at:
            return False
        return abs(now - kept.confirmed_at) <= min(self._longest_age, kept.list.ttl)

    def _wait_for(self, uri: str, kept: _Kept, now: datetime, *, may_wait: bool) -> None:
        if not self._may_be_tried(kept, now):
            return
        if not may_wait:
            raise WouldWait
        with kept.lock:
            if not self._is_fresh(kept, now) and self._may_be_tried(kept, now):
                self._fetch(uri, kept, now)

    @staticmethod
    def _may_be_tried(kept: _Kept, now: datetime) -> bool:
        return kept.tried_at is None or abs(now - kept.tried_at) >= _BETWEEN_TRIES

    def _fetch(self, uri: str, kept: _Kept, now: datetime) -> None:
        # A cache on the way is asked to look whether its copy still counts (RFC 9111 §5.2.1.4).
        headers = {"Accept": "application/statuslist+jwt", "Cache-Control": "no-cache"}
        if kept.etag is not None and kept.list is not None:
            headers["If-None-Match"] = kept.etag
        try:
            document = self._issuer.get(uri, headers)
            if document.body is not None:
                kept.list, kept.etag = self._read(document.body, uri, now), document.etag
            kept.confirmed_at, kept.trouble = now, None
        except (IssuerUnavailable, jose.TokenRefused) as error:
            if kept.trouble != str(error):  # once, not with every try
                log.warning("status_list.not_fetched", uri=uri, reason=str(error))
            kept.trouble = str(error)
        finally:
            kept.tried_at = now

    def _read(self, body: bytes, uri: str, now: datetime) -> StatusList:
        try:
            unverified = body.decode("ascii")
        except UnicodeDecodeError as error:
            raise jose.TokenRefused("jws.form") from error
        signed_by = jose.read_compact(unverified, max_bytes=len(body)).header.kid
        keys = self._keys.current(now, signed_by)
        return read_status_list(unverified, keys, issuer=self._issuer.identifier, uri=uri, now=now)
