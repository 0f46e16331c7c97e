"""A trust domain in files, for development and tests: a key pair, and assertions signed with it."""

import json
import os
import tomllib
from datetime import datetime, timedelta
from pathlib import Path
from secrets import token_urlsafe

from joserfc.jwk import ECKey

from authserver.jose import SigningKey, sign

_PRIVATE_KEY = "private_key.pem"
_JWKS = "jwks.json"
_DOMAIN = "domain.toml"
KINDS = ("spiffe", "kubernetes", "oidc")


class DomainExists(Exception):
    """There is a trust domain in that directory already; nothing of it was changed."""


def create_domain(name: str, kind: str, directory: Path, issuer: str | None = None) -> Path:
    """Make a trust domain of that kind in `directory`, which is made where it is missing.

    `issuer` is the `iss` of its assertions, by default `https://NAME`; a SPIFFE trust domain has none. Gives
    the path of `domain.toml`, which holds a `[[trust_domains]]` block ready to paste. Raises `DomainExists`,
    and `ValueError` for a kind that does not exist or an issuer that the kind does not take.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: takes one of {', '.join(KINDS)}")
    if kind == "spiffe" and issuer is not None:
        raise ValueError("issuer: a spiffe trust domain takes none")
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    if any((directory / file).exists() for file in (_PRIVATE_KEY, _JWKS, _DOMAIN)):
        raise DomainExists(f"{directory}: there is a trust domain already")
    key = ECKey.generate_key("P-256")
    _write_private(directory / _PRIVATE_KEY, key.as_pem(private=True))
    (directory / _JWKS).write_text(_jwks(key, "jwt-svid" if kind == "spiffe" else "sig"), encoding="utf-8")
    domain = directory / _DOMAIN
    domain.write_text(
        _block(name, kind, directory / _JWKS, None if kind == "spiffe" else issuer or f"https://{name}"),
        encoding="utf-8",
    )
    return domain


def make_assertion(
    directory: Path, subject: str, audience: str, lifetime: timedelta, now: datetime, **extra: object
) -> str:
    """A workload assertion of the trust domain in `directory`, as its kind would issue it.

    `extra` are claims that are added or take the place of the usual ones. Raises `FileNotFoundError` where
    there is no trust domain.
    """
    settings = tomllib.loads((directory / _DOMAIN).read_text(encoding="utf-8"))["trust_domains"][0]
    key = ECKey.import_key((directory / _PRIVATE_KEY).read_bytes())
    claims: dict[str, object] = {
        "sub": subject,
        "aud": [audience],
        "iat": int(now.timestamp()),
        "exp": int((now + lifetime).timestamp()),
        "jti": token_urlsafe(16),
    }
    if settings["kind"] != "spiffe":
        claims["iss"] = settings["issuer"]
    if settings["kind"] == "kubernetes":
        claims |= {"nbf": claims["iat"], "kubernetes.io": _kubernetes_claim(subject)}
    return sign(claims | extra, key=SigningKey(key.thumbprint(), key), typ="JWT")


def _kubernetes_claim(subject: str) -> dict[str, object]:
    namespace, _, account = subject.removeprefix("system:serviceaccount:").partition(":")
    return {"namespace": namespace, "serviceaccount": {"name": account}}


def _write_private(path: Path, content: bytes) -> None:
    # Made with its mode, so that nobody can read it even for a moment.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _jwks(key: ECKey, use: str) -> str:
    public = {**key.as_dict(private=False), "use": use, "kid": key.thumbprint(), "alg": "ES256"}
    return json.dumps({"keys": [public]}, indent=2) + "\n"


def _block(name: str, kind: str, jwks: Path, issuer: str | None) -> str:
    lines = ["[[trust_domains]]", f"name = {json.dumps(name)}", f"kind = {json.dumps(kind)}"]
    if issuer is not None:
        lines.append(f"issuer = {json.dumps(issuer)}")
    lines += [f"jwks_file = {json.dumps(str(jwks))}", 'algorithms = ["ES256"]', "max_lifetime = 3600"]
    return "\n".join(lines) + "\n"
