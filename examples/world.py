"""The demonstration data: Ada, two agents of the SPIFFE trust domain example.org, a shop, a market.

Everything is made as an operator would, with the verbs of manage.py.
"""

import json
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from authserver.actors.workload_files import create_domain
from examples.processes import finished

ROOT = Path(__file__).resolve().parent.parent
DOMAIN = "example.org"
HELPER = "basket-helper"
SCOUT = "price-scout"
ADMINISTRATOR = "olga"
MARKET = "https://market.example/api"
# Where the agents take their answers: on this machine, whatever the port (RFC 8252).
CALLBACK = "http://127.0.0.1/callback"
# Of the demonstration's people; it is no secret, and their server is reached from this machine alone.
PASSWORD = "one-token-for-one-action"  # noqa: S105
FOODS = {"id": "m_123", "category": "5411", "country": "NL", "name": "Example Foods"}


def workload(agent: str) -> str:
    """The SPIFFE ID of an agent's workload."""
    return f"spiffe://{DOMAIN}/agent/{agent}"


class VerbFailed(Exception):
    """A verb of manage.py ended with an error; the message has what it wrote."""


@dataclass(frozen=True, slots=True)
class Operator:
    """Whoever types `python manage.py …`, with the data in `folder` and `config` as the configuration."""

    folder: Path
    config: Path

    @property
    def domain(self) -> Path:
        """The folder of the trust domain's keys."""
        return self.folder / DOMAIN

    @property
    def environment(self) -> dict[str, str]:
        """What the verbs and the server get to know."""
        return {"AUTHSERVER_CONFIG": str(self.config)}

    def run(self, *arguments: str, typed: str = "") -> str:
        """What a verb prints that reads what is `typed`. Raises `VerbFailed`."""
        done = finished([sys.executable, "manage.py", *arguments], self.environment, ROOT, typed)
        if done.returncode:
            raise VerbFailed(f"manage.py {' '.join(arguments)}\n{(done.stderr or done.stdout).strip()}")
        return done.stdout.strip()

    def record(self, *arguments: str) -> dict[str, Any]:
        """The JSON object that a verb prints. Raises `VerbFailed`."""
        record: dict[str, Any] = json.loads(self.run(*arguments))
        return record

    def delegate(self, agent: str, details: dict[str, Any]) -> "Delegated":
        """Record what Ada allows `agent`."""
        path = self.folder / f"{agent}.json"
        path.write_text(json.dumps(details, indent=2), encoding="utf-8")
        made = self.record("delegations", "create", "--user", "ada", "--agent", agent, "--details", str(path))
        return Delegated(made["grant_id"], made["grant"], details)


@dataclass(frozen=True, slots=True)
class Delegated:
    """A delegation and the grant that names it."""

    grant_id: str
    grant: str = field(repr=False)
    details: dict[str, Any] = field(repr=False)  # as granted


@dataclass(frozen=True, slots=True)
class Registered:
    """A resource server as the authorization server knows it."""

    id: str
    identifier: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class World:
    """Who is registered: `shop` is one merchant, Example Foods; `market` is a platform where many sell."""

    shop: Registered
    market: Registered


def write_config(path: Path, issuer: str) -> None:
    """A configuration that is complete: an issuer, a database, a trust domain; all else has defaults."""
    path.write_text(
        f"""[server]
issuer = "{issuer}"

[database]
url = "sqlite:///authserver.db"

[[trust_domains]]
name = "{DOMAIN}"
kind = "spiffe"
jwks_file = "{DOMAIN}/jwks.json"
algorithms = ["ES256"]
""",
        encoding="utf-8",
    )


def populate(operator: Operator, shop: str) -> World | None:
    """Make the schema, the trust domain, and everybody in it; `shop` is the identifier of Example Foods.

    Done again it changes nothing, and answers None where the resource servers were there: their secrets are told once.
    Raises `VerbFailed`.
    """
    if not operator.domain.exists():
        create_domain(DOMAIN, "spiffe", operator.domain)
    operator.run("migrate")
    people = operator.folder / "people.toml"
    people.write_text(_PEOPLE.format(shop=shop), encoding="utf-8")
    created = {
        one.get("identifier"): one for one in operator.record("apply", "--json", str(people))["created"]
    }
    if not {shop, MARKET} <= created.keys():
        return None
    operator.run("users", "create", "--username", "ada", "--name", "Ada", "--password-stdin", typed=PASSWORD)
    return World(
        *(Registered(created[name]["id"], name, created[name]["client_secret"]) for name in (shop, MARKET))
    )


def employ_an_administrator(operator: Operator) -> None:
    """Make a user who may do everything at /admin, where there is none yet. Raises `VerbFailed`."""
    known = {user["username"] for user in json.loads(operator.run("users", "list", "--json"))}
    if ADMINISTRATOR not in known:
        said = ("--username", ADMINISTRATOR, "--name", "Olga", "--role", "owner", "--password-stdin")
        operator.run("users", "create", *said, typed=PASSWORD)


_PEOPLE = f"""# Who takes part in the demonstration: python manage.py apply FILE
[[agents]]
client_id = "{HELPER}"
name = "Basket Helper"
trust_domain = "{DOMAIN}"
subject = "{workload(HELPER)}"
redirect_uris = ["{CALLBACK}"]

[[agents]]
client_id = "{SCOUT}"
name = "Price Scout"
trust_domain = "{DOMAIN}"
subject = "{workload(SCOUT)}"

# One merchant, whose facts are on record.
[[resource_servers]]
identifier = "{{shop}}"
name = "Example Foods"
merchant = {{{{ {", ".join(f'{name} = "{value}"' for name, value in FOODS.items())} }}}}

# A platform where many sell.
[[resource_servers]]
identifier = "{MARKET}"
name = "Example Market"
"""


def what_the_helper_asks_for(shop: str, lasts: timedelta) -> dict[str, Any]:
    """More than Ada allows: €200 in all."""
    allowed = what_ada_allows_the_helper(shop, lasts)
    return allowed | {"limits": allowed["limits"] | {"total": "200.00"}}


def what_ada_allows_the_helper(shop: str, lasts: timedelta) -> dict[str, Any]:
    """Groceries in the Netherlands and Belgium: at most €80 at a time, €120 in all; she is asked above €60.

    A part of it may be handed on, once.
    """
    return {
        "type": "agent_delegation",
        "actions": ["catalog.search", "order.checkout", "payment.finalize"],
        "locations": [shop, MARKET],
        "limits": {"currency": "EUR", "per_action": "80.00", "total": "120.00"},
        "merchants": {"categories": ["5411", "5451"], "countries": ["NL", "BE"]},
        "datatypes": ["shipping_address"],
        "approval": {"above": "60.00"},
        "redelegation": {"depth": 1},
        "expires": instant(datetime.now(UTC) + lasts),
    }


def what_ada_allows_the_scout(shop: str, expires: datetime) -> dict[str, Any]:
    """To search at the shop, and nothing else."""
    return {
        "type": "agent_delegation",
        "actions": ["catalog.search"],
        "locations": [shop],
        "expires": instant(expires),
    }


def instant(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
