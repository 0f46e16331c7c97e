"""A whole server over real HTTP, with a trust domain in files, two agents, two resource servers and a user.

The clock is the test's; everything else is real: sockets, the database, signatures.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from joserfc.jwk import ECKey
from sqlalchemy import func, select
from werkzeug.serving import WSGIRequestHandler, make_server

from authserver import jose, strict_json
from authserver.accounts import users
from authserver.actors import agents, resource_servers
from authserver.actors.agents import Agent
from authserver.actors.resource_servers import ResourceServer, new_secret
from authserver.actors.workload_files import create_domain, make_assertion
from authserver.app import build
from authserver.config import Settings
from authserver.consent import Granted, grant
from authserver.policy.delegation_details import parse_delegation
from authserver.policy.details import Merchant
from authserver.schema import Action, AuditEvent, Budget, BudgetWindow, IdempotencyKey, Transfer, table_of
from authserver.services import Services, open_services
from tests.fakes import SettableClock
from tests.listening import listening

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
SHOP = "https://shop.example/api"
MARKET = "https://market.example/api"
BASKET_HELPER = "spiffe://example.org/agent/basket-helper"
PRICE_SCOUT = "spiffe://example.org/agent/price-scout"
MERCHANT = {"id": "m_123", "category": "5411", "country": "NL", "name": "Example Foods"}


@dataclass(frozen=True)
class Rows:
    """How many rows there are, and what is held: what must not change when a request is refused."""

    actions: int
    transfers: int
    idempotency_keys: int
    reserved: int
    counted: int
    in_windows: int


_COUNTED = select(
    *(
        select(func.count()).select_from(table_of(row)).scalar_subquery()
        for row in (Action, Transfer, IdempotencyKey)
    ),
    *(
        select(func.coalesce(func.sum(column), 0)).scalar_subquery()
        for column in (Budget.reserved, Budget.action_count, BudgetWindow.spent)
    ),
)


@dataclass
class World:
    """The server under test and everything around it."""

    services: Services
    clock: SettableClock
    url: str
    domain: Path
    shop_id: str
    shop_secret: str
    market_id: str
    market_secret: str
    client: httpx.Client = field(repr=False)

    @property
    def issuer(self) -> str:
        """The server's issuer identifier."""
        return self.services.issuer

    # --- what an agent has ---------------------------------------------------------------------------------

    def assertion(self, subject: str = BASKET_HELPER, *, lifetime: int = 300, **claims: object) -> str:
        """A workload assertion of example.org, good for this server."""
        return make_assertion(
            self.domain, subject, self.issuer, timedelta(seconds=lifetime), self.clock.now(), **claims
        )

    def domain_key(self) -> jose.SigningKey:
        """The private key of example.org, to sign what it would not."""
        key = ECKey.import_key((self.domain / "private_key.pem").read_bytes())
        return jose.SigningKey(key.thumbprint(), key)

    def delegation(self, **changes: object) -> dict[str, Any]:
        """An `agent_delegation` that fits the requests of `action`; None takes a member away."""
        now = self.clock.now()
        details: dict[str, Any] = {
            "type": "agent_delegation",
            "actions": ["catalog.search", "order.checkout", "payment.finalize"],
            "locations": [SHOP, MARKET],
            "limits": {"currency": "EUR", "per_action": "80.00", "total": "300.00"},
            "merchants": {"categories": ["5411", "5811-5814"], "countries": ["NL", "BE"]},
            "datatypes": ["shipping_address"],
            "expires": (now + timedelta(days=30)).isoformat().replace("+00:00", "Z"),
        }
        return {name: value for name, value in (details | changes).items() if value is not None}

    def granted(
        self,
        agent: str = "basket-helper",
        user: str = "ada",
        details: dict[str, Any] | None = None,
        **changes: object,
    ) -> Granted:
        """A delegation recorded by an operator, with its grant."""
        unverified = details if details is not None else self.delegation(**changes)
        parsed = parse_delegation(strict_json.parse(json.dumps(unverified)), self.services.vocabulary)
        return grant(
            self.services, user=user, agent=agent, details=parsed, by="operator", now=self.clock.now()
        )

    def action(self, **changes: object) -> dict[str, Any]:
        """An `agent_action` that the default delegation allows at the market; None takes a member away."""
        details: dict[str, Any] = {
            "type": "agent_action",
            "actions": ["payment.finalize"],
            "locations": [MARKET],
            "amount": {"currency": "EUR", "value": "42.50"},
            "merchant": MERCHANT,
        }
        return {name: value for name, value in (details | changes).items() if value is not None}

    # --- what it asks --------------------------------------------------------------------------------------

    def form(
        self, grant: str, *, action: dict[str, Any] | None = None, **changes: str | None
    ) -> dict[str, str]:
        """The form of an exchange; a change to None takes a parameter away."""
        form: dict[str, str | None] = {
            "grant_type": EXCHANGE,
            "subject_token": grant,
            "subject_token_type": JWT,
            "actor_token": changes.pop("actor_token", None) if "actor_token" in changes else self.assertion(),
            "actor_token_type": JWT,
            "authorization_details": json.dumps([action if action is not None else self.action()]),
        }
        return {name: value for name, value in (form | changes).items() if value is not None}

    def exchange(
        self,
        grant: str,
        *,
        action: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        **changes: str | None,
    ) -> httpx.Response:
        """Send an exchange."""
        return self.post("/oauth/token", self.form(grant, action=action, **changes), headers)

    def post(self, path: str, form: dict[str, str], headers: dict[str, str] | None = None) -> httpx.Response:
        """Send a form."""
        return self.client.post(path, data=form, headers=headers or {})

    def introspect(self, token: str, *, server: str = "market") -> dict[str, Any]:
        """What the resource server `market` or `shop` is told about a token."""
        names = {"market": (self.market_id, self.market_secret), "shop": (self.shop_id, self.shop_secret)}
        answer = self.client.post("/oauth/introspect", data={"token": token}, auth=names[server])
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    # --- what is left behind -------------------------------------------------------------------------------

    def rows(self) -> Rows:
        """What a refused request must leave as it was."""
        counted = self.services.database.read(lambda c: c.execute(_COUNTED).one())
        return Rows(*(int(number) for number in counted))

    def events(self, after: int = 0) -> list[dict[str, Any]]:
        """All audit events beyond the id `after`, oldest first."""
        table = table_of(AuditEvent)
        query = select(table).where(table.c.id > after).order_by(table.c.id)
        rows = self.services.database.read(lambda c: c.execute(query).all())
        return [
            {"event": r.event, "rule": r.rule, "client_id": r.client_id, "delegation_id": r.delegation_id}
            | {"action_id": r.action_id, "data": json.loads(r.data)}
            for r in rows
        ]

    def _newest_event(self) -> int:
        newest = select(func.coalesce(func.max(table_of(AuditEvent).c.id), 0))
        return self.services.database.read(lambda c: int(c.scalar(newest)))

    @contextmanager
    def nothing_happens(self, rule: str | None = None, event: str = "exchange.refused") -> Iterator[None]:
        """Holds the block to what every refusal must leave: no row, no reservation, exactly one audit event."""
        rows, newest = self.rows(), self._newest_event()
        yield
        assert self.rows() == rows
        new = self.events(after=newest)
        assert [e["event"] for e in new] == [event], new
        assert new[0]["rule"]
        if rule is not None:
            assert new[0]["rule"] == rule

    def refuses(
        self, response: httpx.Response, error: str, *, status: int = 400, constraint: str | None = None
    ) -> dict[str, Any]:
        """Hold an answer to what a refusal looks like; gives its body."""
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/json"
        assert response.headers["cache-control"] == "no-store"
        body: dict[str, Any] = response.json()
        assert body["error"] == error, body
        assert "access_token" not in body
        if constraint is not None:
            assert constraint in [violation["constraint"] for violation in body.get("violations", [])], body
        return body


class QuietHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing: what a request looked like is the test's business."""


def _not_yet(environ: Any, start: Any) -> Iterator[bytes]:
    return iter(())


def example_org(directory: Path) -> dict[str, Any]:
    """The trust domain of a world in that directory, as its configuration names it."""
    return {
        "name": "example.org",
        "kind": "spiffe",
        "jwks_file": directory / "example.org" / "jwks.json",
        "algorithms": ["ES256", "RS256"],
    }


@contextmanager
def running_world(
    database_url: str, directory: Path, *, issuer_path: str = "", host: str = "127.0.0.1", **settings: Any
) -> Iterator[World]:
    """Start a server on that database, whose schema is current; `settings` are sections laid over the usual ones.

    `issuer_path` makes it one tenant of its host: the issuer, and all that the world asks for, are below that path.
    `host` is the name that it goes by, such as `localhost`: passkeys are for names only.
    """
    create_domain("example.org", "spiffe", directory / "example.org")
    listener = make_server(
        "127.0.0.1", 0, lambda environ, start: iter(()), threaded=True, request_handler=QuietHandler
    )
    url = f"http://{host}:{listener.server_port}"
    sections: dict[str, Any] = {
        "server": {"issuer": url + issuer_path},
        "database": {"url": database_url},
        "keys": {"encryption_key_file": directory / "encryption.key"},
        "log": {"level": "error"},
        "trust_domains": [example_org(directory)],
    }
    clock = SettableClock()
    services = open_services(Settings(**(sections | settings)), clock)
    listener.app = build(services)
    with listening(listener):
        with httpx.Client(base_url=url + issuer_path, timeout=30) as client:
            yield _peopled(services, clock, url, directory / "example.org", client)
        services.database.dispose()


def _peopled(services: Services, clock: SettableClock, url: str, domain: Path, client: httpx.Client) -> World:
    now = clock.now()
    secrets = {name: new_secret() for name in ("shop", "market")}

    def write(connection: Any) -> None:
        users.create(connection, users.NewUser("ada", "Ada"), now)
        for client_id, subject in (("basket-helper", BASKET_HELPER), ("price-scout", PRICE_SCOUT)):
            agents.create(connection, make_agent(client_id, subject, now))
        merchant = Merchant.parse(MERCHANT)
        for name, identifier, facts in (("shop", SHOP, merchant), ("market", MARKET, None)):
            server = make_resource_server(name, identifier, now, merchant=facts, secret_hash=secrets[name][1])
            resource_servers.create(connection, server)

    services.database.write(write)
    return World(
        services, clock, url, domain, "rs_shop", secrets["shop"][0], "rs_market", secrets["market"][0], client
    )


def make_agent(client_id: str, subject: str, now: datetime, **changes: Any) -> Agent:
    """An agent of example.org."""
    fields: dict[str, Any] = {
        "client_id": client_id,
        "trust_domain": "example.org",
        "subject": subject,
        "name": client_id,
        "owner": None,
        "actions": None,
        "redirect_uris": (),
        "jwks": None,
        "created_at": now,
        "disabled_at": None,
    }
    return Agent(**(fields | changes))


def make_resource_server(name: str, identifier: str, now: datetime, **changes: Any) -> ResourceServer:
    """A resource server `rs_NAME` that authenticates with a secret: whose hash is `secret_hash`."""
    fields: dict[str, Any] = {
        "id": f"rs_{name}",
        "identifier": identifier,
        "name": name.title(),
        "merchant": None,
        "auth_method": "client_secret_basic",
        "secret_hash": None,
        "jwks": None,
        "subject": None,
        "created_at": now,
        "disabled_at": None,
    }
    return ResourceServer(**(fields | changes))
