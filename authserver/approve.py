"""A person answers: agrees to exactly what was shown, or refuses it (contract §8)."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection

from authserver import metrics
from authserver.accounts.sessions import Authentication
from authserver.approvals import records, rules
from authserver.approvals.approvers import Person, have_agreed, may_answer, person
from authserver.approvals.asking import Asks
from authserver.approvals.records import Answer, ApprovalRecord, Said
from authserver.approvals.rules import Rule
from authserver.audit.events import Record
from authserver.db import hold_off_revocations
from authserver.delegations.records import load_chain
from authserver.delegations.standing import ending
from authserver.errors import Refusal
from authserver.policy.details import stored_action
from authserver.services import Services
from authserver.streams import log
from authserver.values import Money


@dataclass(frozen=True, slots=True)
class Reply:
    """What a person says to one approval; `rule_up_to`: and is not to be asked again for this shop up to so much."""

    approval_id: str
    user_id: str
    said: Said
    rule_up_to: Money | None = None
    how: Authentication | None = None  # they had signed in, for the audit


def answer(services: Services, reply: Reply, now: datetime) -> ApprovalRecord:
    """Record the answer; a second one of the same person that says the same changes nothing.

    Raises `Refusal`: 404 unknown, 403 not asked, 409 answered, too late or ended; each but the first is audited.
    """
    record = Record("approval")
    try:
        answered = services.database.write(
            lambda connection: _Answering(services, connection, reply, record, now).run()
        )
    except Refusal as refusal:
        if refusal.status in (403, 409):
            services.database.write(partial(record.refused, now=now, refusal=refusal))
        raise
    metrics.approval_answered(reply.said)
    return answered


@dataclass(frozen=True, slots=True)
class _Answering:
    """One transaction."""

    services: Services
    connection: Connection
    reply: Reply
    record: Record
    now: datetime

    def run(self) -> ApprovalRecord:
        self.record.reset("approval")
        hold_off_revocations(self.connection)
        approval = self._approval()
        who = self._asked(approval)
        answers = records.answers_to(self.connection, approval.id)
        if mine := next((one for one in answers if one.user_id == who.user_id), None):
            return self._said_before(approval, mine)
        self._open(approval)
        if self.reply.said == "refuse":
            return self._refuse(approval)
        self._standing(approval)
        return self._agree(approval, answers)

    def _approval(self) -> ApprovalRecord:
        approval = records.find(self.connection, self.reply.approval_id, lock=True)
        if approval is None:
            raise unknown()
        self.record.client_id, self.record.delegation_id = approval.client_id, approval.delegation_id
        self.record.data |= {
            "approval": approval.id,
            "answered_by": self.reply.user_id,
            "said": self.reply.said,
            **(self.reply.how.to_json() if self.reply.how else {}),
        }
        return approval

    def _asked(self, approval: ApprovalRecord) -> Person:
        who = self._person(self.reply.user_id)
        if who is None or not may_answer(approval, who, self.now):
            raise Refusal("forbidden", "you are not asked", rule="approval.not_asked", status=403)
        return who

    def _person(self, user_id: str) -> Person | None:
        return person(self.connection, user_id, self.services.settings.groups.members)

    def _said_before(self, approval: ApprovalRecord, mine: Answer) -> ApprovalRecord:
        if mine.answer != self.reply.said:
            raise _over("you have answered this already")
        return approval

    def _open(self, approval: ApprovalRecord) -> None:
        if approval.state_at(self.now) == "expired":
            raise _over("it is too late to answer")
        if approval.state != "waiting":
            raise _over("this was answered already")

    def _standing(self, approval: ApprovalRecord) -> None:
        chain = load_chain(self.connection, approval.delegation_id, self.services.stored)
        ended = chain and ending(self.connection, chain, self.now, approval.task_id)
        if chain is None or ended is not None:
            raise _over("the delegation has ended")

    def _refuse(self, approval: ApprovalRecord) -> ApprovalRecord:
        self._say(approval)
        records.answered(self.connection, approval, "refused", self.now)
        self._event("approval.refused", approval)
        self._pause_after_many(approval)
        return self._now(approval)

    def _agree(self, approval: ApprovalRecord, before: list[Answer]) -> ApprovalRecord:
        self._say(approval)
        names = [*(one.user_id for one in before if one.answer == "approve"), self.reply.user_id]
        agreed = [who for name in names if (who := self._person(name)) is not None]
        if not have_agreed(approval, agreed, self.now):
            self._event("approval.agreed", approval)
            return approval
        records.answered(self.connection, approval, "approved", self.now)
        if self.reply.rule_up_to is not None:
            self.record.data["approval_rule"] = self._rule(approval, self.reply.rule_up_to)
        self._event("approval.approved", approval)
        return self._now(approval)

    def _say(self, approval: ApprovalRecord) -> None:
        said = Answer(self.reply.user_id, self.reply.said, self.now)
        records.say(self.connection, approval.id, said)

    def _event(self, name: str, approval: ApprovalRecord) -> None:
        self.record.event, self.record.rule = name, approval.because
        self.record.changed(self.connection, self.now, details_hash=approval.details_hash)

    def _rule(self, approval: ApprovalRecord, amount: Money) -> str:
        action = stored_action(approval.details)
        if not can_be_lifted(approval) or self.reply.user_id != approval.user_id:
            raise _over("there can be no rule for this")
        if action.amount is None or action.amount.currency != amount.currency:
            raise _over("there can be no rule in another currency")
        return rules.make(self.connection, approval, action, amount, by=self.reply.user_id, now=self.now)

    def _pause_after_many(self, approval: ApprovalRecord) -> None:
        """Whoever asks again and again for what is refused is stopped, until the user lets it go on (A82)."""
        settings = self.services.settings.approvals
        since = self.now - timedelta(seconds=settings.refusals_within)
        refusals = records.refusals_since(self.connection, approval, since)
        if refusals % settings.refusals_before_pause == 0:
            records.pause(self.connection, approval.delegation_id, self.now)
            log.tell(
                self.connection, "paused", "delegation", approval.delegation_id, by="server", now=self.now
            )
            record = Record("delegation.paused", approval.client_id, approval.delegation_id)
            record.rule = "approval.refusals"
            record.changed(self.connection, self.now, refusals=refusals, user=approval.user_id)

    def _now(self, approval: ApprovalRecord) -> ApprovalRecord:
        return records.find(self.connection, approval.id) or approval


def can_be_lifted(approval: ApprovalRecord) -> bool:
    """Whether the user could choose not to be asked again for this."""
    asks = Asks(approval.because, approval.seats, ())
    return rules.can_lift(asks, stored_action(approval.details))


def rules_of(services: Services, delegation_id: str) -> list[Rule]:
    """The rules of a delegation that stand."""
    return services.database.read(lambda connection: rules.rules_of(connection, delegation_id))


def take_back(services: Services, rule_id: str, user_id: str, now: datetime) -> Rule:
    """End a rule of the user's own. Raises `Refusal` (404) where there is none that stands."""

    def write(connection: Connection) -> Rule:
        rule = rules.find(connection, rule_id)
        chain = rule and load_chain(connection, rule.delegation_id, services.stored)
        if rule is None or not chain or chain.leaf.user_id != user_id:
            raise unknown()
        if rules.take_back(connection, rule_id, now):
            record = Record("approval_rule.taken_back", chain.leaf.client_id, rule.delegation_id)
            record.changed(connection, now, approval_rule=rule_id, by=f"user:{user_id}")
        return rule

    return services.database.write(write)


def unknown() -> Refusal:
    """There is nothing of that id, or nothing that this person may see."""
    return Refusal("not_found", "there is no such approval", rule="approval.unknown", status=404)


def _over(description: str) -> Refusal:
    return Refusal("conflict", description, rule="approval.over", status=409)
