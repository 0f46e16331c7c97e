"""OAuth 2.0 (RFC 6749): what the token endpoint takes, and the shape of its answers."""

import json
import re

import httpx
import pytest

from authserver.actors import resource_servers
from tests.conformance.tokens import JWT_SPIFFE, token_of
from tests.world import MARKET, World, make_resource_server

ENDPOINTS = ("/oauth/token", "/oauth/introspect", "/oauth/revoke")
FORM = "application/x-www-form-urlencoded"
REQUIRED = ("grant_type", "subject_token", "subject_token_type", "actor_token", "actor_token_type")
OPTIONAL = (
    *("resource", "audience", "scope", "requested_token_type", "client_id", "task_id"),
    *("completion_mode", "client_assertion", "client_assertion_type"),
)
# §5.2: what error and error_description may be made of.
ERROR_TEXT = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]*")
HOSTILE = ('"; drop', "back\\slash", "line\r\nSet-Cookie: a=b", "Zoë €5 \U0001f600", "<script>", "\x7f")


def send(world: World, content: str, content_type: str = FORM) -> httpx.Response:
    """Post this very body to the token endpoint."""
    return world.client.post("/oauth/token", content=content, headers={"Content-Type": content_type})


def encoded(form: dict[str, str]) -> str:
    """The form as a body."""
    return str(httpx.QueryParams(form))


def as_market(world: World, endpoint: str, form: dict[str, object]) -> httpx.Response:
    """Post a form with the market's credentials in the Authorization header."""
    return world.client.post(endpoint, data=form, auth=(world.market_id, world.market_secret))


# --- §3.2: what is taken ------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_endpoint_takes_post_and_nothing_else(shared_world: World, endpoint: str) -> None:
    """§3.2: the client must use POST."""
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH"):
        answer = shared_world.client.request(method, endpoint)
        assert answer.status_code == 405, method
        assert "POST" in answer.headers["allow"]
        assert "GET" not in answer.headers["allow"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_parameters_in_the_query_string_are_refused(
    shared_world: World, shared_grant: str, endpoint: str
) -> None:
    """§3.2 and contract §6: parameters are in the body alone."""
    form = shared_world.form(shared_grant)
    for query in (encoded(form), "grant_type=x", "unheard_of=1"):
        shared_world.refuses(shared_world.post(f"{endpoint}?{query}", form), "invalid_request")


def test_a_request_that_is_no_form_is_refused(shared_world: World, shared_grant: str) -> None:
    """§3.2 and Appendix B."""
    answer = send(shared_world, json.dumps(shared_world.form(shared_grant)), "application/json")
    shared_world.refuses(answer, "invalid_request", status=415)
    multipart = shared_world.client.post("/oauth/token", files={"grant_type": b"x"})
    shared_world.refuses(multipart, "invalid_request", status=415)


def test_a_form_in_utf_8_may_say_so(shared_world: World, shared_grant: str) -> None:
    """Appendix B: the form's encoding is UTF-8."""
    body = encoded(shared_world.form(shared_grant))
    assert send(shared_world, body, f"{FORM}; charset=UTF-8").status_code == 200


def test_a_name_outside_ascii_arrives_as_it_was(sqlite_world: World) -> None:
    """Appendix B: values are percent-encoded UTF-8, with + for a space."""
    merchant = {"id": "m_1", "category": "5411", "country": "NL", "name": "Zoë & Söhne +1 €"}
    grant, action = sqlite_world.granted().grant, sqlite_world.action(merchant=merchant)
    answer = send(sqlite_world, encoded(sqlite_world.form(grant, action=action)))
    assert answer.json()["authorization_details"][0]["merchant"] == merchant


@pytest.mark.parametrize("name", [*REQUIRED, "authorization_details", "client_id", "unheard_of"])
def test_a_parameter_that_is_sent_twice_is_refused(shared_world: World, shared_grant: str, name: str) -> None:
    """§3.2: no parameter more than once, whether its values differ or not."""
    form = shared_world.form(shared_grant)
    for other in (form.get(name, "basket-helper"), "other"):
        twice = form | {name: [form.get(name, "basket-helper"), other]}
        with shared_world.nothing_happens("form.repeated"):
            answer = shared_world.client.post("/oauth/token", data=twice)
            shared_world.refuses(answer, "invalid_request")


@pytest.mark.parametrize("endpoint", ["/oauth/introspect", "/oauth/revoke"])
def test_no_endpoint_takes_a_parameter_twice(shared_world: World, endpoint: str) -> None:
    """§3.2, which RFC 7009 §2.1 and RFC 7662 §2.1 build on."""
    shared_world.refuses(as_market(shared_world, endpoint, {"token": ["a", "b"]}), "invalid_request")


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_parameter_without_a_value_is_as_if_left_out(
    shared_world: World, shared_grant: str, name: str
) -> None:
    """§3.2: a parameter without a value is treated as if it was omitted, so it may even be sent once more."""
    body = encoded(shared_world.form(shared_grant, task_id="task-1"))
    answer = send(shared_world, f"{body}&{name}=&{name}=")
    assert answer.status_code == 200, answer.text
    assert "scope" not in answer.json()


@pytest.mark.parametrize("name", [*REQUIRED, "authorization_details"])
def test_a_required_parameter_without_a_value_is_missing(
    shared_world: World, shared_grant: str, name: str
) -> None:
    """§3.2 and §5.2: `invalid_request` where a required parameter is missing."""
    form = shared_world.form(shared_grant) | {name: ""}
    with shared_world.nothing_happens():
        shared_world.refuses(shared_world.post("/oauth/token", form), "invalid_request")


def test_parameters_that_nobody_knows_are_ignored(sqlite_world: World) -> None:
    """§3.2: the server must ignore unrecognized request parameters."""
    more = {"unheard_of": "x", "authorization_detail": "[]", "Scope": "catalog.search", "login_hint": "ada"}
    answer = sqlite_world.exchange(sqlite_world.granted().grant, **more)
    assert answer.status_code == 200, answer.text


# --- §5.1: good answers -------------------------------------------------------------------------------------


def test_an_answer_is_json_that_nobody_keeps(sqlite_world: World) -> None:
    """§5.1: the members, their types, and the two headers."""
    answer = sqlite_world.exchange(sqlite_world.granted().grant)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["pragma"] == "no-cache"
    body = answer.json()
    assert isinstance(body["access_token"], str)
    assert body["token_type"].lower() == "bearer"
    assert type(body["expires_in"]) is int
    assert "refresh_token" not in body


def test_the_granted_scope_is_told(sqlite_world: World) -> None:
    """§5.1: `scope` is the scope of the token."""
    grant = sqlite_world.granted().grant
    answer = sqlite_world.exchange(grant, authorization_details=None, scope="catalog.search", resource=MARKET)
    assert answer.json()["scope"] == "catalog.search"


# --- §5.2: errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scope",
    ["catalog.search order.checkout", " catalog.search", "catalog.search ", "CATALOG.SEARCH", "unheard.of"],
)
def test_a_scope_is_compared_letter_by_letter(shared_world: World, shared_grant: str, scope: str) -> None:
    """§3.3 and §5.2: scopes are case-sensitive; here there is exactly one of them."""
    with shared_world.nothing_happens():
        answer = shared_world.exchange(shared_grant, authorization_details=None, scope=scope, resource=MARKET)
        shared_world.refuses(answer, "invalid_scope")


@pytest.mark.parametrize("grant_type", ["client_credentials", "password", "implicit", "token-exchange", "é"])
def test_a_grant_type_that_is_not_served_is_unsupported(
    shared_world: World, shared_grant: str, grant_type: str
) -> None:
    """§5.2: `unsupported_grant_type`."""
    form = shared_world.form(shared_grant, grant_type=grant_type)
    with shared_world.nothing_happens():
        shared_world.refuses(shared_world.post("/oauth/token", form), "unsupported_grant_type")


@pytest.mark.parametrize(
    "name",
    [
        *("grant_type", "subject_token", "subject_token_type", "actor_token", "requested_token_type"),
        *("resource", "audience", "scope", "task_id", "client_id", "completion_mode", "client_assertion"),
        "authorization_details",
    ],
)
def test_an_error_is_plain_ascii_and_echoes_nothing(
    shared_world: World, shared_grant: str, name: str
) -> None:
    """§5.2: `error` and `error_description` leave out quotation marks, backslashes and all beyond ASCII."""
    for text in HOSTILE:
        answer = shared_world.post("/oauth/token", shared_world.form(shared_grant) | {name: text})
        assert answer.content.isascii()
        error = answer.json()["error"]
        body = shared_world.refuses(answer, error, status=401 if error == "invalid_client" else 400)
        assert set(body) == {"error", "error_description", "error_uri"}
        assert all(ERROR_TEXT.fullmatch(value) for value in body.values()), body
        assert text not in json.dumps(body, ensure_ascii=False)


@pytest.mark.parametrize(
    "changes",
    [{"reference": "\u202eevil"}, {"merchant": {"name": "<b>"}}, {'"x\\': 1}, {"actions": ["é"]}],
    ids=str,
)
def test_an_error_about_details_is_plain_ascii_too(
    shared_world: World, shared_grant: str, changes: dict[str, object]
) -> None:
    """§5.2: it names our own member, never what was sent in it."""
    answer = shared_world.exchange(shared_grant, action=shared_world.action(**changes))
    body = shared_world.refuses(answer, "invalid_authorization_details")
    assert ERROR_TEXT.fullmatch(body["error_description"])


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "authorization", ["Basic cnNfbWFya2V0Ondyb25n", "Basic ???", "Basic", "Bearer abc", "Digest a=b", "", "x"]
)
def test_who_failed_with_the_authorization_header_is_told_its_scheme(
    shared_world: World, shared_grant: str, endpoint: str, authorization: str
) -> None:
    """§5.2: 401, and a WWW-Authenticate with the scheme that there is."""
    form = shared_world.form(shared_grant) | {"token": "x"}
    answer = shared_world.post(endpoint, form, {"Authorization": authorization})
    shared_world.refuses(answer, "invalid_client", status=401)
    assert answer.headers["www-authenticate"].startswith("Basic realm=")


def test_a_resource_server_that_exchanges_is_told_the_scheme_too(
    shared_world: World, shared_grant: str
) -> None:
    """§5.2: the credentials are good, but of somebody who is not the actor (contract §3)."""
    form = shared_world.form(shared_grant)
    with shared_world.nothing_happens("client.other_agent"):
        answer = as_market(shared_world, "/oauth/token", dict(form))
        shared_world.refuses(answer, "invalid_client", status=401)
    assert answer.headers["www-authenticate"].startswith("Basic realm=")


# --- §2.3: client authentication ----------------------------------------------------------------------------


def test_a_client_authenticates_in_one_way_at_a_time(shared_world: World) -> None:
    """§2.3: not more than one method in each request."""
    form = {"token": "x", "client_assertion_type": JWT_SPIFFE, "client_assertion": shared_world.assertion()}
    shared_world.refuses(as_market(shared_world, "/oauth/introspect", form), "invalid_request")


def test_ids_and_secrets_are_form_encoded_in_the_header(sqlite_world: World) -> None:
    """§2.3.1: both parts are encoded as a form is, before they are joined."""
    server = make_resource_server(
        "odd",
        "https://odd.example",
        sqlite_world.clock.now(),
        id="rs:odd/1",
        secret_hash=resource_servers.hash_secret("a+b/c%d:e&f=g"),
    )
    sqlite_world.services.database.write(lambda connection: resource_servers.create(connection, server))
    auth = ("rs%3Aodd%2F1", "a%2Bb%2Fc%25d%3Ae%26f%3Dg")
    answer = sqlite_world.client.post("/oauth/introspect", data={"token": "x"}, auth=auth)
    assert answer.json() == {"active": False}


def test_the_body_may_name_the_client_that_the_header_proves_and_no_other(sqlite_world: World) -> None:
    """§2.3.1."""
    token = token_of(sqlite_world)
    for client_id, status in (("rs_market", 200), ("rs_shop", 401)):
        answer = as_market(sqlite_world, "/oauth/introspect", {"token": token, "client_id": client_id})
        assert answer.status_code == status


def test_a_secret_in_the_body_proves_nothing(shared_world: World) -> None:
    """§2.3.1 lets a server take it there; this one takes the header alone (contract §3)."""
    form = {"token": "x", "client_id": shared_world.market_id, "client_secret": shared_world.market_secret}
    shared_world.refuses(shared_world.post("/oauth/introspect", form), "invalid_client", status=401)
