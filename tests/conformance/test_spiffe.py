"""JWT-SVIDs (SPIFFE: SPIFFE-ID, JWT-SVID, Trust Domain and Bundle) as workload assertions (contract §3)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from joserfc.jwk import ECKey, RSAKey

from authserver.actors import agents
from authserver.actors.workload_files import create_domain
from tests.conformance.tokens import Key, claims_of, public, signed, token_of
from tests.conformance.web import Web, running_web
from tests.world import BASKET_HELPER, World, example_org, make_agent, running_world

BUNDLE = "/bundle.json"
FEDERATED = "spiffe://partner.example/agent/buyer"


def refuse(world: World, grant: str, svid: str, rule: str) -> None:
    """Hold the server to refusing it as an actor token, without a trace."""
    with world.nothing_happens(f"actor.{rule}"):
        world.refuses(world.exchange(grant, actor_token=svid), "invalid_request")


def svid_of(world: World, *, header: dict[str, object] | None = None, **claims: object) -> str:
    """A JWT-SVID of example.org that is good, but for what is given; None leaves a member out."""
    key = world.domain_key()
    usual = claims_of(world.assertion())
    return signed({"alg": "ES256", "kid": key.kid, "typ": "JWT"} | (header or {}), usual | claims, key.key)


# --- SPIFFE-ID ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["a", "ns/shop/sa/buyer", "Agent/Buyer", "a.b-c_d/1.2", "..a/...", "x" * 2_000],
    ids=lambda path: path[:20],
)
def test_a_workload_is_known_by_its_whole_spiffe_id(sqlite_world: World, path: str) -> None:
    """SPIFFE-ID §2.2 and §2.3: any path of its characters, up to 2048 bytes in all."""
    subject = f"spiffe://example.org/{path}"
    agent = make_agent("other", subject, sqlite_world.clock.now())
    sqlite_world.services.database.write(lambda connection: agents.create(connection, agent))
    grant = sqlite_world.granted(agent="other").grant
    token = token_of(sqlite_world, grant, actor_token=sqlite_world.assertion(subject))
    assert claims_of(token)["act"] == {"iss": "spiffe://example.org", "sub": subject}


@pytest.mark.parametrize(
    "subject",
    [
        "SPIFFE://example.org/agent/basket-helper",
        "https://example.org/agent/basket-helper",
        "spiffe:///agent/basket-helper",
        "spiffe://Example.org/agent/basket-helper",
        "spiffe://example.org:443/agent/basket-helper",
        "spiffe://user@example.org/agent/basket-helper",
        "spiffe://example%2eorg/agent/basket-helper",
        "spiffe://example.org/agent/basket%2dhelper",
        "spiffe://example.org/agent/basket-helper/",
        "spiffe://example.org/agent//basket-helper",
        "spiffe://example.org/agent/./basket-helper",
        "spiffe://example.org/x/../agent/basket-helper",
        "spiffe://example.org/agent/basket-helper?",
        "spiffe://example.org/agent/basket-helper?x=1",
        "spiffe://example.org/agent/basket-helper#",
        "spiffe://example.org/agent/basket helper",
        "spiffe://example.org/agent/bаsket-helper",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://other.example/agent/basket-helper",
        "",
    ],
)
def test_what_is_no_spiffe_id_of_a_known_trust_domain_is_no_workload(
    shared_world: World, shared_grant: str, subject: str
) -> None:
    """SPIFFE-ID §2, §2.1 and §2.2: scheme, trust domain and path have one spelling."""
    rule = "assertion.unknown_issuer" if subject else "jwt.sub"
    refuse(shared_world, shared_grant, svid_of(shared_world, sub=subject), rule)


def test_a_spiffe_id_is_compared_as_a_whole(shared_world: World, shared_grant: str) -> None:
    """SPIFFE-ID §2.2, contract §3: paths have letter case, and no prefix or pattern matches."""
    for subject in (f"{BASKET_HELPER}-2", f"{BASKET_HELPER}/more", BASKET_HELPER.replace("agent", "Agent")):
        refuse(shared_world, shared_grant, svid_of(shared_world, sub=subject), "unknown_agent")


# --- JWT-SVID -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typ", ["JWT", "JOSE", None])
def test_the_type_is_jwt_or_jose_or_nothing(shared_world: World, shared_grant: str, typ: str | None) -> None:
    """JWT-SVID §2.3."""
    svid = svid_of(shared_world, header={"typ": typ})
    assert shared_world.exchange(shared_grant, actor_token=svid).status_code == 200


@pytest.mark.parametrize("typ", ["at+jwt", "wit+jwt", "JWT-SVID", "delegation-grant+jwt"])
def test_another_type_is_refused(shared_world: World, shared_grant: str, typ: str) -> None:
    """JWT-SVID §2.3."""
    refuse(shared_world, shared_grant, svid_of(shared_world, header={"typ": typ}), "assertion.type")


def test_subject_audience_and_expiry_are_all_that_it_needs(shared_world: World, shared_grant: str) -> None:
    """JWT-SVID §3: no other claim is required, and `kid` is optional (§2.2)."""
    svid = svid_of(shared_world, header={"kid": None}, iat=None, nbf=None, jti=None)
    assert shared_world.exchange(shared_grant, actor_token=svid).status_code == 200


@pytest.mark.parametrize("claim", ["sub", "aud", "exp"])
def test_each_of_the_three_is_needed(shared_world: World, shared_grant: str, claim: str) -> None:
    """JWT-SVID §3.1, §3.2, §3.3."""
    rule = "assertion.unknown_issuer" if claim == "sub" else f"jwt.{claim}"
    refuse(shared_world, shared_grant, svid_of(shared_world, **{claim: None}), rule)


def test_the_audience_is_this_server_alone(shared_world: World, shared_grant: str) -> None:
    """JWT-SVID §3.2 advises a single audience; contract §3 takes no other."""
    issuer = shared_world.issuer
    for audience in (issuer, [issuer]):
        svid = svid_of(shared_world, aud=audience)
        assert shared_world.exchange(shared_grant, actor_token=svid).status_code == 200
    for audience, rule in (
        ([issuer, "https://other.example"], "jwt.aud"),
        ([], "jwt.aud"),
        ("https://other.example", "assertion.audience"),
        (shared_world.services.token_endpoint, "assertion.audience"),
        (f"{issuer}/", "assertion.audience"),
        (issuer.upper(), "assertion.audience"),
    ):
        refuse(shared_world, shared_grant, svid_of(shared_world, aud=audience), rule)


def test_an_expired_svid_is_refused(shared_world: World, shared_grant: str) -> None:
    """JWT-SVID §3.3; contract §3: 30 seconds of leeway."""
    now = int(shared_world.clock.now().timestamp())
    svid = svid_of(shared_world, iat=now - 300, exp=now - 29)
    assert shared_world.exchange(shared_grant, actor_token=svid).status_code == 200
    refuse(shared_world, shared_grant, svid_of(shared_world, exp=now - 30), "assertion.expired")


def test_an_svid_that_lives_too_long_is_refused(shared_world: World, shared_grant: str) -> None:
    """Contract §3: the longest lifetime of the trust domain, counted from now where `iat` is missing."""
    now = int(shared_world.clock.now().timestamp())
    svid = svid_of(shared_world, iat=None, exp=now + 3600)
    assert shared_world.exchange(shared_grant, actor_token=svid).status_code == 200
    for times in (
        {"exp": now + 3601},
        {"iat": None, "exp": now + 3601},
        {"iat": now - 3000, "exp": now + 700},
    ):
        refuse(shared_world, shared_grant, svid_of(shared_world, **times), "assertion.lifetime")


def test_an_issuer_of_its_own_makes_no_difference(shared_world: World, shared_grant: str) -> None:
    """JWT-SVID §3.1 and §4: the SPIFFE ID says whose keys verify it; `act` names the trust domain (contract §3)."""
    svid = svid_of(shared_world, iss="https://spire.example")
    token = token_of(shared_world, shared_grant, actor_token=svid)
    assert claims_of(token)["act"]["iss"] == "spiffe://example.org"


def test_an_unknown_key_is_refused(shared_world: World, shared_grant: str) -> None:
    """JWT-SVID §4."""
    refuse(shared_world, shared_grant, svid_of(shared_world, header={"kid": "unheard-of"}), "jws.unknown_kid")


# --- Trust Domain and Bundle ----------------------------------------------------------------------------------


@pytest.fixture
def web() -> Iterator[Web]:
    """The bundle endpoint of a partner's trust domain."""
    with running_web() as running:
        yield running


@pytest.fixture
def partner(sqlite_url: str, tmp_path: Path, web: Web) -> Iterator[World]:
    """A world that trusts partner.example by its bundle endpoint, with the agent `buyer` in it."""
    directory = tmp_path / "world"
    domain = {
        "name": "partner.example",
        "kind": "spiffe",
        "bundle_endpoint_url": web.url + BUNDLE,
        "allow_private_network": True,
    }
    with running_world(sqlite_url, directory, trust_domains=[example_org(directory), domain]) as running:
        agent = make_agent("buyer", FEDERATED, running.clock.now(), trust_domain="partner.example")
        running.services.database.write(lambda connection: agents.create(connection, agent))
        yield running


def entry(key: Key, **members: object) -> dict[str, object]:
    """A key in a bundle, by default one for JWT-SVIDs."""
    return public(key, kid=key.thumbprint(), use="jwt-svid") | members


def federated(world: World, key: Key) -> str:
    """A JWT-SVID of the partner's agent, signed with that key."""
    now = int(world.clock.now().timestamp())
    claims = {"sub": FEDERATED, "aud": [world.issuer], "exp": now + 300, "iat": now}
    alg = "RS256" if isinstance(key, RSAKey) else "ES256"
    return signed({"alg": alg, "kid": key.thumbprint(), "typ": "JWT"}, claims, key)


def later(world: World) -> None:
    """Let the time pass after which keys are fetched again."""
    world.clock.advance(seconds=300)


def test_a_bundle_endpoint_is_trusted_for_its_trust_domain(partner: World, web: Web) -> None:
    """JWT-SVID §6.2 and Bundle §4: keys of both kinds."""
    keys = [ECKey.generate_key("P-256"), RSAKey.generate_key(2048)]
    web.documents[BUNDLE] = {
        "keys": [entry(key) for key in keys],
        "spiffe_sequence": 7,
        "spiffe_refresh_hint": 600,
    }
    later(partner)
    grant = partner.granted(agent="buyer").grant
    for key in keys:
        token = token_of(partner, grant, actor_token=federated(partner, key))
        assert claims_of(token)["act"] == {"iss": "spiffe://partner.example", "sub": FEDERATED}


@pytest.mark.parametrize("use", ["x509-svid", "wit-svid", "sig", "JWT-SVID", None])
def test_only_jwt_svid_keys_of_a_bundle_count(partner: World, web: Web, use: str | None) -> None:
    """Bundle §4.2.2, JWT-SVID §6.2: an entry of another use, or without one, is ignored."""
    key, good = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
    members = {name: value for name, value in entry(key, use=use).items() if value is not None}
    web.publish(BUNDLE, members, entry(good))
    later(partner)
    grant = partner.granted(agent="buyer").grant
    assert partner.exchange(grant, actor_token=federated(partner, good)).status_code == 200
    refuse(partner, grant, federated(partner, key), "jws.unknown_kid")


def test_entries_that_nobody_understands_are_ignored(partner: World, web: Web) -> None:
    """Bundle §4.1.3 and §4.2.1: an unknown key type spoils nothing else."""
    key = ECKey.generate_key("P-256")
    web.publish(BUNDLE, {"kty": "LATTICE", "use": "jwt-svid", "kid": "x"}, {}, entry(key))
    later(partner)
    grant = partner.granted(agent="buyer").grant
    assert partner.exchange(grant, actor_token=federated(partner, key)).status_code == 200


def test_an_empty_bundle_ends_all_trust(partner: World, web: Web) -> None:
    """Bundle §4.1.3: a trust domain without keys has revoked those that it had."""
    key = ECKey.generate_key("P-256")
    grant = partner.granted(agent="buyer").grant
    web.publish(BUNDLE, entry(key))
    later(partner)
    svid = federated(partner, key)
    assert partner.exchange(grant, actor_token=svid).status_code == 200
    web.publish(BUNDLE)
    later(partner)
    refuse(partner, grant, svid, "jws.unknown_kid")
    refuse(partner, grant, federated(partner, key), "jws.unknown_kid")


def test_a_trust_domain_speaks_for_itself_alone(sqlite_url: str, tmp_path: Path) -> None:
    """JWT-SVID §4 and Bundle §2: the keys are those of the trust domain in `sub`."""
    directory = tmp_path / "world"
    create_domain("partner.example", "spiffe", directory / "partner")
    domain = {
        "name": "partner.example",
        "kind": "spiffe",
        "jwks_file": directory / "partner" / "jwks.json",
    }
    with running_world(sqlite_url, directory, trust_domains=[example_org(directory), domain]) as world:
        grant = world.granted().grant
        claims = claims_of(world.assertion())
        key = ECKey.import_key((directory / "partner" / "private_key.pem").read_bytes())
        for kid, rule in ((key.thumbprint(), "jws.unknown_kid"), (world.domain_key().kid, "jws.signature")):
            forged = signed({"alg": "ES256", "kid": kid, "typ": "JWT"}, claims, key)
            refuse(world, grant, forged, rule)
