"""Handlers that take action tokens, in each framework that the kit knows, over real HTTP (contract §7, threat A103)."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Any

import fastapi
import flask
import httpx
import pytest

from authserver.dpop import ProofKey
from authserver.resource_server import (
    Admission,
    AsyncResourceServer,
    Merchant,
    Money,
    ResourceServer,
    RuleIncomplete,
    asgi,
    wsgi,
)
from authserver.resource_server import fastapi as for_fastapi
from authserver.resource_server import flask as for_flask
from tests.settling import eur, the_ledger_is_right
from tests.shops import async_market_of, bound_token, market_of, served, served_async
from tests.world import MARKET, MERCHANT, World

TOTALS = {"order-1": Money("EUR", 4_250), "order-2": Money("EUR", 2_500)}
RECORD = {"email": "ada@example.org", "phone": "+31 20 1234567", "birth_date": "1815-12-10", "password": "x"}
SELLER = Merchant(id="m_123")
METADATA = "/.well-known/oauth-protected-resource/api"


def total_of(order: str) -> Money:
    return TOTALS[order]


def with_flask(world: World) -> AbstractContextManager[httpx.Client]:
    app = flask.Flask("market", static_folder=None)
    market = for_flask.protect(app, market_of(world))

    @app.get("/api/products")
    @market.require_action("catalog.search")
    def search() -> Any:
        return flask.jsonify(action=market.token.action, redemption=None)

    @app.post("/api/orders/<order>/payment")
    @market.require_action(
        "payment.finalize", amount=total_of, merchant=SELLER, reference=lambda order: order
    )
    def pay(order: str) -> Any:
        assert market.redemption is not None
        return flask.jsonify(action=market.token.action, redemption=market.redemption.state)

    @app.get("/api/profile")
    @market.require_action("profile.read", datatypes=["email"])
    def profile() -> Any:
        return flask.jsonify(market.token.expose(RECORD))

    return served(app)


def with_fastapi(world: World) -> AbstractContextManager[httpx.Client]:
    app = fastapi.FastAPI()
    market = for_fastapi.protect(app, async_market_of(world))

    async def total(order: str, request: fastapi.Request) -> Money:
        assert request.method == "POST"
        return total_of(order)

    pays = market.require_action(
        "payment.finalize", amount=total, merchant=SELLER, reference=lambda order: order
    )

    @app.get("/api/products")
    async def search(
        admitted: Annotated[Admission, fastapi.Depends(market.require_action("catalog.search"))],
    ) -> Any:
        return {"action": admitted.token.action, "redemption": None}

    @app.post("/api/orders/{order}/payment")
    async def pay(order: str, admitted: Annotated[Admission, fastapi.Depends(pays)]) -> Any:
        assert admitted.redemption is not None
        return {"action": admitted.token.action, "redemption": admitted.redemption.state}

    @app.get("/api/profile")
    def profile(
        admitted: Annotated[
            Admission, fastapi.Depends(market.require_action("profile.read", datatypes=["email"]))
        ],
    ) -> Any:
        return admitted.token.expose(RECORD)

    return served_async(app)


def order_in(path: str) -> str:
    return path.split("/")[3]


def with_wsgi(world: World) -> AbstractContextManager[httpx.Client]:
    market = wsgi.Protection(market_of(world))

    def say(start_response: Any, body: object) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(body).encode()]

    @market.require_action("catalog.search")
    def search(environ: Any, start_response: Any) -> Any:
        return say(start_response, {"action": environ[wsgi.ADMISSION].token.action, "redemption": None})

    @market.require_action(
        "payment.finalize",
        amount=lambda environ: total_of(order_in(environ["PATH_INFO"])),
        merchant=SELLER,
        reference=lambda environ: order_in(environ["PATH_INFO"]),
    )
    def pay(environ: Any, start_response: Any) -> Any:
        admitted = environ[wsgi.ADMISSION]
        return say(start_response, {"action": admitted.token.action, "redemption": admitted.redemption.state})

    @market.require_action("profile.read", datatypes=["email"])
    def profile(environ: Any, start_response: Any) -> Any:
        return say(start_response, environ[wsgi.ADMISSION].token.expose(RECORD))

    def route(environ: Any, start_response: Any) -> Any:
        parts = {"/api/products": search, "/api/profile": profile}
        return parts.get(environ["PATH_INFO"], pay)(environ, start_response)

    return served(market.edge(route))


def with_asgi(world: World) -> AbstractContextManager[httpx.Client]:
    market = asgi.Protection(async_market_of(world))

    async def say(send: Any, body: object) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    @market.require_action("catalog.search")
    async def search(scope: Any, receive: Any, send: Any) -> None:
        await say(send, {"action": scope[asgi.ADMISSION].token.action, "redemption": None})

    async def total(scope: Any) -> Money:
        return total_of(order_in(scope["path"]))

    @market.require_action(
        "payment.finalize", amount=total, merchant=SELLER, reference=lambda scope: order_in(scope["path"])
    )
    async def pay(scope: Any, receive: Any, send: Any) -> None:
        admitted = scope[asgi.ADMISSION]
        await say(send, {"action": admitted.token.action, "redemption": admitted.redemption.state})

    @market.require_action("profile.read", datatypes=["email"])
    async def profile(scope: Any, receive: Any, send: Any) -> None:
        await say(send, scope[asgi.ADMISSION].token.expose(RECORD))

    async def route(scope: Any, receive: Any, send: Any) -> None:
        parts = {"/api/products": search, "/api/profile": profile}
        await parts.get(scope["path"], pay)(scope, receive, send)

    return served_async(market.edge(route))


@dataclass
class Market:
    """A market that is served, and an agent's grant there."""

    world: World
    client: httpx.Client
    grant: str

    def token(self, action: str = "payment.finalize", **changes: Any) -> str:
        asked = {"amount": None, "merchant": None} if action in ("catalog.search", "profile.read") else {}
        if action == "payment.finalize":
            asked = {"reference": "order-1"}
        answer = self.world.exchange(
            self.grant, action=self.world.action(actions=[action], **(asked | changes))
        )
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["access_token"]
        return token

    def ask(self, method: str, path: str, token: str | None = None, **headers: str) -> httpx.Response:
        if token is not None:
            headers = {"Authorization": f"Bearer {token}"} | headers
        return self.client.request(method, path, headers=headers)


FRAMEWORKS: dict[str, Callable[[World], AbstractContextManager[httpx.Client]]] = {
    "Flask": with_flask,
    "FastAPI": with_fastapi,
    "WSGI": with_wsgi,
    "ASGI": with_asgi,
}


@pytest.fixture(scope="module", params=FRAMEWORKS)
def market(request: pytest.FixtureRequest, shared_world: World) -> Iterator[Market]:
    limits = {"currency": "EUR", "per_action": "80.00", "total": "10000.00"}
    actions = ["catalog.search", "payment.finalize", "profile.read", "order.checkout"]
    granted = shared_world.granted(actions=actions, limits=limits, datatypes=["contact"])
    with FRAMEWORKS[request.param](shared_world) as client:
        yield Market(shared_world, client, granted.grant)


def challenge(answer: httpx.Response, status: int) -> dict[str, str]:
    """The parameters of the first challenge; holds the answer to what every refusal looks like."""
    assert answer.status_code == status, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    said = answer.headers["www-authenticate"]
    pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', said)
    return {name: re.sub(r"\\(.)", r"\1", value) for name, value in pairs} | {"scheme": said.split()[0]}


def test_a_handler_runs_for_a_token_that_is_for_just_that(market: Market) -> None:
    searched = market.ask("GET", "/api/products?search=oats", market.token("catalog.search"))
    assert searched.json() == {"action": "catalog.search", "redemption": None}
    paid = market.ask("POST", "/api/orders/order-1/payment", market.token())
    assert paid.json() == {"action": "payment.finalize", "redemption": "captured"}
    the_ledger_is_right(market.world)


def test_A72_the_second_use_of_a_token_does_not_reach_the_handler(market: Market) -> None:
    token = market.token()
    assert market.ask("POST", "/api/orders/order-1/payment", token).status_code == 200
    said = challenge(market.ask("POST", "/api/orders/order-1/payment", token), 401)
    assert said["error"] == "invalid_token"


def test_without_a_token_both_schemes_and_what_is_needed_are_told(market: Market) -> None:
    said = challenge(market.ask("POST", "/api/orders/order-1/payment"), 401)
    assert said["scheme"] == "Bearer"
    assert "error" not in said
    assert said["resource_metadata"] == f"https://market.example{METADATA}"
    assert said["algs"]
    # What is looked up for an order is nobody's business yet.
    wanted = {"type": "agent_action", "actions": ["payment.finalize"], "locations": [MARKET]}
    assert json.loads(said["authorization_details"]) == [wanted | {"merchant": {"id": "m_123"}}]


def test_A103_a_token_for_something_else_is_told_what_would_do(market: Market) -> None:
    answer = market.ask("POST", "/api/orders/order-1/payment", market.token("catalog.search"))
    said = challenge(answer, 403)
    assert (said["scheme"], said["error"]) == ("Bearer", "insufficient_scope")
    wanted = {
        "type": "agent_action",
        "actions": ["payment.finalize"],
        "locations": [MARKET],
        "amount": eur("42.50"),
        "merchant": {"id": "m_123"},
        "reference": "order-1",
    }
    assert json.loads(said["authorization_details"]) == [wanted] == answer.json()["authorization_details"]
    # And it does: the agent adds what it knows of the seller, and asks for just that.
    token = market.token(**{name: wanted[name] for name in ("amount", "reference")}, merchant=MERCHANT)
    assert market.ask("POST", "/api/orders/order-1/payment", token).status_code == 200


def test_A103_ten_euros_are_not_eleven(market: Market) -> None:
    answer = market.ask("POST", "/api/orders/order-1/payment", market.token(amount=eur("42.49")))
    challenge(answer, 403)
    assert answer.json()["violations"] == [
        {"constraint": "amount", "requested": eur("42.50"), "allowed": eur("42.49")}
    ]
    other_order = market.ask("POST", "/api/orders/order-2/payment", market.token())
    assert [entry["constraint"] for entry in other_order.json()["violations"]] == ["reference"]


def test_A103_the_token_of_a_shop_is_worth_nothing_at_another(market: Market) -> None:
    token = market.token("catalog.search", locations=["https://shop.example/api"])
    said = challenge(market.ask("GET", "/api/products", token), 401)
    assert said["error"] == "invalid_token"


@pytest.mark.parametrize("token", ["x", "a.b.c", "e30.e30.e30", "ÿ", "a" * 17_000])
def test_what_is_no_token_is_refused(market: Market, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}".encode("latin-1")}
    answer = market.client.get("/api/products", headers=headers)
    assert challenge(answer, 401)["error"] == "invalid_token"


def test_two_tokens_are_none(market: Market) -> None:
    token = market.token("catalog.search")
    twice = [("Authorization", f"Bearer {token}")] * 2
    assert challenge(market.client.get("/api/products", headers=twice), 401)["error"] == "invalid_token"


def test_a_token_elsewhere_than_in_the_header_is_not_seen(market: Market) -> None:
    """RFC 6750 §2.2 and §2.3 are not for tokens that are worth money."""
    token = market.token("catalog.search")
    answer = market.client.get("/api/products", params={"access_token": token})
    assert "error" not in challenge(answer, 401)


def test_only_the_data_that_the_token_carries_leave(market: Market) -> None:
    token = market.token("profile.read", datatypes=["email"])
    assert market.ask("GET", "/api/profile", token).json() == {"email": "ada@example.org"}
    both = market.token("profile.read", datatypes=["contact"])
    contact = {"email": "ada@example.org", "phone": "+31 20 1234567"}
    assert market.ask("GET", "/api/profile", both).json() == contact
    other = market.token("profile.read", datatypes=["phone"])
    assert challenge(market.ask("GET", "/api/profile", other), 403)["error"] == "insufficient_scope"


def test_the_metadata_are_published(market: Market) -> None:
    """RFC 9728 §3."""
    answer = market.client.get(METADATA)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["resource"] == MARKET
    assert answer.json()["authorization_servers"] == [market.world.issuer]


def test_A101_a_bound_token_takes_a_proof_for_this_very_request(market: Market) -> None:
    key, path = ProofKey.generate(), "/api/orders/order-1/payment"
    asked = market.world.action(reference="order-1")
    token = bound_token(market.world, market.grant, key, action=asked)
    assert challenge(market.ask("POST", path, token), 401)["scheme"] == "DPoP"

    def send(nonce: str | None, **changes: Any) -> httpx.Response:
        about = {"method": "POST", "url": f"https://market.example{path}"} | changes
        proof = key.proof(**about, now=market.world.clock.now(), access_token=token, nonce=nonce)
        return market.ask("POST", path, None, Authorization=f"DPoP {token}", DPoP=proof)

    first = send(None)
    assert challenge(first, 401)["error"] == "use_dpop_nonce"
    nonce = first.headers["dpop-nonce"]
    for changes in (
        {"method": "GET"},
        {"url": f"https://evil.example{path}"},
        {"url": "https://market.example/api"},
    ):
        said = challenge(send(nonce, **changes), 401)
        assert (said["scheme"], said["error"]) == ("DPoP", "invalid_dpop_proof")
    done = send(nonce)
    assert done.status_code == 200, done.text
    assert done.headers["dpop-nonce"]


def test_a_server_that_is_away_is_a_503_for_money(shared_world: World) -> None:
    app = flask.Flask("market", static_folder=None)
    away = ResourceServer("http://127.0.0.1:1", MARKET, "id", "secret")
    market = for_flask.protect(app, away)
    app.add_url_rule("/", "pay", market.require_action("payment.finalize")(lambda: "paid"))
    granted = shared_world.granted()
    token = shared_world.exchange(granted.grant).json()["access_token"]
    answer = app.test_client().get("/", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json is not None
    assert answer.json["error"] == "temporarily_unavailable"


# --- what a programmer gets wrong ------------------------------------------------------------------------------------


def _handler(world: World, server: ResourceServer, action: str, **rule: Any) -> Any:
    app = flask.Flask("market", static_folder=None)
    app.testing = True
    market = for_flask.protect(app, server)
    app.add_url_rule("/<order>", "handle", market.require_action(action, **rule)(lambda order: "done"))
    return app.test_client()


@pytest.mark.parametrize(
    ("action", "rule", "reason"),
    [
        ("order.checkout", {}, "takes amount"),
        ("payment.finalize", {"amount": lambda order: None}, "gave nothing"),
        ("payment.finalize", {"amount": lambda order: 42.5}, "amount takes Money"),
        ("payment.finalize", {"reference": lambda order: 1}, "reference takes str"),
    ],
)
def test_a_rule_that_would_let_too_much_through_lets_nothing_through(
    shared_world: World, action: str, rule: dict[str, Any], reason: str
) -> None:
    granted = shared_world.granted()
    asked = shared_world.action(actions=[action])
    token = shared_world.exchange(granted.grant, action=asked).json()["access_token"]
    client = _handler(shared_world, market_of(shared_world), action, **rule)
    with pytest.raises(RuleIncomplete, match=reason):
        client.get("/order-1", headers={"Authorization": f"Bearer {token}"})
    assert shared_world.introspect(token)["active"]


def test_without_credentials_nothing_that_is_for_one_use_gets_through(shared_world: World) -> None:
    token = shared_world.exchange(shared_world.granted().grant).json()["access_token"]
    server = ResourceServer(shared_world.issuer, MARKET, clock=shared_world.clock)
    client = _handler(shared_world, server, "payment.finalize")
    with pytest.raises(RuleIncomplete, match="client_secret"):
        client.get("/order-1", headers={"Authorization": f"Bearer {token}"})
    assert shared_world.introspect(token)["active"]
    unbound = AsyncResourceServer(shared_world.issuer, MARKET)
    assert unbound.settlement is None


def test_a_handler_may_hold_an_amount_and_settle_itself(shared_world: World) -> None:
    granted = shared_world.granted()
    token = shared_world.exchange(granted.grant).json()["access_token"]
    app = flask.Flask("market", static_folder=None)
    server = market_of(shared_world)
    market = for_flask.protect(app, server)

    def pay() -> str:
        assert market.redemption is not None
        assert server.settlement is not None
        assert market.redemption.state == "authorized"
        return server.settlement.capture(market.redemption.redemption_id, Money("EUR", 1_000)).state

    app.add_url_rule("/", "pay", market.require_action("payment.finalize", redeem="authorize")(pay))
    assert app.test_client().get("/", headers={"Authorization": f"Bearer {token}"}).text == "captured"
    assert not shared_world.introspect(token)["active"]


def test_A103_a_seller_other_than_the_tokens_is_a_403(shared_world: World) -> None:
    token = shared_world.exchange(shared_world.granted().grant, action=shared_world.action()).json()[
        "access_token"
    ]
    app = flask.Flask("market", static_folder=None)
    server = market_of(shared_world)
    market = for_flask.protect(app, server)
    rule = market.require_action("payment.finalize", merchant=Merchant(id="m_124"))
    app.add_url_rule("/", "pay", rule(lambda: "paid"))
    answer = app.test_client().get("/", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 403
    assert answer.json is not None
    assert answer.json["violations"][0]["constraint"] == "merchant.id"
    assert shared_world.introspect(token)["active"]


def test_a_handler_that_cannot_run_uses_up_no_token(shared_world: World) -> None:
    """A coroutine takes Flask's own extra; without it, or with a value that is none, nothing is spent."""
    app = flask.Flask("market")
    market = for_flask.protect(app, market_of(shared_world))

    async def later(**arguments: object) -> Any:
        raise AssertionError("it was not to run")

    app.post("/a")(market.require_action("payment.finalize", amount=Money("EUR", 4_250))(later))
    app.post("/b")(market.require_action("payment.finalize", amount=lambda: 4_250)(lambda: ""))
    token = shared_world.exchange(shared_world.granted().grant).json()["access_token"]
    with served(app) as client:
        for path in ("/a", "/b"):
            headers = {"Authorization": f"Bearer {token}"}
            assert client.post(path, headers=headers).status_code == 500
    assert shared_world.introspect(token)["active"]
