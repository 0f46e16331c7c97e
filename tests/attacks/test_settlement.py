"""Threats A72 to A77 and A79, and invariants 1, 2, 4 and 10: a token is worth one use, with what really happened."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from authserver import jose, revoke, upkeep
from authserver.actors.client_authentication import JWT_SPIFFE
from authserver.ledger import idempotency
from authserver.revoke import Target
from tests.attacks.forge import claims_of
from tests.attacks.making import foreign_key, handed_on, named
from tests.attacks.serving import configuration, serving
from tests.settling import (
    at_once,
    budget_of,
    eur,
    ledger,
    problem,
    redeem,
    redeemed,
    settle,
    state_of,
    the_ledger_is_right,
    token_of,
)
from tests.world import MERCHANT, SHOP, World, running_world

LIMITS = {"currency": "EUR", "per_action": "80.00", "total": "100.00"}
PAYING = ["payment.finalize", "refund.initiate"]


@pytest.fixture(autouse=True)
def _the_ledger_is_right(request: pytest.FixtureRequest) -> Iterator[None]:
    """Invariant 2, after every test of this file."""
    world = request.getfixturevalue("world") if "world" in request.fixturenames else None
    yield
    if world is not None:
        the_ledger_is_right(world)


def _granted(world: World, **limits: Any) -> str:
    return world.granted(limits=LIMITS | limits, actions=PAYING).grant


def _several(cases: Mapping[str, tuple[Any, ...]]) -> list[Any]:
    """The same as `named`, for more than one parameter."""
    return [pytest.param(*case, id=name) for name, case in cases.items()]


def _statuses(answers: list[httpx.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


def _revoke(world: World, target: Target) -> None:
    revoke.revoke(world.services, target, reason="a test", by="operator", now=world.clock.now())


def _refund_of(world: World, grant: str, value: str, reference: str = "cart-1", **changes: Any) -> str:
    asked = {"actions": ["refund.initiate"], "reference": reference} | changes
    return token_of(world, grant, value, **asked)


# --- A72: one token, one use -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("capture", [True, False], ids=["capturing", "authorizing"])
def test_A72_one_token_redeemed_by_fifty_clients_at_once_is_used_once(world: World, capture: bool) -> None:
    grant = _granted(world)
    token, events = token_of(world, grant), len(world.events())
    answers = at_once(50, lambda _: redeem(world, token, capture=capture))
    assert _statuses(answers) == {201: 1, 409: 49}
    told = Counter(event["event"] for event in world.events()[events:])
    assert told == {"redemption.permitted": 1, "redemption.refused": 49}
    assert [transfer.kind for transfer in ledger(world)["transfers"]] == [
        "reserve",
        "settle" if capture else "authorize",
    ]


def test_A72_different_amounts_and_keys_at_once_make_no_second_use(world: World) -> None:
    token = token_of(world, _granted(world))

    def send(number: int) -> httpx.Response:
        body = {"token": token, "amount": eur(f"{number + 1}.00"), "capture": number % 2 == 0}
        return settle(world, "redeem", body, key=f"key-{number}")

    answers = at_once(30, send)
    assert _statuses(answers) == {201: 1, 409: 29}
    (used,) = [answer.json()["amount"] for answer in answers if answer.status_code == 201]
    (action,) = ledger(world)["actions"]
    assert action.captured + action.authorized == int(used["value"].replace(".", ""))


@pytest.mark.parametrize("how", ["void", "broken_facts", "revoked_by_its_agent"])
def test_A72_a_token_is_not_redeemed_again_after_it_was_voided(world: World, how: str) -> None:
    token = token_of(world, _granted(world))
    if how == "void":
        path = redeemed(world, token, capture=False)
        assert settle(world, f"{path}/void", {}).status_code == 200
    elif how == "broken_facts":
        problem(redeem(world, token, merchant={"country": "US"}), 409)
    else:
        asked = {"client_assertion_type": JWT_SPIFFE, "client_assertion": world.assertion(), "token": token}
        assert world.post("/oauth/revoke", asked).status_code == 200
    before = ledger(world)
    assert _statuses(at_once(10, lambda _: redeem(world, token))) == {409: 10}
    assert ledger(world) == before


def test_A72_a_token_is_used_once_by_all_servers_of_one_database(world: World, tmp_path: Path) -> None:
    grant = _granted(world)
    used, fresh = token_of(world, grant, "10.00"), token_of(world, grant, "10.00")
    assert redeem(world, used).status_code == 201
    with ExitStack() as opened:
        restarted = opened.enter_context(serving(configuration(world, tmp_path), workers=2))
        client = opened.enter_context(httpx.Client(base_url=restarted.url, timeout=30))
        problem(settle(world, "redeem", {"token": used}, client=client), 409)
        clients = (client, world.client)
        answers = at_once(
            50, lambda number: settle(world, "redeem", {"token": fresh}, client=clients[number % 2])
        )
        assert _statuses(answers) == {201: 1, 409: 49}
    problem(redeem(world, fresh), 409)


# --- A73: what really happened is within what was granted ------------------------------------------------------------

TOO_MUCH = {
    "one_cent_more": eur("50.01"),
    "all_of_the_budget": eur("100.00"),
    "another_currency": {"currency": "USD", "value": "50.00"},
    "less_of_another_currency": {"currency": "JPY", "value": "1"},
}


@pytest.mark.parametrize("amount", named(TOO_MUCH))
def test_A73_more_or_another_currency_is_refused_and_the_reservation_stands(
    world: World, amount: dict[str, str]
) -> None:
    token = token_of(world, _granted(world))
    before = ledger(world)
    with world.nothing_happens(event="redemption.refused"):
        body = problem(redeem(world, token, amount=amount), 409)
    assert "voided" not in body
    assert body["violations"] == [{"constraint": "amount", "requested": amount, "allowed": eur("50.00")}]
    assert ledger(world) == before
    assert redeem(world, token).status_code == 201


BOUND = {
    "categories": ["5411", "5811-5814"],
    "countries": ["NL", "BE"],
    "ids": ["m_123", "m_9"],
    "except": {"categories": ["5813"], "countries": [], "ids": []},
}
BREAKING = {
    "id": ({"id": "m_7"}, {"merchants.ids"}),
    "category": ({"category": "7995"}, {"merchants.categories"}),
    "excluded_category": ({"category": "5813"}, {"merchants.except.categories"}),
    "country": ({"country": "US"}, {"merchants.countries"}),
    "everything": (
        {"id": "m_7", "category": "7995", "country": "US", "name": "Casino"},
        {"merchants.ids", "merchants.categories", "merchants.countries"},
    ),
}


@pytest.mark.parametrize(("facts", "broken"), _several(BREAKING))
def test_A73_a_merchant_that_breaks_the_delegation_voids_the_reservation(
    world: World, facts: dict[str, str], broken: set[str]
) -> None:
    rules = [{"amount": "90.00", "period": "P1D"}]
    granted = world.granted(limits=LIMITS | {"per_period": rules, "count": 1}, merchants=BOUND)
    token = token_of(world, granted.grant)
    body = problem(redeem(world, token, merchant=facts), 409)
    assert body["voided"] is True
    assert {violation["constraint"] for violation in body["violations"]} == broken
    budget = budget_of(world, granted.grant_id)
    assert (budget.reserved, budget.action_count, budget.open_count) == (0, 0, 0)
    assert world.rows().in_windows == 0
    assert world.introspect(token) == {"active": False}
    problem(redeem(world, token, merchant=MERCHANT), 409)
    event = world.events()[-2]
    assert (event["event"], event["rule"] in broken) == ("redemption.refused", True)
    assert token_of(world, granted.grant, "80.00")  # the whole budget is there again


def test_A73_a_merchant_that_breaks_the_delegation_counts_before_an_amount_that_is_too_high(
    world: World,
) -> None:
    token = token_of(world, _granted(world))
    body = problem(redeem(world, token, amount=eur("99.00"), merchant={"country": "US"}), 409)
    assert body["voided"] is True
    assert world.rows().reserved == 0


def test_A73_another_merchant_that_the_delegation_allows_is_refused_and_nothing_is_voided(
    world: World,
) -> None:
    token = token_of(world, world.granted(merchants=BOUND).grant)
    for facts in ({"id": "m_9"}, {"category": "5812"}, {"country": "BE"}):
        with world.nothing_happens(event="redemption.refused"):
            body = problem(redeem(world, token, merchant=facts), 409)
        assert "voided" not in body
    assert redeem(world, token, merchant=MERCHANT).status_code == 201


def test_A73_every_delegation_of_the_chain_judges_the_merchant(world: World) -> None:
    parent = world.granted(redelegation={"depth": 1}, merchants=BOUND)
    wider = world.delegation(merchants={"categories": ["any"], "countries": ["any"]})
    child = handed_on(world, parent, "basket-helper", wider)
    token = token_of(world, child.grant)
    body = problem(redeem(world, token, merchant={"country": "FR"}), 409)
    assert (body["voided"], body["violations"][0]["constraint"]) == (True, "merchants.countries")
    for granted in (parent, child):
        assert budget_of(world, granted.grant_id).reserved == 0


# --- A74: whose token it is ------------------------------------------------------------------------------------------


def test_A74_another_resource_server_learns_nothing_of_a_token_whatever_became_of_it(world: World) -> None:
    grant = _granted(world)
    tokens = [token_of(world, grant, "10.00") for _ in range(3)]
    redeemed(world, tokens[1])
    path = redeemed(world, tokens[2], capture=False)
    asked = [{"token": token} for token in (*tokens, "no.such.token", "", grant)]
    asked += [
        {"token": tokens[0], "amount": eur("99.00")},
        {"token": tokens[0], "merchant": {"country": "US"}},
    ]
    before = ledger(world)
    answers = [settle(world, "redeem", body, server="shop") for body in asked]
    world.clock.advance(seconds=120)
    answers += [settle(world, "redeem", body, server="shop") for body in asked]
    for redemption in (path, "redemptions/no_such_redemption", f"redemptions/{'x' * 300}"):
        answers += [settle(world, f"{redemption}/{verb}", {}, server="shop") for verb in STEPS[1:]]
    said = {str(problem(answer, 404)) for answer in answers}
    assert len(said) == 1
    assert ledger(world) == before


def test_A74_a_token_that_this_server_did_not_sign_is_unknown(world: World) -> None:
    grant = _granted(world)
    claims = claims_of(token_of(world, grant))
    active = world.services.signing_keys.active()
    forged = {
        "another_issuer": jose.sign(claims | {"iss": "https://elsewhere.example"}, key=active, typ="at+jwt"),
        "a_foreign_key": jose.sign(claims, key=foreign_key(active.kid), typ="at+jwt"),
        "another_type": jose.sign(claims, key=active, typ="JWT"),
        "a_grant": grant,
        "an_assertion": world.assertion(),
        "an_action_that_never_was": jose.sign(claims | {"jti": "never"}, key=active, typ="at+jwt"),
    }
    for name, token in forged.items():
        with world.nothing_happens(event="redemption.refused"):
            assert problem(redeem(world, token), 404)["title"] == "not found", name


def test_A74_an_expired_or_revoked_token_is_not_redeemed(world: World) -> None:
    granted = world.granted()
    expired = token_of(world, granted.grant, "10.00")
    world.clock.advance(seconds=120)
    revoked = token_of(world, granted.grant, "10.00")
    _revoke(world, Target("delegation", granted.grant_id))
    for token, rule in ((expired, "delegation.revoked"), (revoked, "delegation.revoked")):
        with world.nothing_happens(rule, event="redemption.refused"):
            problem(redeem(world, token), 409)


def test_A74_an_agent_settles_nothing_not_even_with_its_own_token(world: World) -> None:
    token = token_of(world, _granted(world))
    body = {"token": token, "client_assertion_type": JWT_SPIFFE, "client_assertion": world.assertion()}
    with world.nothing_happens(event="redemption.refused"):
        problem(world.client.post("/oauth/redeem", json=body), 403)


# --- A75: refunds ----------------------------------------------------------------------------------------------------


def test_A75_no_more_is_refunded_than_was_captured(world: World) -> None:
    granted = world.granted(limits=LIMITS, actions=PAYING)
    path = redeemed(world, token_of(world, granted.grant), capture=False)
    assert settle(world, f"{path}/capture", {"amount": eur("30.00")}).status_code == 200
    for amount in ("30.01", "50.00"):
        with world.nothing_happens(event="refund.refused"):
            body = problem(settle(world, f"{path}/refund", {"amount": eur(amount)}), 409)
        assert body["violations"][0]["allowed"] == eur("30.00")
    assert settle(world, f"{path}/refund", {"amount": eur("10.00")}).json()["state"] == "captured"
    with world.nothing_happens(event="refund.refused"):
        problem(settle(world, f"{path}/refund", {"amount": eur("20.01")}), 409)
    assert settle(world, f"{path}/refund", {}).json()["amount"] == eur("20.00")
    with world.nothing_happens(event="refund.refused"):
        problem(settle(world, f"{path}/refund", {}), 409)
    budget = budget_of(world, granted.grant_id)
    assert (budget.captured, budget.refunded, budget.action_count) == (3000, 3000, 1)


def test_A75_refunds_at_once_give_back_exactly_what_was_captured(world: World) -> None:
    granted = world.granted(limits=LIMITS, actions=PAYING)
    path = redeemed(world, token_of(world, granted.grant))
    answers = at_once(20, lambda _: settle(world, f"{path}/refund", {"amount": eur("10.00")}))
    assert _statuses(answers) == {200: 5, 409: 15}
    assert sorted(a.json()["state"] for a in answers if a.status_code == 200) == ["captured"] * 4 + [
        "refunded"
    ]
    assert budget_of(world, granted.grant_id).refunded == 5000


def test_A75_a_credit_gives_back_only_what_was_captured_for_its_reference_at_its_place(world: World) -> None:
    grant = _granted(world)
    redeemed(world, token_of(world, grant, "50.00", reference="cart-1"))
    token_of(world, grant, "10.00", reference="cart-2")  # held, not captured
    at_shop = world.exchange(grant, action=_refund_action(world, "20.00", locations=[SHOP])).json()
    refused = {
        "another_reference": _refund_of(world, grant, "0.01", "cart-3"),
        "not_yet_captured": _refund_of(world, grant, "0.01", "cart-2"),
        "more": _refund_of(world, grant, "50.01"),
    }
    for token in refused.values():
        with world.nothing_happens("settle.refund", event="redemption.refused"):
            problem(redeem(world, token), 409)
    with world.nothing_happens("settle.refund", event="redemption.refused"):
        problem(settle(world, "redeem", {"token": at_shop["access_token"]}, server="shop"), 409)


def _refund_action(world: World, value: str, **changes: Any) -> dict[str, Any]:
    asked = {"actions": ["refund.initiate"], "amount": eur(value), "reference": "cart-1"}
    return world.action(**(asked | changes))


def test_A75_credits_at_once_never_raise_the_budget_above_its_start(world: World) -> None:
    granted = world.granted(limits=LIMITS, actions=PAYING)
    grant = granted.grant
    path = redeemed(world, token_of(world, grant, "50.00", reference="cart-1"))
    tokens = [_refund_of(world, grant, "10.00") for _ in range(12)]

    def send(number: int) -> httpx.Response:
        if number % 2:
            return settle(world, f"{path}/refund", {"amount": eur("10.00")})
        return redeem(world, tokens[number // 2])

    answers = at_once(20, send)
    given_back = [answer for answer in answers if answer.status_code in (200, 201)]
    assert len(given_back) == 5
    budget = budget_of(world, granted.grant_id)
    assert (budget.captured, budget.refunded, budget.reserved) == (5000, 5000, 0)
    assert token_of(world, grant, "80.00")
    over = world.exchange(grant, action=world.action(amount=eur("20.01")))
    assert world.refuses(over, "invalid_authorization_details")["violations"][0]["allowed"] == "20.00"


def test_A75_a_credit_redeemed_twice_gives_back_once(world: World) -> None:
    granted = world.granted(limits=LIMITS, actions=PAYING)
    redeemed(world, token_of(world, granted.grant, "50.00", reference="cart-1"))
    credit = _refund_of(world, granted.grant, "10.00")
    assert _statuses(at_once(10, lambda _: redeem(world, credit))) == {201: 1, 409: 9}
    assert budget_of(world, granted.grant_id).refunded == 1000
    # What a credit gave back is not itself something that could be given back.
    path = f"redemptions/{claims_of(credit)['jti']}"
    for verb in STEPS[1:]:
        problem(settle(world, f"{path}/{verb}", {}), 409)


# --- A76: the state machine ------------------------------------------------------------------------------------------

STEPS = ("redeem", "capture", "void", "refund")


@dataclass
class Redemption:
    """A token on its way along the state machine."""

    world: World
    grant_id: str
    token: str

    @property
    def path(self) -> str:
        """Where its steps are."""
        return f"redemptions/{claims_of(self.token)['jti']}"

    def authorized(self) -> None:
        """Redeem it, to be captured later."""
        redeemed(self.world, self.token, capture=False)

    def captured(self) -> None:
        """Redeem it."""
        redeemed(self.world, self.token)

    def captured_later(self) -> None:
        """Authorize, then capture less."""
        self.authorized()
        assert self.step("capture", {"amount": eur("40.00")}).status_code == 200

    def partly_refunded(self) -> None:
        """Capture, then give some back."""
        self.captured()
        assert self.step("refund", {"amount": eur("10.00")}).status_code == 200

    def refunded(self) -> None:
        """Capture, then give all back."""
        self.captured()
        assert self.step("refund", {}).status_code == 200

    def voided(self) -> None:
        """Authorize, then void."""
        self.authorized()
        assert self.step("void", {}).status_code == 200

    def voided_by_facts(self) -> None:
        """Break the delegation."""
        problem(redeem(self.world, self.token, merchant={"country": "US"}), 409)

    def voided_by_revocation(self) -> None:
        """Revoke its delegation."""
        _revoke(self.world, Target("delegation", self.grant_id))

    def due(self) -> None:
        """Let the token die; nothing has noticed yet."""
        self.world.clock.advance(seconds=120)

    def expired(self) -> None:
        """Let the token die, and what it held be given back."""
        self.due()
        self.tidied()

    def lapsing(self) -> None:
        """Authorize, and wait too long; nothing has noticed yet."""
        self.authorized()
        self.world.clock.advance(days=7)

    def lapsed(self) -> None:
        """Authorize, wait too long, and what was held is given back."""
        self.lapsing()
        self.tidied()

    def tidied(self) -> None:
        """Undo what time undoes."""
        assert upkeep.tidy(self.world.services, self.world.clock.now()).reservations == 1

    def step(self, verb: str, body: dict[str, Any]) -> httpx.Response:
        """Take a step."""
        if verb == "redeem":
            return redeem(self.world, self.token, **body)
        return settle(self.world, f"{self.path}/{verb}", body)


ALLOWED: dict[str, tuple[Callable[[Redemption], None], str, set[str]]] = {
    "reserved": (lambda redemption: None, "reserved", {"redeem"}),
    "authorized": (Redemption.authorized, "authorized", {"capture", "void"}),
    "captured": (Redemption.captured, "captured", {"refund"}),
    "captured_later": (Redemption.captured_later, "captured", {"refund"}),
    "partly_refunded": (Redemption.partly_refunded, "captured", {"refund"}),
    "refunded": (Redemption.refunded, "refunded", set()),
    "voided": (Redemption.voided, "voided", set()),
    "voided_by_facts": (Redemption.voided_by_facts, "voided", set()),
    "voided_by_revocation": (Redemption.voided_by_revocation, "voided", set()),
    "due": (Redemption.due, "reserved", set()),
    "expired": (Redemption.expired, "expired", set()),
    "lapsing": (Redemption.lapsing, "authorized", set()),
    "lapsed": (Redemption.lapsed, "expired", set()),
}


@pytest.mark.parametrize(("reach", "state", "allowed"), _several(ALLOWED))
def test_A76_a_step_that_the_state_forbids_changes_nothing(
    world: World, reach: Callable[[Redemption], None], state: str, allowed: set[str]
) -> None:
    granted = world.granted(limits=LIMITS, actions=PAYING)
    redemption = Redemption(world, granted.grant_id, token_of(world, granted.grant))
    reach(redemption)
    assert state_of(world, redemption.path) == state
    before = ledger(world)
    for verb in STEPS:
        if verb in allowed:
            continue
        # What was not redeemed yet is no redemption.
        status = 404 if state == "reserved" and verb != "redeem" else 409
        for body in ({}, {"amount": eur("1.00")}, {"amount": eur("50.00")}):
            event = "redemption" if verb == "redeem" else verb
            with world.nothing_happens(event=f"{event}.refused"):
                problem(redemption.step(verb, body), status)
            assert ledger(world) == before, verb
    for verb in sorted(allowed)[:1]:
        assert redemption.step(verb, {}).status_code in (200, 201)
        assert ledger(world) != before


def test_A76_of_captures_and_voids_at_once_one_happens(world: World) -> None:
    granted = world.granted(limits=LIMITS, actions=PAYING)
    path = redeemed(world, token_of(world, granted.grant), capture=False)
    verbs = ("capture", "void")
    answers = at_once(20, lambda number: settle(world, f"{path}/{verbs[number % 2]}", {}))
    assert _statuses(answers) == {200: 1, 409: 19}
    (state,) = [answer.json()["state"] for answer in answers if answer.status_code == 200]
    assert state == state_of(world, path)
    budget = budget_of(world, granted.grant_id)
    kept = 5000 if state == "captured" else 0
    assert (budget.authorized, budget.captured, budget.action_count) == (0, kept, bool(kept))


# --- A77: idempotency keys -------------------------------------------------------------------------------------------


def test_A77_the_same_redemption_from_many_clients_at_once_has_one_effect(world: World) -> None:
    token = token_of(world, _granted(world))
    answers = at_once(20, lambda _: settle(world, "redeem", {"token": token}, key="once"))
    assert _statuses(answers) == {201: 20}
    assert len({answer.text for answer in answers}) == 1
    assert len(ledger(world)["transfers"]) == 2


@pytest.mark.parametrize("total", ["10.00", "100.00"], ids=["covers_one", "covers_ten"])
def test_A77_the_same_exchange_from_many_clients_at_once_is_one_action(world: World, total: str) -> None:
    granted = world.granted(limits=LIMITS | {"total": total})
    form = world.form(granted.grant, action=world.action(amount=eur("10.00")))
    key = {"Idempotency-Key": "once"}
    answers = at_once(20, lambda _: world.post("/oauth/token", form, key))
    assert _statuses(answers) == {200: 20}
    assert len({answer.json()["action_id"] for answer in answers}) == 1
    assert budget_of(world, granted.grant_id).reserved == 1000


@pytest.mark.parametrize("what", ["exchange", "redeem", "void"])
def test_A77_a_retry_that_overtakes_its_request_is_the_same_request(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """One of two has looked for the key in vain, and goes on when the other has committed."""
    with running_world(postgresql_url, tmp_path / "overtaken") as world:
        grant = _granted(world, total="10.00", per_period=[{"amount": "10.00", "period": "P1D"}])
        body: dict[str, Any] = {}
        if what != "exchange":
            token = token_of(world, grant, "10.00")
            body, path = {"token": token, "capture": False}, "redeem"
        if what == "void":
            body, path = {}, f"{redeemed(world, token, capture=False)}/void"

        def send() -> httpx.Response:
            if what == "exchange":
                action = world.action(amount=eur("10.00"))
                return world.exchange(grant, action=action, headers={"Idempotency-Key": "once"})
            return settle(world, path, body, key="once")

        find, looked, go_on = idempotency.find, threading.Event(), threading.Event()

        def find_and_linger(*arguments: Any) -> Any:
            found = find(*arguments)
            if not looked.is_set():
                looked.set()
                assert go_on.wait(4)
            return found

        monkeypatch.setattr(idempotency, "find", find_and_linger)
        with ThreadPoolExecutor(1) as pool:
            overtaken = pool.submit(send)
            assert looked.wait(4)
            first = send()
            go_on.set()
            again = overtaken.result()
        assert first.status_code in (200, 201)
        assert again.status_code == first.status_code, again.text
        assert again.json()["action_id"] == first.json()["action_id"]
        the_ledger_is_right(world)


@pytest.mark.parametrize("verb", ["capture", "void", "refund"])
def test_A77_the_same_step_from_many_clients_at_once_has_one_effect(world: World, verb: str) -> None:
    granted = world.granted(limits=LIMITS, actions=PAYING)
    path = redeemed(world, token_of(world, granted.grant), capture=verb == "refund")
    body = {} if verb == "void" else {"amount": eur("10.00")}
    before = ledger(world)["transfers"]
    answers = at_once(20, lambda _: settle(world, f"{path}/{verb}", body, key="once"))
    assert _statuses(answers) == {200: 20}
    assert len({answer.text for answer in answers}) == 1
    kinds = [transfer.kind for transfer in ledger(world)["transfers"][len(before) :]]
    assert kinds == {"capture": ["capture", "return"], "void": ["cancel"], "refund": ["refund"]}[verb]


def test_A77_two_amounts_under_one_key_at_once_have_one_effect(world: World) -> None:
    granted = world.granted(limits=LIMITS, actions=PAYING)
    path = redeemed(world, token_of(world, granted.grant))
    amounts = ("10.00", "10.01")
    answers = at_once(
        20, lambda number: settle(world, f"{path}/refund", {"amount": eur(amounts[number % 2])}, key="once")
    )
    assert _statuses(answers) == {200: 10, 422: 10}
    assert budget_of(world, granted.grant_id).refunded in (1000, 1001)


OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "amount": ("redeem", {"amount": eur("49.99")}),
    "amount_said_now": ("redeem", {"amount": eur("50.00")}),
    "merchant": ("redeem", {"merchant": MERCHANT}),
    "capture": ("redeem", {"capture": True}),
    "token": ("redeem", {"token": "another"}),
    "endpoint": ("redemptions/{id}/capture", {}),
}


@pytest.mark.parametrize(("path", "changes"), _several(OTHERS))
def test_A77_a_key_with_another_body_is_422(world: World, path: str, changes: dict[str, Any]) -> None:
    token = token_of(world, _granted(world))
    body = {"token": token, "capture": False}
    first = settle(world, "redeem", body, key="once")
    assert first.status_code == 201
    if path != "redeem":
        body = {}
    if changes.get("token"):
        changes = {"token": token_of(world, _granted(world))}
    before = ledger(world)
    answer = settle(world, path.format(id=first.json()["redemption_id"]), body | changes, key="once")
    problem(answer, 422)
    assert ledger(world) == before
    assert settle(world, "redeem", {"capture": False, "token": token}, key="once").text == first.text


def test_A77_what_was_voided_is_answered_again_the_same_way(world: World) -> None:
    token = token_of(world, _granted(world))
    body = {"token": token, "merchant": {"country": "US"}}
    answers = at_once(5, lambda _: settle(world, "redeem", body, key="once"))
    assert len({answer.text for answer in answers}) == 1
    for answer in answers:
        assert problem(answer, 409)["voided"] is True
    problem(settle(world, "redeem", {"token": token}, key="once"), 422)


def test_A77_a_refusal_that_changed_nothing_does_not_use_up_its_key(world: World) -> None:
    token = token_of(world, _granted(world))
    problem(settle(world, "redeem", {"token": token, "amount": eur("50.01")}, key="once"), 409)
    assert settle(world, "redeem", {"token": token, "amount": eur("50.00")}, key="once").status_code == 201


def test_A77_keys_of_agents_and_of_each_resource_server_are_independent(world: World) -> None:
    grant, key = _granted(world), {"Idempotency-Key": "once"}
    answer = world.exchange(grant, action=world.action(amount=eur("10.00")), headers=key)
    at_shop = world.exchange(grant, action=world.action(amount=eur("10.00"), locations=[SHOP]))
    tokens = {"market": answer.json()["access_token"], "shop": at_shop.json()["access_token"]}
    for server, token in tokens.items():
        assert settle(world, "redeem", {"token": token}, server=server, key="once").status_code == 201
    again = world.exchange(grant, action=world.action(amount=eur("10.00")), headers=key)
    world.refuses(again, "invalid_request")  # its token has ended, and no other comes in its place
    assert world.rows().actions == 2


# --- A79: totals of the caller's own, and minor units ----------------------------------------------------------------

UNKNOWN = {
    "total": ("redeem", {"total": eur("1.00")}),
    "remaining": ("redeem", {"remaining": "1000.00"}),
    "state": ("redeem", {"state": "captured"}),
    "captured": ("redeem", {"captured": eur("50.00")}),
    "minor_units_in_the_amount": ("redeem", {"amount": eur("50.00") | {"minor": 1}}),
    "exponent_in_the_amount": ("redeem", {"amount": eur("50.00") | {"exponent": 3}}),
    "limits_in_the_merchant": ("redeem", {"merchant": MERCHANT | {"limits": LIMITS}}),
    "captured_of_a_capture": ("capture", {"captured": eur("1.00")}),
    "merchant_of_a_capture": ("capture", {"merchant": MERCHANT}),
    "authorized_of_a_void": ("void", {"authorized": eur("1.00")}),
    "captured_of_a_refund": ("refund", {"captured": eur("100.00")}),
    "refunded_of_a_refund": ("refund", {"amount": eur("1.00"), "refunded": "0.00"}),
}


@pytest.mark.parametrize(("verb", "body"), _several(UNKNOWN))
def test_A79_totals_of_the_caller_are_refused(world: World, verb: str, body: dict[str, Any]) -> None:
    granted = world.granted(limits=LIMITS, actions=PAYING)
    redemption = Redemption(world, granted.grant_id, token_of(world, granted.grant))
    if verb != "redeem":
        (redemption.captured if verb == "refund" else redemption.authorized)()
    before = ledger(world)
    event = "redemption" if verb == "redeem" else verb
    with world.nothing_happens(event=f"{event}.refused"):
        problem(redemption.step(verb, body), 400)
    assert ledger(world) == before


@pytest.mark.parametrize(
    "changes",
    named(
        {
            "total": {"total": eur("1.00")},
            "spent": {"spent": "0.00"},
            "limits": {"limits": LIMITS},
            "minor_units": {"amount": eur("10.00") | {"minor": 1}},
        }
    ),
)
def test_A79_totals_in_an_exchange_are_refused(world: World, changes: dict[str, Any]) -> None:
    grant = _granted(world)
    with world.nothing_happens():
        answer = world.exchange(grant, action=world.action(**changes))
        world.refuses(answer, "invalid_authorization_details")


@dataclass(frozen=True)
class Currency:
    """Amounts of one currency, as they are written, and what a few of them are in minor units."""

    code: str
    per_action: str
    total: str
    asked: str
    used: str
    captured: str
    refunded: str
    minor: tuple[int, int, int, int]  # asked, used, captured, refunded
    malformed: tuple[str, ...]

    def amount(self, value: str) -> dict[str, str]:
        """An amount of it."""
        return {"currency": self.code, "value": value}


CURRENCIES = {
    "JPY": Currency(
        *("JPY", "8000", "20000", "4250", "4000", "3000", "1250"),
        (4250, 4000, 3000, 1250),
        ("4000.0", "4000.00", "40.00", "0.5"),
    ),
    "KWD": Currency(
        *("KWD", "80.000", "200.000", "42.505", "40.125", "30.5", "0.001"),
        (42505, 40125, 30500, 1),
        ("40.1255", "40.0000", "40125."),
    ),
}


@pytest.mark.parametrize("currency", named(CURRENCIES))
def test_A79_each_currency_has_its_own_decimals_from_end_to_end(world: World, currency: Currency) -> None:
    limits = {"currency": currency.code, "per_action": currency.per_action, "total": currency.total}
    granted = world.granted(limits=limits | {"per_period": [{"amount": currency.total, "period": "P1D"}]})
    for malformed in currency.malformed:
        with world.nothing_happens():
            answer = world.exchange(granted.grant, action=world.action(amount=currency.amount(malformed)))
            world.refuses(answer, "invalid_authorization_details")
    action = world.action(amount=currency.amount(currency.asked))
    token = world.exchange(granted.grant, action=action).json()["access_token"]
    assert budget_of(world, granted.grant_id).reserved == currency.minor[0]
    for malformed in currency.malformed:
        with world.nothing_happens(event="redemption.refused"):
            problem(redeem(world, token, amount=currency.amount(malformed)), 400)
    problem(redeem(world, token, amount=eur("1.00")), 409)

    first = redeem(world, token, amount=currency.amount(currency.used), capture=False).json()
    assert first["amount"] == currency.amount(currency.used)
    assert budget_of(world, granted.grant_id).authorized == currency.minor[1]
    path = f"redemptions/{first['redemption_id']}"
    body = {"amount": currency.amount(currency.captured)}
    assert settle(world, f"{path}/capture", body).json()["state"] == "captured"
    body = {"amount": currency.amount(currency.refunded)}
    assert settle(world, f"{path}/refund", body).json()["state"] == "captured"
    budget = budget_of(world, granted.grant_id)
    assert (budget.reserved, budget.authorized) == (0, 0)
    assert (budget.captured, budget.refunded) == currency.minor[2:]
    assert world.rows().in_windows == currency.minor[2]
    left = settle(world, f"{path}/refund", {}).json()["amount"]
    digits = int(left["value"].replace(".", ""))
    assert (left["currency"], digits) == (currency.code, currency.minor[2] - currency.minor[3])
