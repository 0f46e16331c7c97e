"""JWT client authentication (RFC 7523, RFC 7521; draft-ietf-oauth-spiffe-client-auth), as contract §3 profiles it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey, RSAKey

from authserver.actors import agents, resource_servers
from authserver.actors.workload_files import create_domain, make_assertion
from tests.conformance.tokens import JWT_BEARER, JWT_SPIFFE, Key, jwks_of, own_assertion, token_of
from tests.world import World, example_org, make_agent, make_resource_server, running_world

KEY = ECKey.generate_key("P-256")
KEYED = "spiffe://example.org/agent/keyed"
WORKLOADS = {"cluster": "system:serviceaccount:shop:buyer", "ci": "repo:shop/buyer:ref:main"}
CHECKER = "spiffe://example.org/server/checker"
CLIENTS = ["rs_keyed", "keyed"]


@contextmanager
def peopled(database_url: str, directory: Path) -> Iterator[World]:
    """A world with clients of every kind: keys of their own, SPIFFE, Kubernetes and OIDC workloads."""
    domains: list[dict[str, Any]] = [example_org(directory)]
    for name, kind in (("cluster", "kubernetes"), ("ci", "oidc")):
        create_domain(name, kind, directory / name, f"https://{name}.example")
        jwks_file = directory / name / "jwks.json"
        once = {"refuse_repeated_jti": kind == "oidc"}
        domains.append(
            {"name": name, "kind": kind, "issuer": f"https://{name}.example", "jwks_file": jwks_file} | once
        )
    with running_world(database_url, directory, trust_domains=domains) as world:
        now, jwks = world.clock.now(), jwks_of(KEY)
        servers = [
            make_resource_server(
                "keyed", "https://keyed.example", now, auth_method="private_key_jwt", jwks=jwks
            ),
            make_resource_server(
                "checker", "https://checker.example", now, auth_method="jwt-spiffe", subject=CHECKER
            ),
        ]
        clients = [make_agent("keyed", KEYED, now, jwks=jwks)]
        clients += [make_agent(name, subject, now, trust_domain=name) for name, subject in WORKLOADS.items()]

        def write(connection: Any) -> None:
            for server in servers:
                resource_servers.create(connection, server)
            for client in clients:
                agents.create(connection, client)

        world.services.database.write(write)
        yield world


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    """All these clients, once on SQLite and once on PostgreSQL."""
    with peopled(database_url, tmp_path / "world") as running:
        yield running


@pytest.fixture
def sqlite_world(sqlite_url: str, tmp_path: Path) -> Iterator[World]:
    """The same on SQLite alone."""
    with peopled(sqlite_url, tmp_path / "world") as running:
        yield running


def workload_assertion(world: World, domain: str, **claims: object) -> str:
    """What that trust domain's agent shows."""
    directory = world.domain.parent / domain
    return make_assertion(
        directory, WORKLOADS[domain], world.issuer, timedelta(minutes=5), world.clock.now(), **claims
    )


def show(
    world: World, assertion: str, kind: str | None = JWT_BEARER, *, at: str = "/oauth/introspect", **more: str
) -> httpx.Response:
    """A request whose client authenticates with that assertion."""
    form = {"token": "x", "client_assertion": assertion} | more
    return world.post(at, form | ({} if kind is None else {"client_assertion_type": kind}))


def accept(world: World, assertion: str, kind: str = JWT_BEARER, **more: str) -> None:
    """Hold the server to knowing who it is."""
    answer = show(world, assertion, kind, **more)
    assert answer.status_code == 200, answer.text


def refuse(
    world: World, assertion: str, rule: str | None = None, kind: str | None = JWT_BEARER, **more: str
) -> None:
    """Hold the server to RFC 7521 §4.2.1: `invalid_client`, with a trace in the audit alone."""
    with world.nothing_happens(rule, "introspection.refused"):
        world.refuses(show(world, assertion, kind, **more), "invalid_client", status=401)


# --- RFC 7523 §2.2 and §3: private_key_jwt --------------------------------------------------------------------


@pytest.mark.parametrize("client_id", CLIENTS)
def test_a_client_proves_itself_with_a_key_that_was_registered(sqlite_world: World, client_id: str) -> None:
    """§2.2 and §3: issuer and subject are the client_id; resource servers and agents alike."""
    accept(sqlite_world, own_assertion(sqlite_world, client_id, KEY))
    accept(sqlite_world, own_assertion(sqlite_world, client_id, KEY), client_id=client_id)


def test_a_resource_server_that_proves_itself_sees_its_tokens(sqlite_world: World) -> None:
    """§2.2, RFC 7662 §2.1."""
    grant = sqlite_world.granted(locations=["https://keyed.example"]).grant
    action = sqlite_world.action(locations=["https://keyed.example"])
    token = token_of(sqlite_world, grant, action=action)
    answer = show(sqlite_world, own_assertion(sqlite_world, "rs_keyed", KEY), token=token)
    assert answer.json()["active"]


def test_an_agent_that_proves_itself_revokes_its_token(sqlite_world: World) -> None:
    """§2.2, RFC 7009 §2.1."""
    grant = sqlite_world.granted(agent="keyed").grant
    token = token_of(sqlite_world, grant, actor_token=sqlite_world.assertion(KEYED))
    assertion = own_assertion(sqlite_world, "keyed", KEY)
    accept(sqlite_world, assertion, at="/oauth/revoke", token=token)
    assert sqlite_world.introspect(token) == {"active": False}


def test_the_audience_is_the_issuer_or_the_token_endpoint(sqlite_world: World) -> None:
    """§3 (3): the token endpoint's URL may be used; contract §3: so may the issuer, alone or in an array of one."""
    for url in (sqlite_world.issuer, f"{sqlite_world.issuer}/oauth/token"):
        for audience in (url, [url]):
            accept(sqlite_world, own_assertion(sqlite_world, "keyed", KEY, aud=audience))


def test_no_other_audience_is_taken(sqlite_world: World) -> None:
    """§3 (3): and none beside it, whatever endpoint it is shown to."""
    issuer = sqlite_world.issuer
    for audience, rule in (
        (f"{issuer}/oauth/introspect", "client.audience"),
        (f"{issuer}/", "client.audience"),
        (f"{issuer}/oauth/token/", "client.audience"),
        (issuer.upper(), "client.audience"),
        ("https://other.example", "client.audience"),
        ([issuer, f"{issuer}/oauth/token"], "jwt.aud"),
        ([issuer, "https://other.example"], "jwt.aud"),
        ([], "jwt.aud"),
    ):
        refuse(sqlite_world, own_assertion(sqlite_world, "keyed", KEY, aud=audience), rule)


@pytest.mark.parametrize("claim", ["iss", "sub", "aud", "exp", "jti"])
def test_each_claim_is_required(sqlite_world: World, claim: str) -> None:
    """§3 (1) to (4); `jti` because an assertion is good once (contract §3)."""
    for client_id in CLIENTS:
        refuse(sqlite_world, own_assertion(sqlite_world, client_id, KEY, **{claim: None}))


def test_issuer_and_subject_are_the_same_client(sqlite_world: World) -> None:
    """§3 (1) and (2)."""
    for claims in ({"iss": "rs_keyed"}, {"sub": "rs_keyed"}, {"iss": sqlite_world.issuer}):
        refuse(sqlite_world, own_assertion(sqlite_world, "keyed", KEY, **claims))


def test_an_assertion_is_good_within_its_times_and_the_leeway(sqlite_world: World) -> None:
    """§3 (4), (5), (6): `exp`, `nbf`, `iat`; an `exp` far away is unreasonable."""
    now = int(sqlite_world.clock.now().timestamp())
    for times in (
        {"exp": now - 29},
        {"nbf": now + 30},
        {"iat": now + 30},
        {"exp": now + 3600},
        {"iat": None},
    ):
        accept(sqlite_world, own_assertion(sqlite_world, "keyed", KEY, **times))
    for times, rule in (
        ({"exp": now - 30}, "client.expired"),
        ({"nbf": now + 31}, "client.not_yet_valid"),
        ({"iat": now + 31}, "client.not_yet_valid"),
        ({"exp": now + 86_400}, "client.lifetime"),
    ):
        refuse(sqlite_world, own_assertion(sqlite_world, "keyed", KEY, **times), rule)


def test_an_assertion_is_good_once(world: World) -> None:
    """§3 (7): a `jti` that was used is refused, at whichever endpoint and with whatever other claims."""
    first = own_assertion(world, "keyed", KEY, jti="once")
    accept(world, first)
    refuse(world, first, "client.replayed")
    refuse(world, own_assertion(world, "keyed", KEY, jti="once", exp=int(world.clock.now().timestamp()) + 90))
    assert show(world, first, at="/oauth/revoke").status_code == 401
    accept(world, own_assertion(world, "rs_keyed", KEY, jti="once"))  # another client's ids are its own


def test_an_assertion_that_was_refused_was_not_used(sqlite_world: World) -> None:
    """§3 (7): nobody uses up another's `jti`."""
    forged = own_assertion(sqlite_world, "keyed", ECKey.generate_key("P-256"), jti="mine")
    refuse(sqlite_world, forged, "jws.unknown_kid")
    accept(sqlite_world, own_assertion(sqlite_world, "keyed", KEY, jti="mine"))


def test_an_assertion_that_came_with_a_refused_exchange_was_used(world: World) -> None:
    """§3 (7): what was shown is known to whoever saw the request; it is not shown again."""
    grant, actor = world.granted(agent="keyed").grant, world.assertion(KEYED)
    too_dear = world.action(amount={"currency": "EUR", "value": "92.00"})
    client = {"client_assertion_type": JWT_BEARER, "client_assertion": own_assertion(world, "keyed", KEY)}
    refused = world.exchange(grant, action=too_dear, actor_token=actor, **client)
    world.refuses(refused, "invalid_authorization_details")
    with world.nothing_happens("client.replayed"):
        world.refuses(world.exchange(grant, actor_token=actor, **client), "invalid_client", status=401)


def test_the_signature_is_by_the_clients_own_key(sqlite_world: World) -> None:
    """§3 (9)."""
    other = ECKey.generate_key("P-256")
    refuse(sqlite_world, own_assertion(sqlite_world, "keyed", other), "jws.unknown_kid")
    disguised = own_assertion(sqlite_world, "keyed", other, header={"kid": KEY.thumbprint()})
    refuse(sqlite_world, disguised, "jws.signature")
    accept(sqlite_world, own_assertion(sqlite_world, "keyed", KEY, header={"kid": None}))


@pytest.mark.parametrize("alg", ["ES384", "ES512", "RS256", "PS256"])
def test_every_algorithm_that_is_announced_is_taken(sqlite_world: World, alg: str) -> None:
    """§5 and RFC 8414 §2: `…_endpoint_auth_signing_alg_values_supported`."""
    document = sqlite_world.client.get("/.well-known/oauth-authorization-server").json()
    assert alg in document["introspection_endpoint_auth_signing_alg_values_supported"]
    key: Key = (
        RSAKey.generate_key(2048)
        if alg[0] in "RP"
        else ECKey.generate_key({"ES384": "P-384", "ES512": "P-521"}[alg])
    )
    agent = make_agent("more", f"{KEYED}/more", sqlite_world.clock.now(), jwks=jwks_of(key))
    sqlite_world.services.database.write(lambda connection: agents.create(connection, agent))
    accept(sqlite_world, own_assertion(sqlite_world, "more", key, header={"alg": alg}))


@pytest.mark.parametrize("client_id", ["rs_market", "basket-helper", "nobody", "rs_checker"])
def test_a_client_without_registered_keys_has_none(sqlite_world: World, client_id: str) -> None:
    """§3 (9): neither a client with a secret, nor one with a workload alone, nor one that nobody knows."""
    refuse(sqlite_world, own_assertion(sqlite_world, client_id, KEY), "client.unknown")


def test_the_parameter_client_id_names_the_same_client(sqlite_world: World) -> None:
    """RFC 7521 §4.2: where it is there, it must identify the client that the assertion is of."""
    assertion = own_assertion(sqlite_world, "keyed", KEY)
    refuse(sqlite_world, assertion, "client.other_client_id", client_id="rs_keyed")


@pytest.mark.parametrize("kind", [None, "", "jwt-bearer", JWT_BEARER.upper(), JWT_SPIFFE])
def test_the_type_of_the_assertion_is_said(sqlite_world: World, kind: str | None) -> None:
    """RFC 7521 §4.2 and §2.2: `client_assertion_type` is required, and this is not a JWT-SVID."""
    refuse(sqlite_world, own_assertion(sqlite_world, "keyed", KEY), kind=kind)


@pytest.mark.parametrize(
    ("typ", "is_good"),
    [
        ("JWT", True),
        (None, True),
        ("client-authentication+jwt", True),
        ("at+jwt", False),
        ("dpop+jwt", False),
    ],
)
def test_a_jwt_that_says_it_is_something_else_is_refused(
    sqlite_world: World, typ: str | None, is_good: bool
) -> None:
    """RFC 8725 §3.11: explicit types."""
    assertion = own_assertion(sqlite_world, "keyed", KEY, header={"typ": typ})
    if is_good:
        accept(sqlite_world, assertion)
    else:
        refuse(sqlite_world, assertion, "client.type")


def test_a_client_that_was_disabled_is_nobody(sqlite_world: World) -> None:
    """RFC 7521 §4.2.1."""
    now = sqlite_world.clock.now()

    def disable(connection: Any) -> None:
        agents.disable(connection, "keyed", now)
        resource_servers.disable(connection, "rs_keyed", now)

    sqlite_world.services.database.write(disable)
    for client_id in CLIENTS:
        refuse(sqlite_world, own_assertion(sqlite_world, client_id, KEY), "client.disabled")


def test_an_assertion_that_is_no_jwt_is_refused(sqlite_world: World) -> None:
    """§3: and told from no other failure (RFC 7521 §4.2.1)."""
    for text in ("x", "a.b.c", "e30.e30.e30", "é"):
        refuse(sqlite_world, text)


# --- draft-ietf-oauth-spiffe-client-auth: jwt-spiffe ----------------------------------------------------------


def test_a_jwt_svid_authenticates_agents_and_resource_servers(sqlite_world: World) -> None:
    """The draft's §3.1: the SPIFFE ID in `sub` is the client's; it may be shown more than once."""
    action = sqlite_world.action(locations=["https://checker.example"])
    token = token_of(
        sqlite_world, sqlite_world.granted(locations=["https://checker.example"]).grant, action=action
    )
    svid = sqlite_world.assertion(CHECKER)
    assert [show(sqlite_world, svid, JWT_SPIFFE, token=token).json()["active"] for _ in range(2)] == [
        True,
        True,
    ]
    accept(sqlite_world, sqlite_world.assertion(), JWT_SPIFFE, at="/oauth/revoke", token=token)
    assert show(sqlite_world, svid, JWT_SPIFFE, token=token).json() == {"active": False}


def test_a_jwt_svid_is_for_the_issuer_alone(sqlite_world: World) -> None:
    """The draft's §3.1 and contract §3: not for the token endpoint, as private_key_jwt may be."""
    for audience in (f"{sqlite_world.issuer}/oauth/token", f"{sqlite_world.issuer}/oauth/introspect"):
        svid = sqlite_world.assertion(CHECKER, aud=audience)
        refuse(sqlite_world, svid, "assertion.audience", JWT_SPIFFE)


def test_a_jwt_svid_is_of_its_own_assertion_type(sqlite_world: World) -> None:
    """The draft's §3.1: not of type jwt-bearer."""
    refuse(sqlite_world, sqlite_world.assertion(CHECKER), "client.assertion_type")


def test_an_unknown_workload_is_an_unknown_client(sqlite_world: World) -> None:
    """The draft's §3.1: the SPIFFE ID is compared with the registered one as a whole."""
    for subject in (f"{CHECKER}/more", CHECKER[:-1], "spiffe://example.org/nobody"):
        refuse(sqlite_world, sqlite_world.assertion(subject), "client.unknown", JWT_SPIFFE)


# --- contract §3: workload assertions of other kinds ------------------------------------------------------------


@pytest.mark.parametrize("domain", WORKLOADS)
def test_a_workload_authenticates_with_the_assertion_of_its_trust_domain(
    sqlite_world: World, domain: str
) -> None:
    """§3: the issuer is the trust domain's, the subject the workload's; the type is jwt-bearer."""
    grant = sqlite_world.granted(agent=domain).grant
    token = token_of(sqlite_world, grant, actor_token=workload_assertion(sqlite_world, domain))
    accept(
        sqlite_world,
        workload_assertion(sqlite_world, domain),
        at="/oauth/revoke",
        token=token,
        client_id=domain,
    )
    assert sqlite_world.introspect(token) == {"active": False}


@pytest.mark.parametrize("domain", WORKLOADS)
def test_a_workload_assertion_has_the_issuer_as_its_audience(sqlite_world: World, domain: str) -> None:
    """§3 (3), contract §3."""
    assertion = workload_assertion(sqlite_world, domain, aud=f"{sqlite_world.issuer}/oauth/token")
    refuse(sqlite_world, assertion, "assertion.audience")
    refuse(sqlite_world, workload_assertion(sqlite_world, domain), "client.assertion_type", JWT_SPIFFE)


def test_a_workload_assertion_is_good_once_where_its_domain_says_so(world: World) -> None:
    """§3 (7), contract §3: `refuse_repeated_jti`, for the exchange and every other endpoint together."""
    once, often = workload_assertion(world, "ci"), workload_assertion(world, "cluster")
    accept(world, once)
    refuse(world, once, "client.replayed")
    world.refuses(world.exchange(world.granted(agent="ci").grant, actor_token=once), "invalid_request")
    for _ in range(2):
        accept(world, often)
    refuse(world, workload_assertion(world, "ci", jti=None), "jwt.jti")
