"""`doctor`: is everything there that the server needs, and as it should be?"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial

import click
from sqlalchemy import Connection, text

from authserver import migration
from authserver.actors.trust_domains import TrustDomains
from authserver.clock import SystemClock
from authserver.commands import health_checks
from authserver.commands.context import Failed, in_words, json_option, print_json
from authserver.commands.health_checks import Trouble
from authserver.config import (
    ConfigurationError,
    Settings,
    TrustDomainSettings,
    load_settings,
    read_encryption_key,
    read_other_encryption_key,
)
from authserver.db import Database
from authserver.delegations.stored_details import StoredDetails
from authserver.errors import Refusal
from authserver.ledger.check import check as check_ledger
from authserver.policies.loaded import LoadedPolicies
from authserver.policy.cedar_text import PolicyError
from authserver.services import load_vocabulary, open_database
from authserver.tokens.sealing import Seal, SealBroken
from authserver.tokens.signing_keys import SigningKeys, list_keys

Check = Callable[[], str]

# What a commit needs to outlive a loss of power (SQLite's pragmas, PostgreSQL's settings).
_DURABLE = {
    "sqlite": {"PRAGMA journal_mode": ("wal",), "PRAGMA synchronous": ("2", "3")},
    "postgresql": {
        "SHOW fsync": ("on",),
        "SHOW full_page_writes": ("on",),
        "SHOW synchronous_commit": ("on", "local", "remote_write", "remote_apply"),
    },
}


@dataclass(frozen=True, slots=True)
class Finding:
    """How one thing stands."""

    check: str
    ok: bool
    detail: str


class _Wrong(Exception):
    """A check that failed, in words."""


@click.command("doctor")
@json_option
def verb(as_json: bool) -> None:
    """Check configuration, keys, database, trust domains and ledger, a line each; exits with 1 if something is wrong.

    It changes nothing. Keys that a trust domain serves at a URL are fetched.
    """
    found = []
    for finding in _findings():
        found.append(finding)
        if not as_json:
            click.echo(f"{'ok   ' if finding.ok else 'WRONG'}  {finding.check}: {finding.detail}")
    if as_json:
        print_json([asdict(finding) for finding in found])
    wrong = sum(not finding.ok for finding in found)
    if wrong:
        raise Failed(f"{wrong} of {len(found)} checks failed")


def _findings() -> Iterator[Finding]:
    try:
        settings = load_settings()
    except ConfigurationError as error:
        yield Finding("configuration", False, str(error))
        return
    yield Finding("configuration", True, f"the issuer is {settings.server.issuer}")
    database = open_database(settings)
    try:
        for name, check in _checks(settings, database):
            yield _finding(name, check)
    finally:
        database.dispose()


def _finding(name: str, check: Check) -> Finding:
    try:
        return Finding(name, True, check())
    except Refusal as refusal:
        return Finding(name, False, in_words(refusal))
    except Trouble as trouble:
        return Finding(name, False, trouble.words)
    except (ConfigurationError, _Wrong) as error:
        return Finding(name, False, str(error))


def _checks(settings: Settings, database: Database) -> Iterator[tuple[str, Check]]:
    now = SystemClock().now()
    yield "catalogue", lambda: f"{len(load_vocabulary(settings).catalogue.entries)} actions"
    yield "schema", lambda: _schema(database)
    yield "durability", lambda: database.read(_durability)
    if not database.is_sqlite:
        most = settings.database.statement_timeout
        yield "time limits", lambda: database.read(lambda connection: _time_limits(connection, most))
    yield "encryption key", lambda: _encryption_key(settings, database)
    yield "signing keys", lambda: _signing_keys(settings, database, now)
    for domain in settings.trust_domains:
        yield f"trust domain {domain.name}", partial(_trust_domain, domain, settings.server.issuer, now)
    yield "ledger", lambda: _ledger(settings, database)
    yield "policies", lambda: _policies(settings, database)
    yield "files", lambda: health_checks.file_modes(settings)
    yield "metrics", lambda: health_checks.metrics_directory(settings)
    yield "clock", lambda: database.read(lambda c: health_checks.clock(c, SystemClock().now()))
    if _is_current(database):
        yield "key age", lambda: database.read(lambda c: health_checks.key_age(c, now))
        yield "sealing", lambda: database.read(lambda c: health_checks.sealing(c, now))
        yield "witnesses", lambda: database.read(lambda c: health_checks.witnesses(c, settings))
        yield "history", lambda: health_checks.history(database, settings)
        yield "event receivers", lambda: database.read(lambda c: health_checks.receivers(c, now))


def _is_current(database: Database) -> bool:
    try:
        return not migration.pending(database)
    except Refusal:
        return False  # said already


def _schema(database: Database) -> str:
    missing = migration.pending(database)
    if missing:
        raise _Wrong(f"lacks {', '.join(missing)}: run  python manage.py migrate")
    return "current"


def _durability(connection: Connection) -> str:
    wanted = _DURABLE[connection.dialect.name]
    found = {name: str(connection.scalar(text(name))) for name in wanted}
    said = ", ".join(f"{name.split()[1]} {value}" for name, value in found.items())
    if any(value not in wanted[name] for name, value in found.items()):
        raise _Wrong(f"what is committed can be lost: {said}")
    return said


def _time_limits(connection: Connection, most: int) -> str:
    # They go out as a start-up parameter, which a pooler may not pass on (docs/postgresql.md).
    for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
        query = text("SELECT CAST(setting AS integer) FROM pg_settings WHERE name = :name")
        limit = connection.scalar(query, {"name": name})
        if limit != most:
            raise _Wrong(f"{name} is {limit} ms, not {most}: where a pooler drops it, ALTER ROLE sets it")
    return f"{most} ms"


def _encryption_key(settings: Settings, database: Database) -> str:
    if read_encryption_key(settings.keys) is not None:
        return "there, and nobody else's to read"
    if database.read(list_keys):
        raise _Wrong(
            f"{settings.keys.encryption_key_file} is gone, and the stored keys were encrypted with it"
        )
    return "will be made at the first start"


def _signing_keys(settings: Settings, database: Database, now: datetime) -> str:
    encryption_key = read_encryption_key(settings.keys)
    records = database.read(list_keys)
    if not records:
        return "will be made at the first start"
    if encryption_key is None:
        raise _Wrong("cannot be read without the encryption key")
    seal = Seal(encryption_key, read_other_encryption_key(settings.keys))
    try:
        kid = SigningKeys(database, seal, SystemClock()).active().kid
    except SealBroken as error:
        raise _Wrong("were encrypted with another encryption key") from error
    except ValueError as error:
        raise _Wrong("none is active") from error
    published = sum(record.state(now) != "removed" for record in records)
    return f"{kid} signs, {published} published"


def _trust_domain(settings: TrustDomainSettings, issuer: str, now: datetime) -> str:
    trust_domains = TrustDomains([settings], issuer=issuer)
    trust_domains.warm_up(now)
    (freshness,) = trust_domains.freshness(now).values()
    if not freshness.usable or not freshness.keys:
        raise _Wrong("its keys cannot be read, or none of them can be used")
    return f"{freshness.keys} keys"


def _policies(settings: Settings, database: Database) -> str:
    loaded = LoadedPolicies(settings.policies.directory, load_vocabulary(settings).catalogue, database)
    try:
        loaded.load()
    except PolicyError as error:
        raise _Wrong(str(error)) from error
    return f"{len(loaded.current.enforced.policies)} in force"


def _ledger(settings: Settings, database: Database) -> str:
    stored = StoredDetails()
    wrong = database.read(lambda connection: list(check_ledger(connection, stored)))
    if wrong:
        raise _Wrong(f"{len(wrong)} totals differ: manage.py ledger check  shows them")
    return "every total is the sum of its transfers"
