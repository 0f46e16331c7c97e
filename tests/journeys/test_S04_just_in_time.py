"""S4: a token exists only from the moment at which its action is asked for, and only while everybody still agrees."""

from pathlib import Path

from tests.journeys.kits import agent_of, refusal
from tests.policies import forbid, policed, write
from tests.world import World


def test_S4_a_delegation_alone_holds_no_token_and_no_money(world: World) -> None:
    granted = world.granted()
    assert (world.rows().actions, world.rows().reserved) == (0, 0)
    agent_of(world).exchange(granted.grant, world.action())
    assert world.rows().actions == 1


def test_S4_each_token_is_decided_by_the_rules_of_its_moment(database_url: str, tmp_path: Path) -> None:
    with policed(database_url, tmp_path) as world:
        granted, agent = world.granted(), agent_of(world)
        agent.exchange(granted.grant, world.action())
        write(tmp_path / "policies", freeze=forbid("freeze", reason="Payments are frozen while we look."))
        world.services.policies.refresh()
        assert "policy:freeze" in refusal(agent, granted.grant, world.action())
        (tmp_path / "policies" / "freeze.cedar").unlink()
        world.services.policies.refresh()
        agent.exchange(granted.grant, world.action())


def test_S4_what_a_policy_wants_approved_is_not_issued_before(database_url: str, tmp_path: Path) -> None:
    with policed(database_url, tmp_path, library=("new-merchant",)) as world:
        crossed = refusal(agent_of(world), world.granted().grant, world.action(), error="access_denied")
        assert "approval" in crossed
        assert world.rows().actions == 0
