"""A set of policies goes from draft to observed to enforced, or back; the policies themselves are files."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from authserver.accounts import api_tokens
from authserver.audit.events import Record
from authserver.errors import Refusal
from authserver.policies import states
from authserver.policies.files import put_in_force, read_files
from authserver.policies.states import State
from authserver.services import Services


class NoSuchSet(LookupError):
    """There is no set of policies of that name; the message says which there are."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A set, the state that it was in, and the one that it is in now."""

    name: str
    before: State
    state: State

    def to_json(self) -> dict[str, object]:
        """The object that operators see."""
        return {"set": self.name, "before": self.before, "state": self.state}


def move(
    services: Services, name: str, state: State, *, by: str, now: datetime, may_enforce: bool = True
) -> Moved:
    """Put a set into a state; within a second every server process decides by it.

    Raises `NoSuchSet`, `PolicyError` where no server could take it over, and `Refusal` (403) where two people are
    needed and `by` is the only one, or where a set would come into force or out of it and `by` does not say that.
    """
    files = read_files(services.settings.policies.directory)
    known = {file.name: file.state for file in files}

    def write(connection: Connection) -> Moved:
        states.moved_by(connection, name)  # nobody else moves it meanwhile
        moved = states.read_all(connection)
        # A file that went away may be taken out of use.
        if name not in known and not (state == "draft" and name in moved):
            raise NoSuchSet(f"{name}: there is no such set; there are {', '.join(known)}")
        before = moved[name] if name in moved else known.get(name, state)
        if not may_enforce and "enforce" in (before, state):
            raise Refusal("access_denied", "the role does not allow this", rule="role", status=403)
        if state == "enforce" and before != "enforce" and services.settings.policies.two_people:
            _somebody_else_looked(connection, name, by)
        # What a server could not take over is not written either.
        put_in_force(files, {**moved, name: state}, services.vocabulary.catalogue)
        states.move(connection, name, state, by, now)
        Record("policies.moved").changed(connection, now, by=by, set=name, before=before, state=state)
        return Moved(name, before, state)

    return services.database.write(write)


def _somebody_else_looked(connection: Connection, name: str, by: str) -> None:
    """Separation of duties: who put a set up for observation is not who puts it in force."""
    moved_by = states.moved_by(connection, name)
    if moved_by is None or moved_by[0] != "observe":
        raise _needs_two("a set is observed before it is enforced")
    if _is_behind(connection, moved_by[1], by) or _is_behind(connection, by, moved_by[1]):
        raise _needs_two("whoever put a set up for observation does not enforce it")


def _is_behind(connection: Connection, who: str, by: str) -> bool:
    """Whether `by` is `who`, or an API token that `who` made and so has seen."""
    kind, _, id = by.partition(":")
    token = api_tokens.find(connection, id) if kind == "api_token" else None
    return who == by or (token is not None and token.created_by == who)


def _needs_two(description: str) -> Refusal:
    return Refusal("access_denied", description, rule="policies.two_people", status=403)
