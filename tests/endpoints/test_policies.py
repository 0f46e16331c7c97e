"""Policies at work, over HTTP: they refuse beside the delegation, ask, see the past, and are replaced while it runs."""

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from authserver.config import ConfigurationError
from authserver.policies import states
from authserver.policies.states import State
from authserver.schema import Agent
from tests.attacks.making import change, handed_on
from tests.attacks.serving import configuration, serving
from tests.handing_over import hand_on, parent, use
from tests.policies import asks, forbid, forbidden, last, policed, write
from tests.settling import redeemed, settle
from tests.statements import statements
from tests.world import MARKET, PRICE_SCOUT, SHOP, World


def move(world: World, name: str, state: State) -> None:
    """What `manage.py policy` writes; the server takes it over at once."""
    now = world.clock.now()
    world.services.database.write(lambda c: states.move(c, name, state, "operator", now))
    world.services.policies.refresh()


def rewrite(world: World, **sets: str) -> bool:
    """Change files of policies; the server looks at once."""
    write(world.services.settings.policies.directory, **sets)
    return world.services.policies.refresh()


# --- deciding -----------------------------------------------------------------------------------------------------


def test_what_a_policy_forbids_is_refused_with_its_name_and_reason(database_url: str, tmp_path: Path) -> None:
    rule = forbid("no-bars", 'context has category && context.category == "5813"', reason="No bars.")
    with policed(database_url, tmp_path, company=rule) as world:
        grant = world.granted(merchants={"categories": ["any"], "countries": ["any"]}).grant
        bar = world.action(merchant={"id": "m_9", "category": "5813", "country": "NL"})
        with world.nothing_happens("policy:no-bars"):
            body = world.refuses(world.exchange(grant, action=bar), "invalid_authorization_details")
        assert body["violations"] == [{"constraint": "policy:no-bars", "reason": "No bars."}]
        assert body["error_description"] == "a policy does not allow this"
        assert last(world)["policies"] == ["no-bars"]
        assert world.exchange(grant).status_code == 200
        assert last(world)["policies"] == ["all"]


def test_what_the_delegation_and_the_policies_forbid_is_told_together(
    sqlite_url: str, tmp_path: Path
) -> None:
    with policed(sqlite_url, tmp_path, company=forbid("a") + forbid("b")) as world:
        dear = world.action(amount={"currency": "EUR", "value": "92.00"})
        crossed = forbidden(world, world.exchange(world.granted().grant, action=dear))
        assert crossed == ["limits.per_action", "policy:a", "policy:b"]


def test_an_action_that_no_policy_permits_is_refused(sqlite_url: str, tmp_path: Path) -> None:
    search = '@id("search") permit (principal, action == Action::"catalog.search", resource);'
    with policed(sqlite_url, tmp_path, base=search) as world:
        grant = world.granted().grant
        assert forbidden(world, world.exchange(grant)) == ["policy:none"]
        assert world.exchange(
            grant, action=world.action(actions=["catalog.search"], amount=None, merchant=None)
        )


def test_a_policy_that_cannot_be_evaluated_refuses_and_the_audit_says_why(
    sqlite_url: str, tmp_path: Path
) -> None:
    broken = forbid("broken", "context has amount && context.amount * 9223372036854775807 > 3")
    with policed(sqlite_url, tmp_path, company=broken) as world:
        assert forbidden(world, world.exchange(world.granted().grant)) == ["policy:broken"]
        assert "overflow" in last(world)["policy_errors"][0]


def test_a_policy_that_asks_is_answered_as_an_approval_that_is_due(database_url: str, tmp_path: Path) -> None:
    with policed(database_url, tmp_path, company=forbid("ask", approval="group:privacy")) as world:
        grant = world.granted().grant
        with world.nothing_happens("approval"):
            assert asks(world, world.exchange(grant)) == "policy:ask"


def test_a_policy_sees_facts_on_record_in_place_of_what_the_agent_says(
    sqlite_url: str, tmp_path: Path
) -> None:
    groceries = forbid("no-food", 'context has category && context.category == "5411"') + forbid(
        "no-platforms", "resource.platform"
    )
    with policed(sqlite_url, tmp_path, company=groceries) as world:
        grant = world.granted().grant
        at_the_shop = world.action(locations=[SHOP], merchant={"name": "A tailor"})
        assert forbidden(world, world.exchange(grant, action=at_the_shop)) == ["policy:no-food"]
        at_the_market = world.action(merchant={"id": "m_2", "category": "5812", "country": "NL"})
        assert forbidden(world, world.exchange(grant, action=at_the_market)) == ["policy:no-platforms"]


def test_a_policy_sees_who_owns_the_agent_and_how_far_it_is_from_the_user(
    database_url: str, tmp_path: Path
) -> None:
    rules = forbid("strangers", '!(principal has owner && principal.owner == "shopping")')
    rules += forbid("far", "context.chain_depth > 0")
    with policed(database_url, tmp_path, company=rules) as world:
        parent = world.granted()
        assert forbidden(world, world.exchange(parent.grant)) == ["policy:strangers"]
        change(world, Agent, {"client_id": "basket-helper"}, owner="shopping")
        assert world.exchange(parent.grant).status_code == 200
        child = handed_on(world, parent)
        answer = world.exchange(child.grant, actor_token=world.assertion(PRICE_SCOUT))
        assert forbidden(world, answer) == ["policy:strangers", "policy:far"]


def test_the_budget_that_is_left_is_the_least_of_the_chain(sqlite_url: str, tmp_path: Path) -> None:
    rule = forbid("spare", "context has budget_left && context.budget_left < 25750")
    with policed(sqlite_url, tmp_path, company=rule) as world:
        grant = world.granted().grant
        assert world.exchange(grant).status_code == 200  # 300.00 left
        assert world.exchange(grant).status_code == 200  # 257.50 left
        assert forbidden(world, world.exchange(grant)) == ["policy:spare"]


# --- the past -----------------------------------------------------------------------------------------------------

ALLOWS_ALL = {"actions": []}  # `approval` with which an address is changed without asking


def change_of_address(world: World) -> dict[str, Any]:
    return world.action(actions=["order.change_address"], amount=None, merchant=None, reference="order-1")


def test_a_payment_within_an_hour_after_a_change_of_address_asks(database_url: str, tmp_path: Path) -> None:
    with policed(database_url, tmp_path, library=("address-change",)) as world:
        granted = world.granted(actions=["payment.finalize", "order.change_address"], approval=ALLOWS_ALL)
        sibling = world.granted()
        assert world.exchange(granted.grant).status_code == 200
        world.clock.advance(seconds=3601)
        assert world.exchange(granted.grant, action=change_of_address(world)).status_code == 200
        world.clock.advance(seconds=60)
        assert asks(world, world.exchange(granted.grant)) == "policy:payment-after-address-change"
        # So does an agent that works for it; another delegation of the user's has nothing to do with it.
        child = handed_on(world, granted)
        answer = world.exchange(child.grant, actor_token=world.assertion(PRICE_SCOUT))
        assert asks(world, answer) == "policy:payment-after-address-change"
        assert world.exchange(sibling.grant).status_code == 200
        world.clock.advance(seconds=3600)
        assert world.exchange(granted.grant).status_code == 200


def test_the_first_payment_to_a_merchant_asks_until_something_was_paid_to_it(
    database_url: str, tmp_path: Path
) -> None:
    with policed(database_url, tmp_path, library=("new-merchant",)) as world:
        grant = world.granted().grant
        assert asks(world, world.exchange(grant)) == "policy:new-merchant"
        move(world, "new-merchant", "draft")
        held = world.exchange(grant).json()["access_token"]
        redeemed(world, world.exchange(grant, action=other(world, "m_1.x")).json()["access_token"])
        move(world, "new-merchant", "enforce")
        # A token that nobody used is no payment.
        assert asks(world, world.exchange(grant)) == "policy:new-merchant"
        redeemed(world, held)
        assert world.exchange(grant).status_code == 200
        for id in ("M_123", "m_12", "m_1234", "m.123", "123"):
            assert asks(world, world.exchange(grant, action=other(world, id))) == "policy:new-merchant"
        assert world.exchange(grant, action=other(world, "m_1.x")).status_code == 200
        # The same name at another place is another merchant.
        assert (
            asks(world, world.exchange(grant, action=world.action(locations=[SHOP]))) == "policy:new-merchant"
        )


def other(world: World, id: str) -> dict[str, Any]:
    return world.action(
        amount={"currency": "EUR", "value": "1.00"}, merchant={"id": id, "category": "5411", "country": "NL"}
    )


def test_payments_are_counted_by_the_hour_and_the_day_without_those_that_came_to_nothing(
    database_url: str, tmp_path: Path
) -> None:
    counted = {"payments_last_hour": 2, "payments_last_day": 3, "spent_last_hour": 200, "spent_last_day": 300}
    when = "context has amount && context.amount == 4250 && " + " && ".join(
        f"context.{name} == {value}" for name, value in counted.items()
    )
    with policed(database_url, tmp_path, company=forbid("exactly", when)) as world:
        grant = world.granted().grant
        for waited in (0, 7200, 0, 0):
            world.clock.advance(seconds=waited)
            token = world.exchange(grant, action=other(world, "m_1")).json()["access_token"]
        assert world.exchange(grant, action=search(world)).status_code == 200  # no payment
        voided = redeemed(world, token, capture=False)
        assert settle(world, f"{voided}/void", {}).status_code == 200
        assert forbidden(world, world.exchange(grant)) == ["policy:exactly"]


def search(world: World) -> dict[str, Any]:
    return world.action(actions=["catalog.search"], amount=None, merchant=None)


def test_facts_that_nobody_asks_for_cost_no_statement(database_url: str, tmp_path: Path) -> None:
    rules = forbid("velocity", "context.payments_last_hour >= 5") + forbid("dear", "context.hour > 23")
    with policed(database_url, tmp_path, company=rules) as world:
        grant = world.granted().grant
        counts = []
        for action in (search(world), world.action(), search(world), world.action()):
            with statements(world) as sent:
                assert world.exchange(grant, action=action).status_code == 200
            counts.append(sum("CASE WHEN" in statement for statement in sent))
        assert counts == [0, 1, 0, 1]


def test_two_requests_at_once_are_both_seen_by_a_rule_that_counts(database_url: str, tmp_path: Path) -> None:
    """Twelve at once, by an agent and the one that it sent; the rule lets four through, and no more."""
    rule = forbid("velocity", "context.payments_last_hour >= 4")
    with policed(database_url, tmp_path, company=rule) as world:
        above = parent(world, limits=AMPLE)
        child = hand_on(world, above)

        def pay(number: int) -> int:
            granted, by = ((above, "basket-helper"), (child, "price-scout"))[number % 2]
            with httpx.Client(base_url=world.url, timeout=30) as client:
                return use(world, granted.grant, by, client).status_code

        with ThreadPoolExecutor(12) as pool:
            statuses = [*pool.map(pay, range(12))]
        assert sorted(statuses) == [200] * 4 + [400] * 8


def test_a_policy_knows_how_risky_an_agent_is(sqlite_url: str, tmp_path: Path) -> None:
    rule = forbid("risky", 'principal has risk && principal.risk == "high"')
    rule += forbid("unknown", "!(principal has risk)", action="catalog.search")
    with policed(sqlite_url, tmp_path, company=rule) as world:
        grant, search = world.granted().grant, world.action(actions=["catalog.search"])
        search = {name: search[name] for name in ("type", "actions", "locations")}
        assert world.exchange(grant).status_code == 200
        assert forbidden(world, world.exchange(grant, action=search)) == ["policy:unknown"]
        change(world, Agent, {"client_id": "basket-helper"}, risk="high")
        assert forbidden(world, world.exchange(grant)) == ["policy:risky"]
        assert world.exchange(grant, action=search).status_code == 200
        change(world, Agent, {"client_id": "basket-helper"}, risk="low")
        assert world.exchange(grant).status_code == 200


# --- observed -----------------------------------------------------------------------------------------------------


def test_an_observed_set_decides_nothing_and_is_heard_in_the_audit(database_url: str, tmp_path: Path) -> None:
    with policed(database_url, tmp_path, trial=forbid("trial") + forbid("ask", approval="user")) as world:
        grant = world.granted().grant
        assert forbidden(world, world.exchange(grant)) == ["policy:trial"]
        move(world, "trial", "observe")
        assert world.exchange(grant).status_code == 200
        assert last(world)["policies"] == ["all"]
        assert last(world)["observed"] == {"outcome": "forbid", "policies": ["trial"]}
        assert world.exchange(grant, action=search(world)).status_code == 200
        assert "observed" not in last(world)  # it has no say there
        move(world, "trial", "draft")
        assert world.exchange(grant).status_code == 200
        assert "observed" not in last(world)


def test_an_observed_policy_that_cannot_be_evaluated_hurts_nobody(sqlite_url: str, tmp_path: Path) -> None:
    broken = forbid("broken", "context has amount && context.amount * 9223372036854775807 > 3")
    with policed(sqlite_url, tmp_path, trial=broken) as world:
        move(world, "trial", "observe")
        assert world.exchange(world.granted().grant).status_code == 200
        assert "overflow" in last(world)["observed"]["policy_errors"][0]


def test_a_set_that_nobody_has_moved_is_enforced(sqlite_url: str, tmp_path: Path) -> None:
    with policed(sqlite_url, tmp_path) as world:
        grant = world.granted().grant
        assert world.exchange(grant).status_code == 200
        assert rewrite(world, new=forbid("new"))
        assert forbidden(world, world.exchange(grant)) == ["policy:new"]


AMPLE = {"currency": "EUR", "per_action": "80.00", "total": "1000000.00"}

# --- loading ------------------------------------------------------------------------------------------------------

BROKEN = {
    "syntax": "forbid (principal",
    "unknown action": forbid("x", action="payment.finalise"),
    "no id": "forbid (principal, action, resource);",
    "the id of another": forbid("all"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_set_stops_the_start_and_names_the_line(
    sqlite_url: str, tmp_path: Path, broken: str
) -> None:
    with pytest.raises(ConfigurationError) as raised, policed(sqlite_url, tmp_path, company=broken):
        pass
    assert str(raised.value).startswith(f"{tmp_path / 'policies' / 'company.cedar'}:1: ")


def test_a_server_whose_policies_permit_nothing_does_not_start(sqlite_url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="permits anything"), policed(sqlite_url, tmp_path, base=""):
        pass


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_reload_keeps_what_was_there(
    sqlite_url: str, tmp_path: Path, broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with policed(sqlite_url, tmp_path, company=forbid("rule")) as world:
        grant = world.granted().grant
        assert not rewrite(world, company=broken, more=forbid("more"))
        assert forbidden(world, world.exchange(grant)) == ["policy:rule"]
        ready = world.client.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["policies"]) == (200, "stale")
        assert capsys.readouterr().err.count("policies.refused") <= 1
        assert not world.services.policies.refresh()  # said once
        assert rewrite(world, company="", more=forbid("more"))
        assert forbidden(world, world.exchange(grant)) == ["policy:more"]
        assert world.client.get("/readyz").json()["checks"]["policies"] == "ok"


def test_a_directory_that_is_gone_or_empty_is_a_broken_reload(sqlite_url: str, tmp_path: Path) -> None:
    with policed(sqlite_url, tmp_path, company=forbid("rule")) as world:
        grant = world.granted().grant
        directory = tmp_path / "policies"
        directory.rename(tmp_path / "elsewhere")
        assert not world.services.policies.refresh()
        directory.mkdir()
        assert not world.services.policies.refresh()
        assert forbidden(world, world.exchange(grant)) == ["policy:rule"]


def test_an_enforced_set_whose_file_is_gone_is_a_broken_reload(sqlite_url: str, tmp_path: Path) -> None:
    with policed(sqlite_url, tmp_path, company=forbid("rule")) as world:
        grant = world.granted().grant
        move(world, "company", "enforce")
        (tmp_path / "policies" / "company.cedar").unlink()
        assert not world.services.policies.refresh()
        assert "company.cedar: is enforced" in str(world.services.policies.problem)
        assert forbidden(world, world.exchange(grant)) == ["policy:rule"]
        move(world, "company", "draft")
        assert world.exchange(grant).status_code == 200


def test_policies_are_replaced_under_load_and_no_request_fails(database_url: str, tmp_path: Path) -> None:
    """Two threads pay while the rule against bars comes and goes, is broken, and its state moves."""
    rule = forbid("no-bars", 'context has category && context.category == "5813"')
    with policed(database_url, tmp_path, company=rule) as world:
        grant = world.granted(limits=AMPLE).grant
        watching = world.services.policies.watch()
        assertion, stop = world.assertion(lifetime=3000), threading.Event()
        statuses: list[int] = []

        def pay() -> None:
            while not stop.is_set():
                statuses.append(world.exchange(grant, actor_token=assertion).status_code)

        threads = [threading.Thread(target=pay) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(12):
            company = ("forbid (", rule, "", rule + "\n")[number % 4]
            rewrite(world, company=company)
            if company != "forbid (":
                move(world, "company", ("observe", "enforce", "draft")[number % 3])
            time.sleep(0.05)
        stop.set()
        watching.set()
        for thread in threads:
            thread.join()
        assert {*statuses} == {200}
        assert len(statuses) > 20
        move(world, "company", "enforce")
        bar = world.action(merchant={"id": "m_9", "category": "5813", "country": "NL"}, locations=[MARKET])
        assert "policy:no-bars" in forbidden(world, world.exchange(grant, action=bar))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc to look into")
def test_every_process_takes_changes_over_by_itself_and_outlives_broken_ones(
    sqlite_url: str, tmp_path: Path
) -> None:
    """The program itself with two workers: a file, a state, then a broken file, under which one worker is killed."""
    with policed(sqlite_url, tmp_path) as world:
        settings = configuration(world, tmp_path)
        directory = tmp_path / "policies"
        settings.write_text(f'{settings.read_text()}\n[policies]\ndirectory = "{directory}"\n')
        grant = world.granted(limits=AMPLE).grant
        with serving(settings, workers=2) as served, httpx.Client(base_url=served.url, timeout=30) as client:

            def outcomes() -> set[int]:
                # Each on a connection of its own, so that both workers answer some.
                answers = (httpx.post(f"{served.url}/oauth/token", data=world.form(grant)) for _ in range(6))
                return {answer.status_code for answer in answers}

            assert outcomes() == {200}
            write(directory, company=forbid("company"))
            comes(lambda: outcomes() == {400})
            now = world.clock.now()
            world.services.database.write(lambda c: states.move(c, "company", "draft", "operator", now))
            comes(lambda: outcomes() == {200})
            write(directory, company="forbid (")
            comes(lambda: client.get("/readyz").json()["checks"]["policies"] == "stale")
            assert "policies.refused" in served.log.read_text()
            # Whoever takes a dead worker's place cannot start; the other goes on, and all is well once it is mended.
            workers = Path(f"/proc/{served.pid}/task/{served.pid}/children").read_text().split()
            os.kill(int(workers[0]), signal.SIGKILL)
            comes(lambda: "worker.waits" in served.log.read_text())
            assert outcomes() == {200}
            write(directory, company=forbid("company"))
            world.services.database.write(lambda c: states.move(c, "company", "enforce", "operator", now))
            comes(lambda: outcomes() == {400})


def comes(condition: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
