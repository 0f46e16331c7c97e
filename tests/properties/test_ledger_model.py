"""Invariants C1 to C5, C7 and C8: random histories through the front door agree with a small model, step by step.

A history mixes exchanges, redemptions, captures, voids, refunds, hand-overs, revocations at every level, repeated keys, time
that passes, upkeep, restarts, and commits whose fate the caller never learns. After each step the whole ledger is compared.
A history that once failed is kept at the end of this file.
"""

import json
import shutil
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import OperationalError

from authserver import db, revoke, upkeep
from authserver.accounts import users
from authserver.app import build
from authserver.consent import Granted
from authserver.ledger.check import check
from authserver.revoke import Target
from authserver.schema import Action as ActionRow
from authserver.schema import AuditEvent, Budget, BudgetWindow, table_of
from authserver.services import open_services
from tests.attacks.making import handed_on
from tests.conftest import BOTH
from tests.properties import ledger_model as model
from tests.properties.ledger_model import Action, Ask, Bounds, Delegation, Merchant, Refused, Revocation, Settled
from tests.world import BASKET_HELPER, MARKET, MERCHANT, PRICE_SCOUT, SHOP, World, running_world

PLACES = {"market": MARKET, "shop": SHOP}
SUBJECTS = {"basket-helper": BASKET_HELPER, "price-scout": PRICE_SCOUT}
EXPONENTS = {"EUR": 2, "JPY": 0, "KWD": 3}
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
AFTER = {
    "reserved": {"authorized", "captured", "voided", "expired"},
    "authorized": {"captured", "voided", "expired"},
    "captured": {"refunded"},
}

amounts = st.sampled_from([1, 333, 1_000, 2_500, 4_000, 4_001])
keys = st.sampled_from([None, "k-1", "k-2", "k-3"])
asks = st.builds(
    Ask,
    kind=st.sampled_from(
        ["payment.finalize"] * 5 + ["refund.initiate", "order.checkout", "catalog.search"]
    ),
    place=st.sampled_from(["market", "market", "shop"]),
    amount=amounts,
    currency=st.sampled_from(["", "", "", "", "USD"]),  # empty: the delegation's own
    merchant=st.sampled_from([GROCER] * 3 + [DINER] * 3 + [*MERCHANTS]),
    reference=st.sampled_from(["cart-1", "cart-2"]),
    task=st.sampled_from([None, "t1", "t2"]),
)
moments = st.sampled_from([1, 30, 118, 119, 121, 3_600, 86_400, 6 * 86_400, 7 * 86_400])


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
    """One server and the model of its ledger, through one history."""

    delegations = Bundle("delegations")
    tokens = Bundle("tokens")
    exchanges = Bundle("exchanges")
    settlements = Bundle("settlements")

    def __init__(self, fresh: Callable[[], AbstractContextManager[World]]) -> None:
        """`fresh` opens a server on a database of its own."""
        super().__init__()
        self.closing = ExitStack()
        self.world = self.closing.enter_context(fresh())
        self._serve()
        self.model = model.Ledger(
            self.world.clock.now(), "example.org", {"market": None, "shop": GROCER}, OPEN_MOST
        )
        self.states: dict[str, str] = {}
        self.texts: dict[str, str] = {}  # tokens by the id of their action
        self.grants: dict[str, Granted] = {}  # by the id of the delegation
        self.frozen: list[tuple[Revocation, set[str]]] = []  # each revocation with the actions that there were

    def teardown(self) -> None:
        """The end of a history."""
        self.world.services.database.dispose()
        self.closing.close()

    def _serve(self) -> None:
        transport = httpx.WSGITransport(build(self.world.services))
        self.world.client = httpx.Client(transport=transport, base_url=self.world.url)

    # --- delegations ---------------------------------------------------------------------------------------

    @initialize(target=delegations)
    def begin(self) -> Delegation:
        """There is one delegation from the start."""
        return self._granted("basket-helper", "ada", "EUR", 10_000, None, RULES[1], timedelta(days=30))

    @rule(
        target=delegations,
        agent=st.sampled_from(["basket-helper", "price-scout"]),
        user=st.sampled_from(["ada", "bob"]),
        currency=st.sampled_from(sorted(EXPONENTS)),
        total=st.sampled_from([4_000, 10_000, 30_000]),
        count=st.sampled_from([None, 1, 3]),
        rules=st.sampled_from(RULES),
        life=st.sampled_from([timedelta(minutes=1), timedelta(hours=2), timedelta(days=30)]),
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
    ) -> Delegation:
        """A user allows an agent something new."""
        return self._granted(agent, user, currency, total, count, rules, life)

    def _granted(
        self,
        agent: str,
        user: str,
        currency: str,
        total: int,
        count: int | None,
        rules: tuple[model.Rule, ...],
        life: timedelta,
    ) -> Delegation:
        now = self.model.now
        bounds = Bounds(currency, 4_000, total, count, rules, CATEGORIES, COUNTRIES, now, now + life)
        granted = self.world.granted(agent=agent, user=user, details=self._details(bounds))
        delegation = Delegation(granted.grant_id, agent, user, bounds, len(self.model.revocations), None)
        return self._known(delegation, granted)

    @rule(
        target=delegations,
        parent=delegations,
        total=st.sampled_from([2_000, 6_000, 10_000]),
        count=st.sampled_from([None, 2]),
        rules=st.sampled_from(RULES),
        narrow=st.booleans(),
    )
    def hand_on(
        self, parent: Delegation, total: int, count: int | None, rules: tuple[model.Rule, ...], narrow: bool
    ) -> Delegation:
        """An agent hands on to the other one."""
        above = parent.bounds
        categories = ("5411",) if narrow else above.categories
        bounds = replace(above, total=total, count=count, rules=rules, categories=categories)
        agent = "price-scout" if parent.agent == "basket-helper" else "basket-helper"
        granted = handed_on(
            self.world, self.grants[parent.id], agent, self._details(bounds)
        )
        return self._known(
            Delegation(granted.grant_id, agent, parent.user, bounds, parent.born, parent), granted
        )

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

    @rule(target=exchanges, delegation=delegations, ask=asks, key=keys)
    def prepare(self, delegation: Delegation, ask: Ask, key: str | None) -> tuple[Delegation, Ask, str | None]:
        """Something that can be asked for, more than once."""
        return delegation, replace(ask, currency=ask.currency or delegation.bounds.currency), key

    @rule(target=tokens, delegation=delegations, ask=asks, key=keys)
    def exchange(self, delegation: Delegation, ask: Ask, key: str | None) -> Any:
        """An agent asks for a token."""
        return self._exchanged(
            delegation, replace(ask, currency=ask.currency or delegation.bounds.currency), key
        )

    @rule(target=tokens, delegation=delegations, amount=amounts, merchant=st.sampled_from([GROCER, DINER]))
    def pay(self, delegation: Delegation, amount: int, merchant: Merchant) -> Any:
        """The request that is made most often."""
        currency = delegation.bounds.currency
        ask = Ask("payment.finalize", "market", amount, currency, merchant, "cart-1", None)
        return self._exchanged(delegation, ask, None)

    @rule(target=tokens, request=exchanges, times=st.integers(1, 2))
    def exchange_again(self, request: tuple[Delegation, Ask, str | None], times: int) -> Any:
        """The same request once more, perhaps twice in a row."""
        found = [self._exchanged(*request) for _ in range(times)]
        return found[-1]

    def _exchanged(self, delegation: Delegation, ask: Ask, key: str | None) -> Any:
        self._tick()
        expected = self.model.exchange(delegation, ask, key)
        with self._one_event():
            answer = self._send_exchange(delegation, ask, key)
        if isinstance(expected, Refused):
            self._is_refused(answer, expected)
            return multiple()
        assert answer.status_code == 200, answer.text
        action = expected or self.model.permitted(delegation, ask, key, answer.json()["action_id"])
        self._says_no_more_than(answer, action)
        return action if expected is None else multiple()

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
        target=settlements,
        action=tokens,
        amount=st.sampled_from([None, None, 1, 1_000, 4_001]),
        foreign=st.sampled_from([False] * 7 + [True]),
        merchant=st.sampled_from([None, None, None, *MERCHANTS]),
        capture=st.booleans(),
        stranger=st.sampled_from([False] * 7 + [True]),
        key=keys,
    )
    def redeem(
        self,
        action: Action,
        amount: int | None,
        foreign: bool,
        merchant: Merchant | None,
        capture: bool,
        stranger: bool,
        key: str | None,
    ) -> tuple[Sent, str | None]:
        """A resource server uses a token, with what really happened or with something else."""
        currency = "USD" if foreign else action.ask.currency
        sent = Sent(
            "redeem", action, _caller(action, stranger), amount, currency, merchant, capture
        )
        return self._settled(sent, key)

    @rule(
        target=settlements,
        action=tokens,
        verb=st.sampled_from(["capture", "void", "refund", "refund"]),
        amount=st.sampled_from([None, None, 1, 500, 4_001]),
        stranger=st.sampled_from([False] * 7 + [True]),
        key=keys,
    )
    def step(
        self, action: Action, verb: str, amount: int | None, stranger: bool, key: str | None
    ) -> tuple[Sent, str | None]:
        """A resource server goes on with a redemption."""
        sent = Sent(verb, action, _caller(action, stranger), amount, action.ask.currency, None, True)
        return self._settled(sent, key)

    @rule(request=settlements)
    def settle_again(self, request: tuple[Sent, str | None]) -> None:
        """The same request once more."""
        self._settled(*request)

    def _settled(self, sent: Sent, key: str | None) -> tuple[Sent, str | None]:
        self._tick()
        expected = self._expected(sent, key)
        with self._one_event(replayed=self.replayed):
            answer = self._send_settlement(sent, key)
        self._is_settled(answer, expected, sent)
        return sent, key

    def _expected(self, sent: Sent, key: str | None) -> Settled:
        self.replayed = False
        place = sent.caller, key or ""
        if key and place in self.model.settle_keys:
            earlier, answered, _ = self.model.settle_keys[place]
            self.replayed = earlier == sent
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
        secrets = {"market": (world.market_id, world.market_secret), "shop": (world.shop_id, world.shop_secret)}
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
        delegation=delegations,
        kind=st.sampled_from(
            ["delegation"] * 4 + ["task"] * 2 + ["agent", "user", "trust_domain", "all"]
        ),
        task=st.sampled_from(["t1", "t2"]),
    )
    def revoke(self, delegation: Delegation, kind: str, task: str) -> None:
        """An operator ends something, at any level."""
        self._tick()
        names = {"delegation": delegation.id, "agent": delegation.agent, "user": delegation.user}
        names |= {"trust_domain": "example.org", "all": "", "task": task}
        name = self._user_id(delegation.user) if kind == "user" else names[kind]
        target = Target(kind, name)  # type: ignore[arg-type]
        revoke.revoke(self.world.services, target, reason="a test", by="operator", now=self.model.now)
        self._revoked(Revocation(kind, names[kind]))

    @rule(delegation=delegations)
    def revoke_grant(self, delegation: Delegation) -> None:
        """An agent gives its own delegation up (RFC 7009)."""
        self._tick()
        self._revoke_by_agent(delegation.agent, self.grants[delegation.id].grant)
        self._revoked(Revocation("delegation", delegation.id))

    @rule(action=tokens, stranger=st.booleans())
    def revoke_token(self, action: Action, stranger: bool) -> None:
        """An agent gives a token up: its own, or in vain another's."""
        self._tick()
        other = {"basket-helper": "price-scout", "price-scout": "basket-helper"}
        agent = action.delegation.agent
        self._revoke_by_agent(other[agent] if stranger else agent, self.texts[action.id])
        if not stranger:
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

    @rule(
        target=tokens,
        delegation=delegations,
        amount=amounts,
        key=st.sampled_from(["k-1", "k-4"]),
        committed=st.booleans(),
    )
    def lose_the_answer_of_an_exchange(
        self, delegation: Delegation, amount: int, key: str, committed: bool
    ) -> Any:
        """The connection to the database breaks at the commit: it may have happened, or not. The retry tells."""
        self._tick()
        currency = delegation.bounds.currency
        ask = Ask("payment.finalize", "market", amount, currency, GROCER, "cart-1", None)
        before = deepcopy((self.model.actions, self.model.exchange_keys)) and list(self.model.actions)
        with _broken_commits(committed):
            answer = self._send_exchange(delegation, ask, key)
        assert answer.status_code == 503, answer.text
        assert answer.headers["retry-after"].isdigit()
        written = self._written() - {action.id for action in before}
        if written:
            assert self.model.exchange(delegation, ask, key) is None
            self.model.permitted(delegation, ask, key, written.pop())
        assert not written
        return self._exchanged(delegation, ask, key) if not self._is_known(delegation, ask, key) else self._retried(
            delegation, ask, key
        )
