"""People are told that an agent waits for them, in the ways that are configured and that they chose."""

from datetime import datetime
from functools import partial

import structlog
from sqlalchemy import Connection

from authserver.actors import agents
from authserver.approvals import records
from authserver.approvals.approvers import people_asked
from authserver.approvals.records import ApprovalRecord, Step
from authserver.names import shown_name
from authserver.notifications import addresses, outbox, ways
from authserver.notifications.addresses import Address
from authserver.notifications.outbox import Event, Message
from authserver.notifications.ways import AddressGone, NotDelivered
from authserver.policy.reading import instant_text
from authserver.services import Services
from authserver.texts import _, speaking

log = structlog.get_logger()
_BATCH = 20


def opened(services: Services, connection: Connection, approval: ApprovalRecord, now: datetime) -> None:
    """Whoever is asked at first is told."""
    _put(services, connection, approval, "opened", approval.seats, now)


def escalated(
    services: Services, connection: Connection, approval: ApprovalRecord, step: Step, now: datetime
) -> None:
    """Whoever is asked as well, since there was no answer, is told."""
    _put(services, connection, approval, "escalated", (step.to,), now)


def _put(
    services: Services,
    connection: Connection,
    approval: ApprovalRecord,
    event: Event,
    approvers: tuple[str, ...],
    now: datetime,
) -> None:
    settings = services.settings.notifications
    if settings.webhook_url is not None:
        outbox.put(connection, approval.id, event, "webhook", None, now)
    wanted = {
        "push": settings.push_contact is not None,
        "email": settings.smtp_host is not None,
    }
    if any(wanted.values()):
        groups = services.settings.groups.members
        asked = (people_asked(connection, approval, name, groups) for name in dict.fromkeys(approvers))
        people = [*dict.fromkeys(user_id for user_ids in asked for user_id in user_ids)]
        for address in addresses.of_users(connection, services.seal, people):
            if wanted[address.channel]:
                outbox.put(connection, approval.id, event, address.channel, address.id, now)


def is_configured(services: Services) -> bool:
    """Whether anything is ever sent."""
    settings = services.settings.notifications
    return bool(settings.webhook_url or settings.push_contact or settings.smtp_host)


def deliver(services: Services, now: datetime) -> int:
    """Send what is due, some of it; returns how many messages were taken. Outside of every transaction."""
    messages = services.database.write(lambda connection: outbox.claim(connection, now, _BATCH))
    for message in messages:
        _deliver_one(services, message, now)
    return len(messages)


def _deliver_one(services: Services, message: Message, now: datetime) -> None:
    try:
        if message.approval_id is None:
            _ask_to_confirm(services, message)
        else:
            _tell(services, message, message.approval_id, now)
    except NotDelivered as error:
        log.warning("notification.not_delivered", channel=message.channel, reason=str(error))
        return
    except AddressGone:
        services.database.write(partial(addresses.remove, address_id=message.address_id or ""))
    services.database.write(partial(outbox.done, message_id=message.id))


def _tell(services: Services, message: Message, approval_id: str, now: datetime) -> None:
    approval = services.database.read(lambda connection: records.find(connection, approval_id))
    # What nobody can answer any more needs no telling.
    if approval is not None and approval.state_at(now) == "waiting":
        _send(services, message, approval, now)


def _send(services: Services, message: Message, approval: ApprovalRecord, now: datetime) -> None:
    settings = services.settings.notifications
    if message.channel == "webhook":
        ways.post_webhook(settings, message.id, _for_programs(services, message, approval, now), now)
        return
    address = _address(services, message)
    if address is None:
        return
    with speaking(address.language):
        subject, uri = _subject(services, approval), _uri(services, approval)
        how = _(
            "Open this to see exactly what it would do, and to approve or refuse it. No answer is a refusal."
        )
    if message.channel == "push":
        ttl = int((approval.expires_at - now).total_seconds())
        key = ways.push_key(services.approvals_secret)
        ways.push(settings, key, address.data, {"title": subject, "url": uri}, ttl)
    else:
        ways.mail(settings, str(address.data["email"]), subject, f"{subject}\n\n{how}\n\n{uri}\n")


def _ask_to_confirm(services: Services, message: Message) -> None:
    address = _address(services, message)
    if address is None or address.confirmed:
        return
    code = addresses.code_of(services.approvals_secret, address.id)
    link = f"{services.issuer}/notifications/confirm?code={code}"
    with speaking(address.language):
        subject = _("Is this your address?")
        text = _(
            "Somebody wants messages at this address when an agent asks for an approval. If that is you, open this and"
            " confirm; if not, do nothing."
        )
    ways.mail(services.settings.notifications, str(address.data["email"]), subject, f"{text}\n\n{link}\n")


def _address(services: Services, message: Message) -> Address | None:
    return services.database.read(
        lambda connection: addresses.find(connection, services.seal, message.address_id or "")
    )


def _for_programs(
    services: Services, message: Message, approval: ApprovalRecord, now: datetime
) -> dict[str, object]:
    come_to = [step.to for step in approval.steps if step.at <= now] or [approval.escalate_to]
    asked = come_to[-1] if message.event == "escalated" else approval.approver
    return {
        "type": f"approval.{message.event}",
        "data": {
            "approval": approval.id,
            "approval_uri": _uri(services, approval),
            "approver": asked,
            "user": approval.user_id,
            "client_id": approval.client_id,
            "action": approval.action,
            "details_hash": approval.details_hash,
            "expires_at": instant_text(approval.expires_at),
        },
    }


def _subject(services: Services, approval: ApprovalRecord) -> str:
    """Of the operator's words only: never the seller's name, which may be the agent's own (threats A83)."""
    agent = services.database.read(lambda connection: agents.find(connection, approval.client_id))
    entry = services.vocabulary.catalogue.get(approval.action)
    title = entry.title if entry is not None else approval.action
    name = agent.name if agent is not None else approval.client_id
    return _("%(agent)s asks you: %(action)s", agent=shown_name(name), action=_(title))


def _uri(services: Services, approval: ApprovalRecord) -> str:
    return f"{services.issuer}/approvals/{approval.id}"
