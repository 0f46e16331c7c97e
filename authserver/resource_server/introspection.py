"""Asking the server whether a token still stands (RFC 7662): the answer that knows of revocations."""

import httpx

from authserver.clock import Clock, SystemClock
from authserver.discovery import Issuer, IssuerUnavailable, json_object
from authserver.jose import TokenRefused
from authserver.resource_server.action_token import ActionToken, read_action_token
from authserver.resource_server.credentials import client_secret_basic


class Introspection:
    """Asks `issuer` as the resource server `client_id`, whose identifier is `audience`, with `client_secret_basic`."""

    def __init__(
        self,
        issuer: str,
        audience: str,
        client_id: str,
        client_secret: str,
        *,
        clock: Clock | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        """`client_id` and `client_secret` are the `id` and the secret that `resource-servers create` printed.

        Raises `ValueError` where `issuer` is no https URL (http for loopback only).
        """
        self._issuer, self._audience = Issuer(issuer, http), audience
        self._credentials = client_secret_basic(client_id, client_secret)
        self._clock = clock or SystemClock()

    def introspect(self, unverified_token: str) -> ActionToken | None:
        """What the token allows at this moment; None where it is not active here, whatever the reason.

        Raises `ProofRequired` for one that is bound to a key, and `IssuerUnavailable` where there is no answer, also
        where the credentials are refused.
        """
        claims = self._ask(unverified_token)
        if claims.get("active") is not True:
            return None
        try:
            return read_action_token(
                claims, issuer=self._issuer.identifier, audience=self._audience, now=self._clock.now()
            )
        except TokenRefused:
            return None  # it ended on the way, or it is for another place than this

    def _ask(self, unverified_token: str) -> dict[str, object]:
        url = self._issuer.metadata().introspection_endpoint
        try:
            answer = self._issuer.http.post(url, data={"token": unverified_token}, auth=self._credentials)
        except httpx.HTTPError as error:
            raise IssuerUnavailable(f"{url} cannot be reached: {type(error).__name__}") from error
        if answer.status_code != 200:
            raise IssuerUnavailable(f"{url} answered {answer.status_code}")
        return json_object(answer.content, url)
