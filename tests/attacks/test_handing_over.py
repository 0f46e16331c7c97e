"""Threats A90 to A98 and A106: what an agent tries to gain by handing on, or by being handed to."""

import json
import secrets
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from authserver import revoke
from authserver.policy.reading import instant_text
from authserver.resource_server import Verifier
from authserver.revoke import Target
from authserver.schema import Agent, Delegation, User, table_of
from tests.attacks.making import change, foreign_key, grant_for, named, record_of
from tests.conformance.tokens import claims_of
from tests.handing_over import SUBJECTS, hand_on, held, parent, received, send, token, use
from tests.settling import at_once, eur, the_ledger_is_right
from tests.world import BASKET_HELPER, MARKET, PRICE_SCOUT, SHOP, World, make_agent

AD = "invalid_authorization_details"
WEEK = {"amount": "150.00", "period": "P7D"}
LIMITS = {"currency": "EUR", "per_action": "80.00", "total": "300.00"}
BOUNDED = {
    "limits": LIMITS
    | {"per_period": [WEEK, {"amount": "40.00", "period": "P1D", "ids": ["m_1"]}], "count": 20},
    "merchants": {
        "categories": ["5411", "5811-5814"],
        "countries": ["NL", "BE"],
        "ids": ["m_1", "m_123"],
        "except": {"categories": ["5813"], "countries": ["BE"], "ids": ["m_9"]},
    },
    "datatypes": ["shipping_address", "contact"],
    "approval": {"above": "50.00", "actions": ["order.checkout"]},
}


def changed(details: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """The details with one member changed, by its path; None takes it away."""
    name, _, rest = path.partition(".")
    inner = changed(details.get(name, {}), rest, value) if rest else value
    return {k: v for k, v in (details | {name: inner}).items() if v is not None}


# --- A90, A91: broader in one member --------------------------------------------------------------------------------

# path of what is changed, what to, and the constraint that must be named (the path, where it is not said)
WIDER: dict[str, tuple[str, object] | tuple[str, object, str]] = {
    "another action": ("actions", ["catalog.search", "refund.initiate"]),
    "another place": ("locations", [SHOP, MARKET, "https://third.example/api"]),
    "any place": ("locations", ["any"]),
    "another currency": ("limits.currency", "USD"),
    "more at a time": ("limits.per_action", "80.01"),
    "more in all": ("limits.total", "300.01"),
    "more in a period": ("limits.per_period", [WEEK | {"amount": "150.01"}], "limits.per_period"),
    "a shorter period": ("limits.per_period", [WEEK | {"period": "P6D"}], "limits.per_period"),
    "a longer period of other windows": (
        "limits.per_period",
        [WEEK | {"period": "P8D"}],
        "limits.per_period",
    ),
    "a period for fewer categories": (
        "limits.per_period",
        [WEEK | {"categories": ["5411"]}],
        "limits.per_period",
    ),
    "a rule for a period left out": ("limits.per_period", [WEEK], "limits.per_period"),
    "a rule for fewer merchants": (
        "limits.per_period",
        [WEEK, {"amount": "40.00", "period": "P1D", "ids": ["m_2"]}],
        "limits.per_period",
    ),
    "all rules left out": ("limits.per_period", None, "limits.per_period"),
    "a higher count": ("limits.count", 21),
    "no count": ("limits.count", None),
    "a wider range": ("merchants.categories", ["5411", "5811-5815"]),
    "another category": ("merchants.categories", ["5411", "5812", "5912"]),
    "any category": ("merchants.categories", ["any"]),
    "another country": ("merchants.countries", ["NL", "DE"]),
    "a group that contains more": ("merchants.countries", ["EU"]),
    "any country": ("merchants.countries", ["any"]),
    "another merchant": ("merchants.ids", ["m_1", "m_2"]),
    "any merchant": ("merchants.ids", None),
    "fewer exceptions": ("merchants.except.categories", []),
    "a country no more excepted": ("merchants.except.countries", ["NL"]),
    "a merchant no more excepted": ("merchants.except.ids", None),
    "no exceptions": ("merchants.except", None),
    "more data": ("datatypes", ["shipping_address", "contact", "birth_date"]),
    "data that contains more": ("datatypes", ["addresses"]),
    "any data": ("datatypes", ["any"]),
    "a higher threshold": ("approval.above", "50.01"),
    "no threshold": ("approval.above", None),
    "fewer actions to be asked for": ("approval.actions", []),
    "never asking": ("approval", None),
    "as deep as the parent": ("redelegation.depth", 2),
    "deeper": ("redelegation.depth", 3),
}
LEFT_OUT = {name: name for name in ("locations", "limits", "merchants", "datatypes")}


@pytest.fixture(scope="module")
def above(shared_world: World) -> Any:
    """A delegation with every member there is, to be handed on twice."""
    return parent(shared_world, **BOUNDED)


@pytest.fixture(scope="module")
def no_rows(shared_world: World) -> Callable[[], int]:
    """How many delegations there are."""
    count = select(func.count()).select_from(table_of(Delegation))
    return lambda: shared_world.services.database.read(lambda c: int(c.scalar(count) or 0))


@pytest.mark.parametrize("wider", named(WIDER))
def test_A90_nothing_broader_is_handed_on_in_any_member(
    shared_world: World, above: Any, wider: tuple[Any, ...], no_rows: Callable[[], int]
) -> None:
    path, value, *constraint = wider
    before = no_rows()
    with shared_world.nothing_happens(event="hand_over.refused"):
        answer = send(shared_world, above.grant, changed(held(shared_world, above), path, value))
        body = shared_world.refuses(answer, AD)
    assert [violation["constraint"] for violation in body["violations"]] == (constraint or [path])
    assert no_rows() == before


@pytest.mark.parametrize("member", named(LEFT_OUT))
def test_A90_what_the_parent_has_is_not_left_out(shared_world: World, above: Any, member: str) -> None:
    # Searching needs none of it; what is not said is still no narrower bound.
    details = changed(held(shared_world, above, actions=["catalog.search"]), member, None)
    if member == "limits":
        details = changed(details, "approval.above", None)
    with shared_world.nothing_happens(event="hand_over.refused"):
        body = shared_world.refuses(send(shared_world, above.grant, details), AD)
    assert member in [violation["constraint"] for violation in body["violations"]]


@pytest.mark.parametrize("days", [-1, 1])
def test_A90_neither_earlier_nor_later_than_the_parent(shared_world: World, above: Any, days: int) -> None:
    begin, end = above.details.not_before, above.details.expires
    moved = {"not_before": begin - timedelta(days=1)} if days < 0 else {"expires": end + timedelta(days=1)}
    details = held(shared_world, above, **{name: instant_text(when) for name, when in moved.items()})
    with shared_world.nothing_happens(event="hand_over.refused"):
        body = shared_world.refuses(send(shared_world, above.grant, details), AD)
    assert next(iter(moved)) in [violation["constraint"] for violation in body["violations"]]


def test_A90_every_member_that_is_broader_is_named_at_once(shared_world: World, above: Any) -> None:
    wide = held(shared_world, above)
    for name in ("any place", "more at a time", "no count", "any country", "more data", "never asking"):
        wide = changed(wide, *WIDER[name][:2])
    body = shared_world.refuses(send(shared_world, above.grant, wide), AD)
    assert [violation["constraint"] for violation in body["violations"]] == [
        *("locations", "limits.per_action", "limits.count", "merchants.countries", "datatypes", "approval")
    ]
    assert {"constraint": "limits.per_action", "requested": "80.01", "allowed": "80.00"} in body["violations"]


@pytest.mark.parametrize("member", ["limits", "merchants", "datatypes", "approval", "locations"])
def test_A91_a_member_that_the_parent_lacks_is_refused(shared_world: World, member: str) -> None:
    bare = dict.fromkeys(("limits", "merchants", "datatypes", "approval", "locations"))
    above = parent(shared_world, actions=["catalog.search"], **bare)
    added = shared_world.delegation(**BOUNDED)[member]
    if member == "approval":
        added = {"actions": ["catalog.search"]}
    with shared_world.nothing_happens(event="hand_over.refused"):
        answer = send(shared_world, above.grant, held(shared_world, above, **{member: added}))
        shared_world.refuses(answer, AD, constraint=member)


@pytest.mark.parametrize("path", ["tip", "limits.per_month", "merchants.names", "redelegation.to", "task_id"])
def test_A91_a_member_that_the_server_does_not_know_is_refused(
    shared_world: World, above: Any, path: str
) -> None:
    with shared_world.nothing_happens(event="hand_over.refused"):
        details = changed(held(shared_world, above), path, "1")
        shared_world.refuses(send(shared_world, above.grant, details), AD)


NARROWER: dict[str, tuple[str, object]] = {
    "less of everything": ("limits", {"currency": "EUR", "per_action": "1.00", "total": "2.00", "count": 1}
        | {"per_period": [{"amount": "1.00", "period": "P7D"}, {"amount": "1.00", "period": "P1D"}]}),
    "one longer rule for two": ("limits.per_period", [{"amount": "40.00", "period": "P14D"}]),
    "a rule more": (
        "limits.per_period",
        [*BOUNDED["limits"]["per_period"], {"amount": "9.00", "period": "PT1H"}],  # type: ignore[index]
    ),
    "a part of a range": ("merchants.categories", ["5812-5814"]),
    "one merchant": ("merchants.ids", ["m_1"]),
    "more exceptions": ("merchants.except", {"categories": ["5812-5814"], "countries": ["EU"], "ids": ["m_9"]}),
    "a part of some data": ("datatypes", ["email"]),
    "asked sooner": ("approval", {"above": "1.00", "actions": ["order.checkout", "payment.finalize"]}),
    "one action": ("actions", ["catalog.search"]),
    "no further": ("redelegation", None),
}  # fmt: skip


@pytest.mark.parametrize("narrower", named(NARROWER))
def test_what_is_narrower_is_handed_on_as_it_was_asked(
    shared_world: World, above: Any, narrower: tuple[str, object]
) -> None:
    details = changed(held(shared_world, above), *narrower)
    answer = send(shared_world, above.grant, details)
    assert answer.status_code == 200, answer.text
    assert answer.json()["authorization_details"] == [details]


def test_a_group_of_countries_is_narrowed_to_its_members(shared_world: World) -> None:
    above = parent(shared_world, merchants={"categories": ["any"], "countries": ["EEA"]})
    for countries, status in ((["NL", "NO"], 200), (["EU"], 200), (["CH"], 400), (["EU", "US"], 400)):
        details = changed(held(shared_world, above), "merchants.countries", countries)
        assert send(shared_world, above.grant, details).status_code == status


def test_a_rule_for_a_period_keeps_the_windows_of_the_parent(sqlite_world: World) -> None:
    world = sqlite_world
    above = parent(world, limits=LIMITS | {"per_period": [WEEK]})
    begin = above.details.not_before
    assert begin is not None
    world.clock.advance(seconds=3 * 86_400)
    assert hand_on(world, above, not_before=None).details.not_before == begin
    for days, status in ((7, 200), (3, 400), (8, 400)):
        details = held(world, above, not_before=instant_text(begin + timedelta(days=days)))
        answer = send(world, above.grant, details)
        assert answer.status_code == status
        if status == 400:
            world.refuses(answer, AD, constraint="limits.per_period")


# --- A92: deeper than allowed, in a circle, without the workload ------------------------------------------------------


def test_A92_a_chain_ends_at_its_depth(world: World) -> None:
    first = parent(world, depth=1)
    second = hand_on(world, first)
    for depth in (0, 1):
        with world.nothing_happens(event="hand_over.refused"):
            details = second.details.to_json() | {"redelegation": {"depth": depth}}
            answer = send(world, second.grant, details, "basket-helper", by="price-scout")
            world.refuses(answer, AD, constraint="redelegation.depth")


def test_A92_a_circle_gains_nothing(world: World) -> None:
    first = parent(world, limits=LIMITS | {"total": "100.00"}, depth=2)
    second = hand_on(world, first, limits=LIMITS | {"total": "60.00"})
    third = hand_on(world, second, "basket-helper", by="price-scout")
    token(world, third.grant, "basket-helper", action=world.action(amount=eur("50.00")))
    for grant, by, most in (
        (third.grant, "basket-helper", "10.00"),
        (second.grant, "price-scout", "10.00"),
        (first.grant, "basket-helper", "50.00"),
    ):
        body = world.refuses(use(world, grant, by, action=world.action(amount=eur("51.00"))), AD)
        (left,) = [v["allowed"] for v in body["violations"] if v["constraint"] == "limits.total"]
        assert left == most
    end(world, "agent", "price-scout")
    assert use(world, third.grant, "basket-helper").status_code == 400
    assert (
        use(world, first.grant, "basket-helper", action=world.action(amount=eur("1.00"))).status_code == 200
    )
    the_ledger_is_right(world)


def test_A92_whoever_only_holds_a_grant_hands_nothing_on(world: World) -> None:
    above = parent(world)
    for by, changes in (
        ("price-scout", {}),
        ("basket-helper", {"actor_token": above.grant}),
        ("basket-helper", {"actor_token": world.assertion(BASKET_HELPER, aud="https://other.example")}),
    ):
        with world.nothing_happens(event="hand_over.refused"):
            answer = send(world, above.grant, held(world, above), "price-scout", by=by, **changes)
            world.refuses(answer, "invalid_request")


def test_A92_the_receiver_needs_its_own_workload_too(world: World) -> None:
    child = hand_on(world, parent(world))
    with world.nothing_happens("grant.may_act"):
        world.refuses(use(world, child.grant, "basket-helper"), "invalid_request")


# --- A93, A71: children that together exceed the parent ---------------------------------------------------------------


def test_A93_A71_children_together_never_exceed_what_is_above_them(world: World) -> None:
    tight = LIMITS | {"per_action": "10.00", "total": "100.00"}
    root = parent(world, limits=tight)
    children = [hand_on(world, root, to) for to in ("price-scout", "basket-helper", "price-scout")]
    below = [hand_on(world, children[0], "basket-helper", by="price-scout")]
    agents = dict.fromkeys([root, children[1], below[0]], "basket-helper") | {
        children[0]: "price-scout",
        children[2]: "price-scout",
    }
    holders, ten = list(agents.items()), world.action(amount=eur("10.00"))
    forms = [
        world.form(granted.grant, actor_token=world.assertion(SUBJECTS[agent]), action=ten)
        for granted, agent in holders
    ]
    answers = at_once(40, lambda n: world.post("/oauth/token", forms[n % 5], {"Idempotency-Key": f"key-{n}"}))
    assert Counter(answer.status_code for answer in answers) == {200: 10, 400: 30}
    assert record_of(world, root.grant_id).total_spent == 10_000
    the_ledger_is_right(world)


def test_A93_a_window_of_an_ancestor_bounds_all_below_it(world: World) -> None:
    root = parent(world, limits=LIMITS | {"per_period": [WEEK]}, depth=1)
    children = [hand_on(world, root) for _ in range(3)]
    paid = [
        use(world, child.grant, "price-scout", action=world.action(amount=eur("80.00"))) for child in children
    ]
    assert [answer.status_code for answer in paid] == [200, 400, 400]
    world.refuses(paid[1], AD, constraint="limits.per_period")
    world.clock.advance(seconds=7 * 86_400)
    again = use(world, children[1].grant, "price-scout", action=world.action(amount=eur("80.00")))
    assert again.status_code == 200, again.text


# --- A94: revoked while it is handed on or used -----------------------------------------------------------------------


def end(world: World, kind: str, name: str) -> None:
    """Revoke as an operator does."""
    target = Target(kind, name)  # type: ignore[arg-type]
    revoke.revoke(world.services, target, reason="test", by="test", now=world.clock.now())


def test_A94_nothing_is_handed_on_or_minted_after_an_ancestor_was_revoked(world: World) -> None:
    first = parent(world, depth=3, limits=LIMITS | {"total": "9000.00"})
    second = hand_on(world, first)
    action = world.action(amount=eur("1.00"))
    asks = (
        lambda: use(world, second.grant, "price-scout", action=action),
        lambda: send(world, first.grant, held(world, first)),
        lambda: send(world, second.grant, held(world, second), "basket-helper", by="price-scout"),
    )
    answered, ended = Counter[int](), threading.Event()
    made: list[str] = []

    def keep_asking(number: int) -> None:
        after = 0
        while after < 2:
            late = ended.is_set()
            answer = asks[number % 3]()
            answered[answer.status_code] += 1
            if answer.status_code == 200 and "grant_id" in answer.json():
                made.append(answer.json()["access_token"])
            after += late

    with ThreadPoolExecutor(6) as pool:
        asking = [pool.submit(keep_asking, number) for number in range(6)]
        while answered[200] < 12:
            assert not any(thread.done() for thread in asking)
        end(world, "delegation", first.grant_id)
        ended.set()
        for thread in asking:
            thread.result()
    events = [event["event"] for event in world.events()]
    after = events[events.index("revocation") :]
    assert not {"exchange.permitted", "delegation.created"} & set(after)
    assert world.rows().reserved == 0
    for grant in made:
        agent = claims_of(grant)["client_id"]
        assert use(world, grant, agent).status_code == 400
    the_ledger_is_right(world)


def test_A94_a_child_never_revives_a_revoked_ancestor(world: World) -> None:
    first = parent(world)
    end(world, "delegation", first.grant_id)
    with world.nothing_happens("delegation.revoked", "hand_over.refused"):
        world.refuses(send(world, first.grant, held(world, first)), "invalid_request")
    # One whose row says that it was made later is still below what had ended.
    second = parent(world)
    child = hand_on(world, second)
    end(world, "delegation", second.grant_id)
    change(world, Delegation, {"id": child.grant_id}, revocations_before=10**6)
    assert use(world, child.grant, "price-scout").status_code == 400


# --- A95, A96: chains are told, and mean nothing ----------


def test_A95_the_agents_above_are_told_and_may_do_nothing_with_the_token(world: World) -> None:
    child = hand_on(world, parent(world))
    access_token = token(world, child.grant, "price-scout")
    act = claims_of(access_token)["act"]
    trust_domain = "spiffe://example.org"
    assert act == {
        "iss": trust_domain,
        "sub": PRICE_SCOUT,
        "act": {"iss": trust_domain, "sub": BASKET_HELPER},
    }
    read = Verifier(world.issuer, MARKET, clock=world.clock).verify(access_token)
    assert (read.client_id, read.actor.subject) == ("price-scout", PRICE_SCOUT)
    # RFC 7009: the agent above is not the token's client, whatever is nested.
    form = {"token": access_token, "client_assertion": world.assertion(BASKET_HELPER)}
    form["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
    assert world.post("/oauth/revoke", form).status_code == 200
    assert world.introspect(access_token)["active"]


@pytest.mark.parametrize("nested", [BASKET_HELPER, PRICE_SCOUT])
def test_A95_an_act_in_an_assertion_or_a_grant_is_no_authority(world: World, nested: str) -> None:
    above = parent(world)
    act = {"act": {"sub": nested}, "may_act": {"sub": PRICE_SCOUT}}
    with world.nothing_happens("grant.may_act"):
        answer = world.exchange(above.grant, actor_token=world.assertion(PRICE_SCOUT, **act))
        world.refuses(answer, "invalid_request")
    with world.nothing_happens("grant.may_act"):
        forged = grant_for(world, above.grant_id, act={"sub": PRICE_SCOUT})
        world.refuses(world.exchange(forged, actor_token=world.assertion(PRICE_SCOUT)), "invalid_request")


def test_A96_names_differ_for_each_party_and_tell_no_relation(world: World) -> None:
    root = parent(world)
    child = hand_on(world, root)
    tokens = {
        (granted.grant_id, place): claims_of(
            token(world, granted.grant, by, action=world.action(locations=[place]))
        )
        for granted, by in ((root, "basket-helper"), (child, "price-scout"))
        for place in (MARKET, SHOP)
    }
    assert len({claims["sub"] for claims in tokens.values()}) == 2  # one user, two resource servers
    assert len({claims["grant_id"] for claims in tokens.values()}) == 4
    grants = [claims_of(granted.grant) for granted in (root, child)]
    assert len({claims["sub"] for claims in grants} | {claims["sub"] for claims in tokens.values()}) == 4
    for claims in tokens.values():
        said = json.dumps(claims)
        assert root.grant_id not in said
        assert child.grant_id not in said
        assert record_of(world, root.grant_id).user_id not in said
    # Neither does its place in a list tell which delegation a token is of.
    positions = [claims["status"]["status_list"]["idx"] for claims in tokens.values()]
    assert len(set(positions)) == 4


# --- A97, A98: what else bounds it, and what gives no more ----------


@pytest.mark.parametrize("limited", ["price-scout", "basket-helper"])
def test_A97_what_an_agent_is_registered_for_bounds_all_that_it_is_given_and_hands_on(
    sqlite_world: World, limited: str
) -> None:
    world = sqlite_world
    child = hand_on(world, parent(world))
    change(world, Agent, {"client_id": limited}, actions='["catalog.search", "refund.initiate"]')
    for action in (world.action(), world.action(actions=["refund.initiate"], reference="r-1")):
        with world.nothing_happens("actions"):
            world.refuses(use(world, child.grant, "price-scout", action=action), AD, constraint="actions")
    search = {"authorization_details": None, "scope": "catalog.search", "resource": MARKET}
    assert use(world, child.grant, "price-scout", **search).status_code == 200


def test_A98_neither_a_task_nor_a_session_nor_another_child_is_a_fresh_budget(world: World) -> None:
    root = parent(world, limits=LIMITS | {"total": "100.00"})
    fifty = world.action(amount=eur("50.00"))
    for number in range(2):
        child = hand_on(world, root, task_id=f"task-{number}")
        token(world, child.grant, "price-scout", action=fifty, task_id=f"task-{number}")
    for number in range(2, 5):
        child = hand_on(world, root, task_id=f"task-{number}")
        answer = use(
            world,
            child.grant,
            "price-scout",
            action=fifty,
            task_id=f"task-{number}",
            actor_token=world.assertion(PRICE_SCOUT, jti=secrets.token_hex(8)),
        )
        world.refuses(answer, AD, constraint="limits.total")


# --- A106: the second way to a grant skips no check of the first ----------

Case = Callable[[World, Any], dict[str, Any]]


def _disabled(row: type[Agent] | type[User], name: str, key: str) -> Case:
    def prepare(world: World, above: Any) -> dict[str, Any]:
        names = {"client_id": "basket-helper", "user_id": record_of(world, above.grant_id).user_id}
        change(world, row, {key: names[key]}, disabled_at=world.clock.now())
        return {}

    prepare.__name__ = name
    return prepare


def _paused(world: World, above: Any) -> dict[str, Any]:
    change(world, Delegation, {"id": above.grant_id}, paused_at=world.clock.now())
    return {}


def _expired(world: World, above: Any) -> dict[str, Any]:
    world.clock.set(above.details.expires)
    return {}


def _early(world: World, above: Any) -> dict[str, Any]:
    change(world, Delegation, {"id": above.grant_id}, not_before=world.clock.now() + timedelta(hours=1))
    return {}


def _revoked(world: World, above: Any) -> dict[str, Any]:
    end(world, "delegation", above.grant_id)
    return {}


def _task_over(world: World, above: Any) -> dict[str, Any]:
    end(world, "task", "t-1")
    return {"task_id": "t-1"}


def _forged(world: World, above: Any) -> dict[str, Any]:
    return {"grant": grant_for(world, above.grant_id, key=foreign_key())}


def _other_client(world: World, above: Any) -> dict[str, Any]:
    return {"client_id": "price-scout"}


def _bad_proof(world: World, above: Any) -> dict[str, Any]:
    return {"headers": {"DPoP": "no.proof.atall"}}


def _no_actor_type(world: World, above: Any) -> dict[str, Any]:
    return {"actor_token_type": None}


CHECKS: dict[str, Case] = {
    "the agent is disabled": _disabled(Agent, "agent", "client_id"),
    "the user is disabled": _disabled(User, "user", "user_id"),
    "paused": _paused,
    "expired": _expired,
    "not yet valid": _early,
    "revoked": _revoked,
    "its task is over": _task_over,
    "forged": _forged,
    "another client_id": _other_client,
    "a bad proof": _bad_proof,
    "no actor_token_type": _no_actor_type,
}


@pytest.mark.parametrize("case", named(CHECKS))
def test_A106_a_hand_over_makes_every_check_that_an_exchange_makes(sqlite_world: World, case: Case) -> None:
    world, newest = sqlite_world, 0
    above = parent(world)
    changes = case(world, above)
    grant = changes.pop("grant", above.grant)
    newest = len(world.events())
    world.exchange(grant, **changes)
    answer = send(world, grant, held(world, above), **changes)
    assert answer.status_code == 400
    exchanged, handed_on = world.events()[newest:]
    assert (exchanged["event"], handed_on["event"]) == ("exchange.refused", "hand_over.refused")
    assert exchanged["rule"] == handed_on["rule"]
    assert exchanged["data"]["error"] == answer.json()["error"]


def test_A106_what_is_asked_of_a_hand_over_is_well_formed(sqlite_world: World) -> None:
    world = sqlite_world
    above = parent(world)
    details = held(world, above)
    refused: tuple[tuple[dict[str, str | None], str], ...] = (
        ({"requested_actor": None}, "invalid_request"),
        ({"requested_actor": "nobody"}, "invalid_request"),
        ({"authorization_details": None}, "invalid_request"),
        ({"authorization_details": None, "scope": "catalog.search"}, "invalid_request"),
        ({"scope": "catalog.search"}, "invalid_request"),
        ({"authorization_details": json.dumps([details, details])}, AD),
        ({"authorization_details": json.dumps([])}, AD),
        ({"authorization_details": json.dumps(details)}, AD),
        ({"authorization_details": json.dumps([world.action()])}, AD),
        ({"authorization_details": "{"}, AD),
        ({"authorization_details": json.dumps([details])[:-1] + " " * 16_384 + "]"}, AD),
        ({"resource": MARKET}, "invalid_target"),
        ({"audience": world.market_id}, "invalid_target"),
        ({"task_id": "no spaces"}, "invalid_request"),
    )
    for changes, error in refused:
        with world.nothing_happens(event="hand_over.refused"):
            world.refuses(send(world, above.grant, details, **changes), error)
    with world.nothing_happens():
        world.refuses(world.exchange(above.grant, requested_actor="price-scout"), "invalid_request")


def test_A106_the_receiver_is_one_enabled_agent_and_no_two(sqlite_world: World) -> None:
    from authserver.actors import agents

    world = sqlite_world
    above = parent(world)
    assert received(world, send(world, above.grant, held(world, above), PRICE_SCOUT)).grant_id
    # An agent whose client id reads like another's workload is not meant by it, and neither is the other.
    imitator = make_agent(PRICE_SCOUT, "spiffe://example.org/agent/imitator", world.clock.now())
    world.services.database.write(lambda connection: agents.create(connection, imitator))
    with world.nothing_happens("hand_over.requested_actor", "hand_over.refused"):
        world.refuses(send(world, above.grant, held(world, above), PRICE_SCOUT), "invalid_request")
    change(world, Agent, {"client_id": "price-scout"}, disabled_at=world.clock.now())
    with world.nothing_happens("hand_over.requested_actor", "hand_over.refused"):
        world.refuses(send(world, above.grant, held(world, above)), "invalid_request")
