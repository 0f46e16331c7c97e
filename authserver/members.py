"""The members of a record that somebody registers: each read by one parser, which takes it or says why not."""

import json
import re
from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from authserver.actors.client_authentication import MAX_JWKS_BYTES
from authserver.actors.key_sources import JWKS_USES
from authserver.actors.trust_domains import TrustDomains, parse_subject
from authserver.jose import KeysRefused, usable_keys
from authserver.policy.catalogue import Catalogue
from authserver.values import NotAValue, is_loopback

Value = TypeVar("Value")

_CLIENT_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")
_USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
_GROUP = re.compile(r"[a-z][a-z0-9_-]{0,63}")
# ASCII without what no URL holds unescaped (RFC 3986 §2).
_URL = re.compile(r'[^\x00-\x20\x7f-\U0010ffff"<>\\^`{|}]{1,2048}')
_DOCUMENT_URL = re.compile(
    r"(?P<scheme>https?)://(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?"
    r"(?P<path>(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-F]{2})+)+/?)"
)
_LONGEST_DOCUMENT_URL = 512
_PASSWORD_LENGTHS = range(12, 1025)
_MOST_ENTRIES = 100


class Members:
    """The unverified members of one record, of which only `known` ones may be there."""

    def __init__(self, unverified: Mapping[str, object], known: frozenset[str]) -> None:
        unknown = sorted(set(unverified) - known)
        if unknown:
            raise NotAValue("is no member of this record", ascii(unknown[0]))
        self._unverified = unverified

    def required(self, name: str, parse: Callable[[object], Value]) -> Value:
        """What `parse` makes of the member. Raises `NotAValue` that names it, also where it is missing."""
        if name not in self._unverified:
            raise NotAValue("is missing", name)
        return self._read(name, parse)

    def optional(self, name: str, parse: Callable[[object], Value]) -> Value | None:
        """The same for a member that may be left out."""
        return self._read(name, parse) if name in self._unverified else None

    def goes_with(self, name: str, *, needed: bool, where: str) -> None:
        """Refuse a member that is missing where it is needed, or that nothing would use."""
        if needed != (name in self._unverified):
            raise NotAValue(f"must be there where {where}, and nowhere else", name)

    def not_there(self, name: str, why: str) -> None:
        """Refuse a member that says something."""
        if self._unverified.get(name):
            raise NotAValue(why, name)

    def _read(self, name: str, parse: Callable[[object], Value]) -> Value:
        try:
            return parse(self._unverified[name])
        except NotAValue as error:
            raise error.inside(name) from error


def without_none(**members: object) -> dict[str, object]:
    """The members that say something."""
    return {name: value for name, value in members.items() if value is not None}


def parse_client_id(unverified: object) -> str:
    """Read an agent's `client_id`: a name, or the https URL of its metadata document."""
    if isinstance(unverified, str) and "://" in unverified:
        return _document_url(unverified)
    return _shaped(
        unverified, _CLIENT_ID, "must be 1 to 100 of A-Z a-z 0-9 . _ -, or the https URL of its document"
    )


def document_host(client_id: str) -> str:
    """The host of a `client_id` that is the URL of a document."""
    return urlsplit(client_id).hostname or client_id


def _document_url(unverified: str) -> str:
    """draft-ietf-oauth-client-id-metadata-document §3: compared letter by letter, so it has one spelling only."""
    match = _DOCUMENT_URL.fullmatch(unverified)
    if match is None or len(unverified) > _LONGEST_DOCUMENT_URL:
        raise NotAValue(
            "must be an https URL with a path, without query, fragment, user name and dot segments"
        )
    if match["scheme"] == "http" and not is_loopback(document_host(unverified)):
        raise NotAValue("must be an https URL; http is for loopback addresses only")
    if not {".", ".."}.isdisjoint(unquote(match["path"]).split("/")):
        raise NotAValue("must be an https URL without dot segments")
    return unverified


def parse_username(unverified: object) -> str:
    """Read a user name; an address of mail is one."""
    return _shaped(
        unverified, _USERNAME, "must be 1 to 100 of A-Z a-z 0-9 . _ @ + - that begin with a letter or digit"
    )


def parse_groups(unverified: object) -> tuple[str, ...]:
    """Read the groups that a user belongs to, named as the catalogue's `group:NAME` names them."""
    reason = "must be names of groups: a-z 0-9 _ - that begin with a letter"
    return _distinct(unverified, lambda name: _shaped(name, _GROUP, reason))


def parse_password(unverified: object) -> str:
    """Read a new password. Its length is all that is asked of it (NIST SP 800-63B §5.1.1.2)."""
    if not isinstance(unverified, str) or len(unverified) not in _PASSWORD_LENGTHS:
        raise NotAValue("must have 12 to 1024 characters")
    return unverified


def one_of(*words: str) -> Callable[[object], str]:
    """A parser that takes each of `words`."""

    def parse(unverified: object) -> str:
        if not isinstance(unverified, str) or unverified not in words:
            raise NotAValue(f"must be one of {', '.join(words)}")
        return unverified

    return parse


def trust_domain_of(configured: TrustDomains) -> Callable[[object], str]:
    """A parser that takes the name of each configured trust domain."""

    def parse(unverified: object) -> str:
        if not isinstance(unverified, str) or unverified not in configured.names:
            raise NotAValue("must be the name of a configured trust domain")
        return unverified

    return parse


def spiffe_id_of(configured: TrustDomains) -> Callable[[object], str]:
    """A parser that takes the SPIFFE ID of a workload of each configured trust domain of that kind."""

    def parse(unverified: object) -> str:
        name = unverified.removeprefix("spiffe://").partition("/")[0] if isinstance(unverified, str) else ""
        if name not in configured.names or configured.kind_of(name) != "spiffe":
            raise NotAValue("must be a SPIFFE ID of a configured trust domain")
        return parse_subject(unverified, "spiffe", name)

    return parse


def actions_of(catalogue: Catalogue) -> Callable[[object], frozenset[str]]:
    """A parser that takes one action of the catalogue or more."""

    def known(name: object) -> str:
        if not isinstance(name, str) or catalogue.get(name) is None:
            raise NotAValue("must be actions of the catalogue")
        return name

    def parse(unverified: object) -> frozenset[str]:
        actions = frozenset(_distinct(unverified, known))
        if not actions:
            raise NotAValue("must hold an action; left out, the agent may do whatever users delegate")
        return actions

    return parse


def parse_redirect_uris(unverified: object) -> tuple[str, ...]:
    """Read https URLs, or http ones of a loopback address (RFC 8252 §7.3), without fragment (RFC 6749 §3.1.2)."""
    return _distinct(unverified, _redirect_uri)


def _redirect_uri(unverified: object) -> str:
    text = _shaped(unverified, _URL, "must be URLs")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise NotAValue("must be URLs") from error
    if not host or port == 0 or parts.username is not None or "#" in text:
        raise NotAValue("must be URLs with a host and without user name or fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise NotAValue("must be https URLs; http is for loopback addresses only")
    return text


def parse_jwks(unverified: object) -> str:
    """Read a JWK Set (RFC 7517 §5) in which every key can be used; gives it as JSON text."""
    try:
        keys = usable_keys(unverified, uses=JWKS_USES)
        text = json.dumps(unverified, separators=(",", ":"), sort_keys=True)
    except (KeysRefused, TypeError) as error:
        raise NotAValue("must be a JWK Set with at most 100 keys") from error
    if len(text) > MAX_JWKS_BYTES:
        raise NotAValue(f"must be a JWK Set of at most {MAX_JWKS_BYTES} bytes")
    entries = unverified["keys"] if isinstance(unverified, dict) else []
    for place, entry in enumerate(entries):
        if not usable_keys({"keys": [entry]}, uses=JWKS_USES):
            raise NotAValue(
                "must be a public key for signatures: EC, or RSA of 2048 bits or more", f"keys.{place}"
            )
    if not keys or len(keys) != len(entries):
        raise NotAValue("must be a JWK Set of one key or more, each with a kid of its own")
    return text


def _shaped(unverified: object, shape: re.Pattern[str], reason: str) -> str:
    if not isinstance(unverified, str) or not shape.fullmatch(unverified):
        raise NotAValue(reason)
    return unverified


def _distinct(unverified: object, parse: Callable[[object], str]) -> tuple[str, ...]:
    if not isinstance(unverified, list) or len(unverified) > _MOST_ENTRIES:
        raise NotAValue(f"must be a list of at most {_MOST_ENTRIES} entries")
    entries = tuple(map(parse, unverified))
    if len(set(entries)) != len(entries):
        raise NotAValue("must hold each entry once")
    return entries
