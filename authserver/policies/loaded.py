"""The policies that this process decides by, and how they are replaced: whole, or not at all."""

import threading
from dataclasses import dataclass
from pathlib import Path

import structlog

from authserver.db import Database
from authserver.errors import Refusal
from authserver.policies import states
from authserver.policies.files import Fingerprint, InForce, fingerprint, put_in_force, read_files
from authserver.policies.states import State
from authserver.policy.catalogue import Catalogue
from authserver.policy.cedar_text import PolicyError

log = structlog.get_logger()
_EVERY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Seen:
    files: Fingerprint
    moved: tuple[tuple[str, State], ...]


class LoadedPolicies:
    """Holds one `InForce`, which is replaced in one step; a decision keeps the one that it began with.

    Nothing is read before `load`, so that an operator can revoke while a file is broken.
    """

    def __init__(self, directory: Path, catalogue: Catalogue, database: Database) -> None:
        self._directory, self._catalogue, self._database = directory, catalogue, database
        self._reloading = threading.Lock()
        self._seen: _Seen | None = None
        self._current: InForce | None = None
        self.problem: str | None = None  # why what is there now is not what decides

    @property
    def current(self) -> InForce:
        """What decides now; `load` comes first."""
        if self._current is None:
            raise LookupError("the policies were not loaded")
        return self._current

    def load(self) -> None:
        """Read the policies. Raises `PolicyError` where they cannot be used, `Refusal` (503) without a database."""
        self._seen = self._look()
        self._current = self._read(self._seen)

    def refresh(self) -> bool:
        """Look whether a file or a state has changed, and take it over; whether what decides is new.

        What cannot be used is said once in the log, and what was there goes on deciding. Raises `Refusal` (503).
        """
        with self._reloading:
            seen = self._look()
            if seen == self._seen:
                return False
            self._seen = seen
            try:
                self._current, self.problem = self._read(seen), None
            except PolicyError as error:
                self.problem = str(error)
                problems = [str(problem) for problem in error.problems]
                log.error("policies.refused", problems=problems)  # noqa: TRY400  # the problems say it all
                return False
            log.info("policies.loaded", policies=len(self.current.enforced.policies))
            return True

    def watch(self) -> threading.Event:
        """Refresh every second in a thread of its own, until the returned event is set."""
        stop = threading.Event()
        threading.Thread(target=self._run, args=(stop,), name="policies", daemon=True).start()
        return stop

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(_EVERY_SECONDS):
            try:
                self.refresh()
            except Refusal:
                continue  # the database is away, which it has said itself
            except Exception as error:  # whatever it is, it must not be the last time  # noqa: BLE001
                log.error("policies.failed", error=type(error).__name__)  # noqa: TRY400

    def _look(self) -> _Seen:
        moved = self._database.read(states.read_all)
        return _Seen(_fingerprint(self._directory), tuple(sorted(moved.items())))

    def _read(self, seen: _Seen) -> InForce:
        return put_in_force(read_files(self._directory), dict(seen.moved), self._catalogue)


def _fingerprint(directory: Path) -> Fingerprint:
    try:
        return fingerprint(directory)
    except OSError:  # a file went away while it was looked at: it will be seen next time
        return ()
