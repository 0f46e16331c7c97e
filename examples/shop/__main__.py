"""Example Foods: a small shop whose API takes action tokens and nothing else.

    SHOP_SECRET=… python -m examples.shop --issuer http://127.0.0.1:8000 --port 8001 --id …

Each endpoint says what is about to happen, and its token must be for just that. Tokens are verified here, without a
call to the server; a token that pays is used up at the server before the handler runs, which can be done once.
"""

import argparse
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from flask import Flask, Response, jsonify, request
from werkzeug.serving import WSGIRequestHandler, make_server

from authserver.resource_server import ActionToken, Money, ResourceServer
from authserver.resource_server.flask import Protection, protect

MOST_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Product:
    """Something on the shelf; `price` is in euro cents."""

    name: str
    price: int


PRODUCTS = {
    "oats": Product("Rolled oats, 1 kg", 295),
    "milk": Product("Oat milk, 1 l", 215),
    "coffee": Product("Coffee beans, 1 kg", 1650),
    "cheese": Product("Young Gouda, 500 g", 700),
    "olive-oil": Product("Olive oil, 750 ml", 1175),
}


@dataclass(slots=True)
class Order:
    """What a customer ordered. The customer is known here by a name that no other shop sees."""

    customer: str
    total: Money
    is_paid: bool = False
    paying: threading.Lock = field(default_factory=threading.Lock)


# What is delivered every week, and what a week of it costs.
PLANS = {"veg-box": Money("EUR", 2_490)}


class NoSuchOrder(Exception):
    """There is no such order of this customer."""


class AlreadyPaid(Exception):
    """The order is paid."""


def create_shop(server: ResourceServer) -> Flask:
    """The shop as a WSGI application."""
    app = Flask("shop", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MOST_BYTES
    shop = protect(app, server)
    app.add_url_rule("/healthz", "healthz", lambda: jsonify(status="ok"))
    app.register_error_handler(NoSuchOrder, lambda error: (_problem("not_found", error), 404))
    app.register_error_handler(AlreadyPaid, lambda error: (_problem("already_paid", error), 409))
    app.register_error_handler(ValueError, lambda error: (_problem("invalid_request", error), 400))
    _products(app, shop)
    _orders(app, shop)
    _subscriptions(app, shop)
    return app


def _products(app: Flask, shop: Protection) -> None:
    @app.get("/api/products")
    @shop.require_action("catalog.search")
    def search() -> Response:
        words = request.args.get("search", "").lower()
        found = {name: product for name, product in PRODUCTS.items() if words in product.name.lower()}
        return jsonify(
            [
                {"product": name, "name": product.name, "price": Money("EUR", product.price).to_json()}
                for name, product in found.items()
            ]
        )


def _orders(app: Flask, shop: Protection) -> None:
    orders: dict[str, Order] = {}

    @app.post("/api/orders")
    @shop.require_action("order.checkout", amount=_total, reference=_cart, datatypes=["shipping_address"])
    def checkout() -> tuple[Response, int]:
        name, total = f"order-{secrets.token_hex(4)}", _total()
        orders[name] = Order(shop.token.subject, total)  # sent to the customer's address on file
        return jsonify(order=name, total=total.to_json(), state="ordered"), 201

    def due(order: str, token: ActionToken) -> Money:
        """What is to be paid. It is looked up before the token is used up: for nothing, no token is."""
        found = orders.get(order)
        if found is None or found.customer != token.subject:
            raise NoSuchOrder("there is no such order of this customer")
        if found.is_paid:
            raise AlreadyPaid("the order is paid")
        return found.total

    @app.post("/api/orders/<order>/payment")
    @shop.require_action("payment.finalize", amount=due, reference=lambda order: order)
    def pay(order: str) -> Response:
        redemption = shop.redemption
        if redemption is None:
            raise RuntimeError("the catalogue says that a payment's token is not redeemed")
        with orders[order].paying:
            if orders[order].is_paid and shop.server.settlement is not None:
                # Two tokens came for one order, at the same moment.
                shop.server.settlement.refund(redemption.redemption_id)
                raise AlreadyPaid("the order is paid")
            orders[order].is_paid = True
        charged = orders[order].total.to_json()
        return jsonify(order=order, charged=charged, state="paid", payment=redemption.redemption_id)


def _subscriptions(app: Flask, shop: Protection) -> None:
    def week_of(plan: str) -> Money:
        if plan not in PLANS:
            raise NoSuchOrder("there is no such plan")
        return PLANS[plan]

    @app.post("/api/subscriptions/<plan>/renewal")
    @shop.require_action("subscription.renew", amount=week_of, reference=lambda plan: plan)
    def renew(plan: str) -> Response:
        redemption = shop.redemption
        if redemption is None:
            raise RuntimeError("the catalogue says that a renewal's token is not redeemed")
        charged = PLANS[plan].to_json()
        return jsonify(plan=plan, charged=charged, state="renewed", payment=redemption.redemption_id)


def _total() -> Money:
    """What the basket of this request costs."""
    items = request.get_json().get("items")
    known = isinstance(items, dict) and items and PRODUCTS.keys() >= items.keys()
    if not known or not all(number in range(1, 100) for number in items.values()):
        raise ValueError("takes one or more products, 1 to 99 of each")
    return Money("EUR", sum(PRODUCTS[name].price * number for name, number in items.items()))


def _cart() -> str:
    cart = request.get_json().get("cart")
    if not isinstance(cart, str):
        raise ValueError("takes the name of a cart")  # noqa: TRY004  # the caller's mistake, not ours
    return cart


def _problem(error: str, description: Exception) -> Response:
    return jsonify(error=error, error_description=str(description))


class _Quiet(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        """Say nothing: tokens are in the headers, and the story is told elsewhere."""


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--issuer", required=True, help="the authorization server's issuer identifier")
    parser.add_argument("--port", type=int, required=True, help="the port to listen on, on 127.0.0.1")
    parser.add_argument("--id", required=True, help="the id that `resource-servers create` printed")
    said = parser.parse_args()
    identifier, secret = f"http://127.0.0.1:{said.port}/api", os.environ["SHOP_SECRET"]
    server = ResourceServer(said.issuer, identifier, said.id, secret, name="Example Foods")
    shop = create_shop(server)
    server.listen()  # what is revoked is known here at once, and not when the status lists are fetched next
    serve: Callable[[], None] = make_server(
        "127.0.0.1",
        said.port,
        shop,
        threaded=True,
        request_handler=_Quiet,
    ).serve_forever
    serve()


if __name__ == "__main__":
    main()
