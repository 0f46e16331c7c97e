"""What a resource server does with a token: redeem, capture, void, refund; and what the ledger holds then."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from sqlalchemy import Row, select

from authserver.ledger.check import check
from authserver.schema import Action, Budget, BudgetWindow, Transfer, table_of
from tests.world import World

_LEDGER = (Action, Transfer, Budget, BudgetWindow)


def eur(value: str) -> dict[str, str]:
    """An amount in euros."""
    return {"currency": "EUR", "value": value}


def token_of(world: World, grant: str, value: str = "50.00", **changes: Any) -> str:
    """A token to pay at the market."""
    answer = world.exchange(grant, action=world.action(amount=eur(value), **changes))
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token


def settle(
    world: World,
    path: str,
    body: dict[str, Any],
    *,
    server: str = "market",
    key: str | None = None,
    client: httpx.Client | None = None,
) -> httpx.Response:
    """A call of the resource server `market` or `shop`, to the world's server or to the one of `client`."""
    credentials = {
        "market": (world.market_id, world.market_secret),
        "shop": (world.shop_id, world.shop_secret),
    }
    headers = {"Idempotency-Key": key} if key is not None else {}
    return (client or world.client).post(
        f"/oauth/{path}", json=body, auth=credentials[server], headers=headers
    )


def redeem(world: World, token: str, **body: Any) -> httpx.Response:
    """Redeem at the market."""
    return settle(world, "redeem", {"token": token} | body)


def redeemed(world: World, token: str, **body: Any) -> str:
    """Redeem at the market, where that is allowed; gives the path of the redemption."""
    answer = redeem(world, token, **body)
    assert answer.status_code == 201, answer.text
    return f"redemptions/{answer.json()['redemption_id']}"


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """Hold an answer to RFC 9457."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    body: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail"} <= body.keys()
    assert body["status"] == status
    return body


def at_once(many: int, send: Callable[[int], httpx.Response]) -> list[httpx.Response]:
    """Send so many requests at the same moment, each from a thread of its own; after a 503 again (contract §6)."""
    together = threading.Barrier(many)

    def one(number: int) -> httpx.Response:
        together.wait()
        for _ in range(20):
            answer = send(number)
            if answer.status_code != 503:
                return answer
        raise AssertionError("the server could not answer")

    with ThreadPoolExecutor(many) as pool:
        return list(pool.map(one, range(many)))


def ledger(world: World) -> dict[str, list[Row[Any]]]:
    """Every row of the ledger's tables."""

    def read(connection: Any) -> dict[str, list[Row[Any]]]:
        tables = [table_of(row) for row in _LEDGER]
        return {
            table.name: connection.execute(select(table).order_by(*table.primary_key)).all()
            for table in tables
        }

    return world.services.database.read(read)


def state_of(world: World, path: str) -> str:
    """The state of a redemption, by its path or id."""
    table = table_of(Action)
    query = select(table.c.state).where(table.c.id == path.removeprefix("redemptions/"))
    return world.services.database.read(lambda connection: str(connection.scalar(query)))


def budget_of(world: World, grant_id: str) -> Row[Any]:
    """The running totals of a delegation."""
    table = table_of(Budget)
    query = select(table).where(table.c.delegation_id == grant_id)
    return world.services.database.read(lambda connection: connection.execute(query).one())


def the_ledger_is_right(world: World) -> None:
    """Invariant 2: every running total is the sum of its transfers."""
    stored = world.services.stored
    assert world.services.database.read(lambda connection: list(check(connection, stored))) == []
