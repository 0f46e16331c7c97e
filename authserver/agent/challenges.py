"""What a resource server says would do, read from its answer (RFC 6750 §3, RFC 9449 §7.1, RFC 9110 §11.6.1)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote, urlsplit

from authserver import strict_json

_MOST_BYTES = 64 * 1024
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  # RFC 9110 §5.6.2
_PARAMETER = re.compile(rf'({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')
_SCHEME = re.compile(rf"({_TOKEN})(?=\s|,|$)")
_SEPARATORS = re.compile(r"[\s,]+")


@dataclass(frozen=True, slots=True)
class Challenge:
    """A refused request, as far as it says what to do: `details` is the one `agent_action` that would do, if any.

    `schemes` are those that the resource server takes for this request; `error` is None where no token was sent.
    """

    status: int
    schemes: frozenset[str]
    error: str | None
    details: Mapping[str, object] | None

    @classmethod
    def parse(cls, status: int, unverified_headers: Iterable[str], unverified_body: bytes) -> Self | None:
        """Read the `WWW-Authenticate` headers and the body; None for an answer that is no challenge of these kinds."""
        found: dict[str, dict[str, str]] = {}
        for header in unverified_headers:
            found |= _challenges(header)
        known = {name: found[name] for name in ("dpop", "bearer") if name in found}
        if status not in (401, 403) or not known:
            return None
        said = next((parameters for parameters in known.values() if "error" in parameters), {})
        written = next(
            (p["authorization_details"] for p in known.values() if "authorization_details" in p), None
        )
        return cls(
            status,
            frozenset({"dpop": "DPoP", "bearer": "Bearer"}[name] for name in known),
            said.get("error"),
            _details_in_body(unverified_body) or _details_in_header(written),
        )


def is_place_of(identifier: object, url: str) -> bool:
    """Whether that resource server is the one at `url`: the same origin, and a path above it (RFC 9728 §3.3).

    INVARIANT: no resource server is shown a token for another
    (test_A103_a_shop_cannot_make_an_agent_fetch_a_token_for_another_place).
    """
    if not isinstance(identifier, str):
        return False
    place, asked = urlsplit(identifier), urlsplit(url)
    if (place.scheme, place.netloc) != (asked.scheme, asked.netloc) or place.query or place.fragment:
        return False
    if ".." in re.split(r"[/\\]", unquote(unquote(asked.path))):
        return False  # it is below no path that can be told by looking, whoever decodes it, and how often
    above = place.path.rstrip("/")
    return asked.path == above or asked.path.startswith(f"{above}/")


def _challenges(header: str) -> dict[str, dict[str, str]]:
    """Each scheme of one header, in lower case, with its parameters; whatever is unreadable ends the reading."""
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] | None = None
    at = 0
    while at < len(header):
        if space := _SEPARATORS.match(header, at):
            at = space.end()
        elif current is not None and (parameter := _PARAMETER.match(header, at)):
            quoted = parameter[2]
            value = parameter[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            current.setdefault(parameter[1].lower(), value)
            at = parameter.end()
        elif scheme := _SCHEME.match(header, at):
            current = found.setdefault(scheme[1].lower(), {})
            at = scheme.end()
        else:
            break
    return found


def _details_in_body(unverified: bytes) -> Mapping[str, object] | None:
    try:
        body = strict_json.parse(unverified, max_bytes=_MOST_BYTES)
    except strict_json.JsonRefused:
        return None
    return _single(body.get("authorization_details")) if isinstance(body, dict) else None


def _details_in_header(unverified: str | None) -> Mapping[str, object] | None:
    try:
        return None if unverified is None else _single(strict_json.parse(unverified, max_bytes=_MOST_BYTES))
    except strict_json.JsonRefused:
        return None


def _single(unverified: object) -> Mapping[str, object] | None:
    if not isinstance(unverified, list) or len(unverified) != 1 or not isinstance(unverified[0], dict):
        return None
    return unverified[0] if unverified[0].get("type") == "agent_action" else None
