"""S17: every sensitive action has an owner, an approver and an escalation; a new one is an entry and a policy."""

from pathlib import Path

from joserfc.jwk import ECKey

from tests.approving import answers, person, polls, waits
from tests.attacks.making import dpop_proof
from tests.journeys.kits import agent_of, euros, refusal, verified
from tests.policies import PERMIT_ALL, asks, policed, write
from tests.settling import redeemed
from tests.shipped import CONFIG
from tests.world import running_world

LOYALTY = """
[actions."loyalty.redeem"]
title = "Spend loyalty points"
owner = "loyalty"
approver = "group:loyalty"
approvals = 2
approval = "delegation"
escalate_to = "group:loyalty-duty"
escalate_after = "PT30M"
needs = ["amount", "merchant", "reference"]
budget = "debit"
lifetime = 90
redeem = true
settle_within = "P1D"
sender_constraint = "optional"
"""
POINTS = """
@id("loyalty-at-partners")
@reason("Points are spent at partners.")
forbid (principal, action in Action::"owner:loyalty", resource)
unless { context has merchant && ["m_123", "m_partner"].contains(context.merchant) };

@id("loyalty-asks")
@approval("group:loyalty")
forbid (principal, action == Action::"loyalty.redeem", resource)
when { context has amount && context.amount > 2500 };
"""


def catalogue(folder: Path, more: str) -> Path:
    path = folder / "actions.toml"
    path.write_text((CONFIG / "actions.toml").read_text(encoding="utf-8") + more, encoding="utf-8")
    return path


def test_S17_a_new_action_is_one_entry_and_one_policy(database_url: str, tmp_path: Path) -> None:
    directory = write(tmp_path / "policies", base=PERMIT_ALL, loyalty=POINTS)
    settings = {
        "catalogue": {"actions_file": catalogue(tmp_path, LOYALTY)},
        "policies": {"directory": directory},
    }
    with running_world(database_url, tmp_path / "world", **settings) as world:
        granted, agent = world.granted(actions=["loyalty.redeem"]), agent_of(world)
        spend = world.action(actions=["loyalty.redeem"], reference="points-1", amount=euros("20.00"))
        issued = agent.exchange(granted.grant, spend)
        verified(world, issued).require("loyalty.redeem")
        redeemed(world, issued.access_token)
        elsewhere = spend | {"merchant": {"id": "m_9", "category": "5411", "country": "NL"}}
        assert "policy:loyalty-at-partners" in refusal(agent, granted.grant, elsewhere)
        dear = world.exchange(granted.grant, action=spend | {"amount": euros("26.00")})
        assert asks(world, dear) == "policy:loyalty-asks"
        assert world.services.vocabulary.catalogue.entries["loyalty.redeem"].approvals == 2
        # It is in its owner's and its budget's group at once: other policies need not know it.
        assert world.exchange(world.granted().grant, action=spend).status_code == 400


def test_S17_personal_data_go_out_only_when_the_user_and_the_owners_agree(
    sqlite_url: str, tmp_path: Path
) -> None:
    with policed(sqlite_url, tmp_path, library=("personal-data",)) as world:
        person(world, "pia", "privacy")
        granted = world.granted(actions=["personal_data.export"], datatypes=["profile"])
        export = {"actions": ["personal_data.export"], "amount": None, "merchant": None}
        key = ECKey.generate_key("P-256")

        def proof() -> dict[str, str]:
            return {"DPoP": dpop_proof(world, key)}

        action = world.action(**export, datatypes=["email"])
        told = waits(world, granted.grant, action=action, headers=proof())
        answers(world, told.approval, user="ada")
        world.refuses(polls(world, told.code, proof()), "authorization_pending")
        answers(world, told.approval, user="pia")
        world.clock.advance(seconds=30)
        answer = polls(world, told.code, proof())
        assert (answer.status_code, answer.json()["token_type"]) == (200, "DPoP")
        assert answer.json()["authorization_details"][0]["datatypes"] == ["email"]


def test_S17_a_platform_is_never_told_a_whole_profile(sqlite_url: str, tmp_path: Path) -> None:
    with policed(sqlite_url, tmp_path, library=("personal-data",)) as world:
        granted = world.granted(actions=["profile.read"], datatypes=["profile"])
        read = world.action(actions=["profile.read"], amount=None, merchant=None, datatypes=["profile"])
        assert "policy:no-whole-profile-to-platforms" in refusal(agent_of(world), granted.grant, read)
        agent_of(world).exchange(granted.grant, read | {"datatypes": ["email"]})
