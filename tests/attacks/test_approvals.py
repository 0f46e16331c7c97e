"""Threats A80-A86, A106 and F02 for approvals: what was shown is what happens, once, by whoever is asked."""

import random
import secrets
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, text

from authserver import approve, defer, revoke, strict_json
from authserver.approve import Reply
from authserver.errors import Refusal
from authserver.revoke import Target
from authserver.schema import Approval, ApprovalAnswer, Delegation, ResourceServer, User, table_of
from tests.approving import answers, asked_above_fifty, asks, id_of, person, polls, record, waits
from tests.attacks.making import change, handed_on
from tests.conformance.tokens import claims_of
from tests.pages.browser import Visit, signed_in, visitor
from tests.settling import at_once, eur, ledger, redeem, the_ledger_is_right
from tests.world import MARKET, PRICE_SCOUT, World


def approved(world: World, grant: str, **changes: Any) -> str:
    """The code of a request that was approved."""
    told = waits(world, grant, **changes)
    answers(world, told.approval)
    return told.code


def refused_forever(world: World, code: str, error: str, rule: str | None = None) -> dict[str, Any]:
    """Hold the server to giving no token for that code, without a trace."""
    with world.nothing_happens(rule, "deferred.refused"):
        return world.refuses(polls(world, code), error)


def is_refused(world: World, status: int, approval: str, user: str, said: str = "approve") -> None:
    """Hold the server to not letting that person answer."""
    before = record(world, approval)
    with pytest.raises(Refusal) as raised:
        answers(world, approval, said, user)  # type: ignore[arg-type]
    assert raised.value.status == status
    assert record(world, approval) == before
    if status == 403:
        assert world.events()[-1]["rule"] == "approval.not_asked"


# --- A80: what changes while the agent waits ------------------------------------------------------------------------


def test_A80_a_poll_changes_nothing_of_what_was_asked(world: World) -> None:
    code = approved(world, asked_above_fifty(world).grant)
    more = {"authorization_details": "[]", "scope": "catalog.search", "resource": MARKET, "task_id": "x"}
    more |= {"subject_token": world.granted().grant, "completion_mode": "deferred", "audience": "rs_shop"}
    answer = polls(world, code, **more)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    assert answer.json()["authorization_details"] == [world.action(amount=eur("62.10"))]
    assert "task_id" not in claims_of(answer.json()["access_token"])


def test_A80_another_agent_gets_nothing_for_the_code(world: World) -> None:
    code = approved(world, asked_above_fifty(world).grant)
    with world.nothing_happens("approval.unknown_code", "deferred.refused"):
        world.refuses(polls(world, code, actor_token=world.assertion(PRICE_SCOUT)), "invalid_grant")
    assert polls(world, code).status_code == 200


def test_A80_what_changed_while_waiting_is_not_what_was_shown(world: World) -> None:
    granted = asked_above_fifty(world)
    shop = world.action(amount=eur("62.10"), locations=["https://shop.example/api"])
    code = approved(world, granted.grant, action=shop)
    other = '{"id":"m_123","category":"5411","country":"NL","name":"Example Fuels"}'
    change(world, ResourceServer, {"id": "rs_shop"}, merchant=other)
    refused_forever(world, code, "access_denied", "approval.details_hash")


@pytest.mark.parametrize("kind", ["delegation", "agent", "user", "trust_domain", "task", "all"])
def test_A80_A99_what_was_revoked_meanwhile_yields_nothing(world: World, kind: Any) -> None:
    granted = asked_above_fifty(world)
    code = approved(world, granted.grant, task_id="dinner")
    names = {"delegation": granted.grant_id, "agent": "basket-helper", "user": id_of(world, "ada")}
    names |= {"trust_domain": "example.org", "task": "dinner", "all": ""}
    target = Target(kind, names[kind])
    revoke.revoke(world.services, target, reason="test", by="operator", now=world.clock.now())
    refused_forever(world, code, "invalid_request")


def test_A80_a_revoked_ancestor_ends_what_waits_below_it(world: World) -> None:
    parent = asked_above_fifty(world)
    child = handed_on(world, parent)
    scout = world.assertion(PRICE_SCOUT)
    told = waits(world, child.grant, actor_token=scout)
    answers(world, told.approval)
    target = Target("delegation", parent.grant_id)
    revoke.revoke(world.services, target, reason="test", by="operator", now=world.clock.now())
    with world.nothing_happens("delegation.revoked", "deferred.refused"):
        world.refuses(polls(world, told.code, actor_token=scout), "invalid_request")


def test_A80_a_budget_that_was_spent_meanwhile_is_spent(world: World) -> None:
    limits = {"currency": "EUR", "per_action": "80.00", "total": "100.00"}
    granted = asked_above_fifty(world, limits=limits)
    code = approved(world, granted.grant)
    token = world.exchange(granted.grant, action=world.action(amount=eur("50.00"))).json()["access_token"]
    assert redeem(world, token).status_code == 201
    body = refused_forever(world, code, "access_denied", "limits.total")
    assert body["violations"] == [{"constraint": "limits.total", "requested": "62.10", "allowed": "50.00"}]
    the_ledger_is_right(world)


# --- A81: an approval is used once, and only while it still is what the delegation allows ---------------------------


def test_A81_one_approval_is_one_token(world: World) -> None:
    code = approved(world, asked_above_fifty(world).grant)
    token = polls(world, code).json()["access_token"]
    assert redeem(world, token).status_code == 201
    for _ in range(2):
        refused_forever(world, code, "access_denied", "approval.used")


def test_A81_two_polls_at_once_get_one_token(world: World) -> None:
    code = approved(world, asked_above_fifty(world).grant)
    got = at_once(8, lambda number: polls(world, code))
    assert {answer.status_code for answer in got} == {200}
    assert len({answer.json()["action_id"] for answer in got}) == 1
    assert world.rows().actions == 1
    the_ledger_is_right(world)


def test_A81_a_lowered_delegation_is_lower(world: World) -> None:
    granted = asked_above_fifty(world)
    code = approved(world, granted.grant)
    lower = world.delegation(limits={"currency": "EUR", "per_action": "60.00", "total": "300.00"})
    change(world, Delegation, {"id": granted.grant_id}, details=strict_json.write(lower))
    refused_forever(world, code, "access_denied", "limits.per_action")


def test_A81_a_paused_delegation_waits(world: World) -> None:
    granted = asked_above_fifty(world)
    code = approved(world, granted.grant)
    change(world, Delegation, {"id": granted.grant_id}, paused_at=world.clock.now())
    refused_forever(world, code, "invalid_request", "delegation.paused")
    change(world, Delegation, {"id": granted.grant_id}, paused_at=None)
    assert polls(world, code).status_code == 200


def test_A81_approval_and_revocation_at_once_leave_no_token_behind_the_revocation(world: World) -> None:
    granted = asked_above_fifty(world)
    codes = [approved(world, granted.grant) for _ in range(5)]

    def act(number: int) -> httpx.Response:
        if number < 5:
            return polls(world, codes[number])
        target = Target("delegation", granted.grant_id)
        revoke.revoke(world.services, target, reason="test", by="operator", now=world.clock.now())
        return httpx.Response(200, json={})

    at_once(6, act)
    for code in codes:
        world.refuses(polls(world, code), "invalid_request")
    states = {row.state for row in ledger(world)["actions"]}
    assert states <= {"voided"}
    the_ledger_is_right(world)


# --- A82: approval bombing ------------------------------------------------------------------------------------------


def test_A82_a_hundred_requests_in_a_minute_are_limited_grouped_and_stopped(world: World) -> None:
    granted = asked_above_fifty(world)
    values = [f"{60 + number // 100}.{number % 100:02}" for number in range(100)]
    got = [asks(world, granted.grant, value) for value in values]
    errors = [answer.json()["error"] for answer in got]
    assert errors == ["authorization_pending"] * 5 + ["access_denied"] * 95
    assert got[-1].json()["violations"] == [{"constraint": "approval", "requested": 6, "allowed": 5}]
    assert world.events()[-1]["rule"] == "approval.limit.agent"
    with signed_in(world) as visit:
        page = visit.get("/approvals").text
        assert page.count("<article") == 1
        assert "4 more requests like this" in page
    waiting = [answer.json()["approval_uri"].rpartition("/")[2] for answer in got[:3]]
    for approval in waiting:
        answers(world, approval, "refuse")
    paused = [event for event in world.events() if event["event"] == "delegation.paused"]
    assert [event["rule"] for event in paused] == ["approval.refusals"]
    with world.nothing_happens("delegation.paused"):
        world.refuses(asks(world, granted.grant), "invalid_request")


def test_A82_a_hundred_at_once_are_counted_one_by_one(world: World) -> None:
    granted = asked_above_fifty(world)
    got = at_once(16, lambda number: asks(world, granted.grant, f"60.{number:02}"))
    errors = sorted(answer.json()["error"] for answer in got)
    assert errors == ["access_denied"] * 11 + ["authorization_pending"] * 5


def test_A82_what_is_answered_quickly_is_limited_by_the_minute(sqlite_world: World) -> None:
    granted = asked_above_fifty(sqlite_world)
    for _ in range(10):
        told = waits(sqlite_world, granted.grant)
        answers(sqlite_world, told.approval)
    with sqlite_world.nothing_happens("approval.limit.minute"):
        sqlite_world.refuses(asks(sqlite_world, granted.grant), "access_denied", constraint="approval")
    sqlite_world.clock.advance(seconds=60)
    waits(sqlite_world, granted.grant)


def test_A82_many_agents_cannot_bomb_one_user(sqlite_world: World) -> None:
    world = sqlite_world
    grants = [asked_above_fifty(world), handed_on(world, asked_above_fifty(world))]
    subjects = [None, world.assertion(PRICE_SCOUT)]
    change_limits = {"open_for_user": 7, "open_for_agent": 5}
    settings = world.services.settings.approvals
    object.__setattr__(world.services.settings, "approvals", settings.model_copy(update=change_limits))
    opened = 0
    for granted, subject in zip(grants, subjects, strict=True):
        for _ in range(5):
            more = {} if subject is None else {"actor_token": subject}
            opened += asks(world, granted.grant, **more).json()["error"] == "authorization_pending"
    assert opened == 7
    assert world.events()[-1]["rule"] == "approval.limit.user"


def test_A82_a_let_go_agent_is_stopped_again_after_as_many_refusals(sqlite_world: World) -> None:
    granted = asked_above_fifty(sqlite_world)

    def refuse_one() -> bool:
        sqlite_world.clock.advance(seconds=10)
        answers(sqlite_world, waits(sqlite_world, granted.grant).approval, "refuse")
        events = sqlite_world.events()
        return events[-1]["event"] == "delegation.paused"

    assert [refuse_one() for _ in range(3)] == [False, False, True]
    change(sqlite_world, Delegation, {"id": granted.grant_id}, paused_at=None)
    assert [refuse_one() for _ in range(3)] == [False, False, True]


# --- A83: forged texts ----------------------------------------------------------------------------------------------

FORGED = [
    "Refund to you",
    "Your bank: approve to keep your money",
    "\u0415xample F\u043eods",
    "Press approve!",
]


@pytest.mark.parametrize("name", FORGED)
def test_A83_a_name_that_the_agent_says_is_not_shown(sqlite_world: World, name: str) -> None:
    merchant = {"id": "m_123", "category": "5411", "country": "NL", "name": name}
    granted = asked_above_fifty(sqlite_world)
    told = waits(
        sqlite_world, granted.grant, action=sqlite_world.action(amount=eur("62.10"), merchant=merchant)
    )
    with signed_in(sqlite_world) as visit:
        for path in ("/approvals", f"/approvals/{told.approval}"):
            page = visit.get(path).text
            assert name not in page
            assert "Pay €62.10 to seller m_123 on Market, grocery stores and supermarkets" in page


def test_A83_a_registered_name_is_shown_whatever_the_agent_says(sqlite_world: World) -> None:
    merchant = {"name": "Refund to you"}
    action = sqlite_world.action(
        amount=eur("62.10"), locations=["https://shop.example/api"], merchant=merchant
    )
    told = waits(sqlite_world, asked_above_fifty(sqlite_world).grant, action=action)
    with signed_in(sqlite_world) as visit:
        page = visit.get(f"/approvals/{told.approval}").text
    assert "Pay €62.10 to Example Foods, grocery stores and supermarkets, the Netherlands" in page
    assert "Refund to you" not in page


# --- A84: tricks with the page --------------------------------------------------------------------------------------


@pytest.fixture
def one(sqlite_world: World) -> tuple[World, str]:
    """A world, and an approval that waits in it."""
    return sqlite_world, waits(sqlite_world, asked_above_fifty(sqlite_world).grant).approval


def test_A84_nothing_is_approved_by_get(one: tuple[World, str]) -> None:
    world, approval = one
    with signed_in(world) as visit:
        for path in (
            f"/approvals/{approval}?answer=approve&csrf={visit.csrf}",
            f"/approvals/{approval}/approve",
            f"/approvals/{approval}/answer?answer=approve",
        ):
            visit.get(path, headers={"HX-Request": "true"})
            visit.client.head(path)
    assert record(world, approval).state == "waiting"


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ({"csrf": None}, {}),
        ({"csrf": "x" * 43}, {}),
        ({}, {"Origin": "https://evil.example"}),
        ({}, {"Origin": "null"}),
    ],
)
def test_A84_a_form_of_another_site_changes_nothing(
    one: tuple[World, str], form: dict[str, str | None], headers: dict[str, str]
) -> None:
    world, approval = one
    with signed_in(world) as visit:
        visit.client.headers.update(headers)
        answer = visit.post(f"/approvals/{approval}", answer="approve", **form)
    assert answer.status_code == 403
    assert record(world, approval).state == "waiting"


def test_A84_the_token_of_another_session_is_not_taken(one: tuple[World, str]) -> None:
    world, approval = one
    with signed_in(world) as visit, signed_in(world, "mallory") as other:
        answer = visit.post(f"/approvals/{approval}", answer="approve", csrf=other.csrf)
    assert answer.status_code == 403
    assert record(world, approval).state == "waiting"


def test_A84_a_double_click_is_one_answer(one: tuple[World, str]) -> None:
    world, approval = one
    with signed_in(world) as visit:
        got = at_once(4, lambda number: visit.post(f"/approvals/{approval}", answer="approve"))
        assert {answer.status_code for answer in got} == {303}
        assert visit.post(f"/approvals/{approval}", answer="refuse").status_code == 409
    assert record(world, approval).state == "approved"
    assert [event["event"] for event in world.events()].count("approval.approved") == 1


def test_A84_the_pages_are_in_no_frame(one: tuple[World, str]) -> None:
    world, approval = one
    with signed_in(world) as visit:
        for path in ("/approvals", f"/approvals/{approval}", "/notifications"):
            page = visit.get(path)
            assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
            assert page.headers["cache-control"] == "no-store"


# --- A85: who may answer --------------------------------------------------------------------------------------------


def for_group(world: World, approver: str = "group:payments") -> str:
    """An approval that a group is asked for."""
    told = waits(world, asked_above_fifty(world).grant)
    change(world, Approval, {"id": told.approval}, approver=approver)
    return told.approval


def test_A85_another_user_may_not_answer(world: World) -> None:
    told = waits(world, asked_above_fifty(world).grant)
    person(world, "mallory", "payments")
    person(world, "grace", "payments-duty")
    is_refused(world, 403, told.approval, "mallory")
    is_refused(world, 403, told.approval, "grace")  # it has not escalated yet


def test_A85_an_owner_who_is_not_in_the_group_may_not_answer(world: World) -> None:
    approval = for_group(world)
    person(world, "olga", "orders", "payments-duty", "payment")
    person(world, "grace", "payments")
    is_refused(world, 403, approval, "olga")
    answers(world, approval, user="grace")
    assert record(world, approval).state == "approved"


def test_A85_nobody_answers_for_a_group_what_was_asked_for_them(world: World) -> None:
    approval = for_group(world)
    ada = id_of(world, "ada")
    world.services.database.write(
        lambda c: c.execute(
            text("UPDATE users SET groups = '[\"payments\"]' WHERE user_id = :id"), {"id": ada}
        )
    )
    is_refused(world, 403, approval, "ada")
    with signed_in(world) as visit:
        assert "Nothing waits for you" in visit.get("/approvals").text


def test_A85_a_disabled_user_may_not_answer(world: World) -> None:
    approval = for_group(world)
    grace = person(world, "grace", "payments")
    change(world, User, {"user_id": grace}, disabled_at=world.clock.now())
    is_refused(world, 403, approval, "grace")


def test_A85_a_group_is_left_at_once(world: World) -> None:
    approval = for_group(world)
    grace = person(world, "grace", "payments")
    with signed_in(world, "grace") as visit:
        assert "Pay €62.10" in visit.get(f"/approvals/{approval}").text
        change(world, User, {"user_id": grace}, groups="[]")
        assert visit.get(f"/approvals/{approval}").status_code == 404
        answer = visit.post(f"/approvals/{approval}", answer="approve")
    assert answer.status_code == 403
    assert record(world, approval).state == "waiting"


def test_A85_an_ended_session_answers_nothing(one: tuple[World, str]) -> None:
    world, approval = one
    with signed_in(world) as visit:
        kept = dict(visit.client.cookies)
        visit.post("/sign-out")
        visit.client.cookies.update(kept)
        answer = visit.post(f"/approvals/{approval}", answer="approve")
    assert answer.status_code == 403
    assert "You are signed out" in answer.text
    assert f'href="/sign-in?next=%2Fapprovals%2F{approval}"' in answer.text
    assert record(world, approval).state == "waiting"


def test_A85_whoever_is_not_signed_in_sees_and_answers_nothing(one: tuple[World, str]) -> None:
    world, approval = one
    with visitor(world) as client:
        assert client.get(f"/approvals/{approval}").status_code == 303
        answer = client.post(f"/approvals/{approval}", data={"answer": "approve"})
    assert answer.status_code == 403
    assert record(world, approval).state == "waiting"


def test_A85_somebody_elses_approval_is_not_there(one: tuple[World, str]) -> None:
    world, approval = one
    with signed_in(world, "mallory") as visit:
        assert visit.get(f"/approvals/{approval}").status_code == 404
        refused = visit.post(f"/approvals/{approval}", answer="approve")
        assert refused.status_code == 403
        assert "This is not for you to answer" in refused.text
        assert visit.get("/approvals/nothing").status_code == 404
        assert visit.post("/approvals/nothing", answer="approve").status_code == 404


def test_A85_a_sign_in_of_long_ago_must_be_renewed_to_approve(one: tuple[World, str]) -> None:
    world, approval = one
    with signed_in(world) as visit:
        world.clock.advance(seconds=301)
        answer = _press(visit, approval, "approve")
        assert answer.status_code == 303
        assert answer.headers["location"].startswith(f"/sign-in?next=%2Fapprovals%2F{approval}&again=1")
        assert record(world, approval).state == "waiting"
        assert _press(visit, approval, "refuse").status_code == 303  # to refuse takes nothing more
    assert record(world, approval).state == "refused"


def _press(visit: Visit, approval: str, said: str, **form: Any) -> httpx.Response:
    referer = f"{str(visit.client.base_url).rstrip('/')}/approvals/{approval}"
    data = {"csrf": visit.csrf, "answer": said} | form
    return visit.client.post(f"/approvals/{approval}", data=data, headers={"Referer": referer})


# --- A86: codes -----------------------------------------------------------------------------------------------------


def test_A86_codes_cannot_be_guessed(sqlite_world: World) -> None:
    world = sqlite_world
    granted = asked_above_fifty(world)
    codes = [waits(world, granted.grant).code for _ in range(5)]
    assert len(set(codes)) == 5
    assert all(len(code) == 43 for code in codes)
    chance = random.Random(1)
    for code in codes:
        place = chance.randrange(43)
        other = code[:place] + ("A" if code[place] != "A" else "B") + code[place + 1 :]
        for guess in (other, code[:-1], code + "A", code.swapcase(), secrets.token_urlsafe(32)):
            world.refuses(polls(world, guess), "invalid_grant")


def test_A86_polling_faster_slows_down_without_end(sqlite_world: World) -> None:
    told = waits(sqlite_world, asked_above_fifty(sqlite_world).grant)
    got = [polls(sqlite_world, told.code).json() for _ in range(5)]
    assert [body["error"] for body in got] == ["authorization_pending"] + ["slow_down"] * 4
    assert [body["interval"] for body in got] == [5, 10, 15, 20, 25]


# --- A106: the second way to mint -----------------------------------------------------------------------------------


def test_A106_a_completion_decides_as_the_exchange_does(world: World) -> None:
    granted = asked_above_fifty(world)
    cases: dict[str, Any] = {
        "actions": world.delegation(actions=["catalog.search"]),
        "locations": world.delegation(locations=["https://shop.example/api"]),
        "merchants.countries": world.delegation(merchants={"categories": ["5411"], "countries": ["BE"]}),
        "merchants.categories": world.delegation(merchants={"categories": ["5812"], "countries": ["NL"]}),
    }
    for constraint, details in cases.items():
        code = approved(world, granted.grant)
        original = world.services.stored.write(granted.details)
        change(world, Delegation, {"id": granted.grant_id}, details=strict_json.write(details))
        body = refused_forever(world, code, "access_denied")
        assert constraint in [violation["constraint"] for violation in body["violations"]]
        change(world, Delegation, {"id": granted.grant_id}, details=original)
        assert polls(world, code).status_code == 200


# --- F02 and races --------------------------------------------------------------------------------------------------


def test_two_approvers_at_once_are_one_approval(world: World) -> None:
    approval = for_group(world)
    names = [f"owner{number}" for number in range(6)]
    for name in names:
        person(world, name, "payments")

    def act(number: int) -> httpx.Response:
        said = "approve" if number % 2 else "refuse"
        try:
            answers(world, approval, said, names[number])  # type: ignore[arg-type]
        except Refusal as refusal:
            return httpx.Response(refusal.status)
        return httpx.Response(200)

    got = [answer.status_code for answer in at_once(6, act)]
    assert sorted(got) == [200] + [409] * 5
    events = [event["event"] for event in world.events() if event["event"].startswith("approval.")]
    assert sorted(events)[0] in ("approval.approved", "approval.refused")
    assert (
        events.count("approval.refused") + events.count("approval.approved") == 6
    )  # five of them say why not


def test_two_people_have_to_agree_where_two_are_required(world: World) -> None:
    approval = for_group(world)
    change(world, Approval, {"id": approval}, approver="group:payments group:payments", required=2)
    for name in ("grace", "olga"):
        person(world, name, "payments")
    got = at_once(2, lambda number: _agree(world, approval, ("grace", "olga")[number]))
    assert {answer.status_code for answer in got} == {200}
    assert record(world, approval).state == "approved"


def test_one_person_is_not_two(world: World) -> None:
    approval = for_group(world)
    change(world, Approval, {"id": approval}, approver="group:payments group:payments", required=2)
    person(world, "grace", "payments")
    at_once(4, lambda number: _agree(world, approval, "grace"))
    assert record(world, approval).state == "waiting"


def _agree(world: World, approval: str, user: str) -> httpx.Response:
    answers(world, approval, user=user)
    return httpx.Response(200)


@pytest.mark.parametrize("step", ["approve", "poll"])
def test_F02_a_fault_in_the_middle_leaves_the_state_before(
    world: World, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = waits(world, asked_above_fifty(world).grant)
    if step == "poll":
        answers(world, told.approval)
    before, kept = world.rows(), _approval_rows(world)

    def fails(*arguments: object, **named: object) -> None:
        raise OSError("the disk is gone")

    place = approve.records if step == "approve" else defer.records
    monkeypatch.setattr(place, "answered" if step == "approve" else "used", fails)
    if step == "approve":
        with pytest.raises(Refusal) as raised:
            answers(world, told.approval)
        assert raised.value.status == 503
    else:
        world.refuses(polls(world, told.code), "temporarily_unavailable", status=503)
    assert (world.rows(), _approval_rows(world)) == (before, kept)
    monkeypatch.undo()
    if step == "approve":
        answers(world, told.approval)
    assert polls(world, told.code).status_code == 200
    the_ledger_is_right(world)


def _approval_rows(world: World) -> tuple[int, list[Any]]:
    def read(connection: Any) -> tuple[int, list[Any]]:
        said = connection.scalar(select(func.count()).select_from(table_of(ApprovalAnswer)))
        return said, connection.execute(select(table_of(Approval))).all()

    return world.services.database.read(read)


def test_an_answer_that_says_the_same_again_changes_nothing(world: World) -> None:
    told = waits(world, asked_above_fifty(world).grant)
    first = answers(world, told.approval)
    events = len(world.events())
    assert (
        approve.answer(
            world.services, Reply(told.approval, id_of(world, "ada"), "approve"), world.clock.now()
        )
        == first
    )
    assert len(world.events()) == events
    is_refused(world, 409, told.approval, "ada", "refuse")
