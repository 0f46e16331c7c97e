"""S3: policy as code: written in a file, checked, tested, tried on what happened, watched, and then in force."""

import json
import shutil
from pathlib import Path

import pytest

from tests.commands.conftest import Manage, operator_of
from tests.journeys.kits import agent_of, euros, refusal
from tests.policies import LIBRARY, policed
from tests.world import World

NO_GAMBLING = """
@id("no-gambling")
@reason("Our agents do not gamble.")
forbid (principal, action in Action::"budget:debit", resource)
when { context has category && context.category like "79*" };
"""
CASES = """
[[case]]
name = "a casino is refused"
action = "payment.finalize"
merchant = { id = "m_7", category = "7995", country = "NL" }
expect = "forbid"
by = ["no-gambling"]

[[case]]
name = "a grocer is not"
action = "payment.finalize"
merchant = { id = "m_1", category = "5411", country = "NL" }
expect = "permit"
"""


def author(world: World, folder: Path) -> Manage:
    manage = operator_of(
        folder / "world", str(world.services.database.url.render_as_string(False)), world.issuer
    )
    manage.config.write_text(
        f'{manage.config.read_text()}\n[policies]\ndirectory = "{folder / "policies"}"\n'
    )
    return manage


def test_S3_a_policy_is_checked_tested_simulated_observed_and_enforced(
    database_url: str, tmp_path: Path
) -> None:
    with policed(database_url, tmp_path) as world:
        manage, agent = author(world, tmp_path), agent_of(world)
        granted = world.granted(merchants={"categories": ["any"], "countries": ["any"]})
        casino = world.action(
            merchant={"id": "m_7", "category": "7995", "country": "NL"}, amount=euros("5.00")
        )
        agent.exchange(granted.grant, casino)

        library = tmp_path / "policies" / "library"
        library.mkdir()
        file = library / "company.cedar"
        file.write_text(NO_GAMBLING.replace("category", "catgory"), encoding="utf-8")
        assert "company.cedar:2: no-gambling: attribute `catgory`" in manage.run("policy", "check").stderr
        file.write_text(NO_GAMBLING, encoding="utf-8")
        assert "2 policies in 2 sets are sound" in manage.prints("policy", "check")
        (library / "company.test.toml").write_text(CASES, encoding="utf-8")
        assert "2 of 2 cases come out as expected" in manage.prints("policy", "test")

        later = ("--to", "2100-01-01T00:00:00Z", "--from", "2020-01-01T00:00:00Z")
        tried = manage.json("policy", "simulate", "--enforce", "company", "--json", *later)
        assert (tried["decisions"], tried["by_policy"]) == (1, {"no-gambling": 1})
        assert not world.services.policies.refresh() or agent.exchange(granted.grant, casino)  # still a draft

        manage.json("policy", "observe", "company")
        world.services.policies.refresh()
        watched = agent.exchange(granted.grant, casino)
        assert watched.action["amount"] == euros("5.00")
        assert world.events()[-1]["data"]["observed"] == {"outcome": "forbid", "policies": ["no-gambling"]}

        manage.json("policy", "enforce", "company")
        world.services.policies.refresh()
        assert "policy:no-gambling" in refusal(agent, granted.grant, casino)
        told = manage.json("policy", "explain", str(len(world.events())), "--json")
        assert told["decided_by"][0]["reason"] == "Our agents do not gamble."
        moved = [event["data"]["state"] for event in world.events() if event["event"] == "policies.moved"]
        assert moved == ["observe", "enforce"]


@pytest.mark.parametrize("name", sorted(path.stem for path in LIBRARY.glob("*.cedar")))
def test_S3_each_set_of_the_library_is_taken_into_use_by_itself(
    sqlite_url: str, tmp_path: Path, name: str
) -> None:
    with policed(sqlite_url, tmp_path, library=(name,)) as world:
        shutil.copytree(LIBRARY, tmp_path / "policies" / "library", dirs_exist_ok=True)
        (tmp_path / "policies" / "library" / f"{name}.cedar").unlink()
        world.services.policies.refresh()
        assert world.services.policies.problem is None
        search = world.action(actions=["catalog.search"], amount=None, merchant=None)
        assert agent_of(world).exchange(world.granted().grant, search).action["actions"] == ["catalog.search"]
        assert json.loads(world.client.get("/readyz").text)["checks"]["policies"] == "ok"
