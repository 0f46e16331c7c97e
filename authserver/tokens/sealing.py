"""Secrets at rest: encrypted with a key that the database never sees."""

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12


class SealBroken(Exception):
    """The encryption key is another one than that which sealed this secret, or the row was changed."""


class Seal:
    """AES-256-GCM; what is sealed for one purpose opens for no other."""

    def __init__(self, key: bytes) -> None:
        """`key` is 32 bytes."""
        self._cipher = AESGCM(key)

    def close(self, plain: bytes, purpose: str) -> bytes:
        """Encrypt `plain`; the nonce stands first."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, purpose.encode())

    def open(self, sealed: bytes, purpose: str) -> bytes:
        """Decrypt what `close` made for the same purpose. Raises `SealBroken`."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], purpose.encode())
        except InvalidTag as error:
            raise SealBroken(purpose) from error
