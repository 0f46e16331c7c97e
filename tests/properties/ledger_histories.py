"""Random histories of a server's ledger, through its front door, that a small model tells along (`ledger_model`).

A history mixes exchanges, redemptions, captures, voids, refunds, hand-overs, revocations at every level, repeated keys,
time that passes, upkeep, restarts, and commits whose fate the caller never learns. After each step the whole ledger is
compared.
"""

import json
import sqlite3
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from unittest.mock import patch

import httpx
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import OperationalError

from authserver import db, revoke, sqlite_connections, upkeep
from authserver.accounts import users
from authserver.app import build
from authserver.consent import Granted
from authserver.ledger.check import check
from authserver.revoke import Target
from authserver.schema import Action as ActionRow
from authserver.schema import AuditEvent, Base, Budget, BudgetWindow, IdempotencyKey, table_of
from authserver.services import open_services
from tests.attacks.making import handed_on
from tests.properties import ledger_model as model
from tests.properties.ledger_model import (
    Action,
    Ask,
    Bounds,
    Delegation,
    Merchant,
    Refused,
    Revocation,
    Settled,
)
from tests.world import BASKET_HELPER, MARKET, MERCHANT, PRICE_SCOUT, SHOP, World

Commit = Callable[[Connection], None]
PLACES = {"market": MARKET, "shop": SHOP}
SUBJECTS = {"basket-helper": BASKET_HELPER, "price-scout": PRICE_SCOUT}
EXPONENTS = {"EUR": 2, "JPY": 0, "KWD": 3}
OTHER = {"basket-helper": "price-scout", "price-scout": "basket-helper", "market": "shop", "shop": "market"}
OPEN_MOST = 4
GROCER = Merchant("m_123", "5411", "NL")
DINER = Merchant("m_5", "5812", "BE")
MERCHANTS = (GROCER, DINER, Merchant("m_7", "7995", "NL"), Merchant("m_9", "5411", "US"))
ALLOWED = {"categories": ["5411", "5811-5814"], "countries": ["NL", "BE"]}
CATEGORIES, COUNTRIES = ("5411", "5811", "5812", "5813", "5814"), ("NL", "BE")
RESTAURANTS = ("5811", "5812", "5813", "5814")
RULES = (
    (),
    (model.Rule(6_000, 1),),
    (model.Rule(9_000, 24), model.Rule(2_500, 1, RESTAURANTS)),
)
# Where an action may go from one step of a history to the next: along the ledger's state machine, perhaps twice.
AFTER: dict[str, set[str]] = {
    "reserved": {"authorized", "captured", "voided", "expired"},
    "authorized": {"captured", "voided", "expired"},
    "captured": {"refunded"},
}

amounts = st.sampled_from([1, 333, 1_000, 2_500, 4_000, 4_001])
keys = st.sampled_from([None, "k-1", "k-2", "k-3"])
asks = st.builds(
    Ask,
    kind=st.sampled_from(["payment.finalize"] * 5 + ["refund.initiate", "order.checkout", "catalog.search"]),
    place=st.sampled_from(["market", "market", "shop"]),
    amount=amounts,
    currency=st.sampled_from(["", "", "", "", "USD"]),  # empty: the delegation's own
    merchant=st.sampled_from([GROCER] * 3 + [DINER] * 3 + [*MERCHANTS]),
    reference=st.sampled_from(["cart-1", "cart-2"]),
    task=st.sampled_from([None, "t1", "t2"]),
)
moments = st.sampled_from([1, 30, 60, 118, 119, 121, 121, 3_600, 86_400, 7 * 86_400])
seldom = st.sampled_from([False] * 7 + [True])
ANY = 9  # as `which`: without looking whether anything can still be done with it
numbers = st.integers(0, ANY)


@dataclass(frozen=True)
class Sent:
    """A redemption, or a step of one, that can be sent again."""

    verb: str
    action: Action
    caller: str
    amount: int | None
    currency: str
    merchant: Merchant | None
    capture: bool


def money(currency: str, minor: int) -> dict[str, str]:
    """An amount as requests and answers have it."""
    exponent = EXPONENTS.get(currency, 2)
    return {"currency": currency, "value": f"{Decimal(minor).scaleb(-exponent):.{exponent}f}"}


def claims_of(token: str) -> dict[str, Any]:
    """What a token says; whether it is signed well is for other tests."""
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


class Histories(RuleBasedStateMachine):
    """One server and the model of its ledger, through one history.

    What a rule is about is drawn as a number (`which`): mostly one of those that can still do something.
    """

    def __init__(self, fresh: Callable[[], AbstractContextManager[World]]) -> None:
        """`fresh` opens a server on a database of its own."""
        super().__init__()
        self.closing = ExitStack()
        self.world = self.closing.enter_context(fresh())
        self._serve()
        now = self.world.clock.now()
        self.world.services.database.write(lambda c: users.create(c, users.NewUser("bob", "Bob"), now))
        self.model = model.Ledger(now, "example.org", {"market": None, "shop": GROCER}, OPEN_MOST)
        self.repeated = False  # whether the answer that is due was given before
        self.states: dict[str, str] = {}
        self.texts: dict[str, str] = {}  # tokens by the id of their action
        self.grants: dict[str, Granted] = {}  # by the id of the delegation
        self.exchanged: list[tuple[Delegation, Ask, str | None]] = []
        self.settled: list[tuple[Sent, str | None]] = []
        self.frozen: list[
            tuple[Revocation, set[str]]
        ] = []  # each revocation with the actions that there were

    def teardown(self) -> None:
        """The end of a history."""
        self.world.services.database.dispose()
        self.closing.close()

    def _serve(self) -> None:
        transport = httpx.WSGITransport(build(self.world.services))
        self.world.client = httpx.Client(transport=transport, base_url=self.world.url)

    # --- which one -----------------------------------------------------------------------------------------

    def _delegation(self, which: int) -> Delegation:
        if which == ANY:
            return self.model.delegations[-1]
        standing = [d for d in self.model.delegations if not self.model.has_ended(d, None)]
        return standing[which % len(standing)] if standing else self._delegated()

    def _action(self, which: int, *states: str) -> Action | None:
        """One in these states; for an action that is reserved, one whose token lives."""
        found = self.model.actions
        if which != ANY:
            found = [
                a for a in found if a.state in states and (a.state != "reserved" or self.model.is_live(a))
            ]
        return found[which % len(found)] if found else None

    # --- delegations ---------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        """There is one delegation from the start."""
        self._delegated()

    @rule(
        agent=st.sampled_from(["basket-helper", "price-scout"]),
        user=st.sampled_from(["ada", "bob"]),
        currency=st.sampled_from(sorted(EXPONENTS)),
        total=st.sampled_from([4_000, 10_000, 30_000]),
        count=st.sampled_from([None, None, 3]),
        rules=st.sampled_from(RULES),
        life=st.sampled_from([timedelta(minutes=1), timedelta(hours=2), *[timedelta(days=30)] * 3]),
    )
    def delegate(
        self,
        agent: str,
        user: str,
        currency: str,
        total: int,
        count: int | None,
        rules: tuple[model.Rule, ...],
        life: timedelta,
    ) -> None:
        """A user allows an agent something new."""
        self._delegated(agent, user, currency, total, count, rules, life)

    def _delegated(
        self,
        agent: str = "basket-helper",
        user: str = "ada",
        currency: str = "EUR",
        total: int = 10_000,
        count: int | None = None,
        rules: tuple[model.Rule, ...] = RULES[1],
        life: timedelta = timedelta(days=30),
    ) -> Delegation:
        now = self.model.now
        bounds = Bounds(currency, 4_000, total, count, rules, CATEGORIES, COUNTRIES, now, now + life)
        granted = self.world.granted(agent=agent, user=user, details=self._details(bounds))
        delegation = Delegation(granted.grant_id, agent, user, bounds, len(self.model.revocations), None)
        return self._known(delegation, granted)

    @rule(
        which=numbers,
        total=st.sampled_from([2_000, 6_000, 10_000]),
        count=st.sampled_from([None, 2]),
        rules=st.sampled_from(RULES),
        narrow=st.booleans(),
    )
    def hand_on(
        self, which: int, total: int, count: int | None, rules: tuple[model.Rule, ...], narrow: bool
    ) -> None:
        """An agent hands on to the other one."""
        parent = self._delegation(which)
        categories = ("5411",) if narrow else parent.bounds.categories
        bounds = replace(parent.bounds, total=total, count=count, rules=rules, categories=categories)
        agent = OTHER[parent.agent]
        granted = handed_on(self.world, self.grants[parent.id], agent, self._details(bounds))
        child = Delegation(granted.grant_id, agent, parent.user, bounds, parent.born, parent)
        self._known(child, granted)

    def _known(self, delegation: Delegation, granted: Granted) -> Delegation:
        self.model.delegations.append(delegation)
        self.grants[delegation.id] = granted
        return delegation

    def _details(self, bounds: Bounds) -> dict[str, Any]:
        def value(minor: int) -> str:
            return money(bounds.currency, minor)["value"]

        rules = [
            {"amount": value(r.amount), "period": f"PT{r.hours}H"}
            | ({"categories": ["5811-5814"]} if r.categories else {})
            for r in bounds.rules
        ]
        limits: dict[str, Any] = {
            "currency": bounds.currency,
            "per_action": value(bounds.per_action),
            "total": value(bounds.total),
        }
        limits |= {"per_period": rules} if rules else {}
        limits |= {"count": bounds.count} if bounds.count else {}
        merchants = ALLOWED | ({"categories": ["5411"]} if bounds.categories == ("5411",) else {})
        return self.world.delegation(
            actions=["catalog.search", "order.checkout", "payment.finalize", "refund.initiate"],
            limits=limits,
            merchants=merchants,
            not_before=bounds.not_before.isoformat().replace("+00:00", "Z"),
            expires=bounds.expires.isoformat().replace("+00:00", "Z"),
        )

    # --- exchanges -----------------------------------------------------------------------------------------

    @rule(which=numbers, ask=asks, key=keys)
    def exchange(self, which: int, ask: Ask, key: str | None) -> None:
        """An agent asks for anything."""
        delegation = self._delegation(which)
        self._exchanged(delegation, replace(ask, currency=ask.currency or delegation.bounds.currency), key)

    @rule(which=numbers, amount=amounts, merchant=st.sampled_from([GROCER, DINER]), key=keys)
    def pay(self, which: int, amount: int, merchant: Merchant, key: str | None) -> None:
        """An agent asks for what it asks for most often."""
        self._paid(which, amount, merchant, key)

    def _paid(
        self, which: int, amount: int, merchant: Merchant = GROCER, key: str | None = None
    ) -> Action | None:
        delegation = self._delegation(which)
        currency = delegation.bounds.currency
        return self._exchanged(delegation, Ask("payment.finalize", "market", amount, currency, merchant), key)

    @rule(which=numbers, amount=amounts, less=st.sampled_from([0, 0, 332]), capture=st.booleans())
    def buy(self, which: int, amount: int, less: int, capture: bool) -> None:
        """The same, and the shop uses the token at once, perhaps for less."""
        action = self._paid(which, amount)
        if action is not None:
            taken = None if less == 0 else max(1, amount - less)
            currency = action.ask.currency
            self._settled(Sent("redeem", action, "market", taken, currency, None, capture), None)

    @rule(which=numbers, times=st.integers(1, 2))
    def exchange_again(self, which: int, times: int) -> None:
        """A request once more, perhaps twice in a row."""
        for request in self.exchanged[-1 - which :][:1] * times:
            self._exchanged(*request)

    def _exchanged(self, delegation: Delegation, ask: Ask, key: str | None) -> Action | None:
        """Send a request, hold its answer to the model; the action where it was permitted."""
        self._tick()
        self.exchanged.append((delegation, ask, key))
        expected = self.model.exchange(delegation, ask, key)
        self.repeated = False  # that a token was given out again is told as well
        with self._one_event():
            answer = self._send_exchange(delegation, ask, key)
        if isinstance(expected, Refused):
            self._is_refused(answer, expected)
            return None
        assert answer.status_code == 200, answer.text
        action = expected or self.model.permitted(delegation, ask, key, answer.json()["action_id"])
        self._says_no_more_than(answer, action)
        return action

    def _send_exchange(self, delegation: Delegation, ask: Ask, key: str | None) -> httpx.Response:
        headers = {"Idempotency-Key": key} if key else {}
        assertion = self.world.assertion(SUBJECTS[delegation.agent])
        parameters: dict[str, str | None] = {"actor_token": assertion, "task_id": ask.task}
        if ask.kind == "catalog.search":
            parameters |= {"authorization_details": None, "scope": ask.kind, "resource": PLACES[ask.place]}
        grant = self.grants[delegation.id].grant
        return self.world.exchange(grant, action=_details_of(ask), headers=headers, **parameters)

    def _is_refused(self, answer: httpx.Response, expected: Refused) -> None:
        body = answer.json()
        assert (answer.status_code, body["error"]) == (400, expected.error), (body, expected)
        crossed = {violation["constraint"] for violation in body.get("violations", [])}
        assert crossed == expected.constraints

    def _says_no_more_than(self, answer: httpx.Response, action: Action) -> None:
        """C3, C7 and C8: the token is of this action, says what was asked, and lives no longer than it may."""
        token, ask = answer.json()["access_token"], action.ask
        claims = claims_of(token)
        assert answer.json()["action_id"] == claims["jti"] == action.id
        assert claims["aud"] == PLACES[ask.place]
        assert claims["client_id"] == action.delegation.agent
        assert (claims["iat"], claims["exp"]) == (action.issued.timestamp(), action.expires.timestamp())
        assert claims["authorization_details"] == [_details_of(ask)]
        assert claims.get("task_id") == ask.task
        assert claims.get("scope") == ("catalog.search" if ask.kind == "catalog.search" else None)
        self.texts[action.id] = token

    # --- settling ------------------------------------------------------------------------------------------

    @rule(
        which=numbers,
        amount=st.sampled_from([None, None, 1, 1_000, 4_001]),
        foreign=seldom,
        merchant=st.sampled_from([None, None, None, *MERCHANTS]),
        capture=st.booleans(),
        stranger=seldom,
        key=keys,
    )
    def redeem(
        self,
        which: int,
        amount: int | None,
        foreign: bool,
        merchant: Merchant | None,
        capture: bool,
        stranger: bool,
        key: str | None,
    ) -> None:
        """A resource server uses a token, with what really happened or with something else."""
        action = self._action(which, "reserved")
        if action is not None:
            currency = "USD" if foreign else action.ask.currency
            caller = OTHER[action.ask.place] if stranger else action.ask.place
            self._settled(Sent("redeem", action, caller, amount, currency, merchant, capture), key)

    @rule(
        which=numbers,
        verb=st.sampled_from(["capture", "void", "refund", "refund"]),
        amount=st.sampled_from([None, None, 1, 500, 4_001]),
        stranger=seldom,
        key=keys,
    )
    def step(self, which: int, verb: str, amount: int | None, stranger: bool, key: str | None) -> None:
        """A resource server goes on with a redemption."""
        action = self._action(which, "captured" if verb == "refund" else "authorized")
        if action is not None:
            caller = OTHER[action.ask.place] if stranger else action.ask.place
            self._settled(Sent(verb, action, caller, amount, action.ask.currency, None, True), key)

    @rule(which=numbers)
    def settle_again(self, which: int) -> None:
        """A request of a resource server once more."""
        for request in self.settled[-1 - which :][:1]:
            self._settled(*request)

    def _settled(self, sent: Sent, key: str | None) -> None:
        """Send a request of a resource server, and hold its answer to the model."""
        self._tick()
        self.settled.append((sent, key))
        expected = self._expected(sent, key)
        with self._one_event():
            answer = self._send_settlement(sent, key)
        self._is_settled(answer, expected, sent)

    def _expected(self, sent: Sent, key: str | None) -> Settled:
        self.repeated = False
        place = sent.caller, key or ""
        if key and place in self.model.settle_keys:
            earlier, answered, _ = self.model.settle_keys[place]
            self.repeated = earlier == sent
            return answered if earlier == sent else Settled(422)
        if sent.verb == "redeem":
            expected = self.model.redeem(
                sent.action, sent.caller, sent.amount, sent.currency, sent.merchant, sent.capture
            )
        else:
            expected = self.model.step(sent.verb, sent.action, sent.caller, sent.amount)
        if key and (expected.status < 300 or expected.voided):
            self.model.settle_keys[place] = (sent, expected, self.model.now)
        return expected

    def _send_settlement(self, sent: Sent, key: str | None) -> httpx.Response:
        body: dict[str, Any] = {}
        if sent.amount is not None:
            body["amount"] = money(sent.currency, sent.amount)
        path = f"redemptions/{sent.action.id}/{sent.verb}"
        if sent.verb == "redeem":
            path = "redeem"
            body |= {"token": self.texts[sent.action.id], "capture": sent.capture}
            body |= {"merchant": vars(sent.merchant)} if sent.merchant else {}
        world, headers = self.world, {"Idempotency-Key": key} if key else {}
        secrets = {
            "market": (world.market_id, world.market_secret),
            "shop": (world.shop_id, world.shop_secret),
        }
        return world.client.post(f"/oauth/{path}", json=body, auth=secrets[sent.caller], headers=headers)

    def _is_settled(self, answer: httpx.Response, expected: Settled, sent: Sent) -> None:
        body = answer.json()
        assert answer.status_code == expected.status, (body, expected)
        assert body.get("voided", False) == expected.voided
        if expected.status < 300:
            assert expected.amount is not None
            assert body == {
                "redemption_id": sent.action.id,
                "action_id": sent.action.id,
                "state": expected.state,
                "amount": money(sent.action.ask.currency, expected.amount),
            }

    # --- endings, time, faults -----------------------------------------------------------------------------

    @rule(
        which=numbers,
        kind=st.sampled_from(["delegation"] * 3 + ["task"] * 2 + ["agent", "user", "trust_domain", "all"]),
        task=st.sampled_from(["t1", "t2"]),
    )
    def revoke(self, which: int, kind: str, task: str) -> None:
        """An operator ends something, at any level."""
        self._tick()
        delegation = self._delegation(which)
        names = {"delegation": delegation.id, "agent": delegation.agent, "user": delegation.user}
        names |= {"trust_domain": "example.org", "all": "", "task": task}
        name = self._user_id(delegation.user) if kind == "user" else names[kind]
        target = Target(kind, name)  # type: ignore[arg-type]
        revoke.revoke(self.world.services, target, reason="a test", by="operator", now=self.model.now)
        self._revoked(Revocation(kind, names[kind]))

    @rule(which=numbers, whole=seldom, stranger=seldom)
    def give_up(self, which: int, whole: bool, stranger: bool) -> None:
        """An agent gives up a token or a whole delegation (RFC 7009): its own, or in vain another's."""
        self._tick()
        action = self._action(which, "reserved", "authorized")
        if action is None:
            return
        delegation = action.delegation
        token = self.grants[delegation.id].grant if whole else self.texts[action.id]
        self._revoke_by_agent(OTHER[delegation.agent] if stranger else delegation.agent, token)
        if whole and not stranger:
            self._revoked(Revocation("delegation", delegation.id))
        elif not stranger:
            self.model.revoke_token(action)

    def _revoke_by_agent(self, agent: str, token: str) -> None:
        form = {
            "token": token,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",
            "client_assertion": self.world.assertion(SUBJECTS[agent]),
        }
        answer = self.world.post("/oauth/revoke", form)
        assert answer.status_code == 200, answer.text

    def _revoked(self, revocation: Revocation) -> None:
        self.model.revoke(revocation)
        self.frozen.append((revocation, {action.id for action in self.model.actions}))

    def _user_id(self, name: str) -> str:
        found = self.world.services.database.read(lambda connection: users.find(connection, name))
        assert found is not None
        return found.user_id

    @rule(seconds=moments)
    def let_time_pass(self, seconds: int) -> None:
        """Tokens and authorizations lapse, windows begin anew; nobody has written so yet."""
        self._tick(seconds)

    @rule()
    def tidy(self) -> None:
        """The upkeep of some process."""
        upkeep.tidy(self.world.services, self.model.now)
        self.model.tidy()

    @rule()
    def restart(self) -> None:
        """The server ends, and another is started on the same database."""
        world = self.world
        world.services.database.dispose()
        world.services = open_services(world.services.settings, world.clock)
        self._serve()

    @rule(which=numbers, amount=amounts, key=keys.filter(bool), committed=st.booleans())
    def lose_the_answer_of_an_exchange(self, which: int, amount: int, key: str, committed: bool) -> None:
        """The connection breaks at the commit, which may have happened or not; the retry gets one action."""
        delegation = self._delegation(which)
        self._tick()
        ask = Ask("payment.finalize", "market", amount, delegation.bounds.currency, GROCER)
        before = self._remembered(delegation.agent, key)
        with _broken_commit(committed):
            answer = self._send_exchange(delegation, ask, key)
        assert answer.status_code == 503, answer.text
        assert answer.headers["retry-after"] == "1"
        after = self._remembered(delegation.agent, key)
        if after is not None and after != before:
            assert self.model.exchange(delegation, ask, key) is None
            self.model.permitted(delegation, ask, key, after)
        self._exchanged(delegation, ask, key)

    @rule(
        which=numbers,
        verb=st.sampled_from(["redeem", "redeem", "capture", "void", "refund"]),
        capture=st.booleans(),
        key=keys.filter(bool),
        committed=st.booleans(),
    )
    def lose_the_answer_of_a_settlement(
        self, which: int, verb: str, capture: bool, key: str, committed: bool
    ) -> None:
        """The same for a redemption or a step of one."""
        before = {"redeem": "reserved", "refund": "captured"}
        action = self._action(which, before.get(verb, "authorized"))
        if action is None:
            return
        self._tick()
        sent = Sent(verb, action, action.ask.place, None, action.ask.currency, None, capture)
        party = f"resource_server:rs_{sent.caller}"
        known = self._remembered(party, key)
        with _broken_commit(committed):
            answer = self._send_settlement(sent, key)
        assert answer.status_code == 503, answer.text
        if known is None and self._remembered(party, key) is not None:
            self._expected(sent, key)
        self._settled(sent, key)

    def _remembered(self, caller: str, key: str) -> str | None:
        """Which action a caller's key stands for, in the database."""
        table = table_of(IdempotencyKey)
        query = select(table.c.action_id).where(table.c.caller == caller, table.c.key == key)
        return self.world.services.database.read(lambda connection: connection.scalar(query))

    @rule(which=numbers, amount=amounts, times=st.integers(1, 3))
    def meet_others(self, which: int, amount: int, times: int) -> None:
        """A transaction meets another one at its end, so many times, and is begun anew."""
        with _conflicts(times):
            self._paid(which, amount, DINER)

    @rule(which=numbers)
    def introspect(self, which: int) -> None:
        """The resource server asks whether a token is worth anything."""
        action = self._action(which, "reserved", "authorized")
        if action is not None:
            said = self.world.introspect(self.texts[action.id], server=action.ask.place)
            assert said["active"] == self.model.is_live(action)

    def _tick(self, seconds: int = 1) -> None:
        """No two things happen at the same instant."""
        self.world.clock.advance(seconds=seconds)
        self.model.now = self.world.clock.now()

    @contextmanager
    def _one_event(self) -> Iterator[None]:
        """C9: the block writes exactly one audit event, or none where it only repeats an answer."""
        count = select(func.count()).select_from(table_of(AuditEvent))
        before = self.world.services.database.read(lambda connection: connection.scalar(count))
        yield
        after = self.world.services.database.read(lambda connection: connection.scalar(count))
        assert after - before == (0 if self.repeated else 1)

    # --- what holds after every step -----------------------------------------------------------------------

    @invariant()
    def every_total_is_the_sum_of_its_transfers(self) -> None:
        """C2."""
        services = self.world.services
        assert services.database.read(lambda connection: list(check(connection, services.stored))) == []

    @invariant()
    def the_database_says_what_the_model_says(self) -> None:
        """C3, C4: there is a row for each token, its state moves along the state machine, and all amounts agree."""
        rows = self._rows(ActionRow)
        found = {r.id: (r.state, r.amount, r.authorized, r.captured, r.refunded) for r in rows}
        assert found == {
            a.id: (a.state, _amount_of(a), a.authorized, a.captured, a.refunded) for a in self.model.actions
        }
        for row in rows:
            before = self.states.get(row.id, "reserved")
            assert row.state == before or row.state in AFTER.get(before, ())
        self.states = {row.id: row.state for row in rows}

    @invariant()
    def no_budget_is_exceeded(self) -> None:
        """C1, at the delegation and at each one above it."""
        budgets = {row.delegation_id: row for row in self._rows(Budget)}
        windows: dict[str, dict[tuple[int, int], int]] = {name: {} for name in budgets}
        for row in self._rows(BudgetWindow):
            if row.spent:
                windows[row.delegation_id][row.rule, row.window] = row.spent
        assert budgets.keys() == {delegation.id for delegation in self.model.delegations}
        for delegation in self.model.delegations:
            row, bounds = budgets[delegation.id], delegation.bounds
            totals = self.model.totals(delegation)
            assert {name: getattr(row, name) for name in totals} == totals
            assert windows[delegation.id] == self.model.windows(delegation)
            assert row.reserved + row.authorized + row.captured - row.refunded <= bounds.total
            assert bounds.count is None or row.action_count <= bounds.count
            assert all(spent <= bounds.rules[n].amount for (n, _), spent in windows[delegation.id].items())

    @invariant()
    def nothing_was_made_after_its_revocation(self) -> None:
        """C5."""
        for number, (revocation, known) in enumerate(self.frozen):
            for action in self.model.actions:
                if action.id not in known:
                    assert revocation != Revocation("task", action.ask.task or "")
                    older = [link for link in action.delegation.chain if link.born <= number]
                    assert not any(revocation.covers(link, "example.org") for link in older)

    def _rows(self, row: type[Base]) -> Sequence[Any]:
        return self.world.services.database.read(lambda c: c.execute(select(table_of(row))).all())


def _details_of(ask: Ask) -> dict[str, Any]:
    """The `agent_action` of a request, and of the token that it leads to."""
    details: dict[str, Any] = {
        "type": "agent_action",
        "actions": [ask.kind],
        "locations": [PLACES[ask.place]],
    }
    if ask.kind == "catalog.search":
        return details
    merchant = vars(ask.merchant) | ({"name": MERCHANT["name"]} if ask.place == "shop" else {})
    details |= {"amount": money(ask.currency, ask.amount), "merchant": merchant}
    return details | {"reference": ask.reference}


def _amount_of(action: Action) -> int:
    return 0 if action.ask.kind == "catalog.search" else action.ask.amount


@contextmanager
def _broken_commit(committed: bool) -> Iterator[None]:
    """The connection to the database is lost at the next commit: just after it, or just before."""

    def instead(real: Commit, broken: Exception) -> Commit:
        def commit(connection: Connection) -> None:
            if committed:
                real(connection)
            raise broken

        return commit

    with _commits(instead):
        yield


@contextmanager
def _conflicts(times: int) -> Iterator[None]:
    """The next commits find that another transaction was quicker."""
    left = iter(range(times))

    def instead(real: Commit, _: Exception) -> Commit:
        def commit(connection: Connection) -> None:
            if next(left, None) is not None:
                raise db.Conflict
            real(connection)

        return commit

    with _commits(instead):
        yield


@contextmanager
def _commits(instead: Callable[[Commit, Exception], Commit]) -> Iterator[None]:
    """What commits is replaced, on whichever database; it gets the real one, and how that one fails."""
    lost = OperationalError("COMMIT", {}, Exception("the connection is lost"), connection_invalidated=True)
    ways = (
        (db.Connection, "commit", lost),
        (sqlite_connections, "put_on_disk", sqlite3.OperationalError("disk I/O error")),
    )
    with ExitStack() as replaced:
        for place, name, error in ways:
            replaced.enter_context(patch.object(place, name, instead(getattr(place, name), error)))
        yield
