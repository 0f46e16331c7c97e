"""What the authorization server answers an agent, read strictly into types whose `repr` shows no secret."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from authserver.discovery import IssuerUnavailable, text_in, violations_in
from authserver.dpop import ProofKey
from authserver.errors import Violation


@dataclass(frozen=True, slots=True)
class Delegation:
    """What a person allows the agent: the grant that names it, worthless without the agent's own assertion.

    `grant_id` is the agent's name for it, `details` the `agent_delegation` as granted (it may be narrower than what was
    asked), `expires_in` is in seconds from its receipt. Keep `grant` as you keep a password.
    """

    grant: str = field(repr=False)
    grant_id: str
    expires_in: int
    details: Mapping[str, object]

    @property
    def actions(self) -> frozenset[str]:
        """The actions that it allows."""
        actions = self.details.get("actions")
        return frozenset(map(str, actions)) if isinstance(actions, list) else frozenset()


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token for one action. `token_type` says how to present it, `expires_in` is in seconds from its receipt.

    `action` is the `agent_action` as granted; it may say more than was asked, such as the seller's registered name.
    `key` is the key that a `DPoP` token is bound to.
    """

    access_token: str = field(repr=False)
    token_type: str
    expires_in: int
    action_id: str
    action: Mapping[str, object]
    key: ProofKey | None = field(default=None, repr=False)

    def headers(self, method: str, url: str, *, now: datetime, nonce: str | None = None) -> dict[str, str]:
        """The headers of one request with this token: `nonce` is the last one that the resource server gave."""
        said = {"Authorization": f"{self.token_type} {self.access_token}"}
        if self.key is None:
            return said
        proof = self.key.proof(method, url, now=now, access_token=self.access_token, nonce=nonce)
        return said | {"DPoP": proof}


@dataclass(frozen=True, slots=True)
class Waiting:
    """Somebody has to approve first: `collect` comes back with the code until they have.

    `approval_uri` is where they answer, `interval` and `expires_in` are in seconds from its receipt. A request that was
    bound to a key is collected with the same one.
    """

    deferral_code: str = field(repr=False)
    approval_uri: str
    interval: int
    expires_in: int
    key: ProofKey | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """What a device shows its person (RFC 8628 §3.2): they open `verification_uri` and type `user_code`.

    `verification_uri_complete` has the code in it. `interval` and `expires_in` are in seconds.
    """

    device_code: str = field(repr=False)
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int
    interval: int


class ExchangeRefused(Exception):
    """The server said no. `error` is the code of RFC 6749, `violations` are all limits that were crossed.

    `access_denied` is a person's no, `expired_token` that nobody answered in time. `status` is the HTTP status; with
    503 the same request may be sent again under the same idempotency key.
    """

    def __init__(
        self, error: str, description: str, violations: tuple[Violation, ...] = (), status: int = 400
    ) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.violations = violations
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the server, whatever it says."""

    status: int
    body: Mapping[str, object] = field(repr=False)
    nonce: str | None
    retry_after: str | None

    @property
    def error(self) -> object:
        """The code of a refusal; None for a good answer."""
        return self.body.get("error")

    def refusal(self) -> ExchangeRefused:
        """What it refuses. Raises `IssuerUnavailable` where it says nothing of a known form."""
        try:
            error, description = text_in(self.body, "error"), text_in(self.body, "error_description")
            return ExchangeRefused(error, description, violations_in(self.body), self.status)
        except (KeyError, TypeError, ValueError) as error:
            raise _unknown(self.status) from error

    def issued(self, key: ProofKey | None) -> IssuedToken:
        """The token. Raises `ExchangeRefused`, `IssuerUnavailable`."""
        body = self._good(200)
        try:
            return IssuedToken(
                access_token=text_in(body, "access_token"),
                token_type=_token_type(body, key),
                expires_in=_seconds(body, "expires_in"),
                action_id=text_in(body, "action_id"),
                action=_single_details(body),
                key=key,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _unknown(self.status) from error

    def delegation(self) -> Delegation:
        """The grant (contract §5). Raises `ExchangeRefused`, `IssuerUnavailable`."""
        body = self._good(200)
        try:
            return Delegation(
                grant=text_in(body, "access_token"),
                grant_id=text_in(body, "grant_id"),
                expires_in=_seconds(body, "expires_in"),
                details=_single_details(body),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _unknown(self.status) from error

    def waiting(self, key: ProofKey | None) -> Waiting:
        """What to wait for (contract §8). Raises `IssuerUnavailable`."""
        try:
            return Waiting(
                deferral_code=text_in(self.body, "deferral_code"),
                approval_uri=text_in(self.body, "approval_uri"),
                interval=_seconds(self.body, "interval"),
                expires_in=_seconds(self.body, "expires_in"),
                key=key,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _unknown(self.status) from error

    def request_uri(self) -> str:
        """The reference of a pushed request (RFC 9126 §2.2). Raises `ExchangeRefused`, `IssuerUnavailable`."""
        body = self._good(201)
        try:
            return text_in(body, "request_uri")
        except TypeError as error:
            raise _unknown(self.status) from error

    def device_code(self) -> DeviceCode:
        """The codes of a device (RFC 8628 §3.2). Raises `ExchangeRefused`, `IssuerUnavailable`."""
        body = self._good(200)
        try:
            return DeviceCode(
                device_code=text_in(body, "device_code"),
                user_code=text_in(body, "user_code"),
                verification_uri=text_in(body, "verification_uri"),
                verification_uri_complete=text_in(body, "verification_uri_complete"),
                expires_in=_seconds(body, "expires_in"),
                interval=_seconds(body, "interval") if "interval" in body else 5,  # RFC 8628 §3.5
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _unknown(self.status) from error

    def ended_tokens(self) -> int:
        """How many live tokens the end of a task ended. Raises `ExchangeRefused`, `IssuerUnavailable`."""
        body = self._good(200)
        try:
            return _seconds(body, "tokens")
        except (KeyError, TypeError) as error:
            raise _unknown(self.status) from error

    def _good(self, status: int) -> Mapping[str, object]:
        if self.status != status:
            raise self.refusal()
        return self.body


def _unknown(status: int) -> IssuerUnavailable:
    return IssuerUnavailable(f"the server answered {status} in no known form")


def _token_type(body: Mapping[str, object], key: ProofKey | None) -> str:
    token_type = text_in(body, "token_type")
    # RFC 9449 §5: a token that was asked for with a proof, and is bound to nothing, is not what was asked for.
    if token_type != ("Bearer" if key is None else "DPoP"):
        raise ValueError("token_type")
    return token_type


def _seconds(body: Mapping[str, object], name: str) -> int:
    value = body[name]
    if type(value) is not int or value < 0:
        raise TypeError(name)
    return value


def _single_details(body: Mapping[str, object]) -> Mapping[str, object]:
    details = body["authorization_details"]
    if not isinstance(details, list) or len(details) != 1 or not isinstance(details[0], dict):
        raise TypeError("authorization_details")
    return details[0]
