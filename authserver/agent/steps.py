"""What an agent does at its server, as steps that do no input or output: `Agent` and `AsyncAgent` both walk them.

A step is asked for with `yield`, and its outcome comes back; so whether a thread or an event loop waits is decided in
one place, and what is retried, proven and read is written down once.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar, cast

from authserver.agent.answers import Answer
from authserver.agent.workload import is_jwt_svid
from authserver.discovery import IssuerUnavailable, ServerMetadata
from authserver.dpop import ProofKey

_TRIES = 4
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ReadMetadata:
    """What the server says of itself. Its outcome is `ServerMetadata`."""


@dataclass(frozen=True, slots=True)
class Assert:
    """The workload's assertion, as it is now. Its outcome is text."""


@dataclass(frozen=True, slots=True)
class Send:
    """A form to an endpoint. Its outcome is an `Answer`; it raises `IssuerUnavailable` where there is none."""

    url: str
    form: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    key: ProofKey | None = field(repr=False)
    nonce: str | None


@dataclass(frozen=True, slots=True)
class Pause:
    """So many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Tell:
    """Something that the program wants to know: it is called with it."""

    what: object
    whom: object


Step: TypeAlias = ReadMetadata | Assert | Send | Pause | Tell
Outcome: TypeAlias = ServerMetadata | Answer | str | None
_Result = TypeVar("_Result")
Steps: TypeAlias = Generator[Step, Outcome, _Result]


@dataclass(slots=True)
class Nonces:
    """The last DPoP nonce that the server gave (RFC 9449 §8)."""

    latest: str | None = None


@dataclass(frozen=True, slots=True)
class Sending:
    """One request as it is sent, however often: `form` has no assertion yet, it is asked for anew for each try.

    In an exchange the assertion is the actor's; elsewhere it authenticates the client. `repeats` says whether a request
    whose answer was lost is sent again: only where that does nothing twice.
    """

    url: str
    form: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    key: ProofKey | None = field(default=None, repr=False)
    is_exchange: bool = False
    client_id: str | None = None
    repeats: bool = False


def metadata() -> Steps[ServerMetadata]:
    """What the server says of itself."""
    return cast(ServerMetadata, (yield ReadMetadata()))


def sent(sending: Sending, nonces: Nonces) -> Steps[Answer]:
    """The server's answer: once more with its nonce where that is due, and again where none came or it is overloaded.

    Raises `IssuerUnavailable` where there is none in the end.
    """
    for tries_left in reversed(range(_TRIES if sending.repeats else 1)):
        pause = _FIRST_PAUSE_SECONDS * 2.0 ** (_TRIES - 1 - tries_left)
        try:
            answer = yield from _once(sending, nonces)
        except IssuerUnavailable:
            if not tries_left:
                raise
        else:
            if answer.status != 503 or not tries_left:
                return answer
            pause = _asked_pause(answer, pause)
        yield Pause(min(pause, _LONGEST_PAUSE_SECONDS))
    raise AssertionError("the last try returns or raises")


def _once(sending: Sending, nonces: Nonces) -> Steps[Answer]:
    answer = yield from _tried(sending, nonces)
    # RFC 9449 §8: it was not decided yet, so the same request comes again with the nonce.
    if answer.error == "use_dpop_nonce" and answer.nonce is not None:
        answer = yield from _tried(sending, nonces)
    return answer


def _tried(sending: Sending, nonces: Nonces) -> Steps[Answer]:
    assertion = cast(str, (yield Assert()))
    form = {**sending.form, **_identity(assertion, sending)}
    answer = cast(Answer, (yield Send(sending.url, form, sending.headers, sending.key, nonces.latest)))
    nonces.latest = answer.nonce or nonces.latest
    return answer


def _identity(assertion: str, sending: Sending) -> dict[str, str]:
    """The parameters that say who calls (contract §3)."""
    if sending.is_exchange:
        return {"actor_token": assertion, "actor_token_type": "urn:ietf:params:oauth:token-type:jwt"}
    kind = "jwt-spiffe" if is_jwt_svid(assertion) else "jwt-bearer"
    said = {
        "client_assertion": assertion,
        "client_assertion_type": f"urn:ietf:params:oauth:client-assertion-type:{kind}",
    }
    return said | ({} if sending.client_id is None else {"client_id": sending.client_id})


def _asked_pause(answer: Answer, otherwise: float) -> float:
    # RFC 9110 §10.2.3; a date is not worth reading for a pause of seconds.
    asked = answer.retry_after or ""
    return float(asked) if asked.isascii() and asked.isdigit() and len(asked) < 4 else otherwise
