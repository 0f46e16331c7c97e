"""Threats A20-A33: the exchange request itself. What is refused leaves nothing behind but one audit event."""

import json
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from statistics import median
from typing import Any
from urllib.parse import urlencode

import pytest
from joserfc.jwk import ECKey
from sqlalchemy import select

from authserver import jose, revoke, upkeep
from authserver.actors import agents
from authserver.actors.client_authentication import JWT_BEARER, JWT_SPIFFE
from authserver.consent import Granted
from authserver.policy.delegation_details import DelegationDetails
from authserver.revoke import Target
from authserver.schema import Action, Agent, Delegation, IdempotencyKey, ResourceServer, User, table_of
from tests.attacks.making import (
    change,
    claims_for,
    dpop_proof,
    foreign_key,
    grant_for,
    handed_on,
    named,
    record_of,
    sizes,
)
from tests.world import ACCESS_TOKEN, BASKET_HELPER, JWT, MARKET, PRICE_SCOUT, SHOP, World, running_world

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
GRANT = "urn:authserver:token-type:delegation-grant"
SCOPE = {"authorization_details": None, "scope": "catalog.search", "resource": MARKET}


def _without(world: World, grant: str, *left_out: str) -> dict[str, str]:
    return world.form(grant, **dict.fromkeys(left_out))


# --- A20: where parameters stand, and how often ---------------------------------------------------------------------

PARAMETERS = (
    "grant_type",
    "subject_token",
    "subject_token_type",
    "actor_token",
    "actor_token_type",
    "authorization_details",
    "resource",
)


def _full_form(world: World, grant: str) -> dict[str, str]:
    return world.form(grant, resource=MARKET, client_id="basket-helper", task_id="t1")


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("also_in_body", [True, False], ids=["in_both", "in_the_query_alone"])
def test_A20_a_parameter_in_the_query_string_is_refused(
    shared_world: World, shared_grant: str, name: str, also_in_body: bool
) -> None:
    form = _full_form(shared_world, shared_grant)
    query = urlencode({name: form[name]})
    if not also_in_body:
        del form[name]
    with shared_world.nothing_happens("form.query"):
        shared_world.refuses(shared_world.post(f"/oauth/token?{query}", form), "invalid_request")


@pytest.mark.parametrize("query", ["unknown=1", "resource=https%3A%2F%2Fevil.example", "a", "&", "%00"])
def test_A20_nothing_at_all_may_stand_in_the_query_string(
    shared_world: World, shared_grant: str, query: str
) -> None:
    with shared_world.nothing_happens("form.query"):
        answer = shared_world.post(f"/oauth/token?{query}", _full_form(shared_world, shared_grant))
        shared_world.refuses(answer, "invalid_request")


def test_A20_a_whole_request_in_the_query_string_is_refused(either_world: World) -> None:
    query = urlencode(_full_form(either_world, either_world.granted().grant))
    with either_world.nothing_happens("form.query"):
        either_world.refuses(
            either_world.client.post(f"/oauth/token?{query}", headers=FORM), "invalid_request"
        )


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in PARAMETERS if name != "resource"),
        "client_id",
        "task_id",
        "scope",
        "requested_token_type",
        "completion_mode",
        "client_assertion",
        "client_assertion_type",
        "nobody_knows_it",
    ],
)
@pytest.mark.parametrize("second", ["same", "another"])
def test_A20_a_repeated_parameter_is_refused(
    shared_world: World, shared_grant: str, name: str, second: str
) -> None:
    form: dict[str, Any] = dict(_full_form(shared_world, shared_grant))
    first = form.get(name, "x")
    form[name] = [first, first if second == "same" else "y"]
    with shared_world.nothing_happens("form.repeated"):
        shared_world.refuses(shared_world.post("/oauth/token", form), "invalid_request")


# --- A21: bodies that are no form -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    named(
        {
            "none": "",
            "json": "application/json",
            "multipart": "multipart/form-data; boundary=x",
            "text": "text/plain",
            "xml": "application/xml",
            "two_in_one": "application/x-www-form-urlencoded, application/json",
            "look_alike": "application/x-www-form-urlencoded-evil",
            "utf_16": "application/x-www-form-urlencoded; charset=utf-16",
            "utf_7": "application/x-www-form-urlencoded; charset=utf-7",
            "latin_1": "application/x-www-form-urlencoded; charset=iso-8859-1",
            "ebcdic": "application/x-www-form-urlencoded; charset=cp037",
            "unknown_charset": "application/x-www-form-urlencoded; charset=no-such",
            "extended_charset": "application/x-www-form-urlencoded; charset*=utf-16''utf-16",
            "broken_extended_charset": "application/x-www-form-urlencoded; charset*=x'y'%ff",
        }
    ),
)
def test_A21_another_content_type_is_refused(
    shared_world: World, shared_grant: str, content_type: str
) -> None:
    body = urlencode(_full_form(shared_world, shared_grant))
    headers = {"Content-Type": content_type} if content_type else {}
    with shared_world.nothing_happens():
        answer = shared_world.client.post("/oauth/token", content=body, headers=headers)
        shared_world.refuses(answer, "invalid_request", status=415)


@pytest.mark.parametrize(
    "added",
    named(
        {
            "nul_in_a_value": b"&task_id=a%00b",
            "nul_in_a_name": b"&task%00_id=a",
            "raw_nul": b"&task_id=a\x00b",
            "invalid_utf_8": b"&task_id=%ff%fe",
            "overlong_utf_8": b"&task_id=%c0%af",
            "surrogate": b"&task_id=%ed%a0%80",
            "cut_off_utf_8": b"&task_id=%e2%82",
            "raw_latin_1": b"&task_id=caf\xe9",
            "raw_utf_8": "&task_id=café".encode(),
            "no_equals_sign": b"&task_id",
            "nothing_between": b"&&task_id=a",
            "json_after_it": b'&{"task_id": "a"}',
            "65_parameters": b"".join(b"&p%d=1" % number for number in range(65)),
            "10000_parameters": b"".join(b"&p%d=1" % number for number in range(10_000)),
        }
    ),
)
def test_A21_a_broken_body_is_refused(shared_world: World, shared_grant: str, added: bytes) -> None:
    body = urlencode(_full_form(shared_world, shared_grant) | {"task_id": ""}).encode() + added
    with shared_world.nothing_happens():
        answer = shared_world.client.post("/oauth/token", content=body, headers=FORM)
        shared_world.refuses(answer, "invalid_request")


@pytest.mark.parametrize(
    "body",
    named(
        {
            "empty": b"",
            "json_object": b'{"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange"}',
            "json_array": b"[]",
            "byte_order_mark": b"\xef\xbb\xbfgrant_type=x",
            "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
            "multipart": b'--x\r\nContent-Disposition: form-data; name="grant_type"\r\n\r\nx\r\n--x--',
            "semicolons": b"grant_type=x;subject_token=y",
        }
    ),
)
def test_A21_a_body_that_is_no_form_is_refused(shared_world: World, body: bytes) -> None:
    with shared_world.nothing_happens():
        answer = shared_world.client.post("/oauth/token", content=body, headers=FORM)
        assert answer.status_code == 400
        assert answer.json()["error"] in ("invalid_request", "unsupported_grant_type")


def _in_pieces(total: int) -> Iterator[bytes]:
    yield b"task_id="
    for _ in range(total // 8_192):
        yield b"a" * 8_192


@pytest.mark.parametrize("chunked", [False, True], ids=["with_its_length", "chunked"])
def test_A21_a_body_of_a_megabyte_is_refused(shared_world: World, chunked: bool) -> None:
    content = _in_pieces(1_048_576) if chunked else b"".join(_in_pieces(1_048_576))
    with shared_world.nothing_happens("form.size"):
        answer = shared_world.client.post(
            "/oauth/token", content=content, headers=FORM | {"Connection": "close"}
        )
        shared_world.refuses(answer, "invalid_request", status=413)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_A21_only_post_asks_for_tokens(shared_world: World, shared_grant: str, method: str) -> None:
    rows = shared_world.rows()
    form = urlencode(_full_form(shared_world, shared_grant))
    answer = shared_world.client.request(
        method, "/oauth/token", content=form, headers=FORM | {"X-HTTP-Method-Override": "POST"}
    )
    assert answer.status_code == 405
    assert answer.json()["error"] == "invalid_request"
    assert shared_world.rows() == rows


# --- A22: the two tokens and their types ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "left_out",
    [
        ("actor_token", "actor_token_type"),
        ("actor_token",),
        ("actor_token_type",),
        ("subject_token", "subject_token_type"),
        ("subject_token",),
        ("subject_token_type",),
    ],
    ids=lambda names: "_and_".join(names),
)
@pytest.mark.parametrize("as_empty", [False, True], ids=["absent", "empty"])
def test_A22_a_token_without_its_type_or_a_type_without_its_token_is_refused(
    shared_world: World, shared_grant: str, left_out: tuple[str, ...], as_empty: bool
) -> None:
    form = _without(shared_world, shared_grant, *left_out)
    if as_empty:
        form |= dict.fromkeys(left_out, "")
    with shared_world.nothing_happens():
        shared_world.refuses(shared_world.post("/oauth/token", form), "invalid_request")


@pytest.mark.parametrize(
    "types",
    named(
        {
            "swapped": {"subject_token_type": JWT, "actor_token_type": GRANT},
            "actor_id_token": {"actor_token_type": "urn:ietf:params:oauth:token-type:id_token"},
            "actor_access_token": {"actor_token_type": ACCESS_TOKEN},
            "actor_saml": {"actor_token_type": "urn:ietf:params:oauth:token-type:saml2"},
            "actor_unknown": {"actor_token_type": "jwt"},
            "actor_upper_case": {"actor_token_type": JWT.upper()},
            "subject_id_token": {"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"},
            "subject_access_token": {"subject_token_type": ACCESS_TOKEN},
            "subject_refresh_token": {"subject_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
            "subject_unknown": {"subject_token_type": "urn:authserver:token-type:other"},
            "subject_with_a_space": {"subject_token_type": f" {JWT}"},
        }
    ),
)
def test_A22_another_token_type_is_refused(
    shared_world: World, shared_grant: str, types: dict[str, str]
) -> None:
    with shared_world.nothing_happens():
        shared_world.refuses(shared_world.exchange(shared_grant, **types), "invalid_request")


@pytest.mark.parametrize("subject_type", [JWT, GRANT], ids=["jwt", "delegation_grant"])
def test_A22_swapped_tokens_are_refused(either_world: World, subject_type: str) -> None:
    grant = either_world.granted().grant
    with either_world.nothing_happens():
        answer = either_world.exchange(
            either_world.assertion(), actor_token=grant, subject_token_type=subject_type, actor_token_type=JWT
        )
        either_world.refuses(answer, "invalid_request")


@pytest.mark.parametrize("same", ["grant", "assertion"])
def test_A22_one_token_in_both_places_is_refused(shared_world: World, shared_grant: str, same: str) -> None:
    token = shared_grant if same == "grant" else shared_world.assertion()
    with shared_world.nothing_happens():
        shared_world.refuses(shared_world.exchange(token, actor_token=token), "invalid_request")


# --- A23: a valid grant in other hands ------------------------------------------------------------------------------


def _of_the_scout(world: World, grant: str, **changes: Any) -> dict[str, Any]:
    """The answer that price-scout gets for somebody's grant."""
    with world.nothing_happens():
        answer = world.exchange(grant, actor_token=world.assertion(PRICE_SCOUT), **changes)
        return world.refuses(answer, "invalid_request")


def _forged(world: World, grant_id: str) -> str:
    return grant_for(world, grant_id, key=foreign_key(world.services.signing_keys.active().kid))


def test_A23_another_agents_valid_assertion_gets_nothing_for_a_grant(either_world: World) -> None:
    granted = either_world.granted()
    asked = _of_the_scout(either_world, granted.grant)
    assert asked == _of_the_scout(either_world, _forged(either_world, granted.grant_id))
    assert either_world.exchange(granted.grant).status_code == 200


@pytest.mark.parametrize("fate", ["revoked", "expired", "paused", "spent", "another_place", "not_registered"])
def test_A23_the_other_agent_learns_nothing_of_the_grant(sqlite_world: World, fate: str) -> None:
    world = sqlite_world
    granted = world.granted(limits={"currency": "EUR", "per_action": "42.50", "total": "42.50"})
    forged = _of_the_scout(world, _forged(world, granted.grant_id))
    changes: dict[str, Any] = {}
    if fate == "revoked":
        _revoke(world, "delegation", granted.grant_id)
    elif fate == "paused":
        change(world, Delegation, {"id": granted.grant_id}, paused_at=world.clock.now())
    elif fate == "spent":
        assert world.exchange(granted.grant).status_code == 200
    elif fate == "another_place":
        changes = {"resource": SHOP}
    elif fate == "not_registered":
        changes = {"action": world.action(locations=["https://nowhere.example"])}
    else:
        world.clock.advance(days=31)
    assert _of_the_scout(world, granted.grant, **changes) == forged


def test_A23_another_agents_idempotency_key_gives_away_nothing(world: World) -> None:
    granted, key = world.granted(), {"Idempotency-Key": "one"}
    assert world.exchange(granted.grant, headers=key).status_code == 200
    forged = _of_the_scout(world, _forged(world, granted.grant_id))
    assert _of_the_scout(world, granted.grant, headers=key) == forged


# --- A24: another client than the actor -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "client_id",
    ["price-scout", "nobody", "BASKET-HELPER", "basket-helper ", "basket-helpe", "rs_market", BASKET_HELPER],
)
def test_A24_another_client_id_is_refused_whoever_it_is(
    shared_world: World, shared_grant: str, client_id: str
) -> None:
    with shared_world.nothing_happens("client.other_agent"):
        answer = shared_world.exchange(shared_grant, client_id=client_id)
        body = shared_world.refuses(answer, "invalid_request")
    assert body["error_description"] == "client_id is not the actor"


def _private_key_jwt(world: World, client_id: str, key: ECKey) -> str:
    now = world.clock.now()
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": world.issuer,
        "jti": secrets.token_urlsafe(8),
        "exp": int((now + timedelta(minutes=1)).timestamp()),
    }
    return jose.sign(claims, key=jose.SigningKey(key.thumbprint(), key), typ="JWT")


def _with_keys(world: World, client_id: str) -> ECKey:
    key = ECKey.generate_key("P-256")
    public = key.as_dict(private=False) | {"kid": key.thumbprint()}
    change(world, Agent, {"client_id": client_id}, jwks=json.dumps({"keys": [public]}))
    return key


def test_A24_a_client_assertion_of_another_agent_is_refused(either_world: World) -> None:
    granted, key = either_world.granted(), _with_keys(either_world, "price-scout")
    others = {
        JWT_SPIFFE: either_world.assertion(PRICE_SCOUT),
        JWT_BEARER: _private_key_jwt(either_world, "price-scout", key),
    }
    for kind, assertion in others.items():
        for client_id in (None, "basket-helper", "price-scout"):
            with either_world.nothing_happens():
                answer = either_world.exchange(
                    granted.grant,
                    client_assertion=assertion,
                    client_assertion_type=kind,
                    client_id=client_id,
                )
                either_world.refuses(answer, "invalid_client", status=401)


def test_A24_the_actors_own_client_assertion_is_taken(either_world: World) -> None:
    granted, key = either_world.granted(), _with_keys(either_world, "basket-helper")
    for kind, assertion in (
        (JWT_SPIFFE, either_world.assertion()),
        (JWT_BEARER, _private_key_jwt(either_world, "basket-helper", key)),
    ):
        answer = either_world.exchange(granted.grant, client_assertion=assertion, client_assertion_type=kind)
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("authorization", ["rs_market", "wrong_secret", "bearer", "garbage"])
def test_A24_another_clients_secret_is_refused(
    shared_world: World, shared_grant: str, authorization: str
) -> None:
    auth = {
        "rs_market": (shared_world.market_id, shared_world.market_secret),
        "wrong_secret": ("basket-helper", "guess"),
    }.get(authorization)
    value = b"Bearer x" if authorization == "bearer" else b"\x7f\xff"
    headers = {} if auth else {b"Authorization": value}
    with shared_world.nothing_happens():
        form = shared_world.form(shared_grant)
        answer = shared_world.client.post("/oauth/token", data=form, auth=auth, headers=headers)
        shared_world.refuses(answer, "invalid_client", status=401)
    assert shared_world.issuer not in answer.json()["error_description"]


def test_A24_two_ways_to_authenticate_are_refused(shared_world: World, shared_grant: str) -> None:
    form = shared_world.form(
        shared_grant, client_assertion=shared_world.assertion(), client_assertion_type=JWT_SPIFFE
    )
    auth = (shared_world.market_id, shared_world.market_secret)
    with shared_world.nothing_happens("client.two_ways"):
        answer = shared_world.client.post("/oauth/token", data=form, auth=auth)
        shared_world.refuses(answer, "invalid_request")


# --- A25: exactly one resource server -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "targets",
    named(
        {
            "two_resources": {"resource": [MARKET, SHOP]},
            "one_resource_twice": {"resource": [MARKET, MARKET]},
            "two_audiences": {"audience": ["rs_market", "rs_shop"]},
            "one_audience_twice": {"audience": [MARKET, MARKET]},
            "one_audience_in_two_spellings": {"audience": [MARKET, "rs_market"]},
            "resource_and_audience_differ": {"resource": MARKET, "audience": SHOP, "locations": None},
            "resource_and_audience_id_differ": {"resource": MARKET, "audience": "rs_shop"},
            "resource_and_locations_differ": {"resource": SHOP},
            "audience_and_locations_differ": {"audience": "rs_shop"},
            "two_locations": {"locations": [MARKET, SHOP]},
            "one_location_twice": {"locations": [MARKET, MARKET]},
            "two_locations_and_a_resource": {"locations": [SHOP, MARKET], "resource": MARKET},
            "none": {"locations": None},
            "none_but_empty_ones": {"locations": None, "resource": "", "audience": ""},
            "any": {"locations": ["any"]},
            "unknown_resource": {"resource": "https://nowhere.example", "locations": None},
            "unknown_audience": {"audience": "rs_nowhere", "locations": None},
            "unknown_location": {"locations": ["https://nowhere.example"]},
            "unknown_beside_a_known": {"audience": "rs_nowhere"},
            "location_by_its_id": {"locations": ["rs_market"]},
            "an_agent": {"audience": "price-scout", "locations": None},
            "this_server": {"audience": "ISSUER", "locations": None},
        }
    ),
)
def test_A25_anything_but_one_resource_server_is_no_target(
    shared_world: World, shared_grant: str, targets: dict[str, Any]
) -> None:
    locations = {"locations": targets["locations"]} if "locations" in targets else {}
    form: dict[str, Any] = dict(shared_world.form(shared_grant, action=shared_world.action(**locations)))
    form |= {name: value for name, value in targets.items() if name != "locations"}
    if form.get("audience") == "ISSUER":
        form["audience"] = shared_world.issuer
    with shared_world.nothing_happens():
        shared_world.refuses(shared_world.post("/oauth/token", form), "invalid_target")


def test_A25_two_resources_are_no_target(either_world: World) -> None:
    form: dict[str, Any] = {**either_world.form(either_world.granted().grant), "resource": [SHOP, MARKET]}
    with either_world.nothing_happens("target.several"):
        either_world.refuses(either_world.post("/oauth/token", form), "invalid_target")


def test_A25_a_disabled_resource_server_is_no_target(world: World) -> None:
    granted = world.granted()
    unknown = world.exchange(granted.grant, action=world.action(locations=["https://nowhere.example"]))
    change(world, ResourceServer, {"id": "rs_market"}, disabled_at=world.clock.now())
    with world.nothing_happens("target.unknown"):
        world.refuses(answer := world.exchange(granted.grant), "invalid_target")
    assert answer.json() == unknown.json()


def test_A25_names_that_agree_are_one_target(sqlite_world: World) -> None:
    granted = sqlite_world.granted()
    for audience in ("rs_market", MARKET):
        answer = sqlite_world.exchange(granted.grant, resource=MARKET, audience=audience)
        assert answer.status_code == 200, answer.text


# --- A26: look-alikes of an identifier ------------------------------------------------------------------------------

LOOK_ALIKES = {
    "fragment": f"{MARKET}#a",
    "empty_fragment": f"{MARKET}#",
    "query": f"{MARKET}?a=b",
    "empty_query": f"{MARKET}?",
    "user_name": "https://market.example@evil.example/api",
    "user_name_before_it": "https://evil.example@market.example/api",
    "empty_user_name": "https://@market.example/api",
    "upper_case_host": "https://MARKET.example/api",
    "upper_case_scheme": "HTTPS://market.example/api",
    "upper_case_path": "https://market.example/API",
    "default_port": "https://market.example:443/api",
    "other_port": "https://market.example:8443/api",
    "empty_port": "https://market.example:/api",
    "http": "http://market.example/api",
    "slash_at_the_end": f"{MARKET}/",
    "double_slash": "https://market.example//api",
    "dot_segment": "https://market.example/./api",
    "dot_dot_segment": "https://market.example/x/../api",
    "encoded_dot_dot": "https://market.example/x/%2e%2e/api",
    "encoded_letter": "https://market.example/%61pi",
    "encoded_host": "https://m%61rket.example/api",
    "encoded_slash": "https://market.example%2Fapi",
    "backslash": "https://market.example\\api",
    "semicolon": f"{MARKET};a=b",
    "dot_after_the_host": "https://market.example./api",
    "sub_domain": "https://api.market.example/api",
    "longer_host": "https://market.example.evil.example/api",
    "prefix": "https://market.example/ap",
    "below_it": f"{MARKET}/payments",
    "cyrillic": "https://mаrket.example/api",
    "punycode": "https://xn--mrket-3ve.example/api",
    "full_width": "https://ｍarket.example/api",
    "soft_hyphen": "https://mar\u00adket.example/api",
    "zero_width": "https://market.example/\u200bapi",
    "full_width_dot": "https://market．example/api",
    "space_before": f" {MARKET}",
    "space_after": f"{MARKET} ",
    "tab_inside": "https://market\t.example/api",
    "line_end_after": f"{MARKET}\n",
    "carriage_return_after": f"{MARKET}\r\n",
    "no_scheme": "market.example/api",
    "like_pattern": "https://market.example/%",
    "two_in_one": f"{MARKET} {SHOP}",
}


@pytest.mark.parametrize("place", ["resource", "audience", "locations"])
@pytest.mark.parametrize("identifier", named(LOOK_ALIKES))
def test_A26_a_look_alike_of_an_identifier_is_no_target(
    shared_world: World, shared_grant: str, identifier: str, place: str
) -> None:
    if place == "locations":
        form = shared_world.form(shared_grant, action=shared_world.action(locations=[identifier]))
    else:
        form = shared_world.form(shared_grant, action=shared_world.action(locations=None))
        form[place] = identifier
    with shared_world.nothing_happens():
        shared_world.refuses(shared_world.post("/oauth/token", form), "invalid_target")


@pytest.mark.parametrize("name", ["upper_case_host", "slash_at_the_end", "default_port", "below_it"])
def test_A26_identifiers_compare_as_exact_text(either_world: World, name: str) -> None:
    granted = either_world.granted()
    for place in ({"resource": LOOK_ALIKES[name]}, {"audience": LOOK_ALIKES[name]}):
        with either_world.nothing_happens("target.unknown"):
            answer = either_world.exchange(granted.grant, action=either_world.action(locations=None), **place)
            either_world.refuses(answer, "invalid_target")


# --- A27: the row decides, whatever a grant claims ------------------------------------------------------------------


def _wider(world: World, granted: Granted) -> dict[str, object]:
    claims = claims_for(world, granted.grant_id)
    (details,) = claims["authorization_details"]
    limits = details["limits"] | {"per_action": "9999.00", "total": "9999.00"}
    return {"authorization_details": [details | {"limits": limits}], "exp": claims["exp"] + 86_400}


@pytest.mark.parametrize("signer", ["foreign", "foreign_with_our_kid", "trust_domain", "nobody"])
@pytest.mark.parametrize("edited", [False, True], ids=["as_it_is", "edited"])
def test_A27_a_grant_signed_by_a_foreign_key_is_refused(
    sqlite_world: World, signer: str, edited: bool
) -> None:
    world, granted = sqlite_world, sqlite_world.granted()
    changes = _wider(world, granted) if edited else {}
    keys = {
        "foreign": foreign_key(),
        "foreign_with_our_kid": foreign_key(world.services.signing_keys.active().kid),
        "trust_domain": world.domain_key(),
    }
    forged = grant_for(world, granted.grant_id, key=keys.get(signer), **changes)
    if signer == "nobody":  # our signature of the true grant under the edited claims
        signature = granted.grant.rpartition(".")[2]
        forged = f"{forged.rpartition('.')[0]}.{signature}" if edited else f"{granted.grant[:-4]}AAAA"
    with world.nothing_happens():
        world.refuses(world.exchange(forged), "invalid_request")


def test_A27_claims_wider_than_the_row_allow_nothing_more(either_world: World) -> None:
    granted = either_world.granted()
    wide = grant_for(either_world, granted.grant_id, **_wider(either_world, granted))
    action = either_world.action(amount={"currency": "EUR", "value": "80.01"})
    with either_world.nothing_happens("limits.per_action"):
        answer = either_world.exchange(wide, action=action)
        body = either_world.refuses(answer, "invalid_authorization_details", constraint="limits.per_action")
    assert body["violations"] == [
        {"constraint": "limits.per_action", "requested": "80.01", "allowed": "80.00"}
    ]


@pytest.mark.parametrize("member", ["details", "expires_at", "client_id", "missing"])
def test_A27_a_row_that_says_less_than_its_grant_decides(either_world: World, member: str) -> None:
    granted, now = either_world.granted(), either_world.clock.now()
    less: dict[str, object] = {
        "details": {"details": either_world.services.stored.write(_lower(either_world, granted))},
        "expires_at": {"expires_at": now},
        "client_id": {"client_id": "price-scout"},
        "missing": {"user_id": "nobody"},
    }[member]
    change(either_world, Delegation, {"id": granted.grant_id}, **less)  # type: ignore[arg-type]
    error = "invalid_authorization_details" if member == "details" else "invalid_request"
    with either_world.nothing_happens():
        either_world.refuses(either_world.exchange(granted.grant), error)


def _lower(world: World, granted: Granted) -> DelegationDetails:
    lower = world.granted(limits={"currency": "EUR", "per_action": "10.00", "total": "10.00"})
    return record_of(world, lower.grant_id).details


@pytest.mark.parametrize(
    "claims",
    named(
        {
            "of_another_agent": {"client_id": "price-scout"},
            "of_another_workload": {"may_act": {"iss": "spiffe://example.org", "sub": PRICE_SCOUT}},
            "of_another_issuer": {"may_act": {"iss": "spiffe://evil.example", "sub": BASKET_HELPER}},
            "of_no_delegation": {"jti": "there-is-none"},
        }
    ),
)
def test_A27_claims_of_another_agents_grant_do_not_move_it(
    either_world: World, claims: dict[str, object]
) -> None:
    granted = either_world.granted(agent="price-scout")
    stolen = grant_for(
        either_world,
        granted.grant_id,
        **{"client_id": "basket-helper", "may_act": {"iss": "spiffe://example.org", "sub": BASKET_HELPER}},
    )
    for grant in (stolen, grant_for(either_world, granted.grant_id, **claims)):
        with either_world.nothing_happens():
            either_world.refuses(either_world.exchange(grant), "invalid_request")


# --- A28: a delegation that does not stand --------------------------------------------------------------------------


def _revoke(world: World, kind: Any, name: str) -> None:
    revoke.revoke(world.services, Target(kind, name), reason="a test", by="operator", now=world.clock.now())


def _end(world: World, granted: Granted, how: str) -> None:
    """Do to a delegation, or to whom it binds, what ends it."""
    record, now = record_of(world, granted.grant_id), world.clock.now()
    if how == "expired":
        change(world, Delegation, {"id": record.id}, expires_at=now)
    elif how == "not_yet_valid":
        change(world, Delegation, {"id": record.id}, not_before=now + timedelta(microseconds=1))
    elif how == "paused":
        change(world, Delegation, {"id": record.id}, paused_at=now)
    elif how == "user_disabled":
        change(world, User, {"user_id": record.user_id}, disabled_at=now)
    elif how == "agent_disabled":
        world.services.database.write(lambda c: agents.disable(c, record.client_id, now))
    else:
        target = {
            "delegation_revoked": ("delegation", record.id),
            "agent_revoked": ("agent", record.client_id),
            "user_revoked": ("user", record.user_id),
            "trust_domain_revoked": ("trust_domain", "example.org"),
            "all_revoked": ("all", ""),
        }[how]
        _revoke(world, *target)


ENDINGS = (
    "expired",
    "not_yet_valid",
    "paused",
    "user_disabled",
    "agent_disabled",
    "delegation_revoked",
    "agent_revoked",
    "user_revoked",
    "trust_domain_revoked",
    "all_revoked",
)


@pytest.mark.parametrize("how", ENDINGS)
def test_A28_a_delegation_that_has_ended_mints_nothing(world: World, how: str) -> None:
    granted, key = world.granted(), {"Idempotency-Key": "before"}
    before = world.exchange(granted.grant, headers=key).json()
    _end(world, granted, how)
    # Neither anew, nor by scope, nor as a retry of what was given before.
    for request in ({}, SCOPE, {"headers": key}):
        with world.nothing_happens():
            world.refuses(world.exchange(granted.grant, **request), "invalid_request")  # type: ignore[arg-type]
    expected = how == "not_yet_valid"  # its token was given while it was valid
    if not expected:
        assert world.introspect(before["access_token"]) == {"active": False}


@pytest.mark.parametrize("how", ENDINGS)
def test_A28_an_ancestor_that_has_ended_ends_what_is_below(sqlite_world: World, how: str) -> None:
    parent = sqlite_world.granted(redelegation={"depth": 2})
    child = handed_on(sqlite_world, parent)
    scout = {"actor_token": sqlite_world.assertion(PRICE_SCOUT)}
    before = sqlite_world.exchange(child.grant, **scout)
    assert before.status_code == 200, before.text
    _end(sqlite_world, parent, how)
    for request in ({}, SCOPE):
        with sqlite_world.nothing_happens():
            answer = sqlite_world.exchange(child.grant, **scout, **request)
            sqlite_world.refuses(answer, "invalid_request")
    if how != "not_yet_valid":
        assert sqlite_world.introspect(before.json()["access_token"]) == {"active": False}


def test_A28_the_first_and_the_last_instant_of_a_delegation(sqlite_world: World) -> None:
    world, now = sqlite_world, sqlite_world.clock.now()
    begin, end = now + timedelta(hours=1), now + timedelta(hours=2)
    text = [instant.isoformat().replace("+00:00", "Z") for instant in (begin, end)]
    granted = world.granted(not_before=text[0], expires=text[1])
    microsecond = timedelta(microseconds=1)
    for instant, stands in (
        (begin - microsecond, False),
        (begin, True),
        (end - timedelta(seconds=1), True),
        (end, False),
    ):
        world.clock.set(instant)
        answer = world.exchange(granted.grant)
        assert (answer.status_code == 200) is stands, answer.text
        if stands:
            assert answer.json()["expires_in"] <= (end - instant).total_seconds()


def test_A28_the_agent_is_told_that_its_delegation_ended_and_no_more(sqlite_world: World) -> None:
    granted = sqlite_world.granted()
    _revoke(sqlite_world, "user", record_of(sqlite_world, granted.grant_id).user_id)
    body = sqlite_world.refuses(sqlite_world.exchange(granted.grant), "invalid_request")
    assert body["error_description"] == "the delegation was revoked"


# --- A29: scope ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scope",
    named(
        {
            "needs_an_amount": "payment.finalize",
            "needs_data": "profile.read",
            "needs_a_reference": "order.change_address",
            "checked_against_limits": "order.checkout",
            "two": "catalog.search cart.update",
            "one_twice": "catalog.search catalog.search",
            "two_with_a_comma": "catalog.search,cart.update",
            "two_with_a_tab": "catalog.search\tcart.update",
            "unknown": "catalog.steal",
            "openid": "openid",
            "upper_case": "CATALOG.SEARCH",
            "space_after": "catalog.search ",
            "space_before": " catalog.search",
            "blank": " ",
            "wildcard": "*",
            "prefix": "catalog",
            "json": '["catalog.search"]',
            "long": "catalog.search" * 1_000,
        }
    ),
)
def test_A29_a_scope_that_is_not_one_action_without_details_is_refused(
    shared_world: World, shared_grant: str, scope: str
) -> None:
    with shared_world.nothing_happens():
        answer = shared_world.exchange(shared_grant, **SCOPE | {"scope": scope})
        shared_world.refuses(answer, "invalid_scope")


@pytest.mark.parametrize("details", [True, False], ids=["both", "neither"])
def test_A29_scope_and_details_exclude_each_other(either_world: World, details: bool) -> None:
    granted = either_world.granted()
    both = {"scope": "catalog.search"}
    neither = {"authorization_details": None, "resource": MARKET}
    with either_world.nothing_happens("form.details_or_scope"):
        answer = either_world.exchange(granted.grant, **(both if details else neither))
        either_world.refuses(answer, "invalid_request")


def test_A29_a_scope_that_was_not_delegated_is_refused(either_world: World) -> None:
    granted = either_world.granted()
    with either_world.nothing_happens("actions"):
        answer = either_world.exchange(granted.grant, **SCOPE | {"scope": "cart.update"})
        either_world.refuses(answer, "invalid_authorization_details", constraint="actions")
    assert either_world.exchange(granted.grant, **SCOPE).json()["scope"] == "catalog.search"


def test_A29_every_scope_of_the_metadata_can_be_asked_for(sqlite_world: World) -> None:
    scopes = sqlite_world.client.get("/.well-known/oauth-authorization-server").json()["scopes_supported"]
    granted = sqlite_world.granted(actions=scopes)
    for scope in scopes:
        answer = sqlite_world.exchange(granted.grant, **SCOPE | {"scope": scope})
        assert answer.status_code == 200, answer.text


def test_A29_a_token_for_a_payment_never_carries_a_scope(sqlite_world: World) -> None:
    answer = sqlite_world.exchange(sqlite_world.granted().grant).json()
    assert "scope" not in answer
    assert "scope" not in sqlite_world.introspect(answer["access_token"])


# --- A30: idempotency keys -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    named(
        {
            "empty": b"",
            "129_characters": b"k" * 129,
            "10_kilobytes": b"k" * 10_240,
            "space_inside": b"a b",
            "tab_inside": b"a\tb",
            "latin_1": b"caf\xe9",
            "utf_8": "ключ".encode(),
            "delete": b"a\x7f",
        }
    ),
)
def test_A30_a_malformed_key_is_refused(shared_world: World, shared_grant: str, key: bytes) -> None:
    form = shared_world.form(shared_grant)
    with shared_world.nothing_happens("idempotency_key"):
        answer = shared_world.client.post("/oauth/token", data=form, headers={b"Idempotency-Key": key})
        shared_world.refuses(answer, "invalid_request")


def test_A30_the_longest_key_is_taken(sqlite_world: World) -> None:
    key = "".join(map(chr, range(0x21, 0x7F))) + "k" * 34
    answer = sqlite_world.exchange(sqlite_world.granted().grant, headers={"Idempotency-Key": key})
    assert answer.status_code == 200, answer.text


def test_A30_a_retry_gives_the_same_action_and_holds_nothing_twice(world: World) -> None:
    granted, key = world.granted(), {"Idempotency-Key": "one"}
    first = world.exchange(granted.grant, headers=key).json()
    rows = world.rows()
    world.clock.advance(seconds=10)
    again = world.exchange(granted.grant, headers=key).json()  # with a fresh assertion
    assert again["action_id"] == first["action_id"]
    assert again["expires_in"] == first["expires_in"] - 10
    told = [world.introspect(answer["access_token"]) for answer in (first, again)]
    assert told[0] == told[1]
    assert world.rows() == rows


@pytest.mark.parametrize("other", ["amount", "task", "place", "grant", "unknown_parameter", "scope", "type"])
def test_A30_a_key_with_another_request_is_refused(sqlite_world: World, other: str) -> None:
    granted, key = sqlite_world.granted(), {"Idempotency-Key": "one"}
    assert sqlite_world.exchange(granted.grant, headers=key).status_code == 200
    grant, request = granted.grant, {}
    if other == "grant":
        grant = sqlite_world.granted().grant
    else:
        request = {
            "amount": {"action": sqlite_world.action(amount={"currency": "EUR", "value": "42.51"})},
            "task": {"task_id": "t1"},
            "place": {"action": sqlite_world.action(locations=[SHOP])},
            "unknown_parameter": {"nobody_knows_it": "1"},
            "scope": SCOPE,
            "type": {"subject_token_type": GRANT},
        }[other]
    with sqlite_world.nothing_happens("idempotency_key.reused"):
        answer = sqlite_world.exchange(grant, headers=key, **request)  # type: ignore[arg-type]
        sqlite_world.refuses(answer, "invalid_request")


def test_A30_a_key_stays_with_its_dpop_key(world: World) -> None:
    granted, key, other = world.granted(), ECKey.generate_key("P-256"), ECKey.generate_key("P-256")

    def send(proof_key: ECKey | None) -> Any:
        proof = {"DPoP": dpop_proof(world, proof_key)} if proof_key else {}
        return world.exchange(granted.grant, headers={"Idempotency-Key": "one", **proof})

    first = send(key).json()
    assert send(key).json()["action_id"] == first["action_id"]
    for changed in (other, None):
        with world.nothing_happens("idempotency_key.reused"):
            world.refuses(send(changed), "invalid_request")


def test_A30_the_same_key_of_another_agent_is_independent(world: World) -> None:
    key = {"Idempotency-Key": "one"}
    first = world.exchange(world.granted().grant, headers=key).json()
    scout = world.granted(agent="price-scout")
    second = world.exchange(scout.grant, headers=key, actor_token=world.assertion(PRICE_SCOUT))
    assert second.status_code == 200, second.text
    assert second.json()["action_id"] != first["action_id"]
    assert world.rows().actions == 2


def test_A30_a_key_whose_token_has_ended_is_refused_and_later_forgotten(world: World) -> None:
    granted, key = world.granted(), {"Idempotency-Key": "one"}
    first = world.exchange(granted.grant, headers=key).json()
    world.clock.advance(seconds=120)
    with world.nothing_happens("idempotency_key.ended"):
        world.refuses(world.exchange(granted.grant, headers=key), "invalid_request")
    world.clock.advance(days=1)
    assert upkeep.tidy(world.services, world.clock.now()).idempotency_keys == 1
    assert world.rows().idempotency_keys == 0
    assert world.exchange(granted.grant, headers=key).json()["action_id"] != first["action_id"]


def test_A30_a_key_is_not_pruned_while_its_token_lives(world: World) -> None:
    granted, key = world.granted(), {"Idempotency-Key": "one"}
    first = world.exchange(granted.grant, headers=key).json()
    world.clock.advance(seconds=119)
    assert upkeep.tidy(world.services, world.clock.now()).idempotency_keys == 0
    assert world.exchange(granted.grant, headers=key).json()["action_id"] == first["action_id"]


def test_A30_a_hundred_thousand_keys_are_pruned_after_their_life(sqlite_world: World) -> None:
    world, now = sqlite_world, sqlite_world.clock.now()
    row = {"caller": "basket-helper", "request_hash": b"", "root_id": "r", "action_id": "a"}
    rows = [row | {"key": f"k{n}", "expires_at": now + timedelta(seconds=n % 120)} for n in range(100_000)]
    table = table_of(IdempotencyKey)
    world.services.database.write(lambda connection: connection.execute(table.insert(), rows))
    assert world.exchange(world.granted().grant, headers={"Idempotency-Key": "one"}).status_code == 200
    world.clock.advance(seconds=120)
    assert upkeep.tidy(world.services, world.clock.now()).idempotency_keys == 100_000
    assert world.rows().idempotency_keys == 1


def test_A30_one_key_sent_by_many_at_once_makes_one_action(world: World) -> None:
    granted, key = world.granted(), {"Idempotency-Key": "one"}
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: world.exchange(granted.grant, headers=key), range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["action_id"] for answer in answers}) == 1
    rows = world.rows()
    assert (rows.actions, rows.transfers, rows.idempotency_keys, rows.counted) == (1, 1, 1, 1)
    assert rows.reserved == 4250


def test_A30_a_refused_request_leaves_its_key_free(world: World) -> None:
    granted, key = world.granted(), {"Idempotency-Key": "one"}
    action = world.action(amount={"currency": "EUR", "value": "80.01"})
    with world.nothing_happens():
        world.refuses(
            world.exchange(granted.grant, action=action, headers=key), "invalid_authorization_details"
        )
    assert world.exchange(granted.grant, headers=key).status_code == 200


# --- A31: a captured request, sent again ----------------------------------------------------------------------------


def test_A31_a_replayed_request_draws_on_the_budget_anew_and_stays_within_it(world: World) -> None:
    granted = world.granted(limits={"currency": "EUR", "per_action": "80.00", "total": "100.00"})
    captured = world.form(granted.grant)
    tokens = [world.post("/oauth/token", captured).json()["action_id"] for _ in range(2)]
    assert len(set(tokens)) == 2
    assert world.rows().reserved == 8500
    with world.nothing_happens("limits.total"):
        body = world.refuses(world.post("/oauth/token", captured), "invalid_authorization_details")
    assert body["violations"] == [{"constraint": "limits.total", "requested": "42.50", "allowed": "15.00"}]
    permitted = [event for event in world.events() if event["event"] == "exchange.permitted"]
    assert [event["action_id"] for event in permitted] == tokens


def test_A31_a_replayed_dpop_proof_is_refused(either_world: World) -> None:
    granted = either_world.granted()
    captured, headers = (
        either_world.form(granted.grant),
        {"DPoP": dpop_proof(either_world, ECKey.generate_key("P-256"))},
    )
    assert either_world.post("/oauth/token", captured, headers).json()["token_type"] == "DPoP"
    with either_world.nothing_happens("dpop.replayed"):
        either_world.refuses(either_world.post("/oauth/token", captured, headers), "invalid_dpop_proof")


@pytest.fixture
def once_world(sqlite_url: str, tmp_path: Any) -> Iterator[World]:
    """A server that takes each assertion once."""
    folder = tmp_path / "world"
    domain = {
        "name": "example.org",
        "kind": "spiffe",
        "jwks_file": folder / "example.org" / "jwks.json",
        "refuse_repeated_jti": True,
    }
    with running_world(sqlite_url, folder, trust_domains=[domain]) as running:
        yield running


def test_A31_a_replayed_assertion_is_refused_where_it_is_good_once(once_world: World) -> None:
    granted = once_world.granted()
    captured = once_world.form(granted.grant)
    assert once_world.post("/oauth/token", captured).status_code == 200
    with once_world.nothing_happens("actor.replayed"):
        once_world.refuses(once_world.post("/oauth/token", captured), "invalid_request")


def test_A31_an_assertion_stays_used_when_its_request_was_refused(once_world: World) -> None:
    granted, assertion = once_world.granted(), once_world.assertion()
    action = once_world.action(amount={"currency": "EUR", "value": "80.01"})
    with once_world.nothing_happens("limits.per_action"):
        answer = once_world.exchange(granted.grant, action=action, actor_token=assertion)
        once_world.refuses(answer, "invalid_authorization_details")
    with once_world.nothing_happens("actor.replayed"):
        once_world.refuses(once_world.exchange(granted.grant, actor_token=assertion), "invalid_request")


# --- A32: probing ----------------------------------------------------------------------------------------------------


def _probe_subject(world: World, what: str, granted: Granted) -> str:
    ours = world.services.signing_keys.active()
    return {
        "forged": grant_for(world, granted.grant_id, key=foreign_key(ours.kid)),
        "delegation_of_nobody": grant_for(world, granted.grant_id, key=ours, jti=secrets.token_urlsafe(16)),
        "delegation_of_another_agent": grant_for(world, granted.grant_id, iat=secrets.randbits(31)),
    }[what]


def _probe(world: World, what: str, granted: Granted) -> Any:
    """One request of a prober who has a workload in the trust domain, but nobody's delegation."""
    scout = PRICE_SCOUT
    if what == "agent_of_nobody":
        return world.exchange(granted.grant, actor_token=world.assertion("spiffe://example.org/agent/nobody"))
    if what == "disabled_agent":
        return world.exchange(granted.grant, actor_token=world.assertion("spiffe://example.org/agent/old"))
    if what == "forged_assertion":
        forged = jose.sign(
            _claims_of(world.assertion(scout)), key=foreign_key(world.domain_key().kid), typ="JWT"
        )
        return world.exchange(granted.grant, actor_token=forged)
    subject = _probe_subject(world, what, granted)
    return world.exchange(subject, actor_token=world.assertion(scout))


def _claims_of(token: str) -> dict[str, object]:
    return dict(jose.read_compact(token).claims)


SUBJECT_PROBES = ("forged", "delegation_of_nobody", "delegation_of_another_agent")
ACTOR_PROBES = ("forged_assertion", "agent_of_nobody", "disabled_agent")


@pytest.fixture
def probed(world: World) -> tuple[World, Granted]:
    """A server with a disabled agent, and a delegation that the prober would like to know of."""
    now = world.clock.now()
    change_to = {"trust_domain": "example.org", "subject": "spiffe://example.org/agent/old", "name": "old"}
    row = change_to | {
        "client_id": "old",
        "redirect_uris": "[]",
        "created_at": now,
        "disabled_at": now,
    }
    world.services.database.write(lambda c: c.execute(table_of(Agent).insert(), row))
    return world, world.granted()


@pytest.mark.parametrize("probes", [SUBJECT_PROBES, ACTOR_PROBES], ids=["delegations", "agents"])
def test_A32_unknown_and_forged_get_one_answer(
    probed: tuple[World, Granted], probes: tuple[str, ...]
) -> None:
    world, granted = probed
    answers = []
    for what in probes:
        with world.nothing_happens():
            answers.append(_probe(world, what, granted))
    assert {answer.status_code for answer in answers} == {400}
    assert len({answer.text for answer in answers}) == 1
    seen = [
        {k: v for k, v in answer.headers.items() if k.lower() not in ("date", "x-request-id")}
        for answer in answers
    ]
    assert seen.count(seen[0]) == len(seen)


def test_A32_a_user_who_is_unknown_is_answered_as_a_forged_grant(world: World) -> None:
    granted = world.granted()
    forged = world.exchange(_probe_subject(world, "forged", granted))
    change(world, Delegation, {"id": granted.grant_id}, user_id="nobody")
    with world.nothing_happens():
        unknown = world.exchange(granted.grant)
    assert (unknown.status_code, unknown.text) == (400, forged.text)


@pytest.mark.parametrize("probes", [SUBJECT_PROBES, ACTOR_PROBES], ids=["delegations", "agents"])
def test_A32_time_does_not_tell_unknown_from_forged(
    probed: tuple[World, Granted], probes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, granted = probed
    checks: list[str] = []  # the signatures that one request had verified
    verify = jose.verify_bytes

    def counted(signed: bytes, signature: bytes, alg: str, key: jose.VerificationKey) -> None:
        checks.append(alg)
        verify(signed, signature, alg, key)

    monkeypatch.setattr(jose, "verify_bytes", counted)
    taken: dict[str, list[float]] = {what: [] for what in probes}
    work: dict[str, set[int]] = {what: set() for what in probes}
    for what in probes:
        _probe(world, what, granted)  # what is kept for later is kept now
    for _ in range(25):
        for what in probes:
            checks.clear()
            began = time.perf_counter()
            _probe(world, what, granted)
            taken[what].append(time.perf_counter() - began)
            work[what].add(len(checks))
    # A signature takes 0.1 ms, which no clock finds in a request of 5 ms: so they are counted.
    # Whoever presents a grant of another's has checked it, the true one and the forged one alike.
    assert len({frozenset(counts) for counts in work.values()}) == 1, work
    medians = {what: median(times) for what, times in taken.items()}
    assert max(medians.values()) < 2 * min(medians.values()) + 0.010, medians


# --- A33: what may be asked for -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "requested",
    [
        "urn:ietf:params:oauth:token-type:id_token",
        "urn:ietf:params:oauth:token-type:refresh_token",
        "urn:ietf:params:oauth:token-type:saml1",
        "urn:ietf:params:oauth:token-type:saml2",
        "urn:ietf:params:oauth:token-type:jwt",
        "access_token",
        ACCESS_TOKEN.upper(),
        f"{ACCESS_TOKEN} ",
        f"{ACCESS_TOKEN} urn:ietf:params:oauth:token-type:id_token",
        "urn:ietf:params:oauth:token-type:txn_token",
    ],
)
def test_A33_another_requested_token_type_is_refused(
    shared_world: World, shared_grant: str, requested: str
) -> None:
    with shared_world.nothing_happens("form.requested_token_type"):
        answer = shared_world.exchange(shared_grant, requested_token_type=requested)
        shared_world.refuses(answer, "invalid_request")


def test_A33_an_access_token_may_be_asked_for(either_world: World) -> None:
    answer = either_world.exchange(either_world.granted().grant, requested_token_type=ACCESS_TOKEN)
    assert answer.json()["issued_token_type"] == ACCESS_TOKEN


# --- beyond the rows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "grant_type",
    ["implicit", "client_credentials", "password", "refresh_token", "<a>\r\nX: 1", "%", "é"],
)
def test_another_grant_type_is_refused_without_an_echo(shared_world: World, grant_type: str) -> None:
    with shared_world.nothing_happens("token.unsupported_grant_type"):
        answer = shared_world.post("/oauth/token", {"grant_type": grant_type})
        body = shared_world.refuses(answer, "unsupported_grant_type")
    assert body["error_description"] == "the request is not acceptable"


@pytest.mark.parametrize("task_id", ["t" * 65, "a b", "a/b", "a\nb", "é", "a%", "../x", "a;b", "'"])
def test_a_malformed_task_id_is_refused(shared_world: World, shared_grant: str, task_id: str) -> None:
    with shared_world.nothing_happens("form.task_id"):
        shared_world.refuses(shared_world.exchange(shared_grant, task_id=task_id), "invalid_request")


def test_a_refusal_touches_no_table_but_the_audit(world: World) -> None:
    granted = world.granted()
    world.exchange(granted.grant)  # the block of status indices is taken
    before = sizes(world)
    for request in (
        {"action": world.action(amount={"currency": "EUR", "value": "80.01"})},
        {"client_id": "nobody"},
        {"resource": SHOP},
        {"actor_token": "x"},
    ):
        assert world.exchange(granted.grant, **request).status_code == 400  # type: ignore[arg-type]
    assert sizes(world) == before | {"audit_events": before["audit_events"] + 4}


def test_an_index_of_a_status_list_is_never_given_to_two_tokens(sqlite_world: World) -> None:
    world, granted = sqlite_world, sqlite_world.granted()
    for _ in range(20):
        assert world.exchange(granted.grant, **SCOPE).status_code == 200
        assert world.exchange(granted.grant, client_id="nobody").status_code == 400
    table = table_of(Action)
    query = select(table.c.status_list, table.c.status_index)
    indices = world.services.database.read(lambda c: c.execute(query).all())
    assert len(set(indices)) == len(indices) == 20
