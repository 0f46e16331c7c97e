"""One agent hands on to another, over HTTP, as contract §9 has it."""

import json
from typing import Any

import httpx

from authserver.consent import Granted
from authserver.policy.delegation_details import parse_delegation
from tests.world import BASKET_HELPER, PRICE_SCOUT, World

DELEGATION_GRANT = "urn:authserver:token-type:delegation-grant"
SUBJECTS = {"basket-helper": BASKET_HELPER, "price-scout": PRICE_SCOUT}


def parent(world: World, agent: str = "basket-helper", depth: int = 2, **changes: Any) -> Granted:
    """A delegation that may be handed on."""
    return world.granted(agent=agent, redelegation={"depth": depth}, **changes)


def held(world: World, granted: Granted, **changes: Any) -> dict[str, Any]:
    """What a holder may hand on of that: all of it, one level less deep; None takes a member away."""
    details = granted.details.to_json()
    depth = granted.details.redelegation_depth - 1
    details["redelegation"] = {"depth": depth} if depth else None
    return {name: value for name, value in (details | changes).items() if value is not None}


def send(
    world: World,
    grant: str,
    details: dict[str, Any],
    to: str = "price-scout",
    *,
    by: str = "basket-helper",
    headers: dict[str, str] | None = None,
    client: httpx.Client | None = None,
    **changes: str | None,
) -> httpx.Response:
    """Ask for a hand-over; a change to None takes a parameter away."""
    asked: dict[str, str | None] = {
        "requested_token_type": DELEGATION_GRANT,
        "requested_actor": to,
        "authorization_details": json.dumps([details]),
        "actor_token": world.assertion(SUBJECTS[by]),
    }
    form = world.form(grant, **(asked | changes))
    return (client or world.client).post("/oauth/token", data=form, headers=headers or {})


def hand_on(
    world: World,
    granted: Granted,
    to: str = "price-scout",
    *,
    by: str = "basket-helper",
    task_id: str | None = None,
    **changes: Any,
) -> Granted:
    """Hand on all of it, but for the changes; gives the child."""
    answer = send(world, granted.grant, held(world, granted, **changes), to, by=by, task_id=task_id)
    assert answer.status_code == 200, answer.text
    return received(world, answer)


def received(world: World, answer: httpx.Response) -> Granted:
    """The child of an answer, as its agent has it."""
    body = answer.json()
    (details,) = body["authorization_details"]
    return Granted(
        body["grant_id"], body["access_token"], parse_delegation(details, world.services.vocabulary)
    )


def use(
    world: World, grant: str, by: str, client: httpx.Client | None = None, **changes: Any
) -> httpx.Response:
    """An agent exchanges its grant for a token to pay at the market."""
    form = world.form(grant, **({"actor_token": world.assertion(SUBJECTS[by])} | changes))
    return (client or world.client).post("/oauth/token", data=form)


def token(world: World, grant: str, by: str, **changes: Any) -> str:
    """The token that it gets."""
    answer = use(world, grant, by, **changes)
    assert answer.status_code == 200, answer.text
    access_token: str = answer.json()["access_token"]
    return access_token
