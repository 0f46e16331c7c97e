"""Example Foods: a small shop whose API takes action tokens and nothing else.

    SHOP_SECRET=… python -m examples.shop --issuer http://127.0.0.1:8000 --port 8001 --id …

Each endpoint says what is about to happen, and the token must be for just that. Searching is checked offline. Before
it uses a person's data the shop also asks the server whether the token still stands: it may have been revoked. And it
takes money only by redeeming the token, which can be done once.
"""

import argparse
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from flask import Flask, Response, jsonify, request
from werkzeug.serving import WSGIRequestHandler, make_server

from authserver.resource_server import (
    ActionToken,
    Introspection,
    InvalidToken,
    IssuerUnavailable,
    NotAllowed,
    Redemption,
    Settlement,
    SettlementRefused,
    TokenRejected,
    Verifier,
    bearer_token,
)
from authserver.values import Money

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
    payment: Redemption | None = None
    paying: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class Shop:
    """The shop: who checks its tokens, who lets it take money, and what was ordered."""

    verifier: Verifier
    introspection: Introspection
    settlement: Settlement
    orders: dict[str, Order] = field(default_factory=dict)

    def search(self) -> Response:
        """`GET /api/products?search=…`"""
        self.verifier.verify(self._presented()).require("catalog.search")
        words = request.args.get("search", "").lower()
        found = {name: product for name, product in PRODUCTS.items() if words in product.name.lower()}
        return jsonify(
            [
                {"product": name, "name": product.name, "price": Money("EUR", product.price).to_json()}
                for name, product in found.items()
            ]
        )

    def checkout(self) -> tuple[Response, int]:
        """`POST /api/orders` with `{"cart": "…", "items": {"oats": 2}}`; sent to the customer's address on file."""
        cart, total = self._basket()
        token = self._live(self._presented())
        token.require("order.checkout", amount=total, reference=cart, datatypes=("shipping_address",))
        order = f"order-{secrets.token_hex(4)}"
        self.orders[order] = Order(token.subject, total)
        return jsonify(order=order, total=total.to_json(), state="ordered"), 201

    def pay(self, order_id: str) -> tuple[Response, int]:
        """`POST /api/orders/ORDER/payment`"""
        presented = self._presented()
        token = self.verifier.verify(presented)  # what is forged or expired costs the server no request
        order = self.orders.get(order_id)
        if order is None or order.customer != token.subject:
            return _problem("not_found", "there is no such order of this customer"), 404
        token.require("payment.finalize", amount=order.total, reference=order_id)
        with order.paying:  # of two tokens for one order, the second is not used up
            if order.payment is not None:
                return _problem("already_paid", "the order is paid"), 409
            # Its own name is the key: where the answer was lost, the same token may be tried again. A key brings the
            # same yes each time, and so it is the order, above, that knows whether it is paid.
            order.payment = self.settlement.redeem(presented, order.total, idempotency_key=token.jti)
        return jsonify(
            order=order_id,
            charged=order.total.to_json(),
            state="paid",
            payment=order.payment.redemption_id,
        ), 200

    def _live(self, unverified_token: str) -> ActionToken:
        self.verifier.verify(unverified_token)
        token = self.introspection.introspect(unverified_token)
        if token is None:
            raise InvalidToken("token.ended")
        return token

    @staticmethod
    def _presented() -> str:
        return bearer_token(request.headers.get("Authorization"))

    @staticmethod
    def _basket() -> tuple[str, Money]:
        body = request.get_json()
        cart, items = body.get("cart"), body.get("items")
        known = isinstance(items, dict) and items and PRODUCTS.keys() >= items.keys()
        if (
            not isinstance(cart, str)
            or not known
            or not all(number in range(1, 100) for number in items.values())
        ):
            raise ValueError("takes a cart's name and one or more products")
        return cart, Money("EUR", sum(PRODUCTS[name].price * number for name, number in items.items()))


def create_shop(verifier: Verifier, introspection: Introspection, settlement: Settlement) -> Flask:
    """The shop as a WSGI application."""
    shop, app = Shop(verifier, introspection, settlement), Flask("shop", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MOST_BYTES
    app.add_url_rule("/healthz", "healthz", lambda: jsonify(status="ok"))
    app.add_url_rule("/api/products", "search", shop.search)
    app.add_url_rule("/api/orders", "checkout", shop.checkout, methods=["POST"])
    app.add_url_rule("/api/orders/<order_id>/payment", "pay", shop.pay, methods=["POST"])
    app.register_error_handler(TokenRejected, _rejected)
    app.register_error_handler(SettlementRefused, _not_redeemed)
    app.register_error_handler(IssuerUnavailable, _unavailable)
    app.register_error_handler(ValueError, _malformed)
    return app


def _rejected(error: TokenRejected) -> Response:
    response = _problem(error.error, error.description)
    if isinstance(error, NotAllowed):
        response = jsonify(
            error=error.error,
            error_description=error.description,
            violations=[violation.to_json() for violation in error.violations],
        )
    response.status_code = error.status
    response.headers["WWW-Authenticate"] = error.challenge
    return response


def _not_redeemed(error: SettlementRefused) -> Response:
    return _rejected(InvalidToken(f"settlement.{error.error}", error.detail))


def _unavailable(error: IssuerUnavailable) -> tuple[Response, int]:
    return _problem("temporarily_unavailable", "tokens cannot be checked now"), 503


def _malformed(error: ValueError) -> tuple[Response, int]:
    return _problem("invalid_request", "the request is malformed"), 400


def _problem(error: str, description: str) -> Response:
    return jsonify(error=error, error_description=description)


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
    shop = create_shop(
        Verifier(said.issuer, identifier),
        Introspection(said.issuer, identifier, said.id, secret),
        Settlement(said.issuer, said.id, secret),
    )
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
