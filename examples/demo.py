"""The whole story over real HTTP: a server, a shop, a user, and two agents of one SPIFFE trust domain.

    make demo

Every answer that is told was checked; at any other answer the story stops with exit code 1 and shows it.
"""

import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import httpx

from authserver.actors.workload_files import make_assertion
from authserver.agent import AgentClient, ExchangeRefused, IssuedToken, IssuerUnavailable
from authserver.errors import Violation
from authserver.resource_server import Introspection
from examples.narrator import Narrator, euros, in_words
from examples.processes import DidNotStart, free_port, running
from examples.world import (
    FOODS,
    HELPER,
    MARKET,
    ROOT,
    SCOUT,
    Delegated,
    Operator,
    VerbFailed,
    World,
    populate,
    what_ada_allows_the_helper,
    what_ada_allows_the_scout,
    workload,
    write_config,
)

SCOUT_LASTS = timedelta(seconds=15)
WINES = {"id": "m_501", "category": "5921", "country": "NL", "name": "Example Wines"}
BOSTON = {"id": "m_777", "category": "5411", "country": "US", "name": "Example Grocers of Boston"}


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
    """One of the two agents: it has its workload's identity and what Ada gave it."""

    name: str
    client: AgentClient
    shop: httpx.Client

    def gets(self, grant: str, details: dict[str, Any], key: str | None = None) -> IssuedToken:
        """A token; anything else ends the story."""
        try:
            return self.client.exchange(grant, details, idempotency_key=key)
        except ExchangeRefused as refused:
            raise Unexpected(f"{self.name} was refused", f"{refused} {refused.violations}") from refused

    def is_refused(self, grant: str, details: dict[str, Any], error: str, *constraints: str) -> ExchangeRefused:
        """The refusal, which must have this error and be for these limits; anything else ends the story."""
        try:
            issued = self.client.exchange(grant, details)
        except ExchangeRefused as refused:
            crossed = {violation.constraint for violation in refused.violations}
            expect((refused.error, crossed) == (error, set(constraints)), "another refusal", vars(refused))
            return refused
        raise Unexpected(f"{self.name} got a token", str(issued))

    def shows(
        self, token: IssuedToken, method: str, path: str, status: int, body: Mapping[str, object] | None = None
    ) -> httpx.Response:
        """The shop's answer, which must have this status."""
        headers = {"Authorization": f"Bearer {token.access_token}"}
        answer = self.shop.request(method, path, headers=headers, json=body)
        expect(answer.status_code == status, f"the shop answered {answer.status_code}", answer.text)
        return answer


@dataclass(slots=True)
class Story:
    """The chapters, in order; each leaves what the later ones need."""

    say: Narrator
    operator: Operator
    world: World
    helper: Agent
    scout: Agent
    server: Introspection
    consent: Delegated = field(init=False)
    scout_ends: datetime = field(init=False)
    searching: IssuedToken = field(init=False)
    unspent: IssuedToken = field(init=False)

    def tell(self) -> None:
        """From consent to revocation."""
        self.ada_consents()
        self.the_scout_searches()
        self.the_helper_pays()
        self.the_answer_is_lost()
        self.limits_are_crossed()
        self.the_scout_borrows_the_grant()
        self.ada_wants_to_be_asked()
        self.tokens_are_misused()
        self.the_budget_runs_out()
        self.a_token_ends_by_itself()
        self.ada_takes_it_back()

    # --- what is asked for ----------------------------------------------------------------------------------

    def payment(self, amount: str, order: str) -> dict[str, Any]:
        """A payment at Example Foods, whose facts the server has on record."""
        return self._action("payment.finalize", self.world.shop.identifier, amount, reference=order)

    def at_the_market(self, action: str, amount: str, seller: Mapping[str, str]) -> dict[str, Any]:
        """Something at Example Market, where the agent says who sells."""
        return self._action(action, MARKET, amount, merchant=dict(seller))

    def checkout(self, amount: str, cart: str, *datatypes: str) -> dict[str, Any]:
        """An order at Example Foods."""
        place = self.world.shop.identifier
        return self._action("order.checkout", place, amount, reference=cart, datatypes=list(datatypes))

    @staticmethod
    def _action(action: str, place: str, amount: str, **more: object) -> dict[str, Any]:
        money = {"currency": "EUR", "value": amount}
        return {"type": "agent_action", "actions": [action], "locations": [place], "amount": money} | more

    # --- the chapters ---------------------------------------------------------------------------------------

    def ada_consents(self) -> None:
        """An operator records both delegations; consent pages come later."""
        shop = self.world.shop.identifier
        self.say.chapter("Ada says what each agent may do")
        self.consent = self.operator.delegate(HELPER, what_ada_allows_the_helper(shop, timedelta(days=30)))
        self.say.tell(
            "Basket Helper may order and pay at grocery and dairy shops (5411, 5451) in the Netherlands and Belgium:"
            " up to €80.00 at a time and €120.00 in all, using her shipping address, for 30 days."
            " Above €60.00 she wants to be asked."
        )
        self.say.yes("recorded, and a grant signed that only the workload of Basket Helper can use")

    def the_scout_searches(self) -> None:
        """One action, one token; the same delegation does not pay."""
        self.say.chapter("Price Scout searches, and can do nothing else")
        self.scout_ends = datetime.now(UTC) + SCOUT_LASTS
        allowed = what_ada_allows_the_scout(self.world.shop.identifier, self.scout_ends)
        scouting = self.operator.delegate(SCOUT, allowed)
        self.say.tell(
            f"Ada lets Price Scout search at Example Foods, for {SCOUT_LASTS.seconds} seconds: so short only so that"
            " this story can show how a token ends."
        )
        self.say.asks("Price Scout", "search the catalogue of Example Foods")
        search = {
            "type": "agent_action",
            "actions": ["catalog.search"],
            "locations": [self.world.shop.identifier],
        }
        self.searching = self.scout.gets(scouting.grant, search)
        self.say.yes(f"a token for catalog.search, there only, for {self.searching.expires_in} seconds")
        found = self.scout.shows(self.searching, "GET", "/api/products?search=oat", 200).json()
        listed = ", ".join(f"{product['name']} {euros(product['price'])}" for product in found)
        self.say.shop(f"{len(found)} found: {listed}", accepted=True)
        self.say.asks("Price Scout", "pay €5.00 there")
        refused = self.scout.is_refused(
            scouting.grant, self.payment("5.00", "order-0"), "invalid_authorization_details", *_ONLY_SEARCH
        )
        self._refusal(refused)
        self._scouting = scouting

    def the_helper_pays(self) -> None:
        """Checkout and payment are two actions, so two tokens."""

    def _refusal(self, refused: ExchangeRefused, text: str = "") -> None:
        self.say.no(text or f"{refused.description} ({refused.error})", map(in_words, refused.violations))
