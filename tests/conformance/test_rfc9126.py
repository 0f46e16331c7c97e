"""OAuth 2.0 Pushed Authorization Requests (RFC 9126), with what FAPI 2.0 asks of them."""

import json
import re
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey

from authserver.ask import REQUEST_URI
from authserver.schema import Session
from tests.asking import (
    CALLBACK,
    LOOPBACK,
    claim,
    code_from,
    consent_page,
    form_of,
    open_request,
    parameters_of,
    push,
    pushed,
    register_redirect_uris,
    send,
)
from tests.attacks.forge import claims_of
from tests.attacks.making import change
from tests.conformance.tokens import dpop_proof, public
from tests.pages.browser import Visit, signed_in
from tests.world import World

GOOD_DETAILS = {"type": "agent_delegation", "actions": ["catalog.search"], "expires": "2026-01-01T00:00:00Z"}


@pytest.fixture(autouse=True)
def _registered(request: pytest.FixtureRequest) -> None:
    if "shared_world" in request.fixturenames:
        register_redirect_uris(request.getfixturevalue("shared_world"), CALLBACK, LOOPBACK)


def test_2_2_the_answer_is_201_with_a_reference_that_nobody_keeps(shared_world: World) -> None:
    """§2.2: `201`, `request_uri` and `expires_in`; FAPI 2.0 §5.3.2.2: under 600 seconds."""
    answer = push(shared_world)
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert set(body) == {"request_uri", "expires_in"}
    # §7.1: at least 128 bits that nobody can guess.
    assert re.fullmatch(re.escape(REQUEST_URI) + r"[A-Za-z0-9_-]{43}", body["request_uri"])
    assert 5 <= body["expires_in"] < 600


def test_2_1_the_client_authenticates(shared_world: World) -> None:
    """§2.1: client authentication as at the token endpoint; §2.3: 401 where it fails."""
    with shared_world.nothing_happens("client.none", "authorization_request.refused"):
        answer = push(shared_world, client_assertion=None, client_assertion_type=None)
    assert shared_world.refuses(answer, "invalid_client", status=401)


def test_2_1_client_id_is_that_of_who_authenticates(shared_world: World) -> None:
    """§2.1: the client_id of the request is that of the client."""
    shared_world.refuses(push(shared_world, client_id="price-scout"), "invalid_client", status=401)


def test_2_1_a_resource_server_pushes_nothing(shared_world: World) -> None:
    """Only agents ask people."""
    answer = shared_world.client.post(
        "/oauth/par",
        data={"response_type": "code"},
        auth=(shared_world.shop_id, shared_world.shop_secret),
    )
    shared_world.refuses(answer, "unauthorized_client")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"request_uri": REQUEST_URI + "x" * 43}, "invalid_request"),  # §2.1: not here
        ({"request": "eyJhbGciOiJub25lIn0.e30."}, "request_not_supported"),
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"redirect_uri": None}, "invalid_request"),
        ({"authorization_details": None}, "invalid_request"),
        ({"authorization_details": "[]"}, "invalid_authorization_details"),
        ({"authorization_details": "{"}, "invalid_authorization_details"),
        ({"authorization_details": json.dumps([GOOD_DETAILS] * 2)}, "invalid_authorization_details"),
        (
            {"authorization_details": json.dumps([GOOD_DETAILS])},
            "invalid_authorization_details",
        ),  # it is over
        ({"authorization_details": '[{"type": "agent_action"}]'}, "invalid_authorization_details"),
        ({"state": "é"}, "invalid_request"),
        ({"state": "s" * 1025}, "invalid_request"),
        ({"dpop_jkt": "short"}, "invalid_request"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"max_age": "-1"}, "invalid_request"),
        ({"authorization_details": "[" + " " * 17_000 + "]"}, "invalid_authorization_details"),
    ],
)
def test_2_3_what_is_wrong_is_told_at_once(shared_world: World, changes: dict[str, Any], error: str) -> None:
    """§2.3: errors as RFC 6749 §4.1.2.1 and RFC 9396 §5 name them, as JSON, before any browser is sent."""
    with shared_world.nothing_happens(event="authorization_request.refused"):
        shared_world.refuses(push(shared_world, **changes), error)


def test_2_1_a_repeated_parameter_is_refused(shared_world: World) -> None:
    """RFC 6749 §3.1."""
    answer = shared_world.client.post(
        "/oauth/par",
        content=b"response_type=code&response_type=code",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    shared_world.refuses(answer, "invalid_request")


def test_2_3_another_method_is_405(shared_world: World) -> None:
    """§2.3: `405` for another method than POST."""
    assert shared_world.client.get("/oauth/par").status_code == 405


def test_4_the_request_uri_is_for_its_client_alone(shared_world: World, shared_visit: Visit) -> None:
    """§4, §2.2: bound to the client that pushed it."""
    answer = open_request(shared_visit, pushed(shared_world), client_id="price-scout")
    assert answer.status_code == 400
    assert "location" not in answer.headers


def test_4_one_answer_uses_the_request_uri_up(shared_world: World, shared_visit: Visit) -> None:
    """§7.3: one use; until the person has answered, the page may be loaded again."""
    request_uri = pushed(shared_world)
    path, page = consent_page(shared_visit, request_uri)
    again, _ = consent_page(shared_visit, request_uri)
    assert again == path
    assert send(shared_visit, path, form_of(page)).status_code == 303
    used = open_request(shared_visit, request_uri)
    assert (used.status_code, "location" in used.headers) == (400, False)


def test_4_another_person_cannot_take_it(shared_world: World, shared_visit: Visit) -> None:
    """§7.3: whoever opened it is the one who answers."""
    request_uri = pushed(shared_world)
    path, page = consent_page(shared_visit, request_uri)
    with signed_in(shared_world, "grace") as other:
        assert open_request(other, request_uri).status_code == 400
        assert other.get(path).status_code == 404
        form = form_of(page) | {"csrf": [other.csrf]}
        assert send(other, path, form).status_code == 404


def test_4_an_expired_request_uri_leads_nowhere(sqlite_world: World) -> None:
    """§4: "If the request_uri has expired, the authorization server MUST reject the request as invalid"."""
    request_uri = pushed(sqlite_world)
    with signed_in(sqlite_world) as visit:
        path, page = consent_page(visit, request_uri)
        sqlite_world.clock.advance(seconds=sqlite_world.services.settings.authorization.request_lifetime)
        late = open_request(visit, request_uri)
        assert (late.status_code, "location" in late.headers) == (400, False)
        assert "expired" in late.text
        pressed = send(visit, path, form_of(page))
        assert (pressed.status_code, "location" in pressed.headers) == (410, False)


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"client_id": "basket-helper"},
        {"request_uri": REQUEST_URI + "x" * 43},
        # §5, require_pushed_authorization_requests: what is said in the browser's request counts for nothing.
        {"client_id": "basket-helper", "response_type": "code", "redirect_uri": CALLBACK},
    ],
)
def test_5_without_a_pushed_request_nothing_is_shown(
    shared_world: World, shared_visit: Visit, query: dict[str, str]
) -> None:
    answer = shared_visit.get("/oauth/authorize", params=query)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "text/html; charset=utf-8")
    assert "location" not in answer.headers


def test_5_the_metadata_says_that_it_is_required(shared_world: World) -> None:
    """§5."""
    metadata = shared_world.client.get("/.well-known/oauth-authorization-server").json()
    assert metadata["pushed_authorization_request_endpoint"] == f"{shared_world.issuer}/oauth/par"
    assert metadata["require_pushed_authorization_requests"] is True
    assert metadata["authorization_endpoint"] == f"{shared_world.issuer}/oauth/authorize"
    assert metadata["response_types_supported"] == ["code"]


def test_4_the_answer_comes_back_with_code_and_state(shared_world: World, shared_visit: Visit) -> None:
    """RFC 6749 §4.1.2; the token answer is contract's: what was granted, and how long it lives."""
    path, page = consent_page(shared_visit, pushed(shared_world))
    led = send(shared_visit, path, form_of(page) | {"preset": ["trust"]})
    assert led.headers["location"].startswith(f"{CALLBACK}?")
    assert led.headers["referrer-policy"] == "no-referrer"
    parameters = parameters_of(led.headers["location"])
    assert set(parameters) == {"code", "state", "iss"}
    assert parameters["state"] == "a state of the agent's"
    body = claim(shared_world, parameters["code"]).json()
    assert body["token_type"] == "Bearer"
    assert body["issued_token_type"] == "urn:authserver:token-type:delegation-grant"
    assert body["expires_in"] == 30 * 24 * 3600
    [granted] = body["authorization_details"]
    assert granted.pop("not_before")
    assert granted == shared_world.delegation()


def test_a_person_who_says_no_goes_back_with_access_denied(shared_world: World, shared_visit: Visit) -> None:
    """RFC 6749 §4.1.2.1."""
    path, page = consent_page(shared_visit, pushed(shared_world))
    led = send(shared_visit, path, form_of(page) | {"decision": ["deny"]})
    parameters = parameters_of(led.headers["location"])
    assert (parameters["error"], parameters["iss"]) == ("access_denied", shared_world.issuer)
    assert "code" not in parameters


@pytest.mark.parametrize(("signed", "error"), [(True, "consent_required"), (False, "login_required")])
def test_prompt_none_asks_nobody(shared_world: World, shared_visit: Visit, signed: bool, error: str) -> None:
    """OpenID Connect Core §3.1.2.6: consent is always asked for here, so there is none without asking."""
    request_uri = pushed(shared_world, prompt="none")
    query = {"client_id": "basket-helper", "request_uri": request_uri}
    if signed:
        led = open_request(shared_visit, request_uri)
    else:
        led = httpx.get(f"{shared_world.issuer}/oauth/authorize", params=query)
    assert led.status_code == 303
    assert parameters_of(led.headers["location"])["error"] == error


@pytest.mark.parametrize("changes", [{"prompt": "login"}, {"max_age": "0"}, {"acr_values": "phr"}])
def test_who_signed_in_before_the_request_proves_it_anew(
    sqlite_world: World, changes: dict[str, str]
) -> None:
    """RFC 9470 §5, OpenID Connect Core §3.1.2.1."""
    with signed_in(sqlite_world) as visit:
        sqlite_world.clock.advance(seconds=2)
        led = open_request(visit, pushed(sqlite_world, **changes))
    assert led.headers["location"].startswith("/sign-in?next=")
    assert led.headers["location"].endswith("&again=1")


def test_an_acr_that_nobody_reached_is_told_to_the_person(shared_world: World, shared_visit: Visit) -> None:
    """RFC 9470 §5: `unmet_authentication_requirements`."""
    page = open_request(shared_visit, pushed(shared_world, acr_values="phr"))
    assert page.status_code == 400
    assert "error=unmet_authentication_requirements" in page.text


def test_rfc9470_a_weaker_browser_of_the_same_person_does_not_answer(sqlite_world: World) -> None:
    """RFC 9470 §5: what the agent asks of the sign-in holds for who answers, not only for who opened the page."""
    with signed_in(sqlite_world) as strong:
        change(sqlite_world, Session, {"amr": '["pwd"]'}, acr="phr")  # there is no other session yet
        path, page = consent_page(strong, pushed(sqlite_world, acr_values="phr"))
        with signed_in(sqlite_world) as weak:
            stolen = form_of(page) | {"csrf": [weak.csrf]}
            answers = [weak.get(path), send(weak, path, stolen)]
        for answer in answers:
            assert answer.headers["location"].startswith("/sign-in?next=")
        code = code_from(send(strong, path, form_of(page)))
    answer = claim(sqlite_world, code)
    claims = claims_of(answer.json()["access_token"])
    assert claims["acr"] == "phr"  # §6.2
    assert claims["auth_time"] == int(sqlite_world.clock.now().timestamp())
    consented = next(e for e in sqlite_world.events() if e["event"] == "consent.permitted")
    assert (
        consented["data"].items() >= {"acr": "phr", "amr": ["pwd"], "auth_time": claims["auth_time"]}.items()
    )


# --- DPoP (RFC 9449 §10) --------------------------------------------------------------------------------------------


def _par_proof(world: World, key: ECKey) -> dict[str, str]:
    return {"DPoP": dpop_proof(world, key, htu=f"{world.issuer}/oauth/par")}


@pytest.mark.parametrize("by_header", [False, True])
def test_rfc9449_10_a_code_is_bound_to_the_key(
    shared_world: World, shared_visit: Visit, by_header: bool
) -> None:
    """RFC 9449 §10 and §10.1: by `dpop_jkt`, or by a proof with the pushed request."""
    world, key = shared_world, ECKey.generate_key("P-256")
    if by_header:
        answer = push(world, _par_proof(world, key))
        assert answer.headers["dpop-nonce"]
        request_uri = answer.json()["request_uri"]
    else:
        request_uri = pushed(world, dpop_jkt=key.thumbprint())
    path, page = consent_page(shared_visit, request_uri)
    code = code_from(send(shared_visit, path, form_of(page)))
    other = ECKey.generate_key("P-256")
    with world.nothing_happens("code.dpop_jkt", "authorization_code.refused"):
        world.refuses(claim(world, code), "invalid_dpop_proof")
    with world.nothing_happens("code.dpop_jkt", "authorization_code.refused"):
        world.refuses(claim(world, code, headers={"DPoP": dpop_proof(world, other)}), "invalid_dpop_proof")
    assert claim(world, code, headers={"DPoP": dpop_proof(world, key)}).status_code == 200


def test_rfc9449_10_1_proof_and_dpop_jkt_name_one_key(shared_world: World) -> None:
    """RFC 9449 §10.1: both present MUST match."""
    key = ECKey.generate_key("P-256")
    other = ECKey.import_key(public(ECKey.generate_key("P-256"))).thumbprint()
    shared_world.refuses(
        push(shared_world, _par_proof(shared_world, key), dpop_jkt=other), "invalid_dpop_proof"
    )


def test_rfc9449_11_1_a_proof_is_used_once(shared_world: World) -> None:
    """RFC 9449 §11.1."""
    proof = _par_proof(shared_world, ECKey.generate_key("P-256"))
    assert push(shared_world, proof).status_code == 201
    shared_world.refuses(push(shared_world, proof), "invalid_dpop_proof")
