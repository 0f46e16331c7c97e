"""The peer: npm's oidc-provider with everything in memory, and the requests that it is measured with."""

import base64
import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from secrets import token_urlsafe
from urllib.parse import urlencode

from joserfc import jwt
from joserfc.jwk import ECKey

from bench.exchanges import SHOP, assertion, delegation, exchange_request, subject_of
from bench.load import http_request
from bench.processes import Running, free_port, serving

FOLDER = Path(__file__).parent / "peer"
_AGENT = "agent-1"
_SHOP_ID, _SHOP_SECRET = "shop", token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class Peer:
    """A running peer with the requests prepared for it."""

    server: Running
    exchanges: tuple[bytes, ...]
    introspections: tuple[bytes, ...]


def why_missing() -> str | None:
    """Why the peer cannot run here, or None. Installs its packages from the lock file where they are missing."""
    if not shutil.which("node") or not shutil.which("npm"):
        return "node and npm are not installed"
    if not (FOLDER / "node_modules" / "oidc-provider").is_dir():
        ran = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund"], cwd=FOLDER, capture_output=True, timeout=180
        )
        if ran.returncode:
            return f"npm ci failed: {ran.stderr.decode(errors='replace').strip()[-300:]}"
    return None


@contextlib.contextmanager
def running(folder: Path, distinct: int) -> Iterator[Peer]:
    """Start the peer and prepare `distinct` exchanges for it, each with a grant and an assertion of its own."""
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    signing, subjects, actors = (ECKey.generate_key("P-256") for _ in range(3))
    settings = {
        "issuer": issuer,
        "port": port,
        "agent": _AGENT,
        "resourceServer": {"id": _SHOP_ID, "secret": _SHOP_SECRET, "identifier": SHOP},
        "signingKeys": _jwks(signing, private=True),
        "subjectKeys": _jwks(subjects),
        "actorKeys": _jwks(actors),
    }
    file = folder / "peer.json"
    file.write_text(json.dumps(settings), encoding="utf-8")
    command = ["node", "peer.mjs", str(file)]
    # On one core, one thread for cryptography is the fastest setting (four: 10% more CPU for each exchange).
    environment = {"NODE_ENV": "production", "UV_THREADPOOL_SIZE": "1"}
    with serving("peer", command, port, folder, environment=environment, directory=FOLDER) as server:
        exchanges = tuple(
            exchange_request(
                _grant(subjects, issuer), assertion(actors, subject_of(1), issuer), client_id=_AGENT
            )
            for _ in range(distinct)
        )
        yield Peer(server, exchanges, tuple(_introspection(_opaque_token(port)) for _ in range(100)))


def _jwks(key: ECKey, *, private: bool = False) -> dict[str, object]:
    return {"keys": [{**key.as_dict(private=private), "kid": key.thumbprint(), "alg": "ES256", "use": "sig"}]}


def _grant(key: ECKey, issuer: str) -> str:
    now = int(time.time())
    claims = {
        "iss": issuer,
        "aud": issuer,
        "sub": token_urlsafe(16),
        "client_id": _AGENT,
        "may_act": {"iss": "spiffe://bench.example", "sub": subject_of(1)},
        "jti": token_urlsafe(16),
        "iat": now,
        "exp": now + 3000,
        "authorization_details": [delegation("2030-01-01T00:00:00Z")],
    }
    return jwt.encode({"alg": "ES256", "kid": key.thumbprint(), "typ": "delegation-grant+jwt"}, claims, key)


def basic(user: str, secret: str) -> tuple[str, str]:
    """The header of client_secret_basic; both parts hold only characters that need no encoding."""
    return "Authorization", "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


def _opaque_token(port: int) -> str:
    # The peer introspects opaque tokens alone, from its memory: it refuses to be asked about a JWT.
    form = urlencode({"grant_type": "client_credentials"})
    name, value = basic(_SHOP_ID, _SHOP_SECRET)
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Content-Type": "application/x-www-form-urlencoded", name: value}
    connection.request("POST", "/oauth/token", form, headers)
    token: str = json.loads(connection.getresponse().read())["access_token"]
    connection.close()
    return token


def _introspection(token: str) -> bytes:
    form = urlencode({"token": token}).encode()
    return http_request("/oauth/introspect", form, [basic(_SHOP_ID, _SHOP_SECRET)])
