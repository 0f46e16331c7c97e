"""Asking the server whether a token still stands (RFC 7662): the answer that knows of revocations."""

import asyncio
from collections.abc import Mapping

import httpx

from authserver.clock import Clock, SystemClock
from authserver.discovery import Issuer, IssuerUnavailable, json_object
from authserver.jose import TokenRefused
from authserver.resource_server.action_token import ActionToken, read_action_token
from authserver.resource_server.credentials import Credentials, credentials_of, header_of, parameters_of
from authserver.resource_server.rejections import ProofRequired


class Introspection:
    """Asks `issuer` as the resource server `client_id`, whose identifier is `audience`."""

    def __init__(
        self,
        issuer: str,
        audience: str,
        client_id: str | Credentials,
        client_secret: str | None = None,
        *,
        clock: Clock | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        """`client_id` and `client_secret` are the `id` and the secret that `resource-servers create` printed; or
        `PrivateKey(…)` or `AsWorkload(…)` stands in place of both.

        Raises `ValueError` where `issuer` is no https URL (http for loopback only).
        """
        self._issuer, self._audience = Issuer(issuer, http), audience
        self._credentials = credentials_of(client_id, client_secret)
        self._clock = clock or SystemClock()

    def introspect(self, unverified_token: str | ActionToken) -> ActionToken | None:
        """What the token allows at this moment; None where it is not active here, whatever the reason.

        Raises `IssuerUnavailable` where there is no answer, also where the credentials are refused; and `ProofRequired`
        for the bare text of a token that is bound to a key: its proof is checked by `Verifier.check`, whose
        `ActionToken` may be asked about.
        """
        text = unverified_token.text if isinstance(unverified_token, ActionToken) else unverified_token
        claims = self._ask(text)
        if claims.get("active") is not True:
            return None
        token = self._read(claims, text)
        if token is not None and token.jkt is not None and isinstance(unverified_token, str):
            raise ProofRequired("dpop.unchecked", "the token is bound to a key, and no proof was checked")
        return token

    async def introspect_async(self, unverified_token: str | ActionToken) -> ActionToken | None:
        """The same for an event loop, in a thread."""
        return await asyncio.to_thread(self.introspect, unverified_token)

    def _read(self, claims: Mapping[str, object], text: str) -> ActionToken | None:
        try:
            return read_action_token(
                claims,
                issuer=self._issuer.identifier,
                audience=self._audience,
                now=self._clock.now(),
                contains=self._issuer.metadata().datatypes or {},
                text=text,
            )
        except TokenRefused:
            return None  # it ended on the way, or it is for another place than this

    def _ask(self, unverified_token: str) -> dict[str, object]:
        url = self._issuer.metadata().introspection_endpoint
        form = {"token": unverified_token, **parameters_of(self._credentials, self._issuer.identifier)}
        try:
            answer = self._issuer.http.post(url, data=form, auth=header_of(self._credentials))
        except httpx.HTTPError as error:
            raise IssuerUnavailable(f"{url} cannot be reached: {type(error).__name__}") from error
        if answer.status_code != 200:
            raise IssuerUnavailable(f"{url} answered {answer.status_code}")
        return json_object(answer.content, url)
