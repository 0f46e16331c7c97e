"""Signed heads of the audit's tree: how many events there were, and the one root over all of them.

A JWS of `typ` audit-head+jwt with `iss`, `iat`, `tree_size` and `root_hash` (base64url). Whoever keeps one outside can
tell later whether anything before it was changed, or the newest cut off.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from authserver import jose
from authserver.audit.tree import HASH_BYTES, Tree

TYP = "audit-head+jwt"
_LATEST = 253_402_300_799  # the end of the year 9999


class HeadRefused(ValueError):
    """What is no head of this server's tree; the message says why."""


@dataclass(frozen=True, slots=True)
class Head:
    """A head. `signed` says that its signature is good; without it, it was signed by a key that is not known here."""

    tree_size: int
    root: bytes
    issuer: str
    issued_at: datetime
    signed: bool


def sign(tree: Tree, issuer: str, key: jose.SigningKey, now: datetime) -> str:
    """The head of a tree as this server says it."""
    claims = {
        "iss": issuer,
        "iat": int(now.timestamp()),
        "tree_size": tree.size,
        "root_hash": urlsafe_b64encode(tree.root()).rstrip(b"=").decode(),
    }
    return jose.sign(claims, key=key, typ=TYP)


def read(unverified: str, keys: Sequence[jose.VerificationKey]) -> Head:
    """A head, signed by one of these keys. Raises `HeadRefused`."""
    head = read_of_any_key(unverified, keys)
    if not head.signed:
        raise HeadRefused("is not signed by this server (jws.unknown_kid)")
    return head


def read_of_any_key(unverified: str, keys: Sequence[jose.VerificationKey]) -> Head:
    """The same; one that names a key which is not among them is returned, too, and says so. Raises `HeadRefused`.

    A database that was restored does not know the keys that were made since.
    """
    try:
        token = jose.read_compact(unverified)
        if token.header.typ != TYP:
            raise HeadRefused("is no head of an audit's tree")
        signed = any(key.kid == token.header.kid for key in keys)
        if signed:
            jose.verify(token, [key for key in keys if key.kid == token.header.kid], ("ES256",))
    except jose.TokenRefused as error:
        raise HeadRefused(f"is not signed by this server ({error})") from error
    return _head(token.claims, signed)


def _head(claims: Mapping[str, object], signed: bool) -> Head:
    size, issuer, root = claims.get("tree_size"), claims.get("iss"), _root(claims.get("root_hash"))
    if type(size) is not int or size < 0 or root is None or not isinstance(issuer, str):
        raise HeadRefused("says nothing of a tree")
    issued_at = claims.get("iat")
    if type(issued_at) is not int or not 0 <= issued_at <= _LATEST:
        raise HeadRefused("says nothing of its time")
    return Head(size, root, issuer, datetime.fromtimestamp(issued_at, UTC), signed)


def read_file(lines: Iterable[str], keys: Sequence[jose.VerificationKey]) -> tuple[list[Head], list[str]]:
    """The heads in a witness's file, one a line; and what is wrong with its other lines.

    A line with which a later one begins is one whose writing was cut short; it was written again. Heads of keys that
    are not known here are among the heads, and say so.
    """
    heads, problems, every = list[Head](), list[str](), [line.rstrip("\n") for line in lines]
    for number, line in enumerate(every, start=1):
        try:
            heads.append(read_of_any_key(line, keys))
        except HeadRefused as error:
            if not any(later.startswith(line) for later in every[number:]):
                problems.append(f"line {number} of the heads {error}")
    return heads, problems


def _root(unverified: object) -> bytes | None:
    if not isinstance(unverified, str) or not unverified.isascii():
        return None
    try:
        root = urlsafe_b64decode(unverified + "=" * (-len(unverified) % 4))
    except ValueError:
        return None
    return root if len(root) == HASH_BYTES else None
