"""An agent that waits for an approval, and the people who answer it."""

from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import select

from authserver import approve
from authserver.accounts import users
from authserver.approvals.records import ApprovalRecord, Said, find
from authserver.approve import Reply
from authserver.consent import Granted
from authserver.schema import User, table_of
from authserver.values import Money
from tests.settling import eur
from tests.world import JWT, MARKET, World

DEFERRED = "urn:ietf:params:oauth:grant-type:deferred"
ASKED_ABOVE = {"approval": {"above": "50.00"}}


@dataclass(frozen=True)
class Waiting:
    """What the agent was told."""

    code: str
    approval: str
    body: dict[str, Any]


def asked_above_fifty(world: World, **changes: Any) -> Granted:
    """A delegation whose user wants to be asked above 50 euros."""
    return world.granted(**(ASKED_ABOVE | changes))


def asks(world: World, grant: str, value: str = "62.10", **changes: Any) -> httpx.Response:
    """An exchange that is ready to wait, to pay at the market."""
    action = changes.pop("action", None) or world.action(amount=eur(value))
    return world.exchange(grant, action=action, completion_mode="deferred", **changes)


def waits(world: World, grant: str, value: str = "62.10", **changes: Any) -> Waiting:
    """The same, where it is to wait."""
    return waiting(world, asks(world, grant, value, **changes))


def waiting(world: World, answer: httpx.Response) -> Waiting:
    """Hold an answer to what an agent is told that waits (contract §8)."""
    body = world.refuses(answer, "authorization_pending")
    uri = body["approval_uri"]
    assert uri.startswith(f"{world.issuer}/approvals/")
    return Waiting(body["deferral_code"], uri.rpartition("/")[2], body)


def polls(
    world: World, code: str, headers: dict[str, str] | None = None, **changes: str | None
) -> httpx.Response:
    """The agent asks for its token."""
    form: dict[str, str | None] = {
        "grant_type": DEFERRED,
        "deferral_code": code,
        "actor_token": changes.pop("actor_token", None) if "actor_token" in changes else world.assertion(),
        "actor_token_type": JWT,
    }
    return world.post(
        "/oauth/token",
        {name: value for name, value in (form | changes).items() if value is not None},
        headers,
    )


def answers(
    world: World, approval: str, said: Said = "approve", user: str = "ada", rule_up_to: str | None = None
) -> ApprovalRecord:
    """A person answers, as the page does for them."""
    rule = Money.parse("EUR", rule_up_to) if rule_up_to is not None else None
    return approve.answer(world.services, Reply(approval, id_of(world, user), said, rule), world.clock.now())


def id_of(world: World, username: str) -> str:
    """The id of a user."""
    query = select(table_of(User).c.user_id).where(table_of(User).c.username == username)
    return world.services.database.read(lambda c: str(c.scalar(query)))


def person(world: World, username: str, *groups: str) -> str:
    """Another user, in these groups; returns the id."""
    new = users.NewUser(username, username.title(), groups=groups)
    return world.services.database.write(lambda c: users.create(c, new, world.clock.now())[0])


def record(world: World, approval: str) -> ApprovalRecord:
    """The approval's row."""
    found = world.services.database.read(lambda c: find(c, approval))
    assert found is not None
    return found


def at_market(world: World, name: str, **changes: Any) -> dict[str, Any]:
    """An `agent_action` of the catalogue at the market that moves no money."""
    return {"type": "agent_action", "actions": [name], "locations": [MARKET], **changes}
