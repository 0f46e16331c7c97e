"""Signed heads of the audit's tree: how many events there were, and the one root over all of them.

A JWS of `typ` audit-head+jwt with `iss`, `iat`, `tree_size` and `root_hash` (base64url). Whoever keeps one outside can
tell later whether anything before it was changed, or the newest cut off.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from authserver import jose
from authserver.audit.tree import HASH_BYTES, Tree

TYP = "audit-head+jwt"


class HeadRefused(ValueError):
    """What is no head of this server's tree; the message says why."""


@dataclass(frozen=True, slots=True)
class Head:
    """A head whose signature is good."""

    tree_size: int
    root: bytes
    issuer: str
    issued_at: datetime


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
    try:
        token = jose.read_compact(unverified)
        if token.header.typ != TYP:
            raise HeadRefused("is no head of an audit's tree")
        jose.verify(token, [key for key in keys if key.kid == token.header.kid], ("ES256",))
    except jose.TokenRefused as error:
        raise HeadRefused(f"is not signed by this server ({error})") from error
    size, issuer = token.claims.get("tree_size"), token.claims.get("iss")
    issued_at, root = token.claims.get("iat"), _root(token.claims.get("root_hash"))
    if type(size) is not int or size < 0 or root is None or not isinstance(issuer, str):
        raise HeadRefused("says nothing of a tree")
    if type(issued_at) is not int:
        raise HeadRefused("says nothing of its time")
    return Head(size, root, issuer, datetime.fromtimestamp(issued_at, UTC))


def read_file(lines: Iterable[str], keys: Sequence[jose.VerificationKey]) -> tuple[list[Head], list[str]]:
    """The heads in a witness's file, one a line; and what is wrong with its other lines.

    A line with which a later one begins is one whose writing was cut short; it was written again.
    """
    heads, problems, every = list[Head](), list[str](), [line.rstrip("\n") for line in lines]
    for number, line in enumerate(every, start=1):
        try:
            heads.append(read(line, keys))
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
