"""What a request presents: a token, the way it is presented, and the proof that goes with it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from authserver.resource_server.rejections import InvalidToken, ProofRefused, TokenMissing


@dataclass(frozen=True, slots=True)
class Presented:
    """A request with a token in its `Authorization` header. Nothing of it is verified.

    `scheme` is `Bearer` or `DPoP`, and only with the latter there is a `proof`. `url` is the request's own, as the
    agent knows it.
    """

    scheme: str
    token: str = field(repr=False)
    proof: str | None = field(repr=False)
    method: str
    url: str

    @classmethod
    def parse(cls, authorization: Sequence[str], proofs: Sequence[str], *, method: str, url: str) -> Self:
        """Read the `Authorization` and `DPoP` headers, each of them as often as it was sent.

        Raises `TokenMissing`, `InvalidToken` where there are several tokens, `ProofRefused` where there is not exactly
        one proof with the scheme DPoP (RFC 9449 §4.3).
        """
        if len(authorization) > 1:
            raise InvalidToken("token.several", "more than one token was sent")
        name, _, rest = (authorization[0] if authorization else "").partition(" ")
        scheme, token = {"bearer": "Bearer", "dpop": "DPoP"}.get(name.lower()), rest.strip(" ")
        if scheme is None or not token:
            raise TokenMissing("token.missing", "an action token is needed")
        if scheme == "Bearer":
            return cls(scheme, token, None, method, url)
        if len(proofs) != 1:
            raise ProofRefused(
                f"dpop.{'several' if proofs else 'missing'}", "exactly one DPoP proof is needed"
            )
        return cls(scheme, token, proofs[0], method, url)
