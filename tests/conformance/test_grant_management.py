"""Grant Management for OAuth 2.0 (FAPI draft 03): what became of a grant, more or less of it, and its end."""

from typing import Any

import httpx
import pytest

from authserver.ledger.check import check
from tests.approving import answers, asked_above_fifty, waits
from tests.asking import (
    CALLBACK,
    allow,
    as_agent,
    claim,
    code_from,
    consent_page,
    grant_by_code,
    open_request,
    push,
    pushed,
    register_redirect_uris,
    send,
)
from tests.pages.browser import signed_in
from tests.world import PRICE_SCOUT, World


def limits(per_action: str, total: str, **more: Any) -> dict[str, Any]:
    """Limits in euros."""
    return {"currency": "EUR", "per_action": per_action, "total": total} | more


def query(world: World, grant_id: str, token: str) -> httpx.Response:
    """Read a grant with a bearer token."""
    return world.client.get(f"/oauth/grants/{grant_id}", headers={"Authorization": f"Bearer {token}"})


def paying(world: World, grant: str, amount: str) -> httpx.Response:
    """An exchange for a payment."""
    return world.exchange(grant, action=world.action(amount={"currency": "EUR", "value": amount}))


def ledger_is_right(world: World) -> bool:
    """Whether every running total is the sum of its transfers."""
    return world.services.database.read(lambda c: [*check(c, world.services.stored)]) == []


# --- the API (§6) ---------------------------------------------------------------------------------------------------


def test_6_4_the_bearer_of_a_grant_reads_what_it_allows(sqlite_world: World) -> None:
    """§6.4; contract §5: not what is spent."""
    granted = sqlite_world.granted()
    assert paying(sqlite_world, granted.grant, "42.50").status_code == 200
    answer = query(sqlite_world, granted.grant_id, granted.grant)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    body = answer.json()
    assert (body["grant_id"], body["active"]) == (granted.grant_id, True)
    assert body["authorization_details"] == [granted.details.to_json()]
    assert "spent" not in body
    assert "42.50" not in answer.text


def test_6_4_the_agent_itself_is_told_what_is_spent(world: World) -> None:
    """Contract §5: by its assertion as a bearer token, or by `client_assertion`."""
    rule = {"amount": "150.00", "period": "P7D"}
    granted = world.granted(limits=limits("80.00", "300.00", per_period=[rule]))
    assert paying(world, granted.grant, "42.50").status_code == 200
    spent = {"count": 1, "total": {"currency": "EUR", "value": "42.50"}, "per_period": ["42.50"]}
    assert query(world, granted.grant_id, world.assertion()).json()["spent"] == spent
    by_form = world.client.request("GET", f"/oauth/grants/{granted.grant_id}", data=as_agent(world))
    assert by_form.json()["spent"] == spent


def test_6_4_an_ended_grant_is_not_active(sqlite_world: World) -> None:
    granted = sqlite_world.granted()
    assert sqlite_world.client.request(
        "DELETE", f"/oauth/grants/{granted.grant_id}", data=as_agent(sqlite_world)
    ).status_code == (204)
    body = query(sqlite_world, granted.grant_id, granted.grant).json()
    assert body["active"] is False
    sqlite_world.refuses(sqlite_world.exchange(granted.grant), "invalid_request")


def test_6_5_delete_ends_it_with_204_and_no_body(world: World) -> None:
    """§6.5: what is reserved is given back, and everything below it ends."""
    granted = world.granted()
    assert paying(world, granted.grant, "42.50").status_code == 200
    answer = world.client.delete(
        f"/oauth/grants/{granted.grant_id}", headers={"Authorization": f"Bearer {world.assertion()}"}
    )
    assert (answer.status_code, answer.content) == (204, b"")
    assert world.rows().reserved == 0
    assert [e["event"] for e in world.events()][-1] == "revocation"


def test_6_6_a_grant_reads_itself_and_ends_nothing(shared_world: World) -> None:
    """§6.6: `403`; the grant is an access token for one thing (contract §5)."""
    granted = shared_world.granted()
    answer = shared_world.client.delete(
        f"/oauth/grants/{granted.grant_id}", headers={"Authorization": f"Bearer {granted.grant}"}
    )
    shared_world.refuses(answer, "insufficient_scope", status=403)
    assert query(shared_world, granted.grant_id, granted.grant).json()["active"]


@pytest.mark.parametrize("token", ["x", "eyJhbGciOiJub25lIn0.e30."])
def test_6_6_without_a_good_token_it_is_401(shared_world: World, token: str) -> None:
    """§6.6: `401` and `invalid_token`."""
    answer = query(shared_world, shared_world.granted().grant_id, token)
    shared_world.refuses(answer, "invalid_token", status=401)
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_6_6_of_another_agents_grant_nothing_is_told(shared_world: World, method: str) -> None:
    """§6.6: `404`, as for one that does not exist; §8.1: a grant_id is no secret."""
    granted = shared_world.granted()
    stranger = {"Authorization": f"Bearer {shared_world.assertion(PRICE_SCOUT)}"}
    answers = [
        shared_world.client.request(method, f"/oauth/grants/{name}", headers=stranger)
        for name in (granted.grant_id, "x" * 22)
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert answers[0].json() == answers[1].json()
    assert query(shared_world, granted.grant_id, granted.grant).json()["active"]


def test_6_6_a_grant_does_not_read_another(shared_world: World) -> None:
    one, other = shared_world.granted(), shared_world.granted()
    assert query(shared_world, one.grant_id, other.grant).status_code == 404


# --- the authorization request (§5) ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"grant_management_action": "merge"},
        {"grant_management_action": "replace"},
        {"grant_management_action": "update", "grant_id": "x"},
        {"grant_management_action": "create", "grant_id": "x"},
        {"grant_id": "x"},
    ],
)
def test_5_4_action_and_grant_id_go_together(shared_world: World, changes: dict[str, str]) -> None:
    """§5.4: `invalid_request`."""
    register_redirect_uris(shared_world, CALLBACK)
    shared_world.refuses(push(shared_world, **changes), "invalid_request")


@pytest.mark.parametrize("whose", ["nobody", "another agent", "revoked"])
def test_5_4_a_grant_that_is_not_to_be_had_is_invalid_grant_id(shared_world: World, whose: str) -> None:
    """§5.4: "unknown, invalid"."""
    register_redirect_uris(shared_world, CALLBACK)
    granted = shared_world.granted(agent="price-scout" if whose == "another agent" else "basket-helper")
    if whose == "revoked":
        shared_world.client.request(
            "DELETE", f"/oauth/grants/{granted.grant_id}", data=as_agent(shared_world)
        )
    grant_id = "x" * 22 if whose == "nobody" else granted.grant_id
    with shared_world.nothing_happens(event="authorization_request.refused"):
        answer = push(shared_world, grant_management_action="merge", grant_id=grant_id)
        shared_world.refuses(answer, "invalid_grant_id")


def test_5_4_another_persons_grant_is_invalid_grant_id(sqlite_world: World) -> None:
    """§5.4: "logged in user doesn't match"; told on a page, whose link leads back."""
    granted = sqlite_world.granted()
    request_uri = pushed(sqlite_world, grant_management_action="replace", grant_id=granted.grant_id)
    with signed_in(sqlite_world, "grace") as other:
        path = open_request(other, request_uri).headers["location"]
        page = other.get(path)
        assert page.status_code == 400
        assert "error=invalid_grant_id" in page.text
        form = {"csrf": [other.csrf], "decision": ["allow"], "actions": ["catalog.search"]}
        assert send(other, path, form).status_code == 400
    assert query(sqlite_world, granted.grant_id, granted.grant).json()["authorization_details"] == [
        granted.details.to_json()
    ]


def test_5_2_create_makes_a_grant_of_its_own(sqlite_world: World) -> None:
    """§5.2: "a fresh grant", beside the one that is there (§3.5: concurrent grants)."""
    with signed_in(sqlite_world) as visit:
        one = grant_by_code(sqlite_world, visit, grant_management_action="create")
        other = grant_by_code(sqlite_world, visit)
    assert one["grant_id"] != other["grant_id"]
    assert query(sqlite_world, one["grant_id"], one["access_token"]).json()["active"]


def test_5_2_replace_gives_the_same_grant_other_terms(world: World) -> None:
    """§5.2: "ONLY the permissions requested"; what was spent goes on counting, and the old grant still names it."""
    with signed_in(world) as visit:
        before = grant_by_code(world, visit)
        assert paying(world, before["access_token"], "42.50").status_code == 200
        rule = {"amount": "100.00", "period": "P1D"}
        asked = world.delegation(
            actions=["payment.finalize"], limits=limits("90.00", "95.00", per_period=[rule])
        )
        change = {"grant_management_action": "replace", "grant_id": before["grant_id"]}
        after = grant_by_code(world, visit, details=asked, **change)
    assert after["grant_id"] == before["grant_id"]
    [granted] = after["authorization_details"]
    assert granted["actions"] == ["payment.finalize"]
    assert ledger_is_right(world)
    refused = paying(world, before["access_token"], "60.00")
    world.refuses(refused, "invalid_authorization_details", constraint="limits.total")
    assert {v["constraint"]: v["allowed"] for v in refused.json()["violations"]} == {
        "limits.total": "52.50",
        "limits.per_period": "57.50",
    }
    assert paying(world, before["access_token"], "52.50").status_code == 200
    assert ledger_is_right(world)


def test_5_2_when_to_be_asked_is_chosen_anew_with_other_terms(sqlite_world: World) -> None:
    """What the person chose before, not to be asked about one shop, does not outlive a choice to be asked."""
    register_redirect_uris(sqlite_world, CALLBACK)
    granted = asked_above_fifty(sqlite_world)
    answers(sqlite_world, waits(sqlite_world, granted.grant).approval, rule_up_to="70.00")
    change = {"grant_management_action": "merge", "grant_id": granted.grant_id}
    with signed_in(sqlite_world) as visit:
        led = allow(visit, pushed(sqlite_world, **change), preset=["strict"])
    after = claim(sqlite_world, code_from(led)).json()
    waits(sqlite_world, after["access_token"], "60.00")


def test_5_2_merge_adds_and_loses_nothing(world: World) -> None:
    """§5.2, §3.4: member by member, shown as a whole, and consented to again."""
    rule = {"amount": "60.00", "period": "P1D"}
    first = world.delegation(
        actions=["payment.finalize"],
        limits=limits("80.00", "300.00", per_period=[rule]),
        merchants={"categories": ["5411"], "countries": ["NL"]},
    )
    more = world.delegation(
        actions=["catalog.search"],
        limits=limits("20.00", "400.00"),
        merchants={"categories": ["5400-5450"], "countries": ["BE"]},
        datatypes=["email"],
    )
    with signed_in(world) as visit:
        before = grant_by_code(world, visit, details=first)
        request_uri = pushed(
            world, details=more, grant_management_action="merge", grant_id=before["grant_id"]
        )
        _, page = consent_page(visit, request_uri)
        assert "This takes the place of what you allowed before" in page.text
        answer = claim(world, code_from(allow(visit, request_uri))).json()
    [granted] = answer["authorization_details"]
    assert granted["actions"] == ["payment.finalize", "catalog.search"]
    assert granted["limits"] == limits("80.00", "400.00", per_period=[rule])
    assert granted["merchants"] == {"categories": ["5400-5450"], "countries": ["NL", "BE"]}
    assert granted["datatypes"] == ["shipping_address", "email"]
    assert answer["grant_id"] == before["grant_id"]
    assert paying(world, answer["access_token"], "60.01").status_code == 400
    assert paying(world, answer["access_token"], "60.00").status_code == 200


def test_5_2_what_is_spent_cannot_be_taken_back_by_lower_limits(world: World) -> None:
    """The total of a grant is never below what was spent of it: nothing changes, and the person is told."""
    with signed_in(world) as visit:
        before = grant_by_code(world, visit)
        assert paying(world, before["access_token"], "42.50").status_code == 200
        change = {"grant_management_action": "replace", "grant_id": before["grant_id"]}
        request_uri = pushed(world, details=world.delegation(limits=limits("42.00", "42.00")), **change)
        answer = allow(visit, request_uri)
    assert answer.status_code == 400
    assert "More than this was spent" in answer.text
    assert (
        query(world, before["grant_id"], before["access_token"]).json()["authorization_details"]
        == (before["authorization_details"])
    )
    assert "delegation.spent" in [event["rule"] for event in world.events()]
    assert ledger_is_right(world)


def test_5_2_a_grant_keeps_its_currency(sqlite_world: World) -> None:
    """There is no conversion."""
    register_redirect_uris(sqlite_world, CALLBACK)
    granted = sqlite_world.granted()
    for action in ("merge", "replace"):
        asked = sqlite_world.delegation(limits={"currency": "USD", "per_action": "1.00", "total": "2.00"})
        answer = push(sqlite_world, details=asked, grant_management_action=action, grant_id=granted.grant_id)
        sqlite_world.refuses(answer, "invalid_authorization_details")


def test_5_2_windows_of_new_rules_count_what_was_spent_before_and_hold_what_is_given_back(
    world: World,
) -> None:
    """A rule that comes later counts the payments of its window; one that ends unused is given back to it."""
    with signed_in(world) as visit:
        before = grant_by_code(world, visit)
        for amount in ("30.00", "20.00"):
            assert paying(world, before["access_token"], amount).status_code == 200
        rules = [
            {"amount": "40.00", "period": "P1D"},
            {"amount": "80.00", "period": "P7D", "categories": ["5411"]},
        ]
        asked = world.delegation(limits=limits("80.00", "300.00", per_period=rules))
        grant_by_code(
            world, visit, details=asked, grant_management_action="replace", grant_id=before["grant_id"]
        )
    # More was spent today than the new rule allows: nothing more passes until it is given back.
    refused = paying(world, before["access_token"], "1.00")
    world.refuses(refused, "invalid_authorization_details", constraint="limits.per_period")
    assert ledger_is_right(world)
    world.clock.advance(seconds=121)
    assert paying(world, before["access_token"], "40.00").status_code == 200
    assert paying(world, before["access_token"], "1.00").status_code == 400
    assert ledger_is_right(world)


def test_7_1_the_metadata_says_what_is_supported(shared_world: World) -> None:
    """§7.1."""
    metadata = shared_world.client.get("/.well-known/oauth-authorization-server").json()
    assert metadata["grant_management_endpoint"] == f"{shared_world.issuer}/oauth/grants"
    assert set(metadata["grant_management_actions_supported"]) == {
        "query",
        "revoke",
        "create",
        "merge",
        "replace",
    }
    assert metadata["grant_management_action_required"] is False
