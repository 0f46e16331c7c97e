"""Which proofs were used already (RFC 9449 §11.1): in one process, or in all processes of a machine."""

import hashlib
import sqlite3
import threading
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Protocol

from authserver.dpop.proofs import Proof
from authserver.errors import Refusal

_PRUNE_EVERY = 256  # proofs


class ReplayMemory(Protocol):
    """Whoever remembers proofs. One that is shared by machines is a few lines over what they share."""

    def use(self, proof: Proof, now: datetime) -> None:
        """Use up the proof, and remember it until its `forget_at`.

        Raises `Refusal`: `invalid_dpop_proof` where it was used before, `temporarily_unavailable` where nobody knows.
        """


class SeenProofs:
    """The memory of one process. Threads may share it."""

    def __init__(self, most: int = 100_000) -> None:
        """`most` proofs are remembered at once; with more of them in six minutes, they are refused, not forgotten."""
        self._most = most
        self._seen: dict[bytes, datetime] = {}
        self._lock = threading.Lock()

    def use(self, proof: Proof, now: datetime) -> None:
        """See `ReplayMemory`."""
        key = _key(proof)
        with self._lock:
            if self._seen.get(key, now) > now:
                raise _replayed()
            if len(self._seen) >= self._most:
                self._forget(now)
            self._seen[key] = proof.forget_at

    def _forget(self, now: datetime) -> None:
        self._seen = {key: until for key, until in self._seen.items() if until > now}
        if len(self._seen) >= self._most:
            raise _unavailable("dpop.memory_full")


class SharedSeenProofs:
    """The memory of all processes of one machine, in an SQLite file. Processes and threads may share it."""

    def __init__(self, file: Path) -> None:
        """`file` is made where there is none; it must be on a local disk, and its folder be no one else's."""
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(file, timeout=2, isolation_level=None, check_same_thread=False)
        self._uses = 0
        with closing(self._connection.cursor()) as cursor:
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=NORMAL")
            cursor.execute(
                "CREATE TABLE IF NOT EXISTS seen (proof BLOB PRIMARY KEY, forget_at REAL NOT NULL) WITHOUT ROWID"
            )

    def use(self, proof: Proof, now: datetime) -> None:
        """See `ReplayMemory`."""
        try:
            with self._lock:
                self._prune(now)
                # The primary key is the check: whoever inserts the row first has used the proof.
                row = (_key(proof), proof.forget_at.timestamp())
                inserted = self._connection.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", row).rowcount
        except sqlite3.Error as error:
            raise _unavailable("dpop.memory") from error
        if not inserted:
            raise _replayed()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _prune(self, now: datetime) -> None:
        if self._uses % _PRUNE_EVERY == 0:
            self._connection.execute("DELETE FROM seen WHERE forget_at <= ?", (now.timestamp(),))
        self._uses += 1


def _key(proof: Proof) -> bytes:
    # The thumbprint has no spaces, so no two proofs have one key.
    return hashlib.sha256(f"{proof.jkt} {proof.jti}".encode()).digest()


def _replayed() -> Refusal:
    return Refusal("invalid_dpop_proof", "the DPoP proof was used before", rule="dpop.replayed")


def _unavailable(rule: str) -> Refusal:
    return Refusal("temporarily_unavailable", "proofs cannot be checked now", rule=rule, status=503)
