"""Passwords, hashed with argon2id. Hashing takes long on purpose: never inside a transaction."""

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_HASHER = PasswordHasher()


def hash_of(password: str) -> str:
    """What is kept of a password."""
    return _HASHER.hash(password)


def matches(kept: str | None, unverified_password: str) -> bool:
    """Whether it is the password of which `kept` was made. It takes as long where there is none (threats A117)."""
    if kept is None:
        _HASHER.hash(unverified_password)
        return False
    try:
        return _HASHER.verify(kept, unverified_password)
    except (VerificationError, InvalidHashError):
        return False
