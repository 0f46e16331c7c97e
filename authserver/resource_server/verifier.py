"""Action tokens verified offline: a signature, a few claims, a proof, a bit of a list, and no call to the server."""

import asyncio
import secrets
import threading
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Never

import httpx

from authserver import dpop, jose
from authserver.clock import Clock, SystemClock
from authserver.discovery import DatatypeTree, Issuer, IssuerUnavailable
from authserver.errors import Refusal
from authserver.resource_server.action_token import ActionToken, read_action_token
from authserver.resource_server.endings import Endings
from authserver.resource_server.keys import IssuerKeys
from authserver.resource_server.presented import Presented
from authserver.resource_server.refreshing import Refresher
from authserver.resource_server.rejections import (
    InvalidToken,
    NonceRequired,
    ProofRefused,
    ProofRequired,
)
from authserver.resource_server.status_lists import LONGEST_AGE, StatusLists
from authserver.resource_server.waiting import WouldWait

_TYPE = "at+jwt"  # RFC 9068 §2.1
_ALGORITHMS = ("ES256",)
_NONCE_LIFETIME = timedelta(minutes=5)
_EVERY_SECONDS = 0.75  # a revocation is known here within a second
# Where events tell of it sooner; should one be lost, this is how long it takes.
_WITH_EVENTS = timedelta(seconds=5)


class Verifier:
    """Verifies the tokens that `issuer` signed for `audience`, this resource server's identifier.

    One for each process; threads may share it. Keys and status lists are kept, and refreshed by a thread before they
    are old, so that verifying takes no call to the server. A revocation is known within a second; where the server
    cannot be reached, `fails_closed` says what that means for a token.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        *,
        clock: Clock | None = None,
        http: httpx.Client | None = None,
        datatypes: DatatypeTree | None = None,
        also_fail_closed: Collection[str] = (),
        longest_age: timedelta = LONGEST_AGE,
        nonce_secret: bytes | None = None,
        proofs: dpop.ReplayMemory | None = None,
    ) -> None:
        """`datatypes` says which kind of data contains which, where the server's own word is not to be taken for it.

        Stricter than the rule: `also_fail_closed` names further actions for which no answer is a no, `longest_age` is a
        shorter time than 15 s for which a status list is believed.
        Where several processes serve one address, give them the same `nonce_secret` (32 random bytes or more), and
        `proofs` that they share, such as `dpop.SharedSeenProofs`.
        Raises `ValueError` where `issuer` is no https URL (http for loopback only).
        """
        self.issuer, self.audience = Issuer(issuer, http), audience
        self._clock = clock or SystemClock()
        self._datatypes, self._also_closed = datatypes, frozenset(also_fail_closed)
        self._keys = IssuerKeys(self.issuer)
        self._status = StatusLists(self.issuer, self._keys, longest_age)
        self._nonces = dpop.Nonces(nonce_secret or secrets.token_bytes(32), _NONCE_LIFETIME)
        self._proofs = proofs or dpop.SeenProofs()
        self._proofs_wait = proofs is not None
        self._verified: jose.VerifiedTokens[ActionToken] = jose.VerifiedTokens()
        self._refresher = Refresher(self, _EVERY_SECONDS)
        self._refreshed_at: datetime | None = None
        self.endings = Endings()
        self.hears_events = False  # whether what ends is told here as soon as it does (`listening.Listener`)

    def verify(self, unverified_token: str) -> ActionToken:
        """What a bearer token allows.

        Raises `InvalidToken`, `ProofRequired` for one that is bound to a key, and `IssuerUnavailable` where the
        issuer's keys cannot be had, or nobody can say whether the token was ended and that is a no.
        """
        return self._check(Presented("Bearer", unverified_token, None, "", ""), may_wait=True)

    def check(self, presented: Presented) -> ActionToken:
        """What the token of a request allows, however it is presented.

        Raises what `verify` does, and `ProofRefused` or `NonceRequired` for what is wrong with a proof.
        """
        return self._check(presented, may_wait=True)

    async def check_async(self, presented: Presented) -> ActionToken:
        """The same for an event loop: what is known is checked at once, and only a fetch goes to a thread."""
        try:
            return self._check(presented, may_wait=False)
        except WouldWait:
            return await asyncio.to_thread(self._check, presented, may_wait=True)

    def next_nonce(self) -> str:
        """The nonce for the agent's next proof; goes into the `DPoP-Nonce` header of an answer (RFC 9449 §8.2)."""
        return self._nonces.make(self._clock.now())

    def fails_closed(self, token: ActionToken) -> bool:
        """Whether the token is refused where nobody can say if it was ended.

        So it is for whatever names an amount, a seller, personal data or an order. What names none of these goes on by
        the last answer, or without one, until the token expires. `also_fail_closed` adds to that, and takes nothing.
        """
        return not token.is_harmless or token.action in self._also_closed

    def refresh(self) -> bool:
        """Fetch keys and lists that will soon be old; the verifier's own thread calls it."""
        now = self._clock.now()
        self._keys.refresh(now)
        if self.hears_events and self._refreshed_at and abs(now - self._refreshed_at) < _WITH_EVENTS:
            return True
        self._refreshed_at = now
        return self._status.refresh(now)

    def refresh_soon(self) -> None:
        """Fetch all lists that are in use now, and let nobody wait for it: something ended that they know of."""
        threading.Thread(target=self._status.refresh, args=(self.now(),), daemon=True).start()

    def now(self) -> datetime:
        """What time it is, for this verifier."""
        return self._clock.now()

    def keys_for(self, kid: str | None) -> tuple[jose.VerificationKey, ...]:
        """The issuer's keys, fetched anew where `kid` is not among them. Raises `IssuerUnavailable`."""
        return self._keys.current(self.now(), kid)

    def _check(self, presented: Presented, *, may_wait: bool) -> ActionToken:
        now = self._clock.now()
        try:
            token = self._known(presented.token, now, may_wait) or self._read(presented.token, now, may_wait)
            if token.scheme != presented.scheme:
                _wrong_scheme(token)
            self.endings.check(token)
            self._status.check(token.status, now, fails_closed=self.fails_closed(token), may_wait=may_wait)
        except jose.TokenRefused as refused:
            raise InvalidToken(refused.reason).presented_by(presented.scheme) from refused
        self._refresher.keep()
        if presented.proof is not None:
            if self._proofs_wait and not may_wait:
                raise WouldWait
            self._check_proof(presented, presented.proof, token, now)
        return token

    def _known(self, unverified_token: str, now: datetime, may_wait: bool) -> ActionToken | None:
        remembered = self._verified.recall(unverified_token, now)
        if remembered is None:
            return None
        identity, token = remembered
        if token is None or now < token.issued_at - jose.LEEWAY:
            return None  # the clock was set back since
        keys = self._keys.current(now, may_wait=may_wait)
        return token if any(key.identity == identity for key in keys) else None

    def _read(self, unverified_token: str, now: datetime, may_wait: bool) -> ActionToken:
        signed = jose.read_compact(unverified_token)
        # RFC 8725 §3.11: a grant or a status list of the same issuer is no access token.
        if signed.header.typ != _TYPE:
            raise jose.TokenRefused("token.typ")
        keys = self._keys.current(now, signed.header.kid, may_wait=may_wait)
        key = jose.key_for(signed, keys, _ALGORITHMS)
        jose.verify_with(signed, key)
        token = read_action_token(
            signed.claims,
            issuer=self.issuer.identifier,
            audience=self.audience,
            now=now,
            contains=self.datatypes(),
            text=unverified_token,
        )
        self._verified.remember(unverified_token, key.identity, token.expires_at, token)
        return token

    def datatypes(self) -> DatatypeTree:
        """Which kind of personal data contains which others: as configured here, or else as the server says."""
        return self._datatypes if self._datatypes is not None else self.issuer.metadata().datatypes or {}

    def _check_proof(self, presented: Presented, proof: str, token: ActionToken, now: datetime) -> None:
        try:
            read = dpop.read_proof(
                proof,
                method=presented.method,
                url=presented.url,
                now=now,
                nonces=self._nonces,
                access_token=presented.token,
            )
            if read.jkt != token.jkt:
                raise InvalidToken("dpop.jkt", "the token is bound to another key").presented_by("DPoP")
            self._proofs.use(read, now)
        except Refusal as refusal:
            _refuse(refusal, self._nonces.make(now))


def _wrong_scheme(token: ActionToken) -> Never:
    if token.jkt is not None:
        raise ProofRequired("dpop.missing", "the token is bound to a key: send it as DPoP, with a proof")
    # RFC 9449 §7.1: a token that is bound to nothing proves nothing.
    raise InvalidToken("token.cnf", "the token is bound to no key").presented_by("DPoP")


def _refuse(refusal: Refusal, nonce: str) -> Never:
    if refusal.error == "use_dpop_nonce":
        rejected: ProofRefused | NonceRequired = NonceRequired(refusal.rule, refusal.description)
    elif refusal.status == 503:
        raise IssuerUnavailable(refusal.description) from refusal
    else:
        rejected = ProofRefused(refusal.rule, refusal.description)
    rejected.nonce = nonce
    raise rejected from refusal
