"""OAuth 2.0 (RFC 6749): what the token endpoint takes, and the shape of its answers."""

import json
import re

import httpx
import pytest

from authserver.actors import resource_servers
from tests.conformance.tokens import JWT_SPIFFE, token_of
from tests.world import MARKET, World, make_resource_server

ENDPOINTS = ("/oauth/token", "/oauth/introspect", "/oauth/revoke")
# RFC 6749 §5.2: what error and error_description may be made of.
ERROR_TEXT = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]*")
OPTIONAL = (
    "resource",
    "audience",
    "scope",
    "requested_token_type",
    "client_id",
    "task_id",
    "completion_mode",
)
HOSTILE = [
    '"; drop',
    "back\\slash",
    "line\r\nSet-Cookie: a=b",
    "Zoë €5 \U0001f600",
    "<script>",
    "\x7f",
    "a" * 5000,
]


def send(
    world: World, content: bytes | str, content_type: str = "application/x-www-form-urlencoded"
) -> httpx.Response:
    """Post these very bytes to the token endpoint."""
    return world.client.post("/oauth/token", content=content, headers={"Content-Type": content_type})


def encoded(form: dict[str, str]) -> str:
    """The form as its body."""
    return str(httpx.QueryParams(form))


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
def test_an_endpoint_takes_post_and_nothing_else(sqlite_world: World, endpoint: str, method: str) -> None:
    """§3.2: the client must use POST."""
    answer = sqlite_world.client.request(method, endpoint)
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"OPTIONS", "POST"}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_parameters_in_the_query_string_are_refused(sqlite_world: World, endpoint: str) -> None:
    """§3.2 and contract §6: parameters are in the body alone."""
    form = sqlite_world.form(sqlite_world.granted().grant)
    for where in (f"{endpoint}?{encoded(form)}", f"{endpoint}?grant_type=x"):
        sqlite_world.refuses(sqlite_world.post(where, form), "invalid_request")


def test_a_request_that_is_no_form_is_refused(sqlite_world: World) -> None:
    """§3.2 and Appendix B."""
    form = sqlite_world.form(sqlite_world.granted().grant)
    answer = send(sqlite_world, json.dumps(form), "application/json")
    sqlite_world.refuses(answer, "invalid_request", status=415)
    multipart = sqlite_world.client.post("/oauth/token", files={"grant_type": b"x"})
    sqlite_world.refuses(multipart, "invalid_request", status=415)


def test_a_form_in_utf_8_may_say_so(sqlite_world: World) -> None:
    """Appendix B: the form's encoding is UTF-8."""
    body = encoded(sqlite_world.form(sqlite_world.granted().grant))
    assert send(sqlite_world, body, "application/x-www-form-urlencoded; charset=UTF-8").status_code == 200


def test_a_name_outside_ascii_arrives_as_it_was(sqlite_world: World) -> None:
    """Appendix B: values are percent-encoded UTF-8."""
    merchant = {"id": "m_1", "category": "5411", "country": "NL", "name": "Zoë & Söhne +1 €"}
    answer = sqlite_world.exchange(
        sqlite_world.granted().grant, action=sqlite_world.action(merchant=merchant)
    )
    assert answer.json()["authorization_details"][0]["merchant"] == merchant


@pytest.mark.parametrize(
    "name", ["grant_type", "subject_token", "actor_token", "authorization_details", "client_id", "unheard_of"]
)
def test_a_parameter_that_is_sent_twice_is_refused(sqlite_world: World, name: str) -> None:
    """§3.2: no parameter more than once, whether its values differ or not."""
    form = sqlite_world.form(sqlite_world.granted().grant)
    twice = form | {name: [form.get(name, "basket-helper")] * 2}
    with sqlite_world.nothing_happens("form.repeated"):
        sqlite_world.refuses(sqlite_world.client.post("/oauth/token", data=twice), "invalid_request")


@pytest.mark.parametrize("endpoint", ["/oauth/introspect", "/oauth/revoke"])
def test_no_endpoint_takes_a_parameter_twice(sqlite_world: World, endpoint: str) -> None:
    """§3.2, which RFC 7009 §2.1 and RFC 7662 §2.1 build on."""
    answer = sqlite_world.client.post(
        endpoint,
        data={"token": ["a", "b"]},
        auth=(sqlite_world.market_id, sqlite_world.market_secret),
    )
    sqlite_world.refuses(answer, "invalid_request")


@pytest.mark.parametrize("name", OPTIONAL)
@pytest.mark.parametrize("blank", ["=", ""])
def test_a_parameter_without_a_value_is_as_if_left_out(sqlite_world: World, name: str, blank: str) -> None:
    """§3.2: a parameter without a value is treated as if it was omitted."""
    body = encoded(sqlite_world.form(sqlite_world.granted().grant))
    answer = send(sqlite_world, f"{body}&{name}{blank}")
    assert answer.status_code == 200, answer.text
    assert "scope" not in answer.json()


@pytest.mark.parametrize("name", ["grant_type", "subject_token", "actor_token", "authorization_details"])
def test_a_required_parameter_without_a_value_is_missing(sqlite_world: World, name: str) -> None:
    """§3.2 and §5.2: a required parameter is missing."""
    form = sqlite_world.form(sqlite_world.granted().grant) | {name: ""}
    with sqlite_world.nothing_happens():
        sqlite_world.refuses(sqlite_world.post("/oauth/token", form), "invalid_request")


def test_parameters_that_nobody_knows_are_ignored(sqlite_world: World) -> None:
    """§3.2: the server must ignore unrecognized request parameters."""
    more = {"unheard_of": "x", "authorization_detail": "[]", "Scope": "catalog.search", "login_hint": "ada"}
    answer = sqlite_world.exchange(sqlite_world.granted().grant, **more)
    assert answer.status_code == 200, answer.text


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
    answer = sqlite_world.exchange(
        sqlite_world.granted().grant, authorization_details=None, scope="catalog.search", resource=MARKET
    )
    assert answer.json()["scope"] == "catalog.search"


@pytest.mark.parametrize(
    "scope", ["catalog.search order.checkout", " catalog.search", "catalog.search ", "CATALOG.SEARCH"]
)
def test_a_scope_is_compared_letter_by_letter(sqlite_world: World, scope: str) -> None:
    """§3.3 and §5.2: the values are case-sensitive; here there is exactly one."""
    with sqlite_world.nothing_happens():
        answer = sqlite_world.exchange(
            sqlite_world.granted().grant, authorization_details=None, scope=scope, resource=MARKET
        )
        sqlite_world.refuses(answer, "invalid_scope")


@pytest.mark.parametrize(
    "grant_type", ["client_credentials", "password", "implicit", "token-exchange", "\x01"]
)
def test_a_grant_type_that_is_not_served_is_unsupported(sqlite_world: World, grant_type: str) -> None:
    """§5.2: `unsupported_grant_type`."""
    form = sqlite_world.form(sqlite_world.granted().grant, grant_type=grant_type)
    with sqlite_world.nothing_happens():
        sqlite_world.refuses(sqlite_world.post("/oauth/token", form), "unsupported_grant_type")


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    "name",
    [
        "grant_type",
        "subject_token_type",
        "resource",
        "scope",
        "task_id",
        "client_id",
        "authorization_details",
        "x",
    ],
)
def test_an_error_is_plain_ascii_and_echoes_nothing(sqlite_world: World, name: str, text: str) -> None:
    """§5.2: `error` and `error_description` leave out quotation marks, backslashes and all beyond ASCII."""
    form = sqlite_world.form(sqlite_world.granted().grant, actor_token="x") | {name: text}
    answer = sqlite_world.post("/oauth/token", form)
    body = sqlite_world.refuses(answer, answer.json()["error"])
    assert answer.content.isascii()
    assert set(body) == {"error", "error_description"}
    assert all(ERROR_TEXT.fullmatch(value) for value in body.values())
    assert text not in json.dumps(body, ensure_ascii=False)


def test_an_error_about_details_names_the_member_and_not_what_was_sent(sqlite_world: World) -> None:
    """§5.2."""
    for changes in (
        {"reference": "\u202eevil"},
        {"merchant": {"name": "<b>"}},
        {'"x\\': 1},
        {"actions": ["é"]},
    ):
        action = sqlite_world.action(**changes)
        body = sqlite_world.refuses(
            sqlite_world.exchange(sqlite_world.granted().grant, action=action),
            "invalid_authorization_details",
        )
        assert ERROR_TEXT.fullmatch(body["error_description"])


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "authorization", ["Basic cnNfbWFya2V0Ondyb25n", "Basic ???", "Basic", "Bearer abc", "Digest a=b", "", "x"]
)
def test_who_failed_with_the_authorization_header_is_told_its_scheme(
    sqlite_world: World, endpoint: str, authorization: str
) -> None:
    """§5.2: 401 and a WWW-Authenticate with the scheme that the client tried to use."""
    form = sqlite_world.form(sqlite_world.granted().grant) | {"token": "x"}
    answer = sqlite_world.post(endpoint, form, {"Authorization": authorization})
    sqlite_world.refuses(answer, "invalid_client", status=401)
    assert answer.headers["www-authenticate"].startswith("Basic realm=")


def test_a_resource_server_that_exchanges_is_told_the_scheme_too(sqlite_world: World) -> None:
    """§5.2: good credentials of somebody who is not the actor (contract §3) failed all the same."""
    form = sqlite_world.form(sqlite_world.granted().grant)
    with sqlite_world.nothing_happens("client.other_agent"):
        answer = sqlite_world.client.post(
            "/oauth/token", data=form, auth=(sqlite_world.market_id, sqlite_world.market_secret)
        )
        sqlite_world.refuses(answer, "invalid_client", status=401)
    assert answer.headers["www-authenticate"].startswith("Basic realm=")


def test_a_client_authenticates_in_one_way_at_a_time(sqlite_world: World) -> None:
    """§2.3: not more than one method in each request."""
    form = {"token": "x", "client_assertion_type": JWT_SPIFFE, "client_assertion": sqlite_world.assertion()}
    answer = sqlite_world.client.post(
        "/oauth/introspect", data=form, auth=(sqlite_world.market_id, sqlite_world.market_secret)
    )
    sqlite_world.refuses(answer, "invalid_request")


def test_ids_and_secrets_are_form_encoded_in_the_header(sqlite_world: World) -> None:
    """§2.3.1: both parts are encoded as a form is, before they are joined."""
    secret = "a+b/c%d:e&f=g"
    server = make_resource_server(
        "odd",
        "https://odd.example",
        sqlite_world.clock.now(),
        id="rs:odd/1",
        secret_hash=resource_servers.hash_secret(secret),
    )
    sqlite_world.services.database.write(lambda connection: resource_servers.create(connection, server))
    auth = ("rs%3Aodd%2F1", "a%2Bb%2Fc%25d%3Ae%26f%3Dg")
    answer = sqlite_world.client.post("/oauth/introspect", data={"token": "x"}, auth=auth)
    assert answer.json() == {"active": False}


def test_a_body_may_name_the_client_that_the_header_proves(sqlite_world: World) -> None:
    """§2.3.1: and no other."""
    token = token_of(sqlite_world)
    auth = (sqlite_world.market_id, sqlite_world.market_secret)
    for client_id, status in (("rs_market", 200), ("rs_shop", 401)):
        form = {"token": token, "client_id": client_id}
        assert sqlite_world.client.post("/oauth/introspect", data=form, auth=auth).status_code == status


def test_a_secret_in_the_body_proves_nothing(sqlite_world: World) -> None:
    """§2.3.1 lets a server take it there; this one takes the header alone (contract §3)."""
    form = {"token": "x", "client_id": sqlite_world.market_id, "client_secret": sqlite_world.market_secret}
    sqlite_world.refuses(sqlite_world.post("/oauth/introspect", form), "invalid_client", status=401)
