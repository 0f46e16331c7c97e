"""How agents and resource servers prove who they are (contract §3; RFC 6749 §2.3, RFC 7523; threats A13, A49)."""

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from joserfc.jwk import ECKey
from sqlalchemy import Connection

from authserver.actors import AlreadyRegistered, NotRegistered, agents, replay, resource_servers
from authserver.actors.agents import Agent
from authserver.actors.client_authentication import (
    JWT_BEARER,
    JWT_SPIFFE,
    Client,
    ClientCredentials,
    authenticate,
)
from authserver.actors.resource_servers import ResourceServer
from authserver.actors.trust_domains import TrustDomains
from authserver.actors.workload_files import create_domain, make_assertion
from authserver.config import TrustDomainSettings
from authserver.db import Database
from authserver.errors import Refusal
from authserver.jose import SigningKey, sign
from authserver.policy.details import Merchant

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ISSUER = "https://auth.example"
TOKEN_ENDPOINT = f"{ISSUER}/oauth/token"
BUYER = "spiffe://example.org/agents/buyer"
SHOP = "spiffe://example.org/shop"
KEY = ECKey.generate_key("P-256")
JWKS = json.dumps({"keys": [KEY.as_dict(private=False) | {"kid": "k1"}]})
SECRET, SECRET_HASH = resource_servers.new_secret()

AGENT = Agent(
    "buyer",
    "example.org",
    BUYER,
    "Buyer",
    "owner",
    frozenset({"b", "a"}),
    ("http://127.0.0.1/cb",),
    None,
    NOW,
    None,
)
CI_AGENT = replace(
    AGENT, client_id="ci", trust_domain="ci", subject="repo:shop", actions=None, redirect_uris=()
)
KEY_AGENT = replace(AGENT, client_id="keyed", subject=f"{BUYER}/keyed", jwks=JWKS)
SERVER = ResourceServer(
    "rs_1", "https://shop.example/api", "Shop", Merchant.parse({"id": "m_1", "country": "NL"}),
    "client_secret_basic", SECRET_HASH, None, None, NOW, None,
)  # fmt: skip
KEY_SERVER = replace(
    SERVER, id="rs_2", identifier="https://two.example", merchant=None, auth_method="private_key_jwt",
    secret_hash=None, jwks=JWKS,
)  # fmt: skip
SPIFFE_SERVER = replace(
    KEY_SERVER,
    id="rs_3",
    identifier="https://three.example",
    auth_method="jwt-spiffe",
    jwks=None,
    subject=SHOP,
)


@dataclass
class World:
    """A database with some agents and resource servers, and trust domains in files."""

    database: Database
    directory: Path
    trust_domains: TrustDomains

    def authenticate(self, now: datetime = NOW, **credentials: str | None) -> Client:
        """Who is calling, in a transaction of its own."""
        return self.database.write(
            lambda connection: authenticate(
                connection,
                ClientCredentials(**credentials),
                self.trust_domains,
                now,
                issuer=ISSUER,
                token_endpoint=TOKEN_ENDPOINT,
            )
        )

    def refusal(self, now: datetime = NOW, **credentials: str | None) -> Refusal:
        """Why nobody is recognized."""
        with pytest.raises(Refusal) as refused:
            self.authenticate(now, **credentials)
        return refused.value

    def workload(self, domain: str, subject: str, **claims: object) -> str:
        """A workload assertion."""
        return make_assertion(self.directory / domain, subject, ISSUER, timedelta(minutes=5), NOW, **claims)


@pytest.fixture
def world(sqlite_url: str, tmp_path: Path) -> Iterator[World]:
    database = Database(sqlite_url)
    settings = []
    for name, kind in (("example.org", "spiffe"), ("ci", "oidc")):
        create_domain(name, kind, tmp_path / name, None if kind == "spiffe" else "https://ci.example")
        settings.append(
            TrustDomainSettings.model_validate(
                {"name": name, "kind": kind, "jwks_file": tmp_path / name / "jwks.json"}
                | ({} if kind == "spiffe" else {"issuer": "https://ci.example", "refuse_repeated_jti": True})
            )
        )
    for agent in (AGENT, CI_AGENT, KEY_AGENT):
        database.write(partial(agents.create, agent=agent))
    for server in (SERVER, KEY_SERVER, SPIFFE_SERVER):
        database.write(partial(resource_servers.create, server=server))
    yield World(database, tmp_path, TrustDomains(settings, issuer=ISSUER))
    database.dispose()


def basic(id: str, secret: str) -> str:
    """An Authorization header."""
    return "Basic " + base64.b64encode(f"{quote_plus(id)}:{quote_plus(secret)}".encode()).decode()


def own_assertion(client_id: str, *, key: ECKey = KEY, typ: str = "JWT", **claims: object) -> str:
    """A private_key_jwt assertion, but for the claims that are given; None leaves one out."""
    usual = {"iss": client_id, "sub": client_id, "aud": ISSUER, "jti": "j1", "iat": int(NOW.timestamp())}
    said = usual | {"exp": int(NOW.timestamp()) + 60} | claims
    kept = {name: value for name, value in said.items() if value is not None}
    return sign(kept, key=SigningKey("k1", key), typ=typ)


def test_an_agent_authenticates_with_its_jwt_svid(world: World) -> None:
    text = world.workload("example.org", BUYER)
    for client_id in (None, "buyer"):  # an assertion of this domain may be shown many times
        assert (
            world.authenticate(client_assertion_type=JWT_SPIFFE, client_assertion=text, client_id=client_id)
            == AGENT
        )


def test_a_resource_server_authenticates_with_its_jwt_svid(world: World) -> None:
    text = world.workload("example.org", SHOP)
    assert world.authenticate(client_assertion_type=JWT_SPIFFE, client_assertion=text) == SPIFFE_SERVER


def test_an_agent_authenticates_with_the_assertion_of_its_oidc_domain(world: World) -> None:
    text = world.workload("ci", "repo:shop")
    assert world.authenticate(client_assertion_type=JWT_BEARER, client_assertion=text) == CI_AGENT


@pytest.mark.parametrize("audience", [ISSUER, TOKEN_ENDPOINT, [ISSUER]])
@pytest.mark.parametrize("client", [KEY_AGENT, KEY_SERVER])
def test_a_registered_key_authenticates(world: World, client: Client, audience: object) -> None:
    client_id = client.client_id if isinstance(client, Agent) else client.id
    text = own_assertion(client_id, aud=audience)
    assert world.authenticate(client_assertion_type=JWT_BEARER, client_assertion=text) == client


def test_a_resource_server_authenticates_with_its_secret(world: World) -> None:
    assert world.authenticate(authorization=basic("rs_1", SECRET)) == SERVER
    assert world.authenticate(authorization=basic("rs_1", SECRET), client_id="rs_1") == SERVER
    assert world.authenticate(authorization=basic("rs_1", SECRET).replace("Basic", "bAsIc")) == SERVER


@pytest.mark.parametrize(
    "header",
    [
        basic("rs_1", "wrong"),
        basic("rs_1", SECRET[:-1]),
        basic("rs_1", ""),
        basic("unknown", SECRET),
        basic("rs_2", SECRET),
        basic("rs_3", SECRET),
        basic("buyer", SECRET),
        basic("https://shop.example/api", SECRET),
        basic("rs_1\0", SECRET),
        "Basic",
        "Basic !!!",
        "Basic cnNfMQ==",
        "Basic " + "A" * 100_000,
        "Bearer abc",
        "",
        "Basic \xff",
    ],
)
def test_a_wrong_secret_has_one_answer_and_names_the_scheme(world: World, header: str) -> None:
    refused = world.refusal(authorization=header)
    assert (refused.error, refused.status) == ("invalid_client", 401)
    assert refused.description == "client authentication failed"
    assert refused.headers == {"WWW-Authenticate": f'Basic realm="{ISSUER}"'}


def test_two_ways_at_once_are_refused(world: World) -> None:
    refused = world.refusal(
        authorization=basic("rs_1", SECRET),
        client_assertion_type=JWT_BEARER,
        client_assertion=own_assertion("rs_2"),
    )
    assert (refused.error, refused.status) == ("invalid_request", 400)


@pytest.mark.parametrize(
    "credentials",
    [
        {},
        {"client_id": "buyer"},
        {"client_assertion_type": JWT_SPIFFE},
        {"client_assertion": "a.b.c"},
        {"client_assertion": "a.b.c", "client_assertion_type": "saml2-bearer"},
        {"client_assertion": "a.b.c", "client_assertion_type": JWT_BEARER},
        {"client_assertion": "", "client_assertion_type": JWT_SPIFFE},
    ],
)
def test_without_proof_nobody_is_recognized(world: World, credentials: dict[str, Any]) -> None:
    refused = world.refusal(**credentials)
    assert (refused.error, refused.status, refused.headers) == ("invalid_client", 401, {})


def test_the_assertion_type_fits_the_kind_of_the_domain(world: World) -> None:
    for kind, domain, subject in ((JWT_BEARER, "example.org", BUYER), (JWT_SPIFFE, "ci", "repo:shop")):
        text = world.workload(domain, subject)
        assert (
            world.refusal(client_assertion_type=kind, client_assertion=text).rule == "client.assertion_type"
        )
    refused = world.refusal(client_assertion_type=JWT_SPIFFE, client_assertion=own_assertion("keyed"))
    assert refused.rule == "assertion.unknown_issuer"


@pytest.mark.parametrize(
    "subject", [f"{BUYER}-evil", f"{BUYER}/x", BUYER[:-1], "spiffe://example.org/agents/Buyer"]
)
def test_A42_a_workload_that_is_nearly_registered_is_not(world: World, subject: str) -> None:
    text = world.workload("example.org", subject)
    assert world.refusal(client_assertion_type=JWT_SPIFFE, client_assertion=text).rule == "client.unknown"


def test_a_resource_servers_subject_is_of_no_other_domain(world: World) -> None:
    text = world.workload("ci", SHOP)
    assert world.refusal(client_assertion_type=JWT_BEARER, client_assertion=text).rule == "client.unknown"


def test_A24_a_client_id_that_is_not_the_callers_is_refused(world: World) -> None:
    text = world.workload("example.org", BUYER)
    refused = world.refusal(client_assertion_type=JWT_SPIFFE, client_assertion=text, client_id="keyed")
    assert (refused.error, refused.rule) == ("invalid_client", "client.other_client_id")
    assert (
        world.refusal(authorization=basic("rs_1", SECRET), client_id="rs_2").rule == "client.other_client_id"
    )


@pytest.mark.parametrize(
    ("claims", "rule"),
    [
        ({"aud": "https://other.example"}, "client.audience"),
        ({"aud": [ISSUER, TOKEN_ENDPOINT]}, "jwt.aud"),
        ({"aud": f"{ISSUER}/"}, "client.audience"),
        ({"aud": None}, "jwt.aud"),
        ({"jti": None}, "jwt.jti"),
        ({"jti": 1}, "jwt.jti"),
        ({"exp": None}, "jwt.exp"),
        ({"exp": int(NOW.timestamp()) - 30}, "client.expired"),
        ({"exp": int(NOW.timestamp()) + 3631}, "client.lifetime"),
        ({"nbf": int(NOW.timestamp()) + 31}, "client.not_yet_valid"),
        ({"iat": int(NOW.timestamp()) + 31}, "client.not_yet_valid"),
        ({"iss": "rs_2"}, "assertion.unknown_issuer"),
        ({"iss": None, "sub": None}, "jwt.sub"),
        ({"iss": "nobody", "sub": "nobody"}, "client.unknown"),
        ({"iss": "buyer", "sub": "buyer"}, "client.unknown"),
    ],
)
def test_A13_a_client_assertion_with_other_claims_is_refused(
    world: World, claims: dict[str, Any], rule: str
) -> None:
    text = own_assertion("keyed", **claims)
    refused = world.refusal(client_assertion_type=JWT_BEARER, client_assertion=text)
    assert (refused.error, refused.status, refused.rule) == ("invalid_client", 401, rule)


def test_A11_another_kind_of_token_is_no_client_assertion(world: World) -> None:
    for typ in ("at+jwt", "delegation-grant+jwt", "dpop+jwt"):
        text = own_assertion("keyed", typ=typ)
        assert world.refusal(client_assertion_type=JWT_BEARER, client_assertion=text).rule == "client.type"
    text = own_assertion("keyed", typ="client-authentication+jwt")
    assert world.authenticate(client_assertion_type=JWT_BEARER, client_assertion=text) == KEY_AGENT


def test_A49_a_client_assertion_is_used_once(world: World) -> None:
    text = own_assertion("keyed")
    world.authenticate(client_assertion_type=JWT_BEARER, client_assertion=text)
    refused = world.refusal(client_assertion_type=JWT_BEARER, client_assertion=text)
    assert (refused.error, refused.rule) == ("invalid_client", "client.replayed")
    later = own_assertion("keyed", exp=int(NOW.timestamp()) + 90)  # another text, the same jti
    assert world.refusal(client_assertion_type=JWT_BEARER, client_assertion=later).rule == "client.replayed"
    # The jti is the client's own: another client may have the same.
    assert world.authenticate(client_assertion_type=JWT_BEARER, client_assertion=own_assertion("rs_2"))


def test_A49_a_workload_assertion_is_used_once_where_the_domain_says_so(world: World) -> None:
    text = world.workload("ci", "repo:shop")
    world.authenticate(client_assertion_type=JWT_BEARER, client_assertion=text)
    assert world.refusal(client_assertion_type=JWT_BEARER, client_assertion=text).rule == "client.replayed"


def test_A49_of_many_at_once_one_is_recognized(world: World) -> None:
    text = own_assertion("keyed")
    seen: list[Client | str] = []
    gate = threading.Barrier(8)

    def ask() -> None:
        gate.wait(5)
        try:
            seen.append(world.authenticate(client_assertion_type=JWT_BEARER, client_assertion=text))
        except Refusal as refused:
            seen.append(refused.rule)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert seen.count(KEY_AGENT) == 1
    assert seen.count("client.replayed") == 7


def test_a_forged_client_assertion_uses_up_nothing(world: World) -> None:
    forged = own_assertion("keyed", key=ECKey.generate_key("P-256"))
    refused = world.refusal(client_assertion_type=JWT_BEARER, client_assertion=forged)
    assert refused.rule == "jws.signature"
    assert world.authenticate(client_assertion_type=JWT_BEARER, client_assertion=own_assertion("keyed"))


def test_a_disabled_client_is_refused(world: World) -> None:
    def disable_all(connection: Connection) -> None:
        for client_id in ("buyer", "keyed"):
            agents.disable(connection, client_id, NOW)
        resource_servers.disable(connection, "rs_1", NOW)

    text = world.workload("example.org", BUYER)
    assert world.authenticate(client_assertion_type=JWT_SPIFFE, client_assertion=text)
    world.database.write(disable_all)
    assert world.refusal(client_assertion_type=JWT_SPIFFE, client_assertion=text).rule == "client.disabled"
    assert world.refusal(authorization=basic("rs_1", SECRET)).rule == "client.disabled"
    own = own_assertion("keyed")
    assert world.refusal(client_assertion_type=JWT_BEARER, client_assertion=own).rule == "client.disabled"


@pytest.mark.parametrize("jwks", ["", "{", "[]", '{"keys":[]}'])
def test_a_client_whose_registered_keys_cannot_be_used_is_refused(world: World, jwks: str) -> None:
    agent = replace(KEY_AGENT, client_id="broken", subject=f"{BUYER}/broken", jwks=jwks)
    world.database.write(lambda connection: agents.create(connection, agent))
    refused = world.refusal(client_assertion_type=JWT_BEARER, client_assertion=own_assertion("broken"))
    assert (refused.error, refused.status) == ("invalid_client", 401)


def test_secrets_are_random_and_shown_nowhere() -> None:
    made = {resource_servers.new_secret()[0] for _ in range(100)}
    assert len(made) == 100
    assert min(len(base64.urlsafe_b64decode(secret + "==")) for secret in made) >= 32
    assert SECRET not in repr(ClientCredentials(authorization=basic("rs_1", SECRET), client_assertion=SECRET))
    assert repr(SECRET_HASH) not in repr(SERVER)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.dispose()


def test_agents_and_resource_servers_are_kept_as_they_are(database: Database) -> None:
    database.write(lambda connection: agents.create(connection, AGENT))
    database.write(lambda connection: resource_servers.create(connection, SERVER))
    assert database.read(lambda connection: agents.find(connection, "buyer")) == AGENT
    assert database.read(lambda connection: agents.list_all(connection)) == (AGENT,)
    assert database.read(lambda connection: resource_servers.find(connection, "rs_1")) == SERVER
    assert database.read(lambda connection: resource_servers.list_all(connection)) == (SERVER,)
    found = database.read(
        lambda connection: resource_servers.find_by_identifier(connection, "https://shop.example/api")
    )
    assert found == SERVER
    for missing in ("https://shop.example/api/", "https://shop.example/%", "HTTPS://shop.example/api"):
        found = database.read(partial(resource_servers.find_by_identifier, identifier=missing))
        assert found is None


def test_a_name_that_is_taken_is_not_taken_again(database: Database) -> None:
    database.write(lambda connection: agents.create(connection, AGENT))
    database.write(lambda connection: resource_servers.create(connection, SPIFFE_SERVER))
    for agent in (replace(AGENT, subject="other"), replace(AGENT, client_id="other")):
        with pytest.raises(AlreadyRegistered):
            database.write(partial(agents.create, agent=agent))
    same = (
        replace(SPIFFE_SERVER, identifier="https://x.example", subject=None),
        replace(SPIFFE_SERVER, id="other", subject=None),
        replace(SPIFFE_SERVER, id="other", identifier="https://x.example"),
    )
    for server in same:
        with pytest.raises(AlreadyRegistered):
            database.write(partial(resource_servers.create, server=server))


def test_the_first_time_of_disabling_counts(database: Database) -> None:
    database.write(lambda connection: agents.create(connection, AGENT))
    database.write(lambda connection: resource_servers.create(connection, SERVER))
    for now in (NOW, NOW + timedelta(hours=1)):
        database.write(partial(agents.disable, client_id="buyer", now=now))
        database.write(partial(resource_servers.disable, id="rs_1", now=now))
    agent = database.read(lambda connection: agents.find(connection, "buyer"))
    server = database.read(lambda connection: resource_servers.find(connection, "rs_1"))
    assert (agent and agent.disabled_at) == (server and server.disabled_at) == NOW
    with pytest.raises(NotRegistered):
        database.write(lambda connection: agents.disable(connection, "nobody", NOW))
    with pytest.raises(NotRegistered):
        database.write(lambda connection: resource_servers.disable(connection, "nobody", NOW))


def test_A49_a_jti_is_remembered_until_its_token_has_ended(database: Database) -> None:
    def use(jti: str, issuer: str = "a") -> None:
        database.write(lambda connection: replay.remember(connection, issuer, jti, NOW))

    use("j1")
    with pytest.raises(replay.Replayed):
        use("j1")
    use("j2")
    use("j1", "b")
    database.write(lambda connection: replay.remember_quietly(connection, "a", "j1", NOW))
