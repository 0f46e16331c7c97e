"""S9: before a high-risk action somebody is asked, about exactly that; the agent waits, and gets what was approved."""

import pytest

from authserver.agent import ExchangeRefused, IssuedToken, Waiting
from authserver.resource_server import SettlementRefused
from authserver.revoke import Target, revoke
from authserver.values import Money
from tests.approving import answers, asked_above_fifty, person, record
from tests.conformance.tokens import claims_of
from tests.journeys.kits import agent_of, euros, settlement_of, verified
from tests.pages.browser import signed_in
from tests.settling import the_ledger_is_right
from tests.world import World


def asks(world: World, grant: str, value: str = "62.10") -> Waiting:
    """The agent asks for a payment above what its user wants to be asked about."""
    told = agent_of(world).ask(grant, world.action(amount=euros(value)))
    assert isinstance(told, Waiting)
    return told


def collects(world: World, told: Waiting) -> IssuedToken:
    """The agent comes back; it never has to wait here, as somebody has answered."""
    return agent_of(world).collect(told, sleep=lambda seconds: pytest.fail("nobody has answered"))


def approval_of(told: Waiting) -> str:
    """The id at the end of the address that the agent was told."""
    return told.approval_uri.rpartition("/")[2]


def test_S9_what_a_person_approved_on_the_page_is_paid_and_nothing_else(world: World) -> None:
    told = asks(world, asked_above_fifty(world).grant)
    with signed_in(world) as visit:
        path = told.approval_uri.removeprefix(world.issuer)
        assert "Pay €62.10 to seller m_123 on Market" in visit.get(path).text
        assert visit.post(path, answer="approve").status_code == 303
    token = collects(world, told)
    assert verified(world, token).amount == Money("EUR", 6210)
    shown = record(world, approval_of(told))
    assert claims_of(token.access_token)["approval"] == {"id": shown.id, "details_hash": shown.details_hash}
    with pytest.raises(SettlementRefused):
        settlement_of(world).redeem(token.access_token, Money("EUR", 6211))
    assert settlement_of(world).redeem(token.access_token).amount == Money("EUR", 6210)
    the_ledger_is_right(world)


def test_S9_the_agent_waits_as_long_as_it_is_told_to(sqlite_world: World) -> None:
    told = asks(sqlite_world, asked_above_fifty(sqlite_world).grant)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        sqlite_world.clock.advance(seconds=seconds)
        if len(slept) == 3:
            answers(sqlite_world, approval_of(told))

    token = agent_of(sqlite_world).collect(told, sleep=sleep)
    assert (slept, token.expires_in) == ([5, 5, 5], 120)


@pytest.mark.parametrize(
    ("what", "error"),
    [("refused", "access_denied"), ("late", "expired_token"), ("revoked", "invalid_request")],
)
def test_S9_whatever_is_no_approval_is_no_token(sqlite_world: World, what: str, error: str) -> None:
    granted = asked_above_fifty(sqlite_world)
    told = asks(sqlite_world, granted.grant)
    if what == "refused":
        answers(sqlite_world, approval_of(told), "refuse")
    elif what == "late":
        sqlite_world.clock.advance(seconds=told.expires_in)
    else:
        answers(sqlite_world, approval_of(told))
        target = Target("delegation", granted.grant_id)
        revoke(sqlite_world.services, target, reason="over", by="ada", now=sqlite_world.clock.now())
    with pytest.raises(ExchangeRefused) as refused:
        collects(sqlite_world, told)
    assert refused.value.error == error


def test_S9_an_agent_that_does_not_wait_is_told_that_it_must(sqlite_world: World) -> None:
    grant = asked_above_fifty(sqlite_world).grant
    with pytest.raises(ExchangeRefused) as refused:
        agent_of(sqlite_world).exchange(grant, sqlite_world.action(amount=euros("62.10")))
    assert [violation.constraint for violation in refused.value.violations] == ["approval"]
    assert isinstance(agent_of(sqlite_world).ask(grant, sqlite_world.action()), IssuedToken)


def test_S9_below_the_threshold_nobody_is_asked_and_a_rule_moves_it_for_one_shop(sqlite_world: World) -> None:
    grant = asked_above_fifty(sqlite_world).grant
    told = asks(sqlite_world, grant)
    answers(sqlite_world, approval_of(told), rule_up_to="65.00")
    collects(sqlite_world, told)
    again = agent_of(sqlite_world).ask(grant, sqlite_world.action(amount=euros("65.00")))
    assert isinstance(again, IssuedToken)
    assert "approval" not in claims_of(again.access_token)
    assert isinstance(asks(sqlite_world, grant, "65.01"), Waiting)


def test_S9_an_owner_on_duty_answers_when_the_user_does_not(sqlite_world: World) -> None:
    person(sqlite_world, "grace", "payments-duty")
    told = asks(sqlite_world, asked_above_fifty(sqlite_world).grant)
    sqlite_world.clock.advance(minutes=10)
    with signed_in(sqlite_world, "grace") as visit:
        assert visit.post(f"/approvals/{approval_of(told)}", answer="approve").status_code == 303
    assert collects(sqlite_world, told).action["amount"] == euros("62.10")
