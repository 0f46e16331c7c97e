"""An OpenID provider over real HTTP, with one person at a time; it can be told to lie."""

import base64
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlencode

from flask import Flask, Response, jsonify, redirect, request
from joserfc.jwk import ECKey
from werkzeug.serving import make_server

from authserver import jose
from tests.listening import listening

CLIENT, SECRET = "authserver:1", "geheim +&%/"


@dataclass
class Provider:
    """What it is, and what it does wrong."""

    url: str
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256"))
    claims: dict[str, Any] = field(
        default_factory=lambda: {"sub": "u-1", "email": "ada", "email_verified": True, "name": "Ada L."}
    )
    wrong: dict[str, Any] = field(
        default_factory=dict
    )  # claims of the ID token that are not what they should be
    answer: dict[str, str] = field(default_factory=dict)  # parameters of the answer likewise
    asked: list[dict[str, str]] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    stranger: bool = False  # whether another's key signs

    def settings(self, **changes: Any) -> dict[str, Any]:
        """The configuration of a server that people sign in to with it."""
        told = {
            "issuer": self.url,
            "client_id": CLIENT,
            "client_secret": SECRET,
            "label": "Example Login",
            "allow_private_network": True,
        }
        return told | changes

    def id_token(self, asked: dict[str, str]) -> str:
        """What it says about the person."""
        now = int(self.now().timestamp())
        claims = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        claims |= {"auth_time": now, "amr": ["otp"], "acr": "gold"} | self.claims | self.wrong
        key = ECKey.generate_key("P-256") if self.stranger else self.key
        stated = {name: value for name, value in claims.items() if value is not None}
        return jose.sign(stated, key=jose.SigningKey(self.key.thumbprint(), key), typ="JWT")


@contextmanager
def running_provider() -> Iterator[Provider]:
    """Start one on a free port."""
    app = Flask("provider")
    server = make_server("127.0.0.1", 0, app, threaded=True)
    provider = Provider(f"http://127.0.0.1:{server.server_port}")
    _routes(app, provider)
    with listening(server):
        yield provider


def _routes(app: Flask, provider: Provider) -> None:
    @app.get("/.well-known/openid-configuration")
    def discovery() -> Response:
        return jsonify(
            issuer=provider.url,
            authorization_endpoint=f"{provider.url}/authorize",
            token_endpoint=f"{provider.url}/token",
            jwks_uri=f"{provider.url}/jwks",
            authorization_response_iss_parameter_supported=True,
        )

    @app.get("/jwks")
    def jwks() -> Response:
        kid = provider.key.thumbprint()
        return jsonify(
            keys=[provider.key.as_dict(private=False) | {"kid": kid, "use": "sig", "alg": "ES256"}]
        )

    @app.get("/authorize")
    def authorize() -> Any:
        asked = dict(request.args.items())
        provider.asked.append(asked)
        code = f"code-{len(provider.asked)}-{time.monotonic_ns()}"
        provider.codes[code] = asked
        answer = {"code": code, "state": asked["state"], "iss": provider.url} | provider.answer
        return redirect(f"{asked['redirect_uri']}?{urlencode(answer)}")

    @app.post("/token")
    def token() -> Any:
        asked = provider.codes.pop(request.form["code"], None)
        given = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
        proof = hashlib.sha256(request.form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(proof).decode().rstrip("=")
        if asked is None or [unquote(part) for part in given.split(":")] != [CLIENT, SECRET]:
            return jsonify(error="invalid_client"), 401
        if asked["code_challenge"] != challenge or asked["redirect_uri"] != request.form["redirect_uri"]:
            return jsonify(error="invalid_grant"), 400
        return jsonify(access_token="x", token_type="Bearer", id_token=provider.id_token(asked))
