"""The files that pages load: read once, named by what is in them, and checked by the browser (SRI)."""

import base64
import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from flask import Response
from werkzeug.exceptions import NotFound

_STATIC = Path(__file__).parent.parent / "static"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file; `integrity` is what a page says of it (W3C SRI), `path` changes whenever its content does."""

    name: str
    media_type: str
    body: bytes = field(repr=False)
    integrity: str

    @property
    def path(self) -> str:
        """Where it is served, below the server's root."""
        return f"/static/{self.integrity[7:15].replace('/', '_').replace('+', '-')}/{self.name}"


@lru_cache
def asset(name: str) -> Asset:
    """The file of that name. Raises `KeyError`."""
    return _assets()[name]


def respond(version: str, name: str) -> Response:
    """Serve one file; for ever, since another content has another path."""
    try:
        found = asset(name)
    except KeyError as error:
        raise NotFound from error
    response = Response(found.body, mimetype=found.media_type)
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    return response


@lru_cache
def _assets() -> dict[str, Asset]:
    files = (path for path in _STATIC.iterdir() if path.suffix in _TYPES)
    return {path.name: _read(path) for path in files}


def _read(path: Path) -> Asset:
    body = path.read_bytes()
    digest = base64.b64encode(hashlib.sha384(body).digest()).decode()
    return Asset(path.name, _TYPES[path.suffix], body, f"sha384-{digest}")
