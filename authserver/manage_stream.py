"""What a resource server does with its event streams (OpenID Shared Signals Framework 1.0 §8.1)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address
from urllib.parse import urlsplit

from sqlalchemy import Connection

from authserver.actors.fetcher import is_allowed
from authserver.actors.resource_servers import ResourceServer
from authserver.audit.events import Record
from authserver.errors import Refusal
from authserver.services import Services
from authserver.streams import log as happenings
from authserver.streams import records, sets
from authserver.streams.records import Delivery, Method, Status, Stream, authorization_purpose
from authserver.streams.sets import Said
from authserver.transmit import LONGEST_SILENCE
from authserver.values import is_loopback

METHODS: Mapping[str, Method] = {"urn:ietf:rfc:8935": "push", "urn:ietf:rfc:8936": "poll"}
_URNS = {method: urn for urn, method in METHODS.items()}
_PLAIN_URL = re.compile(r"[!-~]{1,2048}")
# Between two verifications that one receiver asks for.
VERIFICATION_INTERVAL = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class WishedDelivery:
    """How a receiver wants its events; for push, where, and with which `Authorization` header."""

    method: Method
    endpoint_url: str | None = None
    authorization: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a receiver chooses: well formed, and not believed yet. Without `delivery`, that stays as it is."""

    delivery: WishedDelivery | None
    events_requested: tuple[str, ...] | None
    description: str | None


def create(services: Services, receiver: ResourceServer, wish: Wish, now: datetime) -> Stream:
    """Begin a stream, which is told of what happens from now on. Raises `Refusal` (400, 409)."""
    stream_id = records.new_stream_id()
    delivery = _delivery(services, wish.delivery or WishedDelivery("poll"), stream_id)

    def write(connection: Connection) -> Stream:
        newest = happenings.newest_of_all(connection)  # first: its lock lets one after the other count
        if len(records.of_receiver(connection, receiver.id)) >= records.MOST:
            raise Refusal(
                "conflict", "this receiver has as many streams as any may", "stream.many", status=409
            )
        records.create(
            connection,
            receiver.id,
            delivery,
            wish.events_requested,
            wish.description,
            newest,
            now,
            stream_id=stream_id,
        )
        made = own(connection, receiver, stream_id)
        _audit(connection, "event_stream.created", receiver, made, now)
        return made

    return services.database.write(write)


def change(services: Services, receiver: ResourceServer, stream: Stream, wish: Wish, now: datetime) -> Stream:
    """Give a stream another configuration. Raises `Refusal` (400, 404)."""
    wished = wish.delivery
    delivery = None if wished is None else _delivery(services, wished, stream.id)

    def write(connection: Connection) -> Stream:
        found = own(connection, receiver, stream.id)
        records.configure(
            connection, found, delivery or found.delivery, wish.events_requested, wish.description, now
        )
        records.heard(connection, found, now)
        changed = own(connection, receiver, stream.id)
        _audit(connection, "event_stream.changed", receiver, changed, now)
        return changed

    return services.database.write(write)


def set_status(
    services: Services,
    receiver: ResourceServer,
    stream_id: str,
    status: Status,
    reason: str | None,
    now: datetime,
) -> Stream:
    """Let it go on, hold it up, or stop it. Raises `Refusal` (404)."""

    def write(connection: Connection) -> Stream:
        stream = own(connection, receiver, stream_id)
        newest = happenings.newest_of_all(connection)
        records.set_status(connection, stream, status, reason, newest, now)
        records.heard(connection, stream, now)
        changed = own(connection, receiver, stream_id)
        _audit(connection, "event_stream.status", receiver, changed, now)
        return changed

    return services.database.write(write)


def remove(services: Services, receiver: ResourceServer, stream_id: str, now: datetime) -> None:
    """Forget a stream. Raises `Refusal` (404)."""

    def write(connection: Connection) -> None:
        stream = own(connection, receiver, stream_id)
        records.remove(connection, stream)
        _audit(connection, "event_stream.deleted", receiver, stream, now)

    services.database.write(write)


def verify(
    services: Services, receiver: ResourceServer, stream_id: str, state: str | None, now: datetime
) -> None:
    """Let a verification event go over the stream. Raises `Refusal` (404, 429)."""

    def write(connection: Connection) -> None:
        stream = own(connection, receiver, stream_id)
        if not records.verifying(connection, stream, now - VERIFICATION_INTERVAL, now):
            wait = int(VERIFICATION_INTERVAL.total_seconds())
            raise Refusal(
                "too_many_requests",
                f"a stream is verified every {wait} seconds at most",
                "stream.verified",
                status=429,
                headers={"Retry-After": str(wait)},
            )
        event = {} if state is None else {"state": state}
        said = Said(sets.VERIFICATION, sets.stream_subject(stream.id), event)
        records.add_verification(connection, stream, said, now)

    services.database.write(write)


def own(connection: Connection, receiver: ResourceServer, stream_id: str) -> Stream:
    """The receiver's own stream of that id. Raises `Refusal` (404)."""
    # PostgreSQL would not even look for a name with U+0000 in it.
    stream = None if "\x00" in stream_id else records.find(connection, stream_id, receiver.id)
    if stream is None:
        raise Refusal("not_found", "there is no such stream of this receiver", "stream.unknown", status=404)
    return stream


def configuration(services: Services, receiver: ResourceServer, stream: Stream) -> dict[str, object]:
    """The stream as SSF §8.1.1 shows it; the header for pushes is a secret, and is not shown again."""
    shown: dict[str, object] = {
        "stream_id": stream.id,
        "iss": services.issuer,
        "aud": receiver.identifier,
        "events_supported": list(sets.SUPPORTED),
        "events_delivered": list(stream.events_delivered),
        "delivery": {
            "method": _URNS[stream.delivery.method],
            "endpoint_url": stream.delivery.endpoint_url or poll_url(services, stream.id),
        },
        "min_verification_interval": int(VERIFICATION_INTERVAL.total_seconds()),
        "inactivity_timeout": int(LONGEST_SILENCE.total_seconds()),
    }
    if stream.events_requested is not None:
        shown["events_requested"] = list(stream.events_requested)
    if stream.description is not None:
        shown["description"] = stream.description
    return shown


def poll_url(services: Services, stream_id: str) -> str:
    """Where a stream's events are asked for."""
    return f"{services.issuer}/oauth/ssf/poll/{stream_id}"


def _delivery(services: Services, wish: WishedDelivery, stream_id: str) -> Delivery:
    if wish.method == "poll" or wish.endpoint_url is None:
        return Delivery("poll")
    _reachable(services, wish.endpoint_url)
    if wish.authorization is None:
        return Delivery("push", wish.endpoint_url)
    sealed = services.seal.close(wish.authorization.encode("ascii"), authorization_purpose(stream_id))
    return Delivery("push", wish.endpoint_url, sealed)


def _reachable(services: Services, url: str) -> None:
    """A place that this server would push to. Whether its address is allowed is looked at with every push, too."""
    try:
        parts = urlsplit(url)
        port = parts.port  # reading it checks it
    except ValueError as error:
        raise _no_endpoint("takes a URL") from error
    host = parts.hostname or ""
    if not _PLAIN_URL.fullmatch(url) or not host or parts.username is not None or parts.fragment or port == 0:
        raise _no_endpoint("takes a URL with a host and without user name or fragment")
    allowed = services.settings.events.allow_private_network
    if not _may_be_asked(host, allowed):
        raise _no_endpoint("names an address that this server does not push to")
    near = allowed and is_loopback(host)
    if parts.scheme != "https" and not (parts.scheme == "http" and near):
        raise _no_endpoint("takes an https URL")


def _may_be_asked(host: str, allow_private_network: bool) -> bool:
    try:
        return is_allowed(ip_address(host), allow_private_network)
    except ValueError:
        return True  # a name: where it leads to is looked up with every push


def _no_endpoint(description: str) -> Refusal:
    return Refusal("invalid_request", f"delivery.endpoint_url {description}", "stream.endpoint_url")


def _audit(
    connection: Connection, event: str, receiver: ResourceServer, stream: Stream, now: datetime
) -> None:
    Record(event).changed(
        connection,
        now,
        by=f"resource_server:{receiver.id}",
        stream=stream.id,
        resource_server=receiver.identifier,
        method=stream.delivery.method,
        endpoint_url=stream.delivery.endpoint_url,
        status=stream.status,
    )
