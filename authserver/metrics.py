"""What is counted and timed, for `GET /metrics` in Prometheus' format.

Nothing here has a label that grows with use: no id, no name that a stranger chose. Where several processes serve, they
count in files of one directory that they share, and whichever is asked answers for all of them.
"""

import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# prometheus-client looks for it when it is imported, which happens at the first count: after the workers were made.
_SHARED = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# There are about a hundred rules; should one ever be made of something else, it ends here.
_MOST_REASONS = 300
_POLICY = "policy:"


def share_between_processes(directory: Path) -> None:
    """Let all processes that are made from now on count in that directory. Before anything was counted in this one."""
    os.environ[_SHARED] = str(directory)


def shared_directory() -> Path | None:
    """Where this server's processes count together; None where it is one process."""
    directory = os.environ.get(_SHARED)
    return None if directory is None else Path(directory)


# --- what use cases tell --------------------------------------------------------------------------------------------


def exchanged(grant: str, outcome: str, reason: str, seconds: float) -> None:
    """A request to the token endpoint was answered.

    `grant` is which (`exchange`, `hand_over`, `deferred`, …), `outcome` is `permitted`, `refused`, `deferred` (it waits
    for a person from now on), `pending` (it still does) or `failed`; `reason` is the rule that decided.
    """
    meters = _meters()
    meters.exchange(grant, outcome, meters.bounded(reason)).inc()
    meters.duration(grant).observe(seconds)


def settled(step: str, outcome: str, reason: str) -> None:
    """A redemption, capture, void or refund was `permitted`, `refused` or `failed`."""
    meters = _meters()
    meters.settlements.labels(step, outcome, meters.bounded(reason)).inc()


def begun_anew() -> None:
    """Two transactions met, and one was begun anew from its start."""
    _meters().retries.inc()


def not_committed() -> None:
    """The database could not read or commit: the caller got a 503."""
    _meters().given_up.inc()


def approval_answered(answer: str, times: int = 1) -> None:
    """A person answered (`approve`, `refuse`), or nobody did in time (`expire`); so many times."""
    if times:
        _meters().answers.labels(answer).inc(times)


def event_sent(method: str, outcome: str, times: int = 1) -> None:
    """So many Security Event Tokens were `taken`, `refused` or not `delivered`, by `push` or `poll`."""
    if times:
        _meters().events.labels(method, outcome).inc(times)


def unauthenticated(rule: str) -> None:
    """Somebody who is not known asked the administrators' API to change something."""
    meters = _meters()
    meters.unauthenticated.labels(meters.bounded(rule)).inc()


def standing(name: str, values: Mapping[str, float]) -> None:
    """How something stands in this process: the gauge of that name, by its label, which is empty where it has none."""
    _meters().stand(name, values)


# --- what is answered -----------------------------------------------------------------------------------------------


def exposition(collectors: Iterable["Collector"]) -> bytes:
    """Everything, as Prometheus reads it; `collectors` tell what is looked up now, once for the whole server."""
    from prometheus_client import generate_latest

    registry = _registry()
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry)


def durations(grant: str) -> dict[float, int]:
    """How many requests of a grant took up to so many seconds, and more than the step before; since the start."""
    samples = (sample for family in _registry().collect() for sample in family.samples)
    reached = {
        float(sample.labels["le"]): int(sample.value)
        for sample in samples
        if sample.name == "authserver_exchange_seconds_bucket" and sample.labels["grant"] == grant
    }
    counts, below = dict[float, int](), 0
    for bound in sorted(reached):
        counts[bound], below = reached[bound] - below, reached[bound]
    return counts


def _registry() -> "CollectorRegistry":
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    directory = shared_directory()
    registry = CollectorRegistry()
    if directory is None:
        registry.register(_meters().registry)
        return registry
    _forget_the_dead(directory)
    MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call]
    return registry


def _forget_the_dead(directory: Path) -> None:
    """How things stood in a process that has ended is no news; what it counted stays."""
    for path in directory.glob("gauge_live*_*.db"):
        if not Path("/proc", path.stem.rpartition("_")[2]).exists():
            with suppress(FileNotFoundError):
                path.unlink()


# --- the meters themselves ------------------------------------------------------------------------------------------

_Mode = Literal["livesum", "livemax", "livemin"]
# Each with its label, and how what the living processes say becomes one figure: the sum, or the worst.
_GAUGES: Mapping[str, tuple[str, str | None, _Mode]] = {
    "authserver_workers": ("Processes that serve.", None, "livesum"),
    "authserver_database_connections": ("Connections to the database, by state.", "state", "livesum"),
    "authserver_policies_stale": (
        "1 where policy files are broken and those before them go on deciding.",
        None,
        "livemax",
    ),
    "authserver_trust_domain_keys_age_seconds": (
        "Age of a trust domain's keys; the oldest of all processes. -1 where none were ever read.",
        "trust_domain",
        "livemax",
    ),
    "authserver_trust_domain_keys_fresh": (
        "1 where the last attempt to read a trust domain's keys succeeded, in all processes.",
        "trust_domain",
        "livemin",
    ),
    "authserver_trust_domain_keys_usable": (
        "1 where a trust domain's workload assertions can be verified, in all processes.",
        "trust_domain",
        "livemin",
    ),
}


class _Meters:
    """What this process counts. Threads may share it."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        shared = shared_directory() is not None
        # In shared files, whoever is asked reads them; a registry of this process has no part in it.
        at = None if shared else self.registry
        self._exchanges = Counter(
            "authserver_exchanges_total",
            "Requests to the token endpoint, by grant, outcome and the rule that decided.",
            ("grant", "outcome", "reason"),
            registry=at,
        )
        self._seconds = Histogram(
            "authserver_exchange_seconds",
            "Time to answer a request to the token endpoint.",
            ("grant",),
            buckets=_SECONDS,
            registry=at,
        )
        self.settlements = Counter(
            "authserver_settlements_total",
            "Redemptions, captures, voids and refunds, by outcome and the rule that decided.",
            ("step", "outcome", "reason"),
            registry=at,
        )
        self.retries = Counter(
            "authserver_transaction_retries_total",
            "Transactions that met another one and were begun anew.",
            registry=at,
        )
        self.given_up = Counter(
            "authserver_transactions_failed_total",
            "Transactions that the database could not do; their callers got a 503.",
            registry=at,
        )
        self.answers = Counter(
            "authserver_approvals_answered_total",
            "Answers to approvals, by answer.",
            ("answer",),
            registry=at,
        )
        self.events = Counter(
            "authserver_events_sent_total",
            "Security Event Tokens that receivers took or refused, and attempts that did not arrive.",
            ("method", "outcome"),
            registry=at,
        )
        self.unauthenticated = Counter(
            "authserver_api_unauthenticated_total",
            "Writes to the administrators' API by callers who are not known, by the rule that refused them.",
            ("reason",),
            registry=at,
        )
        self._gauges = {
            name: Gauge(name, text, [label] if label else [], multiprocess_mode=mode, registry=at)
            for name, (text, label, mode) in _GAUGES.items()
        }
        # To look a child up costs as much as to count.
        self.exchange = cache(self._exchanges.labels)
        self.duration = cache(self._seconds.labels)
        self._reasons: set[str] = set()

    def bounded(self, reason: str) -> str:
        """The reason, or one for many where there would be too many: what an operator named is one."""
        if reason in self._reasons:
            return reason
        if reason.startswith(_POLICY):
            return "policy"
        if len(self._reasons) >= _MOST_REASONS:
            return "other"
        self._reasons.add(reason)
        return reason

    def stand(self, name: str, values: Mapping[str, float]) -> None:
        gauge = self._gauges[name]
        for label, value in values.items():
            (gauge.labels(label) if label else gauge).set(value)


_making = threading.Lock()


@cache
def _made() -> _Meters:
    return _Meters()


def _meters() -> _Meters:
    # Two threads that count first at the same moment must not make two.
    with _making:
        return _made()
