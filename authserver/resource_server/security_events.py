"""Security Event Tokens as a resource server takes them: verified, and each taken once (RFC 8417, SSF 1.0 §4)."""

import asyncio
import hmac
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import structlog

from authserver import jose, strict_json
from authserver.discovery import IssuerUnavailable
from authserver.resource_server.answers import Answer
from authserver.resource_server.verifier import Verifier

log = structlog.get_logger()

MEDIA_TYPE = "application/secevent+jwt"
_TYPE = "secevent+jwt"
_ALGORITHMS = ("ES256",)
_CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
_SSF = "https://schemas.openid.net/secevent/ssf/event-type/"
SESSION_REVOKED = f"{_CAEP}session-revoked"
CLAIMS_CHANGE = f"{_CAEP}token-claims-change"
DELEGATION_REVOKED = "https://schemas.authserver/event/delegation-revoked"
_OF_THE_STREAM = frozenset({f"{_SSF}verification", f"{_SSF}stream-updated"})
MOST_BYTES = 16_384
_LONGEST = 2_048
_REMEMBERED = 10_000
# What a token is refused for, in the words of RFC 8935 §2.4.
_ERRORS = {
    "jws.unknown_kid": "invalid_key",
    "jws.key": "invalid_key",
    "jws.signature": "invalid_key",
    "set.iss": "invalid_issuer",
    "set.aud": "invalid_audience",
    "jwt.aud": "invalid_audience",
}


class SetRefused(Exception):
    """A Security Event Token that is no good here; `error` is the `err` of RFC 8935 §2.4, `str()` says why."""

    def __init__(self, error: str, reason: str) -> None:
        super().__init__(reason)
        self.error = error


@dataclass(frozen=True, slots=True)
class Heard:
    """What a verified token says: what happened (`type`, `event`), to whom (`subject`), and when."""

    jti: str
    type: str
    subject: Mapping[str, object]
    event: Mapping[str, object]
    at: datetime


class EventReceiver:
    """Takes Security Event Tokens for one resource server, so that its verifier knows at once what ended.

    Threads may share it. What it does not understand it does not need to: then the status lists are fetched at once.
    """

    def __init__(self, verifier: Verifier, authorization_header: str | None = None) -> None:
        """`authorization_header` is what the transmitter was given to send with each push, if it was."""
        self._verifier, self._authorization = verifier, authorization_header
        self._taken: dict[str, None] = {}
        self._lock = threading.Lock()

    def take(self, unverified_set: str) -> Heard | None:
        """Verify a token and act on it; None where it was taken before, which is no mistake (at least once).

        Raises `SetRefused`, and `IssuerUnavailable` where the issuer's keys cannot be had.
        """
        heard = self._read(unverified_set)
        if heard.jti in self._taken:
            return None
        self._act(heard)
        with self._lock:
            # Remembered when it was acted upon, so that one that failed is not lost.
            self._taken[heard.jti] = None
            while len(self._taken) > _REMEMBERED:
                del self._taken[next(iter(self._taken))]
        return heard

    # --- push (RFC 8935) ------------------------------------------------------------------------------------

    def answer(self, content_type: str | None, authorization: str | None, body: bytes) -> Answer:
        """The answer to one push (§2.2, §2.3)."""
        try:
            self._may_push(content_type, authorization, body)
            self.take(body.decode("ascii", "replace"))
        except SetRefused as refused:
            said = {"err": refused.error, "description": str(refused)}
            headers = {"Content-Type": "application/json", "Content-Language": "en"}
            return Answer(400, headers, strict_json.write(said).encode("ascii"))
        except IssuerUnavailable:
            return Answer(503, {"Retry-After": "5"}, b"")  # it is sent again
        return Answer(202, {}, b"")

    async def answer_async(self, content_type: str | None, authorization: str | None, body: bytes) -> Answer:
        """The same for an event loop, in a thread: keys may have to be fetched."""
        return await asyncio.to_thread(self.answer, content_type, authorization, body)

    def _may_push(self, content_type: str | None, authorization: str | None, body: bytes) -> None:
        expected = self._authorization
        if expected is not None and not hmac.compare_digest(
            (authorization or "").encode(), expected.encode()
        ):
            raise SetRefused("authentication_failed", "the Authorization header is another")
        if (content_type or "").partition(";")[0].strip().lower() != MEDIA_TYPE:
            raise SetRefused("invalid_request", f"takes {MEDIA_TYPE}")
        if len(body) > MOST_BYTES:
            raise SetRefused("invalid_request", "is too long")

    # --- what it says ---------------------------------------------------------------------------------------

    def _read(self, unverified_set: str) -> Heard:
        try:
            signed = jose.read_compact(unverified_set, max_bytes=MOST_BYTES)
            # RFC 8417 §4.5, SSF §4.1: no other JWT of the same issuer passes for one.
            if signed.header.typ != _TYPE:
                raise jose.TokenRefused("set.typ")
            jose.verify(signed, self._verifier.keys_for(signed.header.kid), _ALGORITHMS)
            return self._heard(signed.claims)
        except jose.TokenRefused as refused:
            raise SetRefused(_ERRORS.get(refused.reason, "invalid_request"), refused.reason) from refused

    def _heard(self, claims: Mapping[str, object]) -> Heard:
        if claims.get("iss") != self._verifier.issuer.identifier:
            raise jose.TokenRefused("set.iss")
        if jose.single_audience(claims) != self._verifier.audience:
            raise jose.TokenRefused("set.aud")
        if "exp" in claims or "sub" in claims:
            raise jose.TokenRefused("set.claims")
        jti, issued_at = jose.text_claim(claims, "jti", 256), jose.numeric_date(claims, "iat")
        if jti is None or issued_at is None or issued_at > self._verifier.now() + jose.LEEWAY:
            raise jose.TokenRefused("set.iat" if jti else "set.jti")
        type, event = _single_event(claims.get("events"))
        happened = jose.numeric_date(event, "event_timestamp")
        return Heard(jti, type, _subject(claims.get("sub_id")), event, min(happened or issued_at, issued_at))

    def _act(self, heard: Heard) -> None:
        endings, now = self._verifier.endings, self._verifier.now()
        grant_id, jti = _grant_of(heard.subject), _token_of(heard.subject, self._verifier.issuer.identifier)
        if heard.type in _OF_THE_STREAM:
            return
        log.info("security_event.taken", type=heard.type, grant=grant_id, jti=jti)
        active = _active_in(heard)
        if active is None or (grant_id is None and jti is None):
            self._whatever_it_is(heard)
        elif active:
            # The lists decide; only what was said here before no longer counts.
            endings.goes_on(grant_id or "", heard.at)
            self._verifier.refresh_soon()
        elif grant_id is not None:
            endings.grant(grant_id, heard.at, now)
        elif jti is not None:
            endings.token(jti, heard.at, now)

    def _whatever_it_is(self, heard: Heard) -> None:
        if _active_in(heard) is False and _is_everything(heard.subject, self._verifier.issuer.identifier):
            self._verifier.endings.everything(heard.at)
        self._verifier.refresh_soon()


def _single_event(unverified: object) -> tuple[str, Mapping[str, object]]:
    # SSF §4.2.1: one event.
    if not isinstance(unverified, dict) or len(unverified) != 1:
        raise jose.TokenRefused("set.events")
    ((type, event),) = unverified.items()
    if not isinstance(event, dict):
        raise jose.TokenRefused("set.events")
    return type, event


def _subject(unverified: object) -> Mapping[str, object]:
    if not isinstance(unverified, dict) or not isinstance(unverified.get("format"), str):
        raise jose.TokenRefused("set.sub_id")
    return unverified


def _active_in(heard: Heard) -> bool | None:
    """Whether the subject may still be let in; None where this event does not say."""
    if heard.type in (SESSION_REVOKED, DELEGATION_REVOKED):
        return False
    claims = heard.event.get("claims")
    active = claims.get("active") if heard.type == CLAIMS_CHANGE and isinstance(claims, dict) else None
    return active if isinstance(active, bool) else None


def _grant_of(subject: Mapping[str, object]) -> str | None:
    """The delegation that a subject names by its `grant_id` here: by itself, or as a complex subject's session."""
    if subject["format"] == "complex":
        session = subject.get("session")
        return _grant_of(session) if isinstance(session, dict) and "format" in session else None
    name = subject.get("id") if subject["format"] == "opaque" else None
    return name if isinstance(name, str) and len(name) <= _LONGEST else None


def _token_of(subject: Mapping[str, object], issuer: str) -> str | None:
    name = subject.get("jti")
    is_ours = subject["format"] == "jwt_id" and subject.get("iss") == issuer
    return name if is_ours and isinstance(name, str) and len(name) <= _LONGEST else None


def _is_everything(subject: Mapping[str, object], issuer: str) -> bool:
    # SSF §8.1.3.1: what a complex subject does not name may be anything.
    return subject == {"format": "complex", "tenant": {"format": "opaque", "id": issuer}}
