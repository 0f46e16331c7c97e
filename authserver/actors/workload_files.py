"""A trust domain in files, for development and tests: a key pair, and assertions signed with it."""

import json
import os
import tomllib
from datetime import datetime, timedelta
from pathlib import Path
from secrets import token_urlsafe

from joserfc.jwk import ECKey
from pydantic import ValidationError

from authserver.config import TrustDomainSettings
from authserver.jose import SigningKey, sign

_PRIVATE_KEY = "private_key.pem"
_JWKS = "jwks.json"
_DOMAIN = "domain.toml"


class DomainExists(Exception):
    """There is a trust domain in that directory already; nothing of it was changed."""


def create_domain(name: str, kind: str, directory: Path, issuer: str | None = None) -> Path:
    """Make a trust domain of that kind in `directory`, which is made where it is missing.

    `issuer` is the `iss` of its assertions, by default `https://NAME`; a SPIFFE trust domain has none. Gives
    the path of `domain.toml`, which holds a `[[trust_domains]]` block ready to paste. Raises `DomainExists`,
    and `ValueError` where a configuration would not take such a domain.
    """
    directory = directory.absolute()
    settings = _settings(name, kind, directory / _JWKS, issuer)
    directory.mkdir(parents=True, exist_ok=True)
    if any((directory / file).exists() for file in (_PRIVATE_KEY, _JWKS, _DOMAIN)):
        raise DomainExists(f"{directory}: there is a trust domain already")
    key = ECKey.generate_key("P-256")
    _write_private(directory / _PRIVATE_KEY, key.as_pem(private=True))
    (directory / _JWKS).write_text(_jwks(key, "jwt-svid" if kind == "spiffe" else "sig"), encoding="utf-8")
    domain = directory / _DOMAIN
    domain.write_text(_block(settings), encoding="utf-8")
    return domain


def _settings(name: str, kind: str, jwks: Path, issuer: str | None) -> TrustDomainSettings:
    if issuer is None and kind != "spiffe":
        issuer = f"https://{name}"
    said = {"name": name, "kind": kind, "issuer": issuer, "jwks_file": jwks, "algorithms": ["ES256"]}
    try:
        return TrustDomainSettings.model_validate(said)
    except ValidationError as error:
        problem = error.errors()[0]
        key = "".join(f"{part}: " for part in problem["loc"])
        raise ValueError(f"{key}{problem['msg'].removeprefix('Value error, ')}") from error


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


def _block(settings: TrustDomainSettings) -> str:
    said = {"name": settings.name, "kind": settings.kind, "issuer": settings.issuer}
    said["jwks_file"] = str(settings.jwks_file)
    # A JSON string is a TOML basic string.
    lines = [f"{key} = {json.dumps(value)}" for key, value in said.items() if value is not None]
    rest = [f'algorithms = ["{settings.algorithms[0]}"]', f"max_lifetime = {settings.max_lifetime}"]
    return "\n".join(["[[trust_domains]]", *lines, *rest]) + "\n"
