"""Agents whose `client_id` is the address of a Client ID Metadata Document, and what this server takes from there.

draft-ietf-oauth-client-id-metadata-document; docs/decisions/0015 has why such an agent is registered all the same. The
document is read when the agent is registered and again every few minutes, never while somebody waits for an answer.
"""

import json
import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy import Connection

from authserver.actors import agents
from authserver.actors.agents import Agent
from authserver.actors.client_authentication import MAX_JWKS_BYTES
from authserver.actors.fetcher import Fetcher, FetchFailed
from authserver.actors.key_sources import JWKS_USES
from authserver.audit.events import Record
from authserver.config import ClientMetadataSettings, ConfigurationError
from authserver.errors import Refusal
from authserver.jose import KeysRefused, usable_keys
from authserver.members import document_host, parse_redirect_uris
from authserver.services import Services
from authserver.values import NotAValue, parse_name

log = structlog.get_logger()

_EVERY_SECONDS = 5.0
_STALE_FOR = timedelta(hours=1)  # keys of a document that cannot be read are believed for so long
_BATCH = 20
_MOST_URIS = 100
# §4.1 of the draft: there can be no secret that both sides know.
_SECRETS = ("client_secret", "client_secret_expires_at")


class DocumentRefused(Exception):
    """The document cannot be had or used; `reason` is a short code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Document:
    """What is taken from a document: its name, if that is a good one, and its JWK Set as JSON text, if it has one."""

    name: str | None
    redirect_uris: tuple[str, ...]
    jwks: str | None


def fetcher_of(settings: ClientMetadataSettings) -> Fetcher:
    """Whoever gets the documents, within bounds. Raises `ConfigurationError` where `ca_file` cannot be used."""
    try:
        return Fetcher(
            allow_private_network=settings.allow_private_network,
            ca_file=settings.ca_file,
            max_bytes=MAX_JWKS_BYTES,
        )
    except OSError as error:
        raise ConfigurationError(f"client_metadata.ca_file: {error.strerror}") from error


def as_published(services: Services, agent: Agent, now: datetime) -> Agent:
    """A new agent as its document has it, which is read before anything is written; one without a document as it is.

    Raises `DocumentRefused`.
    """
    if not agent.has_document:
        return agent
    found = read(fetcher_of(services.settings.client_metadata), agent.client_id)
    return with_document(agent, found, now)


def read(fetcher: Fetcher, client_id: str) -> Document:
    """The document at `client_id`, and its keys. Raises `DocumentRefused`."""
    document = _fetched(fetcher, client_id)
    # §4: letter by letter, so that nobody's document speaks for another address.
    if document.get("client_id") != client_id:
        raise DocumentRefused("client_id")
    method = document.get("token_endpoint_auth_method", "none")
    if any(name in document for name in _SECRETS) or not isinstance(method, str) or "secret" in method:
        raise DocumentRefused("secret")
    return Document(
        name=_name(document.get("client_name")),
        redirect_uris=_redirect_uris(document.get("redirect_uris", [])),
        jwks=_jwks(fetcher, document) if method == "private_key_jwt" else None,
    )


def _fetched(fetcher: Fetcher, url: str) -> dict[str, object]:
    try:
        document = fetcher.get_json(url)
    except FetchFailed as error:
        raise DocumentRefused(error.reason) from error
    if not isinstance(document, dict):
        raise DocumentRefused("json")
    return document


def _name(unverified: object) -> str | None:
    try:
        return parse_name(unverified)
    except NotAValue:
        return None


def _redirect_uris(unverified: object) -> tuple[str, ...]:
    """Those that could be registered here; a document is for many servers, and may name others beside them."""
    if not isinstance(unverified, list) or len(unverified) > _MOST_URIS:
        raise DocumentRefused("redirect_uris")
    taken: list[str] = []
    for uri in unverified:
        try:
            taken += parse_redirect_uris([uri])
        except NotAValue:
            continue
    return tuple(dict.fromkeys(taken))


def _jwks(fetcher: Fetcher, document: dict[str, object]) -> str:
    uri, keys = document.get("jwks_uri"), document.get("jwks")
    if (uri is None) == (keys is None):
        raise DocumentRefused("jwks")  # RFC 7591 §2: one or the other
    if uri is not None:
        keys = _fetched(fetcher, uri) if isinstance(uri, str) else None
    try:
        usable_keys(keys, uses=JWKS_USES)
    except KeysRefused as error:
        raise DocumentRefused("jwks") from error
    entries = keys["keys"] if isinstance(keys, dict) else []
    # What is no public key for signatures is not kept: somebody may have published too much.
    public = {"keys": [entry for entry in entries if usable_keys({"keys": [entry]}, uses=JWKS_USES)]}
    if not usable_keys(public, uses=JWKS_USES):
        raise DocumentRefused("jwks")
    return json.dumps(public, separators=(",", ":"), sort_keys=True)


# --- following them -----------------------------------------------------------------------------------------------


def refresh(services: Services, fetcher: Fetcher, now: datetime) -> int:
    """Read anew what is due, some of it; how many were read. Raises `Refusal` (503)."""
    again_at = now + timedelta(seconds=services.settings.client_metadata.refresh_after)
    due = services.database.read(lambda c: agents.documents_due(c, now, _BATCH))
    taken = [
        agent
        for agent in due
        if services.database.write(partial(agents.claim_document, agent=agent, now=now, again_at=again_at))
    ]
    for agent in taken:
        try:
            found = read(fetcher, agent.client_id)
        except DocumentRefused as error:
            log.warning("agent_document.refused", client_id=agent.client_id, reason=error.reason)
            services.database.write(partial(_not_read, agent=agent, reason=error.reason, now=now))
        else:
            services.database.write(partial(_taken, agent=agent, found=found, now=now))
    return len(taken)


def with_document(agent: Agent, found: Document, now: datetime) -> Agent:
    """The agent as its document has it. A name that an operator gave, or that users know, stays."""
    named = agent.name != document_host(agent.client_id)
    name = agent.name if named or found.name is None else found.name
    return replace(agent, name=name, redirect_uris=found.redirect_uris, jwks=found.jwks, document_read_at=now)


def _taken(connection: Connection, agent: Agent, found: Document, now: datetime) -> None:
    agent = agents.find(connection, agent.client_id) or agent  # it may have been renamed since
    after = with_document(agent, found, now)
    agents.take_document(connection, after)
    if (after.name, after.redirect_uris, after.jwks) != (agent.name, agent.redirect_uris, agent.jwks):
        _audited(connection, "agent.document_read", after, now)


def _not_read(connection: Connection, agent: Agent, reason: str, now: datetime) -> None:
    """A key that was taken out is not believed for ever because its document went away."""
    read_at = agent.document_read_at
    if agent.jwks is not None and (read_at is None or now - read_at > _STALE_FOR):
        after = replace(agent, jwks=None)
        agents.take_document(connection, after)
        _audited(connection, "agent.document_stale", after, now, reason=reason)


def _audited(connection: Connection, event: str, agent: Agent, now: datetime, **more: str) -> None:
    keys = None if agent.jwks is None else json.loads(agent.jwks)
    said = {"name": agent.name, "redirect_uris": list(agent.redirect_uris), "jwks": keys, **more}
    Record(event, client_id=agent.client_id).changed(connection, now, by="server", document=said)


def start(services: Services) -> threading.Event:
    """Follow the documents in a thread of its own, until the returned event is set."""
    stop = threading.Event()
    fetcher = fetcher_of(services.settings.client_metadata)
    threading.Thread(target=_run, args=(services, fetcher, stop), name="documents", daemon=True).start()
    return stop


def _run(services: Services, fetcher: Fetcher, stop: threading.Event) -> None:
    while not stop.wait(_EVERY_SECONDS):
        try:
            refresh(services, fetcher, services.clock.now())
        except Refusal:
            continue  # the database is away, which it has said itself
        except Exception as error:  # whatever it is, it must not be the last time  # noqa: BLE001
            log.error("agent_documents.failed", error=type(error).__name__)  # noqa: TRY400
