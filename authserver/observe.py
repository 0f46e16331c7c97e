"""How things stand, for `/metrics`: in this process, and in the records that all processes share."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import Connection

from authserver import metrics
from authserver.approvals import records as approvals
from authserver.audit import batches, deliveries
from authserver.errors import Refusal
from authserver.notifications import outbox
from authserver.services import Services
from authserver.streams import records
from authserver.streams.records import Stream
from authserver.tokens import signing_keys
from authserver.tokens.signing_keys import KeyRecord


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
class _Records:
    """What stands in the records at one moment, each looked up once. Seconds are how long the oldest has waited."""

    unsealed_events: int
    unsealed_seconds: float
    audit_failing: Mapping[str, int]
    streams: Sequence[tuple[Stream, int]]  # each with how many events are pending
    events_seconds: float
    approvals_waiting: int
    notifications_waiting: int
    keys: Sequence[KeyRecord]
    now: datetime

    @classmethod
    def looked_up(cls, connection: Connection, now: datetime) -> Self:
        """All of it, on one connection."""
        unsealed_events, unsealed_seconds = batches.lag(connection, now)
        since = records.oldest_pending(connection)
        return cls(
            unsealed_events=unsealed_events,
            unsealed_seconds=unsealed_seconds,
            audit_failing=deliveries.failing(connection),
            streams=records.all_streams(connection),
            events_seconds=max(0.0, (now - since).total_seconds()) if since is not None else 0.0,
            approvals_waiting=approvals.count_waiting(connection, now),
            notifications_waiting=outbox.pending(connection),
            keys=signing_keys.list_keys(connection),
            now=now,
        )

    def signing_key_age(self) -> Mapping[str, float]:
        """For how many seconds the key that signs now has signed; nothing where there is none."""
        signing = [key.activates_at for key in self.keys if key.state(self.now) == "active"]
        return {"": (self.now - max(signing)).total_seconds()} if signing else {}


@dataclass(frozen=True, slots=True)
class _Gauge:
    """One thing that stands in the records: what it is, its label where it has one, and its values by that label."""

    name: str
    text: str
    label: str | None
    values: Callable[[_Records], Mapping[str, float]]


class _Standing:
    """Looks everything up when it is asked; where the database is away, that is told all the same."""

    def __init__(self, services: Services, now: datetime) -> None:
        self._services, self._now = services, now

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Whether the database answers, and what it has."""
        reachable = GaugeMetricFamily("authserver_database_up", "1 where the database answers.")
        try:
            found = self._services.database.read(lambda connection: _Records.looked_up(connection, self._now))
        except Refusal:
            reachable.add_metric([], 0.0)
            return [reachable]
        reachable.add_metric([], 1.0)
        return [reachable, *(_family(gauge, found) for gauge in _GAUGES)]


def _family(gauge: _Gauge, found: _Records) -> GaugeMetricFamily:
    labels = None if gauge.label is None else [gauge.label]
    family = GaugeMetricFamily(gauge.name, gauge.text, labels=labels)
    for label, value in gauge.values(found).items():
        family.add_metric([] if labels is None else [label], float(value))
    return family


def _by_state(states: Sequence[str], known: Sequence[str]) -> Mapping[str, float]:
    return {state: states.count(state) for state in known}


_GAUGES = (
    _Gauge(
        "authserver_audit_unsealed_events",
        "Audit events that no tree head covers yet.",
        None,
        lambda found: {"": found.unsealed_events},
    ),
    _Gauge(
        "authserver_audit_unsealed_seconds",
        "How long the oldest audit event has waited to be sealed.",
        None,
        lambda found: {"": found.unsealed_seconds},
    ),
    _Gauge(
        "authserver_audit_delivery_failures",
        "Attempts since the last that arrived, for each witness and stream of the audit that is failing.",
        "destination",
        lambda found: found.audit_failing,
    ),
    _Gauge(
        "authserver_event_streams",
        "Streams of resource servers, by status.",
        "status",
        lambda found: _by_state([one.status for one, _ in found.streams], ("enabled", "paused", "disabled")),
    ),
    _Gauge(
        "authserver_event_streams_failing",
        "Streams whose receiver did not take the last push.",
        None,
        lambda found: {"": sum(one.status == "enabled" and one.failures > 0 for one, _ in found.streams)},
    ),
    _Gauge(
        "authserver_events_pending",
        "Security Event Tokens that their receivers have not taken; more follow from what stands before them.",
        None,
        lambda found: {"": sum(pending for _, pending in found.streams)},
    ),
    _Gauge(
        "authserver_events_waiting_seconds",
        "How long the oldest Security Event Token has waited to be taken.",
        None,
        lambda found: {"": found.events_seconds},
    ),
    _Gauge(
        "authserver_approvals_waiting",
        "Approvals that wait for a person.",
        None,
        lambda found: {"": found.approvals_waiting},
    ),
    _Gauge(
        "authserver_notifications_waiting",
        "Messages to people and programs that are still to be delivered.",
        None,
        lambda found: {"": found.notifications_waiting},
    ),
    _Gauge(
        "authserver_signing_key_age_seconds",
        "How long the key that signs now has signed.",
        None,
        _Records.signing_key_age,
    ),
    _Gauge(
        "authserver_signing_keys",
        "Published signing keys, by state.",
        "state",
        lambda found: _by_state(
            [key.state(found.now) for key in found.keys], ("pending", "active", "retired")
        ),
    ),
)
