"""Attacks on how an agent gets its grant: redirects, codes, request references, devices, the consent form."""

import json
import re
import socket
import threading
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from authserver.actors import agents
from authserver.ask import REQUEST_URI
from authserver.revoke import Target, revoke
from authserver.schema import Agent as AgentRow
from authserver.upkeep import tidy
from tests.asking import (
    CALLBACK,
    LOOPBACK,
    allow,
    allow_device,
    as_agent,
    ask_by_device,
    challenge_of,
    claim,
    code_from,
    consent_page,
    form_of,
    fresh_verifier,
    grant_by_code,
    open_request,
    parameters_of,
    poll,
    push,
    pushed,
    register_redirect_uris,
    send,
)
from tests.attacks.making import change, named
from tests.pages.browser import Visit, signed_in, visitor
from tests.world import PRICE_SCOUT, SHOP, World

Form = dict[str, list[str]]


def granted_nothing(world: World, before: int) -> bool:
    """Whether no delegation was made or changed since."""
    return not [e for e in world.events(after=before) if e["event"].startswith("delegation.")]


def newest(world: World) -> int:
    """The id of the newest event."""
    return world._newest_event()


# --- A110: where the browser is sent --------------------------------------------------------------------------------

ELSEWHERE = {
    "prefix": CALLBACK + "/more",
    "shorter": CALLBACK[:-1],
    "query": CALLBACK + "?a=b",
    "fragment": CALLBACK + "#x",
    "subdomain": "https://evil.helper.example/callback",
    "suffix-of-host": "https://helper.example.evil.example/callback",
    "userinfo": "https://helper.example@evil.example/callback",
    "userinfo-of-ours": "https://evil.example\\@helper.example/callback",
    "path-traversal": "https://helper.example/callback/../other",
    "encoded-traversal": "https://helper.example/callback/%2e%2e/other",
    "port": "https://helper.example:8443/callback",
    "default-port": "https://helper.example:443/callback",
    "http": "http://helper.example/callback",
    "upper-case": "https://HELPER.example/callback",
    "trailing-dot": "https://helper.example./callback",
    "newline": CALLBACK + "\n",
    "tab": "https://helper.example/call\tback",
    "space": CALLBACK + " ",
    "null": CALLBACK + "%00",
    "javascript": "javascript:alert(1)//helper.example/callback",
    "data": "data:text/html,helper",
    "scheme-relative": "//helper.example/callback",
    "loopback-of-another-path": "http://127.0.0.1:8080/other",
    "loopback-name": "http://localhost:8080/callback",
    "loopback-by-other-digits": "http://127.1:8080/callback",
    "loopback-in-hex": "http://0x7f000001/callback",
    "loopback-with-userinfo": "http://127.0.0.1:80@evil.example/callback",
    "loopback-as-subdomain": "http://127.0.0.1.evil.example/callback",
    "loopback-port-zero": "http://127.0.0.1:0/callback",
    "loopback-port-too-high": "http://127.0.0.1:65536/callback",
    "loopback-port-in-other-digits": "http://127.0.0.1:８０/callback",
    "loopback-https": "https://127.0.0.1/callback",
    "endless": CALLBACK + "x" * 5_000,
}


@pytest.mark.parametrize("uri", named(ELSEWHERE))
def test_A110_a_redirect_uri_that_is_not_registered_is_never_used(shared_world: World, uri: str) -> None:
    register_redirect_uris(shared_world, CALLBACK, LOOPBACK)
    with shared_world.nothing_happens("redirect_uri.unregistered", "authorization_request.refused"):
        shared_world.refuses(push(shared_world, redirect_uri=uri), "invalid_request")


@pytest.mark.parametrize(
    "uri", [CALLBACK, LOOPBACK, "http://127.0.0.1:1/callback", "http://127.0.0.1:65535/callback"]
)
def test_A110_the_registered_one_is_taken_and_of_a_loopback_one_any_port(
    shared_world: World, uri: str
) -> None:
    register_redirect_uris(shared_world, CALLBACK, LOOPBACK)
    assert push(shared_world, redirect_uri=uri).status_code == 201


@pytest.mark.parametrize("parameter", ["redirect_uri", "redirect", "next", "return_to", "url"])
def test_A110_the_browsers_request_leads_nowhere_else(
    shared_world: World, shared_visit: Visit, parameter: str
) -> None:
    query = {
        "client_id": "basket-helper",
        "request_uri": REQUEST_URI + "x" * 43,
        parameter: "https://evil.example/",
    }
    page = shared_visit.get("/oauth/authorize", params=query)
    assert page.status_code == 400
    assert "location" not in page.headers
    assert "evil.example" not in page.text.replace("next", "") or 'href="https://evil' not in page.text
    good = shared_visit.get(
        "/oauth/authorize",
        params=query | {"request_uri": pushed(shared_world), parameter: "https://evil.example/"},
    )
    assert good.headers["location"].startswith("/consent/")


def test_A110_a_uri_that_was_taken_back_in_the_meantime_gets_no_new_request(sqlite_world: World) -> None:
    register_redirect_uris(sqlite_world, CALLBACK)
    assert push(sqlite_world).status_code == 201
    register_redirect_uris(sqlite_world, LOOPBACK)
    sqlite_world.refuses(push(sqlite_world), "invalid_request")


def test_A110_a_form_leads_only_to_where_the_agent_is_registered(
    shared_world: World, shared_visit: Visit
) -> None:
    _, page = consent_page(shared_visit, pushed(shared_world))
    assert "form-action 'self' https://helper.example;" in page.headers["content-security-policy"]


# --- A111: codes ----------------------------------------------------------------------------------------------------


def test_A111_a_code_that_comes_again_ends_what_it_gave(world: World) -> None:
    with signed_in(world) as visit:
        code = code_from(allow(visit, pushed(world)))
    grant = claim(world, code).json()["access_token"]
    token = world.exchange(grant).json()["access_token"]
    rows = world.rows()
    assert rows.reserved
    world.refuses(claim(world, code), "invalid_grant")
    world.refuses(world.exchange(grant), "invalid_request")
    assert world.introspect(token) == {"active": False}
    assert world.rows().reserved == 0
    rules = [(event["event"], event["rule"]) for event in world.events()]
    assert ("authorization_code.refused", "code.used_twice") in rules


def test_A111_a_device_code_that_comes_again_ends_what_it_gave(sqlite_world: World) -> None:
    asked = ask_by_device(sqlite_world).json()
    with signed_in(sqlite_world) as visit:
        allow_device(visit, asked["user_code"])
    grant = poll(sqlite_world, asked["device_code"]).json()["access_token"]
    sqlite_world.refuses(poll(sqlite_world, asked["device_code"]), "invalid_grant")
    sqlite_world.refuses(sqlite_world.exchange(grant), "invalid_request")


def test_A111_a_code_used_by_many_at_once_gives_one_grant(world: World) -> None:
    with signed_in(world) as visit:
        code = code_from(allow(visit, pushed(world)))
    answers: list[httpx.Response] = []

    def use() -> None:
        with httpx.Client(base_url=world.issuer, timeout=30) as client:
            form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
            form |= {"code_verifier": "a-verifier-of-more-than-43-characters-that-a-test-knows"}
            form |= {
                "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",
                "client_assertion": world.assertion(),
            }
            answers.append(client.post("/oauth/token", data=form))

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    given = [answer for answer in answers if answer.status_code == 200]
    assert len(given) <= 1
    assert {a.json().get("error") for a in answers if a.status_code != 200} == {"invalid_grant"}
    assert [e["event"] for e in world.events()].count("delegation.created") == 1
    # Whoever of them is the thief: it gave nothing that lasts.
    for answer in given:
        world.refuses(world.exchange(answer.json()["access_token"]), "invalid_request")


WRONG_CLAIMS: dict[str, dict[str, Any]] = {
    "another-verifier": {"code_verifier": fresh_verifier()},
    "the-challenge-itself": {
        "code_verifier": challenge_of("a-verifier-of-more-than-43-characters-that-a-test-knows")
    },
    "no-redirect_uri": {"redirect_uri": None},
    "another-redirect_uri": {"redirect_uri": LOOPBACK},
    "the-same-with-a-slash": {"redirect_uri": CALLBACK + "/"},
    "an-unknown-code": {"code": "x" * 43},
    "an-empty-looking-code": {"code": " "},
    "sql": {"code": "' OR 1=1 --"},
}


@pytest.mark.parametrize("changes", named(WRONG_CLAIMS))
def test_A111_a_code_is_worth_nothing_without_what_belongs_to_it(
    shared_world: World, shared_visit: Visit, changes: dict[str, Any]
) -> None:
    code = code_from(allow(shared_visit, pushed(shared_world)))
    with shared_world.nothing_happens(event="authorization_code.refused"):
        sent = {"code": code} | changes
        shared_world.refuses(claim(shared_world, sent.pop("code"), **sent), "invalid_grant")
    assert claim(shared_world, code).status_code == 200


def test_A111_another_agent_gets_nothing_for_it_and_spoils_nothing(
    shared_world: World, shared_visit: Visit
) -> None:
    code = code_from(allow(shared_visit, pushed(shared_world)))
    thief = {"client_id": "price-scout", "client_assertion": shared_world.assertion(PRICE_SCOUT)}
    with shared_world.nothing_happens("code.unknown", "authorization_code.refused"):
        shared_world.refuses(claim(shared_world, code, **thief), "invalid_grant")
    granted = claim(shared_world, code).json()
    with shared_world.nothing_happens("code.unknown", "authorization_code.refused"):
        shared_world.refuses(claim(shared_world, code, **thief), "invalid_grant")
    assert shared_world.exchange(granted["access_token"]).status_code == 200


def test_A111_nobody_comes_for_it_without_proving_who_they_are(
    shared_world: World, shared_visit: Visit
) -> None:
    code = code_from(allow(shared_visit, pushed(shared_world)))
    answer = claim(shared_world, code, client_assertion=None, client_assertion_type=None)
    shared_world.refuses(answer, "invalid_client", status=401)


def test_A111_a_code_of_one_flow_is_none_of_the_other(shared_world: World, shared_visit: Visit) -> None:
    request_uri = pushed(shared_world)
    code = code_from(allow(shared_visit, request_uri))
    asked = ask_by_device(shared_world).json()
    for device_code in (code, request_uri.removeprefix(REQUEST_URI)):
        shared_world.refuses(poll(shared_world, device_code), "invalid_grant")
    for other in (
        asked["device_code"],
        asked["user_code"],
        request_uri,
        request_uri.removeprefix(REQUEST_URI),
    ):
        shared_world.refuses(claim(shared_world, other), "invalid_grant")
    assert open_request(shared_visit, REQUEST_URI + asked["device_code"]).status_code == 400


def test_A111_a_code_lives_at_most_a_minute_and_what_nobody_came_for_ends(world: World) -> None:
    with signed_in(world) as visit:
        code = code_from(allow(visit, pushed(world)))
    assert world.services.settings.authorization.code_lifetime <= 60
    world.clock.advance(seconds=world.services.settings.authorization.code_lifetime)
    with world.nothing_happens("code.expired", "authorization_code.refused"):
        world.refuses(claim(world, code), "invalid_grant")
    tidied = tidy(world.services, world.clock.now())
    assert (tidied.unclaimed_grants, tidied.authorization_requests) == (1, 0)
    assert world.events()[-1]["event"] == "revocation"
    world.clock.advance(days=1, seconds=1)
    tidied = tidy(world.services, world.clock.now())
    assert (tidied.unclaimed_grants, tidied.authorization_requests) == (0, 1)


@pytest.mark.parametrize("by", ["user", "agent", "delegation", "disabled"])
def test_A106_what_ended_between_yes_and_the_claim_is_not_given(sqlite_world: World, by: str) -> None:
    with signed_in(sqlite_world) as visit:
        code = code_from(allow(visit, pushed(sqlite_world)))
    created = next(e for e in sqlite_world.events() if e["event"] == "delegation.created")
    now = sqlite_world.clock.now()
    if by == "disabled":
        sqlite_world.services.database.write(lambda c: agents.disable(c, "basket-helper", now))
    else:
        names = {
            "user": created["data"]["user"],
            "agent": "basket-helper",
            "delegation": created["delegation_id"],
        }
        revoke(sqlite_world.services, Target(by, names[by]), reason="gone", by="operator", now=now)  # type: ignore[arg-type]
    answer = claim(sqlite_world, code)
    assert answer.status_code in (400, 401)
    assert "access_token" not in answer.json()


# --- A106: no second way around the decision ------------------------------------------------------------------------


BEYOND: dict[str, dict[str, Any]] = {
    "actions": {"actions": ["profile.read"]},
    "unknown-action": {"actions": ["bank.rob"]},
    "unknown-place": {"locations": ["https://unknown.example/api"]},
    "too-long": {"expires": "2099-01-01T00:00:00Z"},
    "over": {"expires": "2020-01-01T00:00:00Z"},
    "no-limits": {"limits": None},
    "number-as-amount": {"limits": {"currency": "EUR", "per_action": 80, "total": "300.00"}},
    "no-merchants": {"merchants": None},
    "unknown-member": {"everything": True},
    "any-by-silence": {"locations": None},
}


@pytest.mark.parametrize("flow", ["code", "device"])
@pytest.mark.parametrize("changes", named(BEYOND))
def test_A106_what_an_operator_could_not_record_nobody_can_ask_for(
    shared_world: World, flow: str, changes: dict[str, Any]
) -> None:
    register_redirect_uris(shared_world, CALLBACK)
    allowed = json.dumps(["catalog.search", "order.checkout", "payment.finalize"])
    _set_actions(shared_world, allowed)
    details = shared_world.delegation(**changes)
    ask = push if flow == "code" else ask_by_device
    event = "authorization_request.refused" if flow == "code" else "device_authorization.refused"
    try:
        with shared_world.nothing_happens(event=event):
            shared_world.refuses(ask(shared_world, details=details), "invalid_authorization_details")
    finally:
        _set_actions(shared_world, None)


def _set_actions(world: World, allowed: str | None) -> None:
    from authserver.schema import Agent, table_of

    table = table_of(Agent)
    change = table.update().where(table.c.client_id == "basket-helper").values(actions=allowed)
    world.services.database.write(lambda connection: connection.execute(change))


@pytest.mark.parametrize("flow", ["code", "device"])
def test_A106_a_grant_of_either_flow_is_held_to_all_that_one_of_an_operator_is(
    sqlite_world: World, flow: str
) -> None:
    with signed_in(sqlite_world) as visit:
        if flow == "code":
            grant = grant_by_code(sqlite_world, visit)["access_token"]
        else:
            asked = ask_by_device(sqlite_world).json()
            allow_device(visit, asked["user_code"])
            grant = poll(sqlite_world, asked["device_code"]).json()["access_token"]
    with sqlite_world.nothing_happens("limits.per_action"):
        too_much = sqlite_world.action(amount={"currency": "EUR", "value": "80.01"})
        refused = sqlite_world.exchange(grant, action=too_much)
        sqlite_world.refuses(refused, "invalid_authorization_details", constraint="limits.per_action")
    with sqlite_world.nothing_happens():
        stolen = sqlite_world.exchange(grant, actor_token=sqlite_world.assertion(PRICE_SCOUT))
        sqlite_world.refuses(stolen, "invalid_request")
    assert sqlite_world.exchange(grant).status_code == 200


# --- A112: servers that are mixed up --------------------------------------------------------------------------------


@pytest.mark.parametrize("decision", ["allow", "deny"])
def test_A112_every_answer_by_browser_says_whose_it_is(
    shared_world: World, shared_visit: Visit, decision: str
) -> None:
    path, page = consent_page(shared_visit, pushed(shared_world))
    led = send(shared_visit, path, form_of(page) | {"decision": [decision]})
    assert parameters_of(led.headers["location"])["iss"] == shared_world.issuer


def test_A112_a_state_cannot_add_parameters_to_the_answer(shared_world: World, shared_visit: Visit) -> None:
    state = "x&code=stolen&iss=https://evil.example#y"
    led = allow(shared_visit, pushed(shared_world, state=state))
    parameters = parameters_of(led.headers["location"])
    assert parameters["state"] == state
    assert parameters["iss"] == shared_world.issuer
    assert not urlsplit(led.headers["location"]).fragment


# --- A113: request references ---------------------------------------------------------------------------------------


FOREIGN = {
    "https": "https://evil.example/request.jwt",
    "http": "http://169.254.169.254/latest",
    "file": "file:///etc/passwd",
    "loopback": "http://127.0.0.1:1/x",
    "unknown": REQUEST_URI + "A" * 43,
    "other-urn": "urn:example:" + "A" * 43,
    "upper-case": REQUEST_URI.upper() + "A" * 43,
    "none": "",
    "sql": REQUEST_URI + "' OR 1=1 --",
    "long": REQUEST_URI + "A" * 6_000,
    "newline": REQUEST_URI + "A\nB",
}


@pytest.mark.parametrize("request_uri", named(FOREIGN))
def test_A113_a_foreign_request_uri_is_never_fetched(
    shared_world: World, shared_visit: Visit, monkeypatch: pytest.MonkeyPatch, request_uri: str
) -> None:
    opened: set[tuple[object, object]] = set()
    resolve = socket.getaddrinfo

    def watched(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        opened.add((host, port))
        return resolve(host, port, *more, **options)

    monkeypatch.setattr("socket.getaddrinfo", watched)
    with shared_world.nothing_happens(event="authorization.refused"):
        page = shared_visit.get(
            "/oauth/authorize", params={"client_id": "basket-helper", "request_uri": request_uri}
        )
    assert (page.status_code, "location" in page.headers) == (400, False)
    assert opened <= {("127.0.0.1", urlsplit(shared_world.url).port)}  # the test itself


def test_A113_a_request_uri_twice_in_one_query_is_refused(shared_world: World, shared_visit: Visit) -> None:
    request_uri = pushed(shared_world)
    query = [("client_id", "basket-helper"), ("request_uri", request_uri), ("request_uri", request_uri)]
    assert shared_visit.client.get("/oauth/authorize", params=query).status_code == 400


def test_A113_a_request_uri_is_used_once_and_by_its_client(shared_world: World, shared_visit: Visit) -> None:
    request_uri = pushed(shared_world)
    with shared_world.nothing_happens("request_uri.other_client", "authorization.refused"):
        assert open_request(shared_visit, request_uri, "price-scout").status_code == 400
    assert allow(shared_visit, request_uri).status_code == 303
    with shared_world.nothing_happens("request.answered", "authorization.refused"):
        assert open_request(shared_visit, request_uri).status_code == 400


# --- A115: devices --------------------------------------------------------------------------------------------------


def test_A115_a_user_code_is_guessed_five_times_a_minute_and_not_more(sqlite_world: World) -> None:
    right = ask_by_device(sqlite_world).json()["user_code"]
    with signed_in(sqlite_world) as visit:
        for _ in range(5):
            assert visit.post("/device", user_code="BBBB-BBBB").status_code == 400
        with sqlite_world.nothing_happens("user_code.too_many", "user_code.refused"):
            page = visit.post("/device", user_code=right)
        assert page.status_code == 429
        assert page.headers["retry-after"] == "60"
        # A second session of the same person, and another person at the same address, have no tries of their own.
        with signed_in(sqlite_world) as second:
            assert second.post("/device", user_code=right).status_code == 429
        with signed_in(sqlite_world, "mallory") as other:
            assert other.post("/device", user_code=right).status_code == 429
        sqlite_world.clock.advance(seconds=60)
        assert visit.post("/device", user_code=right).status_code == 303


def test_A115_to_look_at_a_link_with_a_code_allows_nothing(sqlite_world: World) -> None:
    asked = ask_by_device(sqlite_world).json()
    with signed_in(sqlite_world) as visit:
        for path in (
            asked["verification_uri_complete"],
            f"/device?user_code={asked['user_code']}&decision=allow",
        ):
            assert visit.get(path).status_code == 200
    sqlite_world.refuses(poll(sqlite_world, asked["device_code"]), "authorization_pending")


def test_A115_who_has_not_signed_in_just_now_proves_it_anew(sqlite_world: World) -> None:
    asked = ask_by_device(sqlite_world).json()
    with signed_in(sqlite_world) as visit:
        path = visit.post("/device", user_code=asked["user_code"]).headers["location"].split("?")[0]
        form = form_of(visit.get(path))
        sqlite_world.clock.advance(seconds=sqlite_world.services.settings.pages.reauthenticate_after + 1)
        for answer in (visit.get("/device"), visit.get(path), send(visit, path, form)):
            assert answer.headers["location"].startswith("/sign-in?next=")
    sqlite_world.refuses(poll(sqlite_world, asked["device_code"]), "authorization_pending")


def test_A115_what_one_person_opened_nobody_else_answers(sqlite_world: World) -> None:
    asked = ask_by_device(sqlite_world).json()
    with signed_in(sqlite_world) as visit, signed_in(sqlite_world, "mallory") as other:
        path = visit.post("/device", user_code=asked["user_code"]).headers["location"].split("?")[0]
        form = form_of(visit.get(path))
        before = newest(sqlite_world)
        assert other.get(path).status_code == 404
        assert send(other, path, form | {"csrf": [other.csrf]}).status_code == 404
        assert other.post("/device", user_code=asked["user_code"]).status_code == 400
        assert granted_nothing(sqlite_world, before)
        assert send(visit, path, form).status_code == 303


def test_A115_what_a_device_says_of_itself_is_shown_as_text(sqlite_world: World) -> None:
    said = "<script>alert(1)</script>\u202egnp.exe"
    asked = ask_by_device(sqlite_world, {"User-Agent": said.encode()}).json()
    with signed_in(sqlite_world) as visit:
        text = visit.get(visit.post("/device", user_code=asked["user_code"]).headers["location"]).text
    assert "<script>alert" not in text
    assert "\u202e" not in text
    assert "&lt;script&gt;alert(1)" in text


# --- A119: the consent form -----------------------------------------------------------------------------------------


def _with(form: Form, **changes: list[str]) -> Form:
    return form | changes


TAMPERED: dict[str, tuple[dict[str, list[str]], str]] = {
    "another-action": ({"actions": ["catalog.search", "personal_data.export"]}, "consent.wider"),
    "another-place": ({"locations": [SHOP, "https://evil.example/api"]}, "consent.wider"),
    "any-place": ({"locations": ["any"]}, "consent.wider"),
    "another-category": ({"categories": ["5411", "7995"]}, "consent.wider"),
    "a-wider-range": ({"categories": ["5411", "5811-5999"]}, "consent.wider"),
    "any-category": ({"categories": ["any"]}, "consent.wider"),
    "another-country": ({"countries": ["NL", "US"]}, "consent.wider"),
    "a-group-of-countries": ({"countries": ["EU"]}, "consent.wider"),
    "any-country": ({"countries": ["any"]}, "consent.wider"),
    "another-datatype": ({"datatypes": ["shipping_address", "profile"]}, "consent.wider"),
    "any-datatype": ({"datatypes": ["any"]}, "consent.wider"),
    "a-higher-amount": ({"per_action": ["80.01"]}, "consent.too_high"),
    "a-higher-total": ({"total": ["300.01"]}, "consent.too_high"),
    "a-huge-total": ({"total": ["999999999999"]}, "consent.too_high"),
    "no-amount": ({"total": ["many"]}, "consent.no_amount"),
    "a-negative-amount": ({"total": ["-1"]}, "consent.no_amount"),
    "an-amount-in-other-digits": ({"total": ["１"]}, "consent.no_amount"),
    "nothing": ({"total": ["0"]}, "consent.no_amount"),
    "infinity": ({"total": ["inf"]}, "consent.no_amount"),
    "a-count-that-was-not-asked": ({"count": ["5"]}, "consent.wider"),
    "a-rule-that-was-not-asked": ({"per_period.0": ["5.00"]}, "consent.wider"),
    "a-later-end": ({"expires": ["2099-01-01"]}, "consent.too_late"),
    "an-end-in-the-past": ({"expires": ["2001-01-01"]}, "consent.no_date"),
    "no-date": ({"expires": ["tomorrow"]}, "consent.no_date"),
    "no-action": ({"actions": []}, "consent.empty"),
    "no-country": ({"countries": []}, "consent.empty"),
    "no-category": ({"categories": []}, "consent.empty"),
    "no-place": ({"locations": []}, "consent.empty"),
    "an-unknown-preset": ({"preset": ["everything"]}, "consent.form"),
    "no-decision": ({"decision": []}, "consent.form"),
    "an-unknown-decision": ({"decision": ["maybe"]}, "consent.form"),
}


@pytest.fixture
def asked(shared_world: World, shared_visit: Visit) -> tuple[str, Form]:
    path, page = consent_page(shared_visit, pushed(shared_world))
    return path, form_of(page)


@pytest.mark.parametrize("tampered", named(TAMPERED))
def test_A119_a_form_that_allows_more_than_was_asked_allows_nothing(
    shared_world: World, shared_visit: Visit, asked: tuple[str, Form], tampered: tuple[Form, str]
) -> None:
    (path, form), (changes, rule) = asked, tampered
    before = newest(shared_world)
    with shared_world.nothing_happens(rule, "consent.refused"):
        page = send(shared_visit, path, form | changes)
    assert page.status_code == 400
    assert granted_nothing(shared_world, before)
    assert send(shared_visit, path, form).status_code == 303  # it can still be answered, as it was asked


def test_A119_hidden_members_of_the_form_change_nothing(
    shared_world: World, shared_visit: Visit, asked: tuple[str, Form]
) -> None:
    path, form = asked
    hidden = {
        "redelegation": ["5"],
        "authorization_details": ["[]"],
        "client_id": ["price-scout"],
        "user_id": ["mallory"],
        "redirect_uri": ["https://evil.example/"],
        "not_before": ["2001-01-01"],
        "limits": ["none"],
    }
    led = send(shared_visit, path, form | hidden | {"preset": ["trust"]})
    assert led.headers["location"].startswith(f"{CALLBACK}?")
    [granted] = claim(shared_world, code_from(led)).json()["authorization_details"]
    assert granted.pop("not_before")
    assert granted == shared_world.delegation()


def test_A119_less_is_granted_as_chosen(
    shared_world: World, shared_visit: Visit, asked: tuple[str, Form]
) -> None:
    path, form = asked
    less = {
        "actions": ["catalog.search", "payment.finalize"],
        "locations": [SHOP],
        "categories": ["5411"],
        "countries": ["NL"],
        "datatypes": [],
        "per_action": ["25,50"],
        "total": ["100"],
        "preset": ["balanced"],
    }
    [granted] = claim(shared_world, code_from(send(shared_visit, path, form | less))).json()[
        "authorization_details"
    ]
    assert granted["actions"] == ["catalog.search", "payment.finalize"]
    assert granted["locations"] == [SHOP]
    assert granted["merchants"] == {"categories": ["5411"], "countries": ["NL"]}
    assert granted["limits"] == {"currency": "EUR", "per_action": "25.50", "total": "100.00"}
    assert granted["approval"] == {"above": "12.75"}
    assert "datatypes" not in granted


def test_A119_without_the_actions_that_spend_nothing_can_be_spent(
    shared_world: World, shared_visit: Visit, asked: tuple[str, Form]
) -> None:
    path, form = asked
    less = {"actions": ["catalog.search"], "categories": [], "countries": [], "preset": ["strict"]}
    [granted] = claim(shared_world, code_from(send(shared_visit, path, form | less))).json()[
        "authorization_details"
    ]
    assert "limits" not in granted
    assert "merchants" not in granted


GROUPS: dict[str, Any] = {
    "merchants": {
        "categories": ["5411", "5811-5814"],
        "countries": ["NL", "EU"],
        "except": {"countries": ["PT"]},
    },
    "datatypes": ["contact", "email"],
    "redelegation": {"depth": 1},
}


def test_A119_what_is_left_out_of_a_group_is_out(shared_world: World, shared_visit: Visit) -> None:
    path, page = consent_page(shared_visit, pushed(shared_world, details=shared_world.delegation(**GROUPS)))
    less = {
        "countries": ["EU"],  # without the Netherlands, which the group would let in again
        "without_countries": ["FR"],
        "without_categories": ["5813"],
        "datatypes": ["contact"],  # likewise without the e-mail address
        "hand_on": [],
    }
    looked = send(shared_visit, path, form_of(page) | less | {"decision": ["look"]})
    assert looked.status_code == 200
    assert "Never: bars and pubs, Portugal, France and the Netherlands." in looked.text
    kept = form_of(looked)
    assert (kept["without_countries"], kept.get("hand_on")) == (["FR"], None)
    led = send(shared_visit, path, kept | {"preset": ["trust"]})
    [granted] = claim(shared_world, code_from(led)).json()["authorization_details"]
    assert granted["merchants"] == {
        "categories": ["5411", "5811-5814"],
        "countries": ["EU"],
        "except": {"categories": ["5813"], "countries": ["PT", "FR", "NL"], "ids": []},
    }
    assert granted["datatypes"] == ["phone"]
    assert "redelegation" not in granted


def test_A119_a_group_of_which_nothing_is_left_is_none(shared_world: World, shared_visit: Visit) -> None:
    merchants = {"categories": ["5813-5814"], "countries": ["NL", "EU"], "ids": ["m_123", "m_124"]}
    asked = shared_world.delegation(merchants=merchants)
    path, page = consent_page(shared_visit, pushed(shared_world, details=asked))
    every = re.findall(r'name="without_countries" value="(..)"', page.text)
    assert len(every) == 27
    for less in (
        {"countries": ["EU"], "without_countries": every},
        {"without_categories": ["5813", "5814"]},
        {"ids": []},
    ):
        assert "Leave at least one of these" in send(shared_visit, path, form_of(page) | less).text
    led = send(shared_visit, path, form_of(page) | {"ids": ["m_123"]})
    [granted] = claim(shared_world, code_from(led)).json()["authorization_details"]
    assert granted["merchants"]["ids"] == ["m_123"]


def test_to_look_at_what_a_choice_comes_to_answers_nothing(
    shared_world: World, shared_visit: Visit, asked: tuple[str, Form]
) -> None:
    path, form = asked
    before = newest(shared_world)
    less = form | {"decision": ["look"], "per_action": ["12"], "countries": ["BE"]}
    looked = send(shared_visit, path, less)
    assert "up to €12 at a time and €300 in all" in looked.text
    assert "in Belgium until" in looked.text
    assert "It asks above €6." in looked.text
    assert send(shared_visit, path, less | {"total": ["999"]}).status_code == 400
    assert granted_nothing(shared_world, before)


@pytest.mark.parametrize("preset", ["strict", "balanced", "trust"])
def test_A119_no_preset_asks_less_than_the_agent_proposed_or_the_catalogue_wants(
    shared_world: World, shared_visit: Visit, preset: str
) -> None:
    details = shared_world.delegation(
        actions=["payment.finalize", "order.change_address", "profile.read"],
        approval={"above": "10.00", "actions": ["order.change_address"]},
    )
    plain = shared_world.delegation(actions=["payment.finalize", "order.change_address", "profile.read"])
    answers = []
    for asked in (details, plain):
        led = allow(shared_visit, pushed(shared_world, details=asked), preset=[preset])
        [granted] = claim(shared_world, code_from(led)).json()["authorization_details"]
        answers.append(granted.get("approval"))
    proposed, alone = answers
    assert proposed["above"] == "10.00"
    assert "order.change_address" in proposed["actions"]
    # `unless_delegated`: a rule of the delegation stands in for the catalogue's, so it must name the action.
    assert alone is None or "order.change_address" in alone["actions"]


# --- A84: presses that were not the person's ------------------------------------------------------------------------


def test_A84_consent_is_given_by_a_post_with_its_token_alone(
    shared_world: World, shared_visit: Visit
) -> None:
    path, page = consent_page(shared_visit, pushed(shared_world))
    form, before = form_of(page), newest(shared_world)
    assert page.headers["content-security-policy"].endswith("frame-ancestors 'none'")
    for wrong in ([], ["x"], ["é" * 10]):
        assert send(shared_visit, path, form | {"csrf": wrong}).status_code == 403
    foreign = shared_visit.client.post(path, data=form, headers={"Origin": "https://evil.example"})
    assert foreign.status_code == 403
    for query in ("decision=allow", f"decision=allow&csrf={form['csrf'][0]}"):
        assert shared_visit.get(f"{path}?{query}").status_code == 200
    in_query = shared_visit.client.post(f"{path}?decision=allow", data=form)
    assert in_query.status_code == 400
    assert granted_nothing(shared_world, before)


def test_A84_nobody_who_is_not_signed_in_answers(shared_world: World, shared_visit: Visit) -> None:
    path, page = consent_page(shared_visit, pushed(shared_world))
    with visitor(shared_world) as stranger:
        for answer in (stranger.get(path), stranger.post(path, data=form_of(page))):
            assert answer.headers["location"].startswith("/sign-in")


def test_a_consent_that_is_sent_twice_is_one_grant(world: World) -> None:
    with signed_in(world) as visit:
        path, page = consent_page(visit, pushed(world))
        form = form_of(page)
        answers: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda: answers.append(send(visit, path, form))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # Whichever of them the browser follows, it brings the one code.
        [location] = {answer.headers["location"] for answer in answers}
        assert claim(world, parameters_of(location)["code"]).status_code == 200
        later = send(visit, path, form)
        assert (later.status_code, "location" in later.headers) == (410, False)
    assert [e["event"] for e in world.events()].count("delegation.created") == 1


# --- what went wrong is said in plain words -------------------------------------------------------------------------


def test_an_agent_that_was_blocked_meanwhile_is_said_so_wherever_one_is(sqlite_world: World) -> None:
    register_redirect_uris(sqlite_world, CALLBACK)
    with signed_in(sqlite_world) as visit:
        opened, unopened = pushed(sqlite_world), pushed(sqlite_world)
        code = ask_by_device(sqlite_world).json()["user_code"]
        path, page = consent_page(visit, opened)
        blocked = sqlite_world.clock.now()
        change(sqlite_world, AgentRow, {"client_id": "basket-helper"}, disabled_at=blocked)
        assert "This agent was blocked" in open_request(visit, unopened).text
        assert "was blocked here" in visit.post("/device", user_code=code).text
        for answer in (visit.get(path), send(visit, path, form_of(page))):
            assert answer.status_code == 400
            assert "The agent was blocked" in answer.text
    assert [e for e in sqlite_world.events() if e["event"] == "delegation.created"] == []


@pytest.mark.parametrize("name", ["%00", "a%00b"])
def test_a_nul_in_an_address_is_no_failure_of_the_database(world: World, name: str) -> None:
    with signed_in(world) as visit:
        for path in (f"/consent/{name}", f"/approvals/{name}", f"/delegations/{name}", f"/enrol/{name}"):
            assert visit.get(path).status_code == 404
        for method in ("GET", "DELETE"):
            answer = world.client.request(method, f"/oauth/grants/{name}", data=as_agent(world))
            assert answer.status_code == 404
        query = f"client_id={name}&request_uri=urn:ietf:params:oauth:request_uri:{name}"
        assert visit.get(f"/oauth/authorize?{query}").status_code == 400
        for path in (f"account/sessions/{name}/end", f"account/passkeys/{name}/remove", f"consent/{name}"):
            assert visit.post(f"/{path}", decision="allow").status_code == 404
