"""How things stand, for `/metrics`: in this process, and in the records that all processes share."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import Connection

from authserver import metrics
from authserver.approvals import records as approvals
from authserver.audit import batches, deliveries
from authserver.errors import Refusal
from authserver.notifications import outbox
from authserver.services import Services
from authserver.streams import records
from authserver.tokens import signing_keys


def note(services: Services, now: datetime) -> None:
    """Write down how things stand in this process. Each process does so every few seconds, and when it is asked."""
    for name, domain in services.trust_domains.freshness(now).items():
        age = -1.0 if domain.read_at is None else (now - domain.read_at).total_seconds()
        metrics.standing("authserver_trust_domain_keys_age_seconds", {name: age})
        metrics.standing("authserver_trust_domain_keys_fresh", {name: float(domain.fresh)})
        metrics.standing("authserver_trust_domain_keys_usable", {name: float(domain.usable)})
    metrics.standing("authserver_database_connections", services.database.connections())
    metrics.standing("authserver_policies_stale", {"": float(services.policies.problem is not None)})
    metrics.standing("authserver_workers", {"": 1.0})


def exposition(services: Services, now: datetime) -> bytes:
    """Everything that is counted, and how things stand, in Prometheus' text format."""
    note(services, now)
    return metrics.exposition([_Standing(services, now)])


@dataclass(frozen=True, slots=True)
class _Gauge:
    """One thing that stands in the records: what it is, its label where it has one, and its values by that label."""

    name: str
    text: str
    label: str | None
    values: Callable[[Services, Connection, datetime], Mapping[str, float]]


class _Standing:
    """Looks everything up, each by itself: where the database is away, the rest is told all the same."""

    def __init__(self, services: Services, now: datetime) -> None:
        self._services, self._now = services, now

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Whether the database answers, and what it has."""
        reachable = GaugeMetricFamily("authserver_database_up", "1 where the database answers.")
        try:
            families = self._services.database.read(lambda connection: list(self._families(connection)))
        except Refusal:
            families = []
        reachable.add_metric([], float(bool(families)))
        return [reachable, *families]

    def _families(self, connection: Connection) -> Iterator[GaugeMetricFamily]:
        for gauge in _GAUGES:
            labels = None if gauge.label is None else [gauge.label]
            family = GaugeMetricFamily(gauge.name, gauge.text, labels=labels)
            for label, value in gauge.values(self._services, connection, self._now).items():
                family.add_metric([] if labels is None else [label], value)
            yield family


def _approvals_waiting(services: Services, connection: Connection, now: datetime) -> Mapping[str, float]:
    return {"": float(approvals.count_waiting(connection, now))}


def _notifications_waiting(services: Services, connection: Connection, now: datetime) -> Mapping[str, float]:
    return {"": float(outbox.pending(connection))}


def _signing_key_age(services: Services, connection: Connection, now: datetime) -> Mapping[str, float]:
    signing = [key.activates_at for key in signing_keys.list_keys(connection) if key.state(now) == "active"]
    return {"": (now - max(signing)).total_seconds()} if signing else {}


def _signing_keys(services: Services, connection: Connection, now: datetime) -> Mapping[str, float]:
    states = [key.state(now) for key in signing_keys.list_keys(connection)]
    return {state: float(states.count(state)) for state in ("pending", "active", "retired")}


def _unsealed_events(services: Services, connection: Connection, now: datetime) -> Mapping[str, float]:
    return {"": float(batches.lag(connection, now)[0])}


def _unsealed_seconds(services: Services, connection: Connection, now: datetime) -> Mapping[str, float]:
    return {"": batches.lag(connection, now)[1]}


def _audit_failing(services: Services, connection: Connection, now: datetime) -> Mapping[str, float]:
    return {name: float(attempts) for name, attempts in deliveries.failing(connection).items()}


def _event_streams(services: Services, connection: Connection, now: datetime) -> Mapping[str, float]:
    found = [stream.status for stream, _ in records.all_streams(connection)]
    return {status: float(found.count(status)) for status in ("enabled", "paused", "disabled")}


def _streams_failing(services: Services, connection: Connection, now: datetime) -> Mapping[str, float]:
    found = [stream for stream, _ in records.all_streams(connection) if stream.status == "enabled"]
    return {"": float(sum(stream.failures > 0 for stream in found))}


def _events_pending(services: Services, connection: Connection, now: datetime) -> Mapping[str, float]:
    return {"": float(sum(pending for _, pending in records.all_streams(connection)))}


def _events_waiting(services: Services, connection: Connection, now: datetime) -> Mapping[str, float]:
    since = records.oldest_pending(connection)
    return {"": max(0.0, (now - since).total_seconds()) if since is not None else 0.0}


_GAUGES = (
    _Gauge(
        "authserver_audit_unsealed_events",
        "Audit events that no tree head covers yet.",
        None,
        _unsealed_events,
    ),
    _Gauge(
        "authserver_audit_unsealed_seconds",
        "How long the oldest audit event has waited to be sealed.",
        None,
        _unsealed_seconds,
    ),
    _Gauge(
        "authserver_audit_delivery_failures",
        "Attempts since the last that arrived, for each witness and stream of the audit that is failing.",
        "destination",
        _audit_failing,
    ),
    _Gauge("authserver_event_streams", "Streams of resource servers, by status.", "status", _event_streams),
    _Gauge(
        "authserver_event_streams_failing",
        "Streams whose receiver did not take the last push.",
        None,
        _streams_failing,
    ),
    _Gauge(
        "authserver_events_pending",
        "Security Event Tokens that their receivers have not taken; more follow from what stands before them.",
        None,
        _events_pending,
    ),
    _Gauge(
        "authserver_events_waiting_seconds",
        "How long the oldest Security Event Token has waited to be taken.",
        None,
        _events_waiting,
    ),
    _Gauge("authserver_approvals_waiting", "Approvals that wait for a person.", None, _approvals_waiting),
    _Gauge(
        "authserver_notifications_waiting",
        "Messages to people and programs that are still to be delivered.",
        None,
        _notifications_waiting,
    ),
    _Gauge(
        "authserver_signing_key_age_seconds",
        "How long the key that signs now has signed.",
        None,
        _signing_key_age,
    ),
    _Gauge("authserver_signing_keys", "Published signing keys, by state.", "state", _signing_keys),
)
