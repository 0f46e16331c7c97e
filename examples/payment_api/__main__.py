"""A payment API: customers store their cards there once, and agents pay with them, one token for one payment.

    API_SECRET=… MERCHANT_KEY=… python -m examples.payment_api --issuer http://127.0.0.1:8000 --port 8002 --id …

An agent authorizes a payment with a token that is bound to the agent's own key (DPoP). The merchant captures or voids
it later, by its own key: whoever sells is not whoever buys.
"""

import argparse
import hmac
import os
import secrets
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from pydantic import BaseModel, ConfigDict, ValidationError

from authserver.resource_server import (
    ActionToken,
    Admission,
    AsyncResourceServer,
    AsyncSettlement,
    Merchant,
    Money,
    Redemption,
    SettlementRefused,
)
from authserver.resource_server.fastapi import Protection, protect
from authserver.values import NotAValue

Verb = Literal["capture", "void", "refund"]


class Amount(BaseModel):
    """Money as everybody here writes it: a currency code and a decimal string."""

    model_config = ConfigDict(extra="forbid")

    currency: str
    value: str

    def money(self) -> Money:
        """The amount, or 422 where it is none."""
        try:
            return Money.parse(self.currency, self.value)
        except NotAValue as error:
            raise HTTPException(422, str(error)) from error


class Payment(BaseModel):
    """What an agent asks for: so much, to that seller, for that order."""

    model_config = ConfigDict(extra="forbid")

    amount: Amount
    merchant: str
    reference: str


@dataclass(frozen=True, slots=True)
class Wallet:
    """What is kept of a customer. Only what a token names ever leaves."""

    record: dict[str, object]


@dataclass(slots=True)
class Books:
    """Sellers by their id, and what became of each payment."""

    merchant_key: str = field(repr=False)
    sellers: dict[str, Merchant]
    payments: dict[str, Redemption] = field(default_factory=dict)

    def wallet(self, token: ActionToken) -> Wallet:
        """The customer's; a real one would have been filled by the customer, on a page of this API's own."""
        card = {"brand": "Example Card", "last_four": "4242", "customer": token.subject[:8]}
        return Wallet({"payment_instrument": [card], "name": "Ada", "email": "ada@example.org"})


async def _asked(request: Request) -> Payment:
    """The payment that the body asks for, or 422."""
    try:
        return Payment.model_validate_json(await request.body())
    except ValidationError as error:
        raise HTTPException(422, "takes amount, merchant and reference") from error


async def _amount(request: Request) -> Money:
    return (await _asked(request)).amount.money()


async def _reference(request: Request) -> str:
    return (await _asked(request)).reference


def create_api(server: AsyncResourceServer, books: Books) -> FastAPI:
    """The API as an ASGI application."""
    app = FastAPI(title="Example Payments")
    api = protect(app, server)
    app.add_api_route("/healthz", lambda: {"status": "ok"})
    _for_agents(app, api, books)
    if server.settlement is not None:
        _for_merchants(app, server.settlement, books)
    return app


def _for_agents(app: FastAPI, api: Protection, books: Books) -> None:
    async def seller(request: Request) -> Merchant:
        """Who really sells, as registered here: the token was granted for this seller's class and country, or not."""
        name = (await _asked(request)).merchant
        if name not in books.sellers:
            raise HTTPException(404, "there is no such merchant")
        return books.sellers[name]

    pays = api.require_action(
        "payment_instrument.use", amount=_amount, merchant=seller, reference=_reference, redeem="authorize"
    )
    reads = api.require_action("profile.read", datatypes=["payment_instrument"])

    @app.post("/payments", status_code=201)
    async def pay(payment: Payment, admitted: Annotated[Admission, Depends(pays)]) -> dict[str, Any]:
        if admitted.redemption is None:
            raise RuntimeError("the catalogue says that a card's token is not redeemed")
        name = f"pay_{secrets.token_hex(8)}"
        books.payments[name] = admitted.redemption
        return {"payment": name, "state": "authorized", "amount": payment.amount.money().to_json()}

    @app.get("/instruments")
    async def instruments(admitted: Annotated[Admission, Depends(reads)]) -> dict[str, Any]:
        return admitted.token.expose(books.wallet(admitted.token).record)


def _for_merchants(app: FastAPI, settlement: AsyncSettlement, books: Books) -> None:
    @app.post("/payments/{payment}/{verb}")
    async def settle(
        payment: str, verb: Verb, x_merchant_key: Annotated[str, Header()], amount: Amount | None = None
    ) -> dict[str, Any]:
        if not hmac.compare_digest(x_merchant_key.encode(), books.merchant_key.encode()):
            raise HTTPException(401, "the merchant's key is another")
        if payment not in books.payments:
            raise HTTPException(404, "there is no such payment")
        redemption = books.payments[payment].redemption_id
        try:
            done = await _step(settlement, verb, redemption, None if amount is None else amount.money())
        except SettlementRefused as refused:
            raise HTTPException(409, refused.detail) from refused
        return {"payment": payment, "state": done.state, "amount": done.amount and done.amount.to_json()}


async def _step(settlement: AsyncSettlement, verb: Verb, redemption: str, amount: Money | None) -> Redemption:
    if verb == "void":
        return await settlement.void(redemption)
    if verb == "capture":
        return await settlement.capture(redemption, amount)
    return await settlement.refund(redemption, amount)


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--issuer", required=True, help="the authorization server's issuer identifier")
    parser.add_argument("--port", type=int, required=True, help="the port to listen on, on 127.0.0.1")
    parser.add_argument("--id", required=True, help="the id that `resource-servers create` printed")
    said = parser.parse_args()
    identifier, secret = f"http://127.0.0.1:{said.port}", os.environ["API_SECRET"]
    foods = Merchant.parse({"id": "m_123", "category": "5411", "country": "NL", "name": "Example Foods"})
    casino = Merchant.parse({"id": "m_666", "category": "7995", "country": "NL", "name": "Example Casino"})
    books = Books(os.environ["MERCHANT_KEY"], {"m_123": foods, "m_666": casino})
    server = AsyncResourceServer(said.issuer, identifier, said.id, secret, name="Example Payments")
    uvicorn.run(create_api(server, books), host="127.0.0.1", port=said.port, log_level="warning")


if __name__ == "__main__":
    main()
