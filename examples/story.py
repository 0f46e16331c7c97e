"""The chapters of the demonstration: each asks for real, holds the answer against what it tells, and says why."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from authserver import agent as kit
from authserver.agent import Delegation, ExchangeRefused, IssuedToken, Waiting
from authserver.errors import Violation
from authserver.resource_server import Introspection, Settlement, SettlementRefused
from authserver.values import Money
from examples.narrator import Narrator, euros, in_words
from examples.person import Person
from examples.world import (
    FOODS,
    MARKET,
    SCOUT,
    World,
    what_ada_allows_the_scout,
    what_the_helper_asks_for,
)

SCOUT_LASTS = timedelta(seconds=15)
WINES = {"id": "m_501", "category": "5921", "country": "NL", "name": "Example Wines"}
BOSTON = {"id": "m_777", "category": "5411", "country": "US", "name": "Example Grocers of Boston"}
_DENIED = "invalid_authorization_details"


class Unexpected(Exception):
    """An answer that the story does not tell; `shown` is what came."""

    def __init__(self, what: str, shown: str) -> None:
        super().__init__(what)
        self.what, self.shown = what, shown


def expect(condition: bool, what: str, shown: object) -> None:
    """Go on only if it went as told."""
    if not condition:
        raise Unexpected(what, str(shown))


@dataclass(frozen=True, slots=True)
class Agent:
    """One of the two agents, with the identity of its workload."""

    name: str
    client: kit.Agent
    shop: httpx.Client

    def gets(self, grant: str, details: dict[str, Any], key: str | None = None) -> IssuedToken:
        """A token; a refusal ends the story."""
        try:
            return self.client.exchange(grant, details, idempotency_key=key)
        except ExchangeRefused as refused:
            raise Unexpected(f"{self.name} was refused", f"{refused} {refused.violations}") from refused

    def is_refused(
        self, grant: str, details: dict[str, Any], error: str, *constraints: str
    ) -> ExchangeRefused:
        """The refusal, which has this error and is for exactly these limits; anything else ends the story."""
        return self._refused(lambda: self.client.exchange(grant, details), error, *constraints)

    def hands_on(self, grant: str, to: str, details: Mapping[str, object]) -> Delegation:
        """What another agent is given of that; a refusal ends the story."""
        try:
            return self.client.hand_on(grant, to, details)
        except ExchangeRefused as refused:
            raise Unexpected(f"{self.name} was refused", f"{refused} {refused.violations}") from refused

    def may_not_hand_on(
        self, grant: str, to: str, details: Mapping[str, object], *constraints: str
    ) -> ExchangeRefused:
        """The refusal, for exactly these limits; anything else ends the story."""
        return self._refused(lambda: self.client.hand_on(grant, to, details), _DENIED, *constraints)

    def _refused(self, ask: Callable[[], object], error: str, *constraints: str) -> ExchangeRefused:
        try:
            given = ask()
        except ExchangeRefused as refused:
            crossed = sorted(violation.constraint for violation in refused.violations)
            as_told = (refused.error, crossed) == (error, sorted(constraints))
            expect(as_told, f"{self.name} was refused otherwise", f"{refused} {refused.violations}")
            return refused
        raise Unexpected(f"{self.name} was not refused", str(given))

    def shows(
        self,
        token: IssuedToken,
        method: str,
        path: str,
        status: int | tuple[int, ...],
        body: Mapping[str, object] | None = None,
    ) -> Any:
        """The shop's answer as JSON, which has this status, or one of these; anything else ends the story."""
        expected = status if isinstance(status, tuple) else (status,)
        headers = {"Authorization": f"Bearer {token.access_token}"}
        answer = self.shop.request(method, path, headers=headers, json=body)
        expect(answer.status_code in expected, f"the shop answered {answer.status_code}", answer.text)
        return answer.json()


@dataclass(slots=True)
class Story:
    """Who plays, and what the chapters hand on."""

    say: Narrator
    ada: Person
    world: World
    helper: Agent
    scout: Agent
    introspection: Introspection  # these two as Example Foods
    settlement: Settlement
    consent: Delegation = field(init=False)
    handed: Delegation = field(init=False)
    scouting: Delegation = field(init=False)
    scout_ends: datetime = field(init=False)
    found: IssuedToken = field(init=False)
    payment: str = field(init=False)

    def tell(self) -> None:
        """From consent to revocation."""
        self.ada_consents()
        self.the_scout_searches()
        self.the_helper_pays()
        self.limits_are_crossed()
        self.the_scout_takes_the_grant()
        self.ada_wants_to_be_asked()
        self.tokens_are_misused()
        self.the_budget_runs_out()
        self.a_token_ends_by_itself()
        self.the_helper_hands_on()
        self.ada_takes_it_back()

    def ada_consents(self) -> None:
        """The helper asks, Ada reads, allows less, and the helper comes for its grant."""
        self.say.chapter("Ada says what Basket Helper may do")
        wanted = what_the_helper_asks_for(self.world.shop.identifier, timedelta(days=30))
        self.consent = self.helper.client.delegate(wanted, show=self._ada_allows_less, timeout=60)
        expect(self.consent.details["limits"]["total"] == "120.00", "more was granted", self.consent.details)
        self.say.yes(
            "recorded, and a grant signed that is worth nothing without the workload of Basket Helper"
        )

    def _ada_allows_less(self, url: str) -> None:
        """What Ada's browser is brought to, while the helper waits."""
        self.say.asks("Basket Helper", "may I? (a pushed request; Ada's browser gets only its reference)")
        page = self.ada.reads(url)
        self.say.tell(f"Ada has signed in, and reads: “{page.sentence}”")
        expect("€200 in all" in page.sentence, "the page says something else", page.sentence)
        callback = self.ada.allows(page, total="120.00", preset="trust")
        self.say.tell(
            "She lowers the total to €120.00, lets it ask her as it proposes, and allows it. The browser goes back to"
            " Basket Helper with a code, which only Basket Helper can use, once, within a minute."
        )
        httpx.get(callback)

    def _ada_types_the_code(self, device: kit.DeviceCode) -> None:
        self.say.asks(
            "Price Scout", f"may I search? (it has no browser, and shows the code {device.user_code})"
        )
        self.ada.allows(self.ada.types(device.user_code), preset="trust")

    def the_scout_searches(self) -> None:
        """One action, one token; the same delegation does not pay."""
        self.say.chapter("Price Scout searches, and can do nothing else")
        self.scout_ends = datetime.now(UTC).replace(microsecond=0) + SCOUT_LASTS
        allowed = what_ada_allows_the_scout(self.world.shop.identifier, self.scout_ends)
        self.scouting = self.scout.client.delegate_by_device(allowed, show=self._ada_types_the_code)
        self.say.tell(
            "Ada types the code, sees which device asks, and lets it search at Example Foods, for"
            f" {SCOUT_LASTS.seconds} seconds: so short that we can watch a token end below."
        )
        self.say.asks("Price Scout", "search at Example Foods")
        self.found = self.scout.gets(self.scouting.grant, self._search())
        self.say.yes(f"a token for catalog.search at Example Foods, for {self.found.expires_in} seconds")
        products = self.scout.shows(self.found, "GET", "/api/products?search=oat", 200)
        expect(len(products) == 2, "the shop found something else", products)
        self.say.shop(
            ", ".join(f"{entry['name']} {euros(entry['price'])}" for entry in products), accepted=True
        )
        self.say.asks("Price Scout", "pay €5.00 to Example Foods")
        no_money = ("actions", "limits.per_action", "merchants.categories", "merchants.countries")
        self._no(
            self.scout.is_refused(self.scouting.grant, self._payment("5.00", "order-0"), _DENIED, *no_money)
        )

    def the_helper_pays(self) -> None:
        """Checkout and payment are two actions with two tokens; a lost answer costs nothing; a payment happens once."""
        self.say.chapter("Basket Helper orders and pays")
        basket = {"oats": 1, "milk": 2, "coffee": 1, "cheese": 1, "olive-oil": 1}
        order = self._orders("42.50", "cart-889", basket)
        self.say.asks("Basket Helper", "pay €42.50 to Example Foods for this order")
        key, payment = f"pay-{order}", self._payment("42.50", order)
        first = self.helper.gets(self.consent.grant, payment, key)
        expect(first.action.get("merchant") == FOODS, "the token names another merchant", first.action)
        self.say.yes(f"a token for one payment of at most €42.50, there only, for {first.expires_in} seconds")
        self.say.tell(
            "Suppose that answer was lost. Basket Helper sends the same again, with the same Idempotency-Key:"
        )
        again = self.helper.gets(self.consent.grant, payment, key)
        expect(again.action_id == first.action_id, "the retry is another action", (first, again))
        self.say.yes("the same action, not a second one: nothing is held twice, as the budget below shows")
        self.payment = self._pays(again, order, "42.50", ", by redeeming the token at the server")
        self.say.asks("Basket Helper", "pay once more, with the same token")
        # The shop knows that the order is paid; a moment later it knows that the token has ended, too.
        self._rejected(self.helper.shows(again, "POST", f"/api/orders/{order}/payment", (401, 409)))
        self.say.asks("Example Foods", "redeem that token again, by mistake")
        self._not_redeemed(again)

    def limits_are_crossed(self) -> None:
        """Amount, merchant class, country, data: each refusal says all that was wrong."""
        self.say.chapter("Basket Helper asks for too much, in four ways")
        self.say.asks("Basket Helper", "pay €92.00 to Example Foods")
        over = ("limits.per_action", "limits.total")
        refused = self.helper.is_refused(
            self.consent.grant, self._payment("92.00", "order-9"), _DENIED, *over
        )
        self._left("77.50", refused)
        self._no(refused)
        self.say.asks("Basket Helper", "pay €20.00 to Example Wines on Example Market")
        self._no(
            self._is_denied(self._at_the_market("payment.finalize", "20.00", WINES), "merchants.categories")
        )
        self.say.asks("Basket Helper", "pay €20.00 to Example Grocers of Boston on Example Market")
        self._no(
            self._is_denied(self._at_the_market("payment.finalize", "20.00", BOSTON), "merchants.countries")
        )
        self.say.asks("Basket Helper", "order for €20.00, using Ada's shipping address and her birth date")
        too_curious = self._checkout("20.00", "cart-890", "shipping_address", "birth_date")
        self._no(self._is_denied(too_curious, "datatypes"))

    def the_scout_takes_the_grant(self) -> None:
        """A grant is no bearer token."""
        self.say.chapter("Price Scout gets hold of Basket Helper's grant")
        self.say.asks("Price Scout", "pay €5.00 to Example Foods, with Basket Helper's grant")
        stolen = self.scout.is_refused(
            self.consent.grant, self._payment("5.00", "order-0"), "invalid_request"
        )
        self._no(stolen)
        self.say.tell("The grant names one workload. To any other it says no more than a forged one would.")

    def ada_wants_to_be_asked(self) -> None:
        """Within every limit, and still not without her."""
        self.say.chapter("Something that Ada wants to be asked about")
        self.say.asks("Basket Helper", "pay €65.00 to Example Foods")
        asked = self.helper.is_refused(
            self.consent.grant, self._payment("65.00", "order-9"), "access_denied", "approval"
        )
        self._no(asked)
        self.say.tell(
            "Within every limit, and still not without her. So it asks again, ready to wait for her answer."
        )
        self.say.asks("Basket Helper", "order for €65.00 at Example Foods, when Ada agrees")
        told = self.helper.client.ask(
            self.consent.grant, self._checkout("65.00", "cart-900", "shipping_address")
        )
        if not isinstance(told, Waiting):
            raise Unexpected("Ada was not asked", str(told))
        self.say.no(f"not yet: Ada has {told.expires_in // 60} minutes to answer, on a page of the server")
        shown = self.ada.approves(told.approval_uri)
        expect("€65 to" in shown or "€65, " in shown, "the page says something else", shown)
        self.say.tell(f"Ada reads “{shown}”, with what is left of the budget and who asks, and approves.")
        token = self.helper.client.collect(told)
        self.say.yes(f"a token for that one order, which names her approval, for {token.expires_in} seconds")
        again = self.helper.client.collect(told)
        expect(again.action_id == token.action_id, "one approval became two actions", (token, again))

    def tokens_are_misused(self) -> None:
        """The shop takes a token for exactly what it is about to do."""
        self.say.chapter("Example Foods takes a token only for what it says")
        order = self._orders("38.10", "cart-891", {"coffee": 2, "oats": 1, "milk": 1})
        pay = f"/api/orders/{order}/payment"
        self.say.asks("Basket Helper", "take that order with a token for Example Market")
        elsewhere = self.helper.gets(
            self.consent.grant, self._at_the_market("order.checkout", "38.10", FOODS)
        )
        self._rejected(self.helper.shows(elsewhere, "POST", pay, 401))
        self.say.asks("Price Scout", "pay that order with its token for searching")
        self._rejected(self.scout.shows(self.found, "POST", pay, 403))
        self.say.asks("Basket Helper", "pay that order of €38.10 with a token for €10.00")
        small = self.helper.gets(self.consent.grant, self._payment("10.00", order))
        self._rejected(self.helper.shows(small, "POST", pay, 403))
        self.say.asks("Basket Helper", "pay that order with a token for up to €45.00")
        ample = self.helper.gets(self.consent.grant, self._payment("45.00", order))
        self._pays(ample, order, "38.10", "; the rest of what the token held is free again")

    def the_budget_runs_out(self) -> None:
        """What was paid counts, and what tokens hold that nobody used yet; what is given back does not."""
        self.say.chapter("The budget runs out, and a refund fills it")
        self.say.tell(
            "Of €120.00, €42.50 and €38.10 were paid. The token for €10.00 was not used; it holds as much until it"
            " ends."
        )
        self.say.asks("Basket Helper", "pay €30.00 to Example Foods")
        refused = self._is_denied(self._payment("30.00", "order-9"), "limits.total")
        self._left("29.40", refused)
        self._no(refused)
        self.say.tell("The olive oil of the first order is sold out, and Example Foods gives back its price.")
        given_back = self.settlement.refund(self.payment, Money.parse("EUR", "11.75"))
        expect(given_back.amount == Money("EUR", 1175), "another amount was given back", given_back)
        self.say.shop("€11.75 given back", accepted=True)
        self.say.asks("Basket Helper", "pay €30.00 to Example Foods")
        issued = self.helper.gets(self.consent.grant, self._payment("30.00", "order-9"))
        self.say.yes(f"a token for one payment of at most €30.00, for {issued.expires_in} seconds")

    def a_token_ends_by_itself(self) -> None:
        """No token outlives its life, or its delegation."""
        self.say.chapter("A token ends by itself")
        left = max(0.0, (self.scout_ends - datetime.now(UTC)).total_seconds())
        if left:
            self.say.tell(f"Price Scout's {SCOUT_LASTS.seconds} seconds are over in {left:.0f}; waiting.")
        time.sleep(left)
        self.say.asks("Price Scout", "search once more, with the token from above")
        self._rejected(self.scout.shows(self.found, "GET", "/api/products?search=oat", 401))
        self.say.asks("Price Scout", "a new token for searching")
        self._no(self.scout.is_refused(self.scouting.grant, self._search(), "invalid_request"))

    def the_helper_hands_on(self) -> None:
        """One searches, another pays; never more than the one who hands on has itself."""
        self.say.chapter("Basket Helper lets Price Scout search for it")
        part = self.consent.details | {"actions": ["catalog.search"], "redelegation": {"depth": 0}}
        self.say.asks("Basket Helper", "hand on to Price Scout: to search, with a budget of €500.00")
        wide = part | {"limits": part["limits"] | {"total": "500.00"}}
        self._no(self.helper.may_not_hand_on(self.consent.grant, SCOUT, wide, "limits.total"))
        self.say.asks("Basket Helper", "hand on to Price Scout: to search, within its own limits")
        self.handed = self.helper.hands_on(self.consent.grant, SCOUT, part)
        self.say.yes("a grant that is worth nothing without the workload of Price Scout")
        self.say.asks("Price Scout", "search at Example Foods, with what it was handed")
        found = self.scout.gets(self.handed.grant, self._search())
        self.scout.shows(found, "GET", "/api/products?search=oat", 200)
        self.say.yes("a token for catalog.search that names Price Scout, and Basket Helper behind it")
        self.say.asks("Price Scout", "pay €5.00 to Example Foods, with what it was handed")
        payment = self._payment("5.00", "order-0")
        self._no(self.scout.is_refused(self.handed.grant, payment, _DENIED, "actions"))

    def ada_takes_it_back(self) -> None:
        """Revocation is at once: for new tokens, for those that are out, and for what was handed on."""
        self.say.chapter("Ada takes back what she allowed")
        order = self._orders("9.95", "cart-892", {"oats": 1, "cheese": 1})
        unused = self.helper.gets(self.consent.grant, self._payment("9.95", order))
        self.say.asks("Basket Helper", "pay €9.95 to Example Foods for this order")
        self.say.yes("a token, which Basket Helper does not use yet")
        self._stands(unused, active=True)
        self.ada.stops(self.consent.grant_id)
        self.say.tell("Ada presses “Stop for good” on the page of Basket Helper.")
        self._stands(unused, active=False)
        self.say.asks("Basket Helper", "pay with the token it still has")
        self._rejected(self.helper.shows(unused, "POST", f"/api/orders/{order}/payment", 401))
        self.say.asks("Basket Helper", "a new token for the same payment")
        payment = self._payment("9.95", order)
        self._no(self.helper.is_refused(self.consent.grant, payment, "invalid_request"))
        self.say.asks("Price Scout", "a new token for searching, with what Basket Helper handed it")
        self._no(self.scout.is_refused(self.handed.grant, self._search(), "invalid_request"))

    # --- what is asked for ----------------------------------------------------------------------------------

    def _search(self) -> dict[str, Any]:
        place = self.world.shop.identifier
        return {"type": "agent_action", "actions": ["catalog.search"], "locations": [place]}

    def _payment(self, amount: str, order: str) -> dict[str, Any]:
        return self._spending("payment.finalize", self.world.shop.identifier, amount, reference=order)

    def _checkout(self, amount: str, cart: str, *datatypes: str) -> dict[str, Any]:
        place = self.world.shop.identifier
        return self._spending("order.checkout", place, amount, reference=cart, datatypes=list(datatypes))

    def _at_the_market(self, action: str, amount: str, seller: Mapping[str, str]) -> dict[str, Any]:
        return self._spending(action, MARKET, amount, merchant=dict(seller))

    @staticmethod
    def _spending(action: str, place: str, amount: str, **more: object) -> dict[str, Any]:
        money = {"currency": "EUR", "value": amount}
        return {"type": "agent_action", "actions": [action], "locations": [place], "amount": money} | more

    # --- what was said --------------------------------------------------------------------------------------

    def _orders(self, amount: str, cart: str, items: Mapping[str, int]) -> str:
        self.say.asks(
            "Basket Helper", f"order for €{amount} at Example Foods, sent to Ada's shipping address"
        )
        token = self.helper.gets(self.consent.grant, self._checkout(amount, cart, "shipping_address"))
        self.say.yes(f"a token for order.checkout of at most €{amount}, for {token.expires_in} seconds")
        order = self.helper.shows(token, "POST", "/api/orders", 201, {"cart": cart, "items": dict(items)})
        expect(order["total"]["value"] == amount, "the shop wants another amount", order)
        self.say.shop(f"{order['order']}, {euros(order['total'])}", accepted=True)
        return str(order["order"])

    def _pays(self, token: IssuedToken, order: str, amount: str, remark: str) -> str:
        paid = self.helper.shows(token, "POST", f"/api/orders/{order}/payment", 200)
        expect(paid["charged"]["value"] == amount, "the shop took another amount", paid)
        self.say.shop(f"{euros(paid['charged'])} paid{remark}", accepted=True)
        return str(paid["payment"])

    def _not_redeemed(self, token: IssuedToken) -> None:
        try:
            redemption = self.settlement.redeem(token.access_token)
        except SettlementRefused as refused:
            expect(refused.status == 409, "it was refused otherwise", refused)
            self.say.no(f"{refused.detail} ({refused.error})")
        else:
            raise Unexpected("a token was redeemed twice", str(redemption))

    def _is_denied(self, details: dict[str, Any], constraint: str) -> ExchangeRefused:
        return self.helper.is_refused(self.consent.grant, details, _DENIED, constraint)

    def _no(self, refused: ExchangeRefused) -> None:
        self.say.no(f"{refused.description} ({refused.error})", map(in_words, refused.violations))

    def _rejected(self, answer: Mapping[str, Any]) -> None:
        self.say.shop(f"no: {answer['error_description']} ({answer['error']})", accepted=False)
        for entry in answer.get("violations", []):
            self.say.because(
                in_words(Violation(entry["constraint"], entry.get("requested"), entry.get("allowed")))
            )

    def _left(self, amount: str, refused: ExchangeRefused) -> None:
        (left,) = [v.allowed for v in refused.violations if v.constraint == "limits.total"]
        expect(left == amount, f"€{left} is left of the budget", refused.violations)

    def _stands(self, token: IssuedToken, *, active: bool) -> None:
        answer = self.introspection.introspect(token.access_token)
        expect((answer is not None) == active, "introspection says otherwise", answer)
        self.say.asks("Example Foods", "does that token still stand?")
        if active:
            self.say.yes("active")
        else:
            self.say.no("not active")
