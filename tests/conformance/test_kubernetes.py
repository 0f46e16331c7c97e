"""Service account tokens of a Kubernetes cluster as workload assertions (contract §3)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, RSAKey

from authserver.actors import agents
from tests.conformance.tokens import JWT_BEARER, JWT_SPIFFE, Key, claims_of, public, signed, token_of
from tests.conformance.web import DISCOVERY, Web, running_web
from tests.world import World, example_org, make_agent, running_world

JWKS = "/openid/v1/jwks"  # where an API server has it
IN_BOTH_WAYS = pytest.mark.parametrize("cluster", ["jwks_url", "discovery"], indirect=True)
ACCOUNT = "system:serviceaccount:shop:buyer"
NOT_GOOD: tuple[tuple[dict[str, object], str], ...] = (
    ({"aud": ["https://kubernetes.default.svc"]}, "assertion.audience"),
    ({"aud": None}, "jwt.aud"),
    ({"exp": None}, "jwt.exp"),  # a legacy token, which never ends
    ({"iat": None}, "jwt.iat"),
    ({"iss": "kubernetes/serviceaccount"}, "assertion.unknown_issuer"),
    ({"iss": "https://other-cluster.example"}, "assertion.unknown_issuer"),
    ({"iss": None}, "assertion.unknown_issuer"),
    ({"sub": "system:serviceaccount:shop:other"}, "unknown_agent"),
    ({"sub": "system:serviceaccount:other:buyer"}, "unknown_agent"),
    ({"sub": "system:node:node-1"}, "assertion.subject"),
    ({"sub": "system:serviceaccount:shop"}, "assertion.subject"),
    ({"sub": None}, "assertion.subject"),
)


@pytest.fixture(scope="module")
def cluster_key() -> RSAKey:
    """The key with which the cluster signs its tokens: RS256, as kube-apiserver does by default."""
    return RSAKey.generate_key(2048)


@pytest.fixture
def web() -> Iterator[Web]:
    """The cluster's API server, as far as it shows its keys."""
    with running_web() as running:
        yield running


@pytest.fixture
def cluster(
    request: pytest.FixtureRequest, sqlite_url: str, tmp_path: Path, web: Web, cluster_key: RSAKey
) -> Iterator[World]:
    """A world that knows a cluster by the URL of its keys, or by `discovery`; the agent `buyer` is in it."""
    web.publish(JWKS, jwk(cluster_key))
    web.discoverable(JWKS)
    by_discovery = getattr(request, "param", "jwks_url") == "discovery"
    found = {"discovery": True} if by_discovery else {"jwks_url": web.url + JWKS}
    domain = {
        "name": "cluster",
        "kind": "kubernetes",
        "issuer": web.url,
        "allow_private_network": True,
    } | found
    directory = tmp_path / "world"
    with running_world(sqlite_url, directory, trust_domains=[example_org(directory), domain]) as running:
        agent = make_agent("buyer", ACCOUNT, running.clock.now(), trust_domain="cluster")
        running.services.database.write(lambda connection: agents.create(connection, agent))
        yield running


def jwk(key: Key) -> dict[str, Any]:
    """A public key as an API server publishes it."""
    return public(key, kid=key.thumbprint(), use="sig", alg="RS256" if isinstance(key, RSAKey) else "ES256")


def service_account_token(world: World, web: Web, key: Key, **changes: object) -> str:
    """A projected service account token, bound to a pod; None leaves a claim out."""
    now = int(world.clock.now().timestamp())
    claims = {
        "aud": [world.issuer],
        "exp": now + 3600,
        "iat": now,
        "iss": web.url,
        "jti": "3f1a6a0e-6a4c-4f1c-9a3b-0f0a4f1f2b11",
        "kubernetes.io": {
            "namespace": "shop",
            "node": {"name": "node-1", "uid": "2c0d2a4e-8c1f-4d7e-8a55-0b1f5d1c9c01"},
            "pod": {"name": "buyer-7d9c", "uid": "5e7b1c1a-2f64-4b7c-b1e0-6f3a1d0c7f02"},
            "serviceaccount": {"name": "buyer", "uid": "9b2f4c6d-1e3a-4c5b-8d7f-2a1b3c4d5e03"},
            "warnafter": now + 3607,
        },
        "nbf": now,
        "sub": ACCOUNT,
    }
    header = {"alg": "RS256" if isinstance(key, RSAKey) else "ES256", "kid": key.thumbprint()}
    return signed(header, claims | changes, key)


def refuse(world: World, token: str, rule: str) -> None:
    """Hold the server to refusing it as an actor token, without a trace."""
    grant = world.granted(agent="buyer").grant
    with world.nothing_happens(f"actor.{rule}"):
        world.refuses(world.exchange(grant, actor_token=token), "invalid_request")


@IN_BOTH_WAYS
def test_a_service_account_exchanges(cluster: World, web: Web, cluster_key: RSAKey) -> None:
    """Contract §3: `iss` and `sub` are the assertion's, in `act` as in `may_act`."""
    granted = cluster.granted(agent="buyer")
    token = token_of(cluster, granted.grant, actor_token=service_account_token(cluster, web, cluster_key))
    assert claims_of(token)["act"] == claims_of(granted.grant)["may_act"] == {"iss": web.url, "sub": ACCOUNT}
    assert cluster.introspect(token)["active"]


@IN_BOTH_WAYS
def test_its_keys_are_fetched_once_and_not_for_each_token(
    cluster: World, web: Web, cluster_key: RSAKey
) -> None:
    """Contract §3: the configuration says where keys come from; they are kept for minutes."""
    grant = cluster.granted(agent="buyer").grant
    for number in range(3):
        token = service_account_token(cluster, web, cluster_key, jti=f"token-{number}")
        assert cluster.exchange(grant, actor_token=token).status_code == 200
    assert web.asked.count(JWKS) == 1
    assert web.asked.count(DISCOVERY) <= 1


@IN_BOTH_WAYS
def test_a_new_key_of_the_cluster_is_found(cluster: World, web: Web, cluster_key: RSAKey) -> None:
    """Key rotation: an unknown `kid` has the keys fetched, at most once in ten seconds."""
    new = ECKey.generate_key("P-256")
    grant = cluster.granted(agent="buyer").grant
    web.publish(JWKS, jwk(cluster_key), jwk(new))
    refuse(cluster, service_account_token(cluster, web, new), "jws.unknown_kid")
    cluster.clock.advance(seconds=10)
    for key in (new, cluster_key):
        token = service_account_token(cluster, web, key)
        assert cluster.exchange(grant, actor_token=token).status_code == 200


def test_a_key_that_the_cluster_took_away_verifies_nothing(
    cluster: World, web: Web, cluster_key: RSAKey
) -> None:
    """Key rotation: within five minutes."""
    web.publish(JWKS, jwk(ECKey.generate_key("P-256")))
    cluster.clock.advance(seconds=300)
    refuse(cluster, service_account_token(cluster, web, cluster_key), "jws.unknown_kid")


@IN_BOTH_WAYS
def test_a_cluster_that_cannot_be_reached_keeps_its_keys_for_a_while(
    cluster: World, web: Web, cluster_key: RSAKey
) -> None:
    """Contract §3: what was fetched serves on for a bounded time."""
    grant = cluster.granted(agent="buyer").grant
    web.documents.clear()
    cluster.clock.advance(seconds=1800)
    token = service_account_token(cluster, web, cluster_key)
    assert cluster.exchange(grant, actor_token=token).status_code == 200
    cluster.clock.advance(seconds=3600)
    refuse(cluster, service_account_token(cluster, web, cluster_key), "keys.unavailable")


def test_a_token_that_is_not_for_this_server_or_not_of_this_account_is_refused(
    cluster: World, web: Web, cluster_key: RSAKey
) -> None:
    """Contract §3: audience, expiry, issuer and subject are compared exactly."""
    for changes, rule in NOT_GOOD:
        refuse(cluster, service_account_token(cluster, web, cluster_key, **changes), rule)


def test_a_token_is_good_within_its_times_and_the_leeway(
    cluster: World, web: Web, cluster_key: RSAKey
) -> None:
    """Contract §3: `exp`, `iat` and `nbf` within bounds, with 30 seconds of leeway."""
    now = int(cluster.clock.now().timestamp())
    grant = cluster.granted(agent="buyer").grant
    for times in ({"exp": now - 29}, {"nbf": now + 30}, {"iat": now + 30}):
        token = service_account_token(cluster, web, cluster_key, **times)
        assert cluster.exchange(grant, actor_token=token).status_code == 200, times
    for times, rule in (
        ({"exp": now - 30}, "assertion.expired"),
        ({"nbf": now + 31}, "assertion.not_yet_valid"),
        ({"iat": now + 31}, "assertion.not_yet_valid"),
        ({"exp": now + 3601}, "assertion.lifetime"),
    ):
        refuse(cluster, service_account_token(cluster, web, cluster_key, **times), rule)


def test_another_clusters_key_speaks_for_nobody_here(cluster: World, web: Web) -> None:
    """Contract §3: the key must be of the trust domain that the issuer names."""
    foreign = RSAKey.generate_key(2048)
    refuse(cluster, service_account_token(cluster, web, foreign), "jws.unknown_kid")
    claims = claims_of(service_account_token(cluster, web, foreign))
    own = cluster.domain_key()  # a key that is known, but of the trust domain example.org
    refuse(cluster, signed({"alg": "ES256", "kid": own.kid}, claims, own.key), "jws.unknown_kid")


def test_a_token_that_never_was_of_this_cluster_is_refused_without_asking_its_issuer(
    cluster: World, web: Web, cluster_key: RSAKey
) -> None:
    """Contract §3: nothing in a token chooses where keys are fetched from."""
    with running_web() as other:
        other.publish(JWKS, jwk(cluster_key))
        other.discoverable(JWKS)
        token = service_account_token(cluster, web, cluster_key, iss=other.url)
        refuse(cluster, token, "assertion.unknown_issuer")
        assert other.asked == []


def test_a_service_account_authenticates_at_other_endpoints(
    cluster: World, web: Web, cluster_key: RSAKey
) -> None:
    """Contract §3: as a client_assertion of type jwt-bearer, and of no other type."""
    assertion = service_account_token(cluster, web, cluster_key)
    token = token_of(cluster, cluster.granted(agent="buyer").grant, actor_token=assertion)
    form = {"token": token, "client_assertion": assertion}
    wrong = cluster.post("/oauth/revoke", form | {"client_assertion_type": JWT_SPIFFE})
    cluster.refuses(wrong, "invalid_client", status=401)
    assert cluster.post("/oauth/revoke", form | {"client_assertion_type": JWT_BEARER}).status_code == 200
    assert cluster.introspect(token) == {"active": False}


@pytest.mark.parametrize(
    "changes",
    [{"issuer": "https://other.example"}, {"issuer": None}, {"jwks_uri": None}, {"jwks_uri": "/x"}],
    ids=str,
)
@pytest.mark.parametrize("cluster", ["discovery"], indirect=True)
def test_a_discovery_document_of_another_issuer_brings_no_keys(
    cluster: World, web: Web, cluster_key: RSAKey, changes: dict[str, object]
) -> None:
    """OpenID Connect Discovery §4.3: the document's `issuer` is the one that was asked for, letter by letter."""
    web.discoverable(JWKS, **changes)
    cluster.clock.advance(seconds=3901)  # what was fetched before has ended
    refuse(cluster, service_account_token(cluster, web, cluster_key), "keys.unavailable")
