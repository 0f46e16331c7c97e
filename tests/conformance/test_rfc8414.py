"""Authorization Server Metadata (RFC 8414)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conformance.tokens import claims_of, token_of, verified
from tests.world import MARKET, World, running_world

WELL_KNOWN = "/.well-known/oauth-authorization-server"
LISTS = (
    *("grant_types_supported", "response_types_supported", "scopes_supported"),
    *("authorization_details_types_supported", "dpop_signing_alg_values_supported"),
    *("token_endpoint_auth_methods_supported", "code_challenge_methods_supported"),
    *("revocation_endpoint_auth_methods_supported", "introspection_endpoint_auth_methods_supported"),
)


@pytest.fixture
def tenant(sqlite_url: str, tmp_path: Path) -> Iterator[World]:
    """A server whose issuer has a path; the world asks for everything below it."""
    with running_world(sqlite_url, tmp_path / "world", issuer_path="/tenant") as running:
        yield running


def metadata(world: World) -> dict[str, Any]:
    """What the server says of itself."""
    found: dict[str, Any] = world.client.get(WELL_KNOWN).json()
    return found


def urls(document: dict[str, Any]) -> dict[str, str]:
    """The endpoints and documents that the metadata names."""
    return {name: value for name, value in document.items() if name.endswith(("_endpoint", "_uri"))}


def test_the_metadata_is_a_json_object_for_whoever_asks(shared_world: World) -> None:
    """§3.1 and §3.2: GET, 200, application/json."""
    answer = shared_world.client.get(WELL_KNOWN)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert "public" in answer.headers["cache-control"]
    assert isinstance(answer.json(), dict)
    assert shared_world.client.post(WELL_KNOWN).status_code == 405


def test_the_issuer_is_the_url_that_the_document_was_found_under(shared_world: World) -> None:
    """§2 and §3.3: identical to the identifier that the well-known part was put into; no query, no fragment."""
    assert metadata(shared_world)["issuer"] == shared_world.url
    assert urlsplit(shared_world.url)[3:] == ("", "")


def test_every_url_is_absolute_and_of_the_issuer(shared_world: World) -> None:
    """§2: the endpoints and `jwks_uri` are URLs."""
    found = urls(metadata(shared_world))
    assert {"token_endpoint", "jwks_uri", "introspection_endpoint", "revocation_endpoint"} <= set(found)
    for name, url in found.items():
        assert url.startswith(f"{shared_world.issuer}/"), name
        assert urlsplit(url).fragment == "", name


def test_every_endpoint_that_is_named_is_served(shared_world: World) -> None:
    """§2: whoever follows the metadata arrives; an empty request is refused for what it lacks."""
    for name, url in urls(metadata(shared_world)).items():
        if name == "grant_management_endpoint":
            url += "/one"  # it is where each grant is below (FAPI Grant Management §6.3)
        answer = shared_world.client.get(url) if name.endswith("_uri") else shared_world.client.post(url)
        assert answer.status_code in (200, 302, 400, 401, 405, 415), (name, answer.status_code)


def test_members_with_several_values_are_lists_of_text(shared_world: World) -> None:
    """§2 and §3.2: JSON arrays of strings, `response_types_supported` always among them."""
    document = metadata(shared_world)
    for name in LISTS:
        assert isinstance(document[name], list), name
        assert all(isinstance(value, str) and value for value in document[name]), name
        assert len(set(document[name])) == len(document[name]), name


def test_signing_algorithms_go_with_assertions_and_none_is_not_among_them(shared_world: World) -> None:
    """§2: they must be there where private_key_jwt is; `none` must not be used."""
    document = metadata(shared_world)
    for endpoint in ("token", "introspection", "revocation"):
        methods = document[f"{endpoint}_endpoint_auth_methods_supported"]
        algorithms = document[f"{endpoint}_endpoint_auth_signing_alg_values_supported"]
        assert "private_key_jwt" in methods
        assert {"ES256", "RS256"} <= set(algorithms)
        assert not [name for name in algorithms if name == "none" or name.startswith("HS")]


def test_what_the_contract_promises_is_announced(shared_world: World) -> None:
    """RFC 9396 §10, RFC 9449 §5.1, RFC 7636, RFC 9126 §5; contract §2."""
    document = metadata(shared_world)
    assert document["authorization_details_types_supported"] == ["agent_delegation", "agent_action"]
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["require_pushed_authorization_requests"] is True
    assert "ES256" in document["dpop_signing_alg_values_supported"]
    assert "urn:ietf:params:oauth:grant-type:token-exchange" in document["grant_types_supported"]
    assert isinstance(document["deferred_token_response_supported"], bool)


def test_every_scope_that_is_announced_can_be_asked_for(sqlite_world: World) -> None:
    """§2: `scopes_supported` are values that the server supports."""
    scopes = metadata(sqlite_world)["scopes_supported"]
    grant = sqlite_world.granted(actions=scopes).grant
    assert "catalog.search" in scopes
    for scope in scopes:
        answer = sqlite_world.exchange(grant, authorization_details=None, scope=scope, resource=MARKET)
        assert answer.status_code == 200, (scope, answer.text)


def test_the_keys_are_for_signatures_and_public(shared_world: World) -> None:
    """§2: `jwks_uri` has the signing keys; RFC 7517 §4."""
    answer = shared_world.client.get(metadata(shared_world)["jwks_uri"])
    assert answer.headers["content-type"] == "application/json"
    keys = answer.json()["keys"]
    assert keys
    for key in keys:
        assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
        assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("EC", "P-256", "sig", "ES256")


# --- §3.1: issuers with a path --------------------------------------------------------------------------------


def test_for_an_issuer_with_a_path_the_well_known_part_goes_before_it(tenant: World) -> None:
    """§3.1."""
    answer = tenant.client.get(f"{tenant.url}{WELL_KNOWN}/tenant")
    assert answer.status_code == 200
    assert answer.json()["issuer"] == f"{tenant.url}/tenant"


def test_the_well_known_part_is_found_after_the_path_too(tenant: World) -> None:
    """§5: some look there, as OpenID Connect Discovery does."""
    assert metadata(tenant) == tenant.client.get(f"{tenant.url}{WELL_KNOWN}/tenant").json()


def test_there_is_no_metadata_of_other_issuers(tenant: World) -> None:
    """§3.3: a document under another identifier would name an issuer that is not its own."""
    for path in (WELL_KNOWN, f"{WELL_KNOWN}/other", f"{WELL_KNOWN}/tenant/more"):
        assert tenant.client.get(f"{tenant.url}{path}").status_code == 404


def test_everything_is_below_the_path_of_the_issuer(tenant: World) -> None:
    """§2 and §3.1: the endpoints are the tenant's own, and none is served outside."""
    for name, url in urls(metadata(tenant)).items():
        assert url.startswith(f"{tenant.url}/tenant/"), name
        outside = url.replace("/tenant/", "/", 1)
        assert tenant.client.get(outside).status_code == tenant.client.post(outside).status_code == 404, name


def test_a_server_below_a_path_does_its_work(tenant: World) -> None:
    """§2: its issuer, with the path, is what assertions are for and what tokens say."""
    granted = tenant.granted()
    token = token_of(tenant, granted.grant)
    claims = verified(tenant, token)
    assert claims["iss"] == tenant.issuer == f"{tenant.url}/tenant"
    assert tenant.introspect(token)["active"]
    where = claims["status"]["status_list"]["uri"]
    assert where.startswith(f"{tenant.issuer}/oauth/status/")
    assert claims_of(tenant.client.get(where).text)["sub"] == where


def test_an_assertion_for_the_host_is_not_for_the_tenant(tenant: World) -> None:
    """§2, contract §3: the audience is the issuer, letter by letter."""
    granted = tenant.granted()
    for audience in (tenant.url, f"{tenant.url}/", f"{tenant.issuer}/", f"{tenant.issuer}2"):
        with tenant.nothing_happens("actor.assertion.audience"):
            answer = tenant.exchange(granted.grant, actor_token=tenant.assertion(aud=audience))
            tenant.refuses(answer, "invalid_request")
