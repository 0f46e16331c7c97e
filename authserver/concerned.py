"""Whom something that happened concerns: of one resource server, the delegations and tokens that were used there.

Worked out a page at a time, when it is told: a revocation is one row, and may end a million delegations. A receiver
hears of nothing that it did not know, and by no name that another one could compare.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, exists, select, true

from authserver.policy.catalogue import LONGEST_LIFETIME
from authserver.revoke import Target, condition, covering, of_task
from authserver.schema import Action, Delegation, table_of
from authserver.services import Services
from authserver.streams import sets
from authserver.streams.log import Happening
from authserver.streams.records import Stream
from authserver.streams.sets import DELEGATION_REVOKED, SESSION_REVOKED, TOKEN_CLAIMS_CHANGE, Said

_ACTIONS, _DELEGATIONS = table_of(Action), table_of(Delegation)
# How many delegations are looked at in one read, whether or not they were used there.
_LOOKED_AT = 1_000
_LONGEST_LIFE = timedelta(seconds=LONGEST_LIFETIME + 60)  # of a token, and servers' clocks apart
# For people who read logs (CAEP §2); never an operator's own words, which may name somebody.
_REASONS = {
    "revoked": "what was delegated to the agent was revoked",
    "paused": "what was delegated to the agent is paused",
    "resumed": "what was delegated to the agent goes on",
    "lowered": "less is delegated to the agent from now on",
}
# Which tokens ended without having been used.
_UNUSED = ("reserved", "voided", "expired")


@dataclass(frozen=True, slots=True)
class Page:
    """What follows for one stream, and from where to go on; None where that was all."""

    said: tuple[Said, ...]
    go_on: str | None


def concerned(
    services: Services, connection: Connection, stream: Stream, event: Happening, now: datetime
) -> Page:
    """The next page of what `event` means for the stream's resource server, from `stream.read_within` on."""
    return _Concerned(services, connection, stream, event, now).page()


@dataclass(frozen=True, slots=True)
class _Concerned:
    services: Services
    connection: Connection
    stream: Stream
    event: Happening
    now: datetime

    def page(self) -> Page:
        if self.event.level == "all":
            return Page(tuple(self._ended(sets.everything(self.services.issuer), None)), None)
        if self.event.level in ("task", "token") or self.event.kind == "lowered":
            return self._tokens()
        return self._delegations()

    # --- delegations that were used there ---------------------------------------------------------------------

    def _delegations(self) -> Page:
        looked_at = self.connection.execute(self._covered()).all()
        said = [one for row in looked_at if row.used for one in self._of_delegation(row)]
        if len(looked_at) < _LOOKED_AT:
            return Page(tuple(said), None)
        return Page(tuple(said), f"{looked_at[-1].root_id} {looked_at[-1].id}")

    def _covered(self) -> Select[Any]:
        """Delegations that the event covers, those from where it stopped the last time, and whether each was used."""
        top, below, together = covering()
        columns = (below.c.root_id, below.c.id, below.c.user_id)
        query = select(*columns).distinct().select_from(together)
        query = query.where(condition(top, Target(self._kind(), self.event.target)), self._from_here(below))
        if self.event.revocation_id is not None:
            query = query.where(top.c.revocations_before < self.event.revocation_id)
        some = query.order_by(below.c.root_id, below.c.id).limit(_LOOKED_AT).subquery()
        used = exists().where(
            _ACTIONS.c.root_id == some.c.root_id,
            _ACTIONS.c.delegation_id == some.c.id,
            _ACTIONS.c.resource_server_id == self.stream.resource_server_id,
        )
        return select(some, used.label("used")).order_by(some.c.root_id, some.c.id)

    def _from_here(self, below: Any) -> Any:
        if not self.stream.read_within:
            return true()
        root_id, _, delegation_id = self.stream.read_within.partition(" ")
        # Not as a row value: SQLite would not use the primary key for it.
        same_root = (below.c.root_id == root_id) & (below.c.id > delegation_id)
        return (below.c.root_id >= root_id) & ((below.c.root_id > root_id) | same_root)

    def _of_delegation(self, row: Row[Any]) -> list[Said]:
        party = self.stream.resource_server_id
        grant_id = self.services.pairwise.grant(row.id, party)
        user = self.services.pairwise.user(row.user_id, party)
        subject = sets.session_subject(self.services.issuer, grant_id, user)
        if self.event.kind == "revoked":
            return self._ended(subject, grant_id)
        return self._changed(subject, active=self.event.kind == "resumed")

    # --- tokens that were for it ------------------------------------------------------------------------------

    def _tokens(self) -> Page:
        rows = self.connection.execute(self._ended_tokens()).all()
        said = [one for row in rows for one in self._of_token(row.id)]
        return Page(tuple(said), rows[-1].id if len(rows) == _LOOKED_AT else None)

    def _ended_tokens(self) -> Select[Any]:
        """Tokens that the event ended before their time, and that somebody might still show."""
        states = ("voided",) if self.event.kind == "lowered" else _UNUSED
        query = select(_ACTIONS.c.id).where(
            _ACTIONS.c.resource_server_id == self.stream.resource_server_id,
            _ACTIONS.c.state.in_(states),
            _ACTIONS.c.issued_at <= self.event.at,
            _ACTIONS.c.issued_at > self.event.at - _LONGEST_LIFE,
            _ACTIONS.c.expires_at > self.now,
            _ACTIONS.c.id > self.stream.read_within,
        )
        return self._of_target(query).distinct().order_by(_ACTIONS.c.id).limit(_LOOKED_AT)

    def _of_target(self, query: Select[Any]) -> Select[Any]:
        target = Target(self._kind(), self.event.target, self.event.party)
        if self.event.level == "token":
            return query.where(_ACTIONS.c.id == self.event.target)
        if self.event.level == "task":
            return query.where(of_task(target))
        top, below, together = covering()
        of_below = (_ACTIONS.c.root_id == below.c.root_id) & (_ACTIONS.c.delegation_id == below.c.id)
        return query.select_from(together.join(_ACTIONS, of_below)).where(condition(top, target))

    def _of_token(self, jti: str) -> list[Said]:
        subject = sets.token_subject(self.services.issuer, jti)
        if self.event.kind == "lowered":
            return self._changed(subject, active=False)
        return self._as_wanted(SESSION_REVOKED, subject, {})

    # --- what is said -----------------------------------------------------------------------------------------

    def _ended(self, subject: Mapping[str, object], grant_id: str | None) -> list[Said]:
        named = subject if grant_id is None else sets.grant_subject(grant_id)
        said = self._as_wanted(DELEGATION_REVOKED, named, {} if grant_id is None else {"grant_id": grant_id})
        return [*said, *self._as_wanted(SESSION_REVOKED, subject, {})]

    def _changed(self, subject: Mapping[str, object], *, active: bool) -> list[Said]:
        # The claim of introspection (RFC 7662 §2.2): a receiver learns no more of a delegation than it knew.
        return self._as_wanted(TOKEN_CLAIMS_CHANGE, subject, {"claims": {"active": active}})

    def _as_wanted(self, type: str, subject: Mapping[str, object], event: Mapping[str, object]) -> list[Said]:
        if type not in self.stream.events_delivered:
            return []
        cause = self.services.pairwise.cause(self.event.id, self.stream.resource_server_id)
        details = {
            "event_timestamp": int(self.event.at.timestamp()),
            "initiating_entity": self.event.initiator,
            "reason_admin": {"en": _REASONS[self.event.kind]},
        }
        return [Said(type, subject, details | dict(event), cause)]

    def _kind(self) -> Any:
        return "delegation" if self.event.level == "token" else self.event.level
