"""S7: an agent is its workload: SPIFFE, Kubernetes or OIDC vouches for it, and it has no secret.

Where the catalogue asks, what it gets is bound to a key of its own (DPoP).
"""

import json
import secrets
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from joserfc import jws
from joserfc.jwk import ECKey

from authserver.actors import agents
from authserver.actors.workload_files import create_domain, make_assertion
from authserver.agent import Agent, KubernetesToken
from authserver.resource_server import Actor, ProofRequired, Verifier
from tests.asking import allow_device
from tests.journeys.kits import agent_of, refusal, verified
from tests.pages.browser import signed_in
from tests.world import BASKET_HELPER, MARKET, PRICE_SCOUT, World, make_agent, running_world

KUBERNETES = "https://kubernetes.example"
OIDC = "https://ci.example"
SERVICE_ACCOUNT = "system:serviceaccount:shopping:basket-helper"
WORKFLOW = "repo:example/helper:ref:refs/heads/main"


@pytest.fixture
def three_domains(sqlite_url: str, tmp_path: Path) -> Iterator[tuple[World, Path]]:
    """A server that believes a SPIFFE trust domain, a Kubernetes cluster and an OIDC issuer."""
    for name, kind, issuer in (("cluster", "kubernetes", KUBERNETES), ("ci", "oidc", OIDC)):
        create_domain(name, kind, tmp_path / name, issuer)
    domains = [
        {"name": "example.org", "kind": "spiffe", "jwks_file": tmp_path / "world/example.org/jwks.json"},
        {
            "name": "cluster",
            "kind": "kubernetes",
            "issuer": KUBERNETES,
            "jwks_file": tmp_path / "cluster/jwks.json",
        },
        {"name": "ci", "kind": "oidc", "issuer": OIDC, "jwks_file": tmp_path / "ci/jwks.json"},
    ]
    with running_world(sqlite_url, tmp_path / "world", trust_domains=domains) as world:
        yield world, tmp_path


def test_S7_a_projected_token_is_all_that_an_agent_in_a_pod_has(three_domains: tuple[World, Path]) -> None:
    """It asks a person, gets a token that is bound to its key, and ends its task, as the service account."""
    world, folder = three_domains
    agent = make_agent("worker", SERVICE_ACCOUNT, world.clock.now(), trust_domain="cluster")
    world.services.database.write(lambda connection: agents.create(connection, agent))
    projected = folder / "token"
    lasts, now = timedelta(minutes=10), world.clock.now()
    projected.write_text(make_assertion(folder / "cluster", SERVICE_ACCOUNT, world.issuer, lasts, now))
    kit = Agent(world.issuer, KubernetesToken(projected), "worker", clock=world.clock, sleep=lambda _: None)
    with signed_in(world) as ada:
        delegation = kit.delegate_by_device(
            world.delegation(), show=lambda code: allow_device(ada, code.user_code)
        )
    with kit.task(delegation) as task:
        issued = task.token_for(world.action())
        assert issued.token_type == "DPoP"
        assert world.rows().reserved == 4_250
    assert world.rows().reserved == 0


@pytest.mark.parametrize(
    ("domain", "issuer", "subject"),
    [("cluster", KUBERNETES, SERVICE_ACCOUNT), ("ci", OIDC, WORKFLOW)],
    ids=["kubernetes", "oidc"],
)
def test_S7_a_service_account_or_a_ci_job_is_an_agent(
    three_domains: tuple[World, Path], domain: str, issuer: str, subject: str
) -> None:
    world, folder = three_domains
    agent = make_agent("worker", subject, world.clock.now(), trust_domain=domain)
    world.services.database.write(lambda connection: agents.create(connection, agent))

    def assertion() -> str:
        return make_assertion(folder / domain, subject, world.issuer, timedelta(minutes=5), world.clock.now())

    issued = Agent(world.issuer, assertion).exchange(world.granted("worker").grant, world.action())
    assert verified(world, issued).actor == Actor(issuer, subject)
    assert (
        refusal(
            Agent(world.issuer, assertion),
            world.granted().grant,
            world.action(),
            error="invalid_request",
        )
        == {}
    )


def test_S7_a_jwt_svid_is_an_agent_and_the_token_says_which(world: World) -> None:
    token = verified(world, agent_of(world).exchange(world.granted().grant, world.action()))
    assert token.actor == Actor("spiffe://example.org", BASKET_HELPER)
    assert token.client_id == "basket-helper"


@pytest.mark.parametrize(
    "subject", [PRICE_SCOUT, f"{BASKET_HELPER}-evil", "spiffe://example.com/agent/basket-helper"]
)
def test_S7_no_other_workload_can_use_a_grant(sqlite_world: World, subject: str) -> None:
    world = sqlite_world
    stranger = agent_of(world, subject)
    assert refusal(stranger, world.granted().grant, world.action(), error="invalid_request") == {}


def test_S7_a_grant_alone_is_worth_nothing(sqlite_world: World) -> None:
    world = sqlite_world
    grant = world.granted().grant
    for actor_token in (None, grant):
        world.refuses(world.exchange(grant, actor_token=actor_token), "invalid_request")


def dpop_proof(world: World, key: ECKey, nonce: str | None = None) -> str:
    """A proof for the token endpoint (RFC 9449 §4.2)."""
    header = {"alg": "ES256", "typ": "dpop+jwt", "jwk": key.as_dict(private=False)}
    claims = {
        "htm": "POST",
        "htu": f"{world.issuer}/oauth/token",
        "iat": int(world.clock.now().timestamp()),
        "jti": secrets.token_urlsafe(16),
    } | ({"nonce": nonce} if nonce else {})
    registry = jws.JWSRegistry(algorithms=["ES256"])
    registry.max_header_length = 4096
    return jws.serialize_compact(header, json.dumps(claims), key, registry=registry)


def test_S7_where_the_catalogue_asks_the_token_is_bound_to_a_key_of_the_agent(world: World) -> None:
    key = ECKey.generate_key("P-256")
    grant = world.granted(actions=["payment_instrument.use"]).grant
    action = world.action(actions=["payment_instrument.use"])
    world.refuses(world.exchange(grant, action=action), "invalid_dpop_proof")
    due = world.exchange(grant, action=action, headers={"DPoP": dpop_proof(world, key)})
    world.refuses(due, "use_dpop_nonce")
    proof = dpop_proof(world, key, due.headers["DPoP-Nonce"])
    answer = world.exchange(grant, action=action, headers={"DPoP": proof})
    assert answer.json()["token_type"] == "DPoP", answer.text
    token = answer.json()["access_token"]
    assert world.introspect(token)["cnf"] == {"jkt": key.thumbprint()}
    with pytest.raises(ProofRequired):
        Verifier(world.issuer, MARKET, clock=world.clock).verify(token)
