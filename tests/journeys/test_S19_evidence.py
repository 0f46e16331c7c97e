"""S19: from each control to the live configuration, the policy, the audit entries and the test."""

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest

from authserver.evidence import checks, report
from authserver.evidence.facts import Facts, Finding
from authserver.register import disable_agent
from authserver.revoke import Target, revoke
from authserver.schema import Action
from authserver.seal import seal
from authserver.services import load_policies
from authserver.upkeep import tend_audit
from tests.attacks.making import change
from tests.pages.browser import add_user, signed_in
from tests.world import World, running_world

TESTS = Path(__file__).resolve().parent.parent
FRAMEWORKS = {"OWASP Agentic 2026": 10, "OWASP NHI 2025": 10, "CSA MAESTRO": 7, "NIST AI RMF 1.0": 10}


def assessed(world: World) -> dict[str, report.Assessed]:
    load_policies(world.services)
    found = world.services.database.read(
        lambda connection: report.assess(Facts(world.services, connection, world.clock.now()))
    )
    return {one.control.id: one for one in found}


def finding(world: World, control: str, check: str) -> Finding:
    (found,) = (one for one in assessed(world)[control].findings if one.check == check)
    return found


def test_S19_every_control_of_the_frameworks_is_there_once() -> None:
    controls = report.controls()
    assert len({(control.framework, control.id) for control in controls}) == len(controls)
    counted = {name: sum(control.framework == name for control in controls) for name in FRAMEWORKS}
    assert counted == FRAMEWORKS
    assert {f"ASI{number:02}" for number in range(1, 11)} <= {control.id for control in controls}
    assert {f"NHI{number}" for number in range(1, 11)} <= {control.id for control in controls}


def test_S19_every_check_and_test_that_is_named_exists() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    rows = set(re.findall(r"def test_([AF]\d+)_", code))
    for control in report.controls():
        assert set(control.checks) <= set(checks.CHECKS), control.id
        assert set(control.rows) <= rows, control.id
        # Nothing is claimed that the running system does not show.
        assert control.checks or control.applies == "no", control.id


def test_S19_the_report_says_what_the_running_system_does(world: World) -> None:
    grant = world.granted().grant
    assert world.exchange(grant).status_code == 200
    world.exchange(grant, action=world.action(amount={"currency": "EUR", "value": "92.00"}))
    seal(world.services, world.clock.now())
    found = assessed(world)
    entries = [entry.event for entry in found["ASI02"].entries]
    assert entries == ["exchange.refused", "exchange.permitted"]
    assert found["ASI05"].state == "does not apply"
    assert finding(world, "ASI03", "action_lifetimes").says.startswith(
        "seconds for each action: catalog.search 300"
    )
    assert finding(world, "L6", "policies").says.startswith("sets: ")
    assert "base (enforce)" in finding(world, "L6", "policies").says
    # http, no witness, no owner: what is not met is not called so.
    assert found["NHI6"].state == "partly met"
    assert not finding(world, "NHI6", "issuer_protected").met
    assert not finding(world, "L5", "audit_witnessed").met
    assert not finding(world, "GOVERN 2.1", "owned_agents").met


def test_S19_the_report_follows_what_changes(sqlite_world: World) -> None:
    world, now = sqlite_world, sqlite_world.clock.now()
    assert finding(world, "ASI10", "revocation_at_hand").says == (
        "revocations so far: none yet; tokens issued after the last 0: 0"
    )
    granted = world.granted()
    revoke(world.services, Target("delegation", granted.grant_id), reason="", by="operator:night", now=now)
    assert finding(world, "ASI10", "revocation_at_hand").says == (
        "revocations so far: delegation 1; tokens issued after the last 1: 0"
    )
    world.clock.advance(days=91)
    idle = finding(world, "NHI1", "stale_agents")
    assert (idle.met, idle.says) == (
        False,
        "enabled agents that did nothing in 90 days: basket-helper, price-scout",
    )
    for client_id in ("basket-helper", "price-scout"):
        world.services.database.write(lambda c, name=client_id: disable_agent(c, name, "operator:night", now))
    assert finding(world, "NHI1", "stale_agents").met


def test_S19_a_token_that_was_issued_after_a_revocation_is_said(sqlite_world: World) -> None:
    """As a server that did not ask would have done."""
    world, granted = sqlite_world, sqlite_world.granted()
    assert world.exchange(granted.grant).status_code == 200
    by = {"reason": "", "by": "operator:night", "now": world.clock.now()}
    revoke(world.services, Target("delegation", granted.grant_id), **by)  # type: ignore[arg-type]
    found = finding(world, "MANAGE 2.4", "revocation_at_hand")
    assert (found.met, assessed(world)["MANAGE 2.4"].state) == (True, "met")
    (action,) = world.events()[1:2]
    key = {"id": action["action_id"]}
    change(world, Action, key, issued_at=world.clock.now() + timedelta(minutes=1))
    found = finding(world, "MANAGE 2.4", "revocation_at_hand")
    assert (found.met, found.says[-2:]) == (False, " 1")
    assert assessed(world)["MANAGE 2.4"].state == "not met"


def test_S19_an_audit_that_was_cut_off_is_said(sqlite_url: str, tmp_path: Path) -> None:
    """The report holds it to the witness's file, not only to itself."""
    heads = tmp_path / "elsewhere.heads"
    with running_world(sqlite_url, tmp_path / "world", audit={"witness_file": heads}) as world:
        world.granted()
        tend_audit(world.services, world.clock.now())
        assert finding(world, "L5", "audit_sealed").met
        assert finding(world, "L5", "audit_witnessed").met
        heads.write_text("")
        found = finding(world, "L5", "audit_sealed")
        assert (found.met, "was cut off" in found.says) == (False, True)
        heads.unlink()
        found = finding(world, "L5", "audit_sealed")
        assert (found.met, "is not there" in found.says) == (False, True)


def test_S19_to_put_policies_in_force_alone_and_to_administer_without_a_passkey_are_not_met(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = sqlite_world
    assert finding(world, "NHI10", "administrators_passkeys").met
    add_user(world, "ada-admin", role="owner")
    add_user(world, "ada-user")
    found = finding(world, "NHI10", "administrators_passkeys")
    assert (found.met, found.says) == (False, "administrators without a passkey: ada-admin")
    assert assessed(world)["NHI10"].state == "partly met"
    assert not finding(world, "L6", "two_people").met
    two = world.services.settings.policies.model_copy(update={"two_people": True})
    monkeypatch.setitem(vars(world.services.settings), "policies", two)
    assert finding(world, "L6", "two_people").met


def test_A122_the_report_names_events_and_copies_nothing_of_what_they_hold(sqlite_world: World) -> None:
    world = sqlite_world
    add_user(world, "vera", role="owner")
    with signed_in(world, "vera"):
        pass  # from an address, in a session
    (event,) = assessed(world)["NHI10"].to_json()["entries"]  # type: ignore[misc]
    assert event.keys() == {"id", "at", "event"}
    assert event["event"] == "sign_in.permitted"


@pytest.mark.parametrize("check", sorted(checks.CHECKS))
def test_S19_each_check_says_where_it_looked(check: str, sqlite_world: World) -> None:
    load_policies(sqlite_world.services)
    found = sqlite_world.services.database.read(
        lambda c: checks.run(check, Facts(sqlite_world.services, c, sqlite_world.clock.now()))
    )
    assert found.says
    assert found.where


def test_S19_the_report_is_one_page_that_needs_nothing_else(sqlite_world: World) -> None:
    world = sqlite_world
    load_policies(world.services)

    def made(connection: object) -> tuple[str, dict[str, object]]:
        facts = Facts(world.services, connection, world.clock.now())  # type: ignore[arg-type]
        found = report.assess(facts)
        return report.to_html(facts, found), report.to_json(facts, found)

    page, document = world.services.database.read(made)
    assert not re.search(r"<script|<link|<img|src=|href=", page)
    for control in report.controls():
        assert control.id in page
    assert len(json.loads(json.dumps(document))["controls"]) == sum(FRAMEWORKS.values())
