"""One Token Status List, read strictly from the JWT that it comes in (draft-ietf-oauth-status-list §4, §5.1, §8.3)."""

import base64
import binascii
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from authserver import jose

MAX_BYTES = 512 * 1024  # of the JWT
_MAX_LIST_BYTES = 2 * 1024 * 1024  # of the list, once it is unpacked
_TYPE = "statuslist+jwt"
_ALGORITHMS = ("ES256",)
_WIDTHS = (1, 2, 4, 8)
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_TTL = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class StatusList:
    """The statuses of many tokens, `width` bits each; 0 is good (§7.1).

    It counts for `ttl`, and never past `expires_at`.
    """

    width: int
    packed: bytes
    ttl: timedelta
    expires_at: datetime

    def status(self, index: int) -> int:
        """The status of one token. Raises `jose.TokenRefused` where the list has no such place (§8.3)."""
        place, shift = divmod(index * self.width, 8)
        if place >= len(self.packed):
            raise jose.TokenRefused("status_list.index")
        # §4.1: from the least significant bit of each byte on.
        return self.packed[place] >> shift & ((1 << self.width) - 1)


def read_status_list(
    unverified: str, keys: Sequence[jose.VerificationKey], *, issuer: str, uri: str, now: datetime
) -> StatusList:
    """Verify a status list token that was served at `uri`.

    Raises `jose.TokenRefused` where it is not signed by a key of the issuer, is for another issuer or place, has ended,
    says that it is old, or does not unpack to a list of at most 2 MiB.
    """
    signed = jose.read_compact(unverified, max_bytes=MAX_BYTES)
    if signed.header.typ != _TYPE:
        raise jose.TokenRefused("status_list.typ")
    jose.verify(signed, keys, _ALGORITHMS)
    claims = signed.claims
    if claims.get("iss") != issuer:
        raise jose.TokenRefused("status_list.iss")
    if claims.get("sub") != uri:
        raise jose.TokenRefused("status_list.sub")
    ttl, expires_at = _ttl(claims), jose.numeric_date(claims, "exp")
    issued_at = jose.numeric_date(claims, "iat")
    if expires_at is None or now >= expires_at:
        raise jose.TokenRefused("status_list.exp")
    # Two clocks may differ by the leeway; what is older was kept by somebody on the way for too long.
    if issued_at is None or not now - ttl - jose.LEEWAY <= issued_at <= now + jose.LEEWAY:
        raise jose.TokenRefused("status_list.iat")
    width, packed = _list(claims.get("status_list"))
    return StatusList(width, packed, ttl, expires_at)


def _ttl(claims: Mapping[str, object]) -> timedelta:
    ttl = claims.get("ttl")
    if type(ttl) is not int or not 0 < ttl <= _LONGEST_TTL.total_seconds():
        raise jose.TokenRefused("status_list.ttl")
    return timedelta(seconds=ttl)


def _list(unverified: object) -> tuple[int, bytes]:
    if not isinstance(unverified, dict):
        raise jose.TokenRefused("status_list.form")
    width, lst = unverified.get("bits"), unverified.get("lst")
    if type(width) is not int or width not in _WIDTHS or not isinstance(lst, str):
        raise jose.TokenRefused("status_list.form")
    return width, unpack(lst)


def unpack(lst: str) -> bytes:
    """The bytes of a `lst` member: base64url, then zlib (§4.1). Raises `jose.TokenRefused`."""
    if not _BASE64URL.fullmatch(lst):
        raise jose.TokenRefused("status_list.form")
    try:
        compressed = base64.urlsafe_b64decode(lst + "=" * (-len(lst) % 4))
        inflater = zlib.decompressobj()
        # A bomb is given up when it has grown to what a list may be.
        packed = inflater.decompress(compressed, _MAX_LIST_BYTES)
    except (binascii.Error, zlib.error) as error:
        raise jose.TokenRefused("status_list.form") from error
    if not inflater.eof or inflater.unused_data:
        raise jose.TokenRefused("status_list.size")  # cut short, too large, or with something behind it
    return packed
