"""Secrets at rest: encrypted with a key that the database never sees."""

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12


class SealBroken(Exception):
    """The encryption key is another one than that which sealed this secret, or the row was changed."""


class Seal:
    """AES-256-GCM; what is sealed for one purpose opens for no other."""

    def __init__(self, key: bytes, other: bytes | None = None) -> None:
        """`key` is 32 bytes. With `other` secrets are opened too, and none is sealed: while one takes over."""
        self._cipher = AESGCM(key)
        self._other = None if other is None else AESGCM(other)

    def close(self, plain: bytes, purpose: str) -> bytes:
        """Encrypt `plain`; the nonce stands first."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, purpose.encode())

    def open(self, sealed: bytes, purpose: str) -> bytes:
        """Decrypt what `close` made for the same purpose. Raises `SealBroken`."""
        try:
            return _opened(self._cipher, sealed, purpose)
        except InvalidTag as error:
            if self._other is None:
                raise SealBroken(purpose) from error
        try:
            return _opened(self._other, sealed, purpose)
        except InvalidTag as error:
            raise SealBroken(purpose) from error

    def renew(self, sealed: bytes, purpose: str) -> bytes | None:
        """The same secret sealed with the present key; None where it is already. Raises `SealBroken`."""
        try:
            _opened(self._cipher, sealed, purpose)
        except InvalidTag:
            return self.close(self.open(sealed, purpose), purpose)
        return None


def _opened(cipher: AESGCM, sealed: bytes, purpose: str) -> bytes:
    return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], purpose.encode())
