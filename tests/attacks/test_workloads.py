"""Workload identities, and what is fetched for them (threats A40 to A49)."""

import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import permutations, product
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey
from pydantic import ValidationError
from structlog.testing import capture_logs

from authserver.actors import agents, fetcher, replay, resource_servers
from authserver.actors.client_authentication import JWT_BEARER, JWT_SPIFFE
from authserver.actors.workload_files import make_assertion
from authserver.app import build
from authserver.config import TrustDomainSettings
from authserver.services import open_services
from tests.attacks.forge import ABSENT, Draft, Key, claims_of, header_of, mac_text, public, twisted, weak_rsa
from tests.attacks.key_server import Answer, KeyServer, NameService, key_server, says
from tests.attacks.making import named
from tests.attacks.scene import (
    ASSERTION,
    AT_EXCHANGE,
    AT_INTROSPECTION,
    AT_REVOCATION,
    CHECKER,
    PRIVATE_KEY_JWT,
    Place,
    Scene,
    other_domain,
    set_up,
    write_jwks,
)
from tests.world import (
    BASKET_HELPER,
    World,
    example_org,
    make_agent,
    make_resource_server,
    running_world,
)

BUYER = "system:serviceaccount:shop:buyer"
JOB = "repo:acme/shop:ref:refs/heads/main"


@dataclass(frozen=True)
class Workload:
    """An agent of one trust domain, the domain's folder, and its grant."""

    client_id: str
    domain: str
    subject: str
    folder: Path
    grant: str

    @property
    def key(self) -> ECKey:
        """The domain's private key."""
        return ECKey.import_key((self.folder / "private_key.pem").read_bytes())


@dataclass
class Domains:
    """A server that trusts five domains of three kinds, with an agent in each."""

    world: World
    workloads: dict[str, Workload] = field(default_factory=dict)

    def draft(self, name: str) -> Draft:
        """A good assertion of that agent."""
        of, world = self.workloads[name], self.world
        token = make_assertion(of.folder, of.subject, world.issuer, timedelta(seconds=300), world.clock.now())
        return Draft(header_of(token), claims_of(token), of.key)

    def show(self, name: str, token: str) -> httpx.Response:
        """Exchange that agent's grant with this assertion."""
        return self.world.exchange(self.workloads[name].grant, actor_token=token)

    def refuses(self, name: str, token: str, reason: str | None = None) -> None:
        """The same; it is refused for `reason` and leaves nothing."""
        with self.world.nothing_happens(reason and f"actor.{reason}"):
            self.world.refuses(self.show(name, token), "invalid_request")

    def refuses_as_client(self, token: str, kind: str, rule: str) -> None:
        """Revoke with this client assertion; it is refused and leaves nothing."""
        form = {"client_assertion_type": kind, "client_assertion": token, "token": "x"}
        with self.world.nothing_happens(rule, "token_revocation.refused"):
            self.world.refuses(self.world.post("/oauth/revoke", form), "invalid_client", status=401)


@pytest.fixture(scope="module")
def domains(_sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domains]:
    """One server for all tests that leave nothing behind; its clock stands still."""
    folder = tmp_path_factory.mktemp("domains")
    database = folder / "authserver.db"
    database.write_bytes(_sqlite_template.read_bytes())
    known = {
        "buyer": ("cluster.example", "kubernetes", BUYER),
        "twin": ("other-cluster.example", "kubernetes", "system:serviceaccount:shop:twin"),
        "job": ("login.example", "oidc", JOB),
        "elsewhere": ("elsewhere.example", "spiffe", "spiffe://elsewhere.example/agent"),
    }
    settings = [other_domain(folder / name, name, kind) for name, kind, _ in known.values()]
    with running_world(
        f"sqlite:///{database}", folder / "world", trust_domains=[example_org(folder / "world"), *settings]
    ) as world:
        running = Domains(world)
        for client_id, (domain, _, subject) in known.items():
            running.workloads[client_id] = _registered(world, client_id, domain, subject, folder / domain)
        helper = Workload(
            "basket-helper", "example.org", BASKET_HELPER, world.domain, _grant(world, "basket-helper")
        )
        running.workloads["basket-helper"] = helper
        yield running


def _registered(world: World, client_id: str, domain: str, subject: str, folder: Path) -> Workload:
    agent = make_agent(client_id, subject, world.clock.now(), trust_domain=domain)
    world.services.database.write(lambda connection: agents.create(connection, agent))
    return Workload(client_id, domain, subject, folder, _grant(world, client_id))


def _grant(world: World, client_id: str) -> str:
    ample = {"currency": "EUR", "per_action": "80.00", "total": "1000000.00"}
    return world.granted(agent=client_id, limits=ample).grant


WORKLOADS = ["basket-helper", "elsewhere", "buyer", "twin", "job"]
PAIRS = list(permutations(WORKLOADS, 2))


@pytest.mark.parametrize("name", WORKLOADS)
def test_each_domain_vouches_for_its_own_agent(domains: Domains, name: str) -> None:
    assert domains.show(name, domains.draft(name).signed()).status_code == 200


# --- A40: one domain speaks for another -----------------------------------------------------------------------


@pytest.mark.parametrize(("victim", "signer"), PAIRS)
def test_A40_a_domains_key_signs_for_no_other_domain(domains: Domains, victim: str, signer: str) -> None:
    draft, other = domains.draft(victim), domains.draft(signer)
    for header, reason in (
        ({"kid": other.header["kid"]}, "jws.unknown_kid"),
        ({}, "jws.signature"),
        ({"kid": ABSENT}, "jws.signature"),
    ):
        domains.refuses(victim, draft.changed(header).signed(other.key), reason)


@pytest.mark.parametrize(("victim", "attacker"), PAIRS)
def test_A40_a_good_assertion_with_anothers_subject_names_nobody(
    domains: Domains, victim: str, attacker: str
) -> None:
    # The signature is good for the attacker's own domain; only the subject is the victim's.
    draft = domains.draft(attacker).changed(sub=domains.workloads[victim].subject)
    if "iss" not in draft.claims and victim in ("basket-helper", "elsewhere"):
        domains.refuses(victim, draft.signed(), "jws.unknown_kid")
    else:
        domains.refuses(victim, draft.signed())


@pytest.mark.parametrize("attacker", ["buyer", "job"])
def test_A40_the_issuer_decides_and_not_a_spiffe_id_beside_it(domains: Domains, attacker: str) -> None:
    draft = domains.draft(attacker).changed(sub=BASKET_HELPER)
    domains.refuses(
        "basket-helper", draft.signed(), {"buyer": "assertion.subject", "job": "unknown_agent"}[attacker]
    )
    # And the other way round: the SPIFFE domain's key under the other's issuer.
    named_so = domains.draft("basket-helper").changed(iss=draft.claims["iss"], iat=draft.claims["iat"])
    domains.refuses("basket-helper", named_so.signed())


@pytest.mark.parametrize(
    "iss", ["spiffe://example.org", "example.org", "https://example.org", "https://evil.example"]
)
def test_A40_an_issuer_that_nobody_configured_adds_nothing(domains: Domains, iss: str) -> None:
    draft = domains.draft("elsewhere").changed(iss=iss, sub=BASKET_HELPER)
    domains.refuses("basket-helper", draft.signed(), "jws.unknown_kid")


@pytest.mark.parametrize("domain", ["cluster.example", "login.example"])
def test_A40_the_label_of_another_kind_is_no_spiffe_trust_domain(domains: Domains, domain: str) -> None:
    attacker = {"cluster.example": "buyer", "login.example": "job"}[domain]
    draft = domains.draft(attacker).changed(sub=f"spiffe://{domain}/agent", iss=ABSENT)
    domains.refuses(attacker, draft.signed(), "assertion.unknown_issuer")


def test_A40_an_oidc_subject_is_no_resource_servers_spiffe_id(domains: Domains) -> None:
    """What a resource server registered as its SPIFFE ID is nothing that another kind of domain can say."""
    server = make_resource_server(
        "workload", "https://w.example/", domains.world.clock.now(), auth_method="jwt-spiffe", subject=CHECKER
    )
    domains.world.services.database.write(lambda c: resource_servers.create(c, server))
    token = domains.draft("job").changed(sub=CHECKER).signed()
    domains.refuses_as_client(token, JWT_BEARER, "client.unknown")
    domains.refuses_as_client(token, JWT_SPIFFE, "client.assertion_type")
    domains.refuses_as_client(
        domains.draft("elsewhere").changed(sub=CHECKER).signed(), JWT_SPIFFE, "jws.unknown_kid"
    )


# --- A41: look-alikes of a SPIFFE ID --------------------------------------------------------------------------

LOOK_ALIKES = [
    "SPIFFE://example.org/agent/basket-helper",
    "Spiffe://example.org/agent/basket-helper",
    "spiffe://EXAMPLE.org/agent/basket-helper",
    "spiffe://example.org/Agent/basket-helper",
    "spiffe://example.org/agent/Basket-Helper",
    "spiffe://example.org/agent/basket-helper/",
    "spiffe://example.org//agent/basket-helper",
    "spiffe://example.org/agent//basket-helper",
    "spiffe://example.org/agent/./basket-helper",
    "spiffe://example.org/agent/x/../basket-helper",
    "spiffe://example.org/../example.org/agent/basket-helper",
    "spiffe://example.org/agent/basket-helper/..",
    "spiffe://example.org/agent/basket%2Dhelper",
    "spiffe://example.org/%61gent/basket-helper",
    "spiffe://example.org%2Fagent/basket-helper",
    "spiffe://example.org/agent/basket-helper?",
    "spiffe://example.org/agent/basket-helper?a=b",
    "spiffe://example.org/agent/basket-helper#",
    "spiffe://example.org/agent/basket-helper#a",
    "spiffe://example.org:443/agent/basket-helper",
    "spiffe://example.org:/agent/basket-helper",
    "spiffe://user@example.org/agent/basket-helper",
    "spiffe://example.org@evil.example/agent/basket-helper",
    "spiffe://evil.example/example.org/agent/basket-helper",
    "spiffe://example.org.evil.example/agent/basket-helper",
    "spiffe://example.org./agent/basket-helper",
    "spiffe://ex\u0430mple.org/agent/basket-helper",
    "spiffe://example.org/agent/basket\u2010helper",
    "spiffe://example.org/agent/basket-helper\u200b",
    "spiffe://example.org/agent/basket-helper ",
    " spiffe://example.org/agent/basket-helper",
    "spiffe://example.org/agent/basket-helper\n",
    "spiffe://example.org/agent/basket-helper\u0000",
    "spiffe:/example.org/agent/basket-helper",
    "spiffe:///example.org/agent/basket-helper",
    "spiffe:example.org/agent/basket-helper",
    "https://example.org/agent/basket-helper",
    "example.org/agent/basket-helper",
    "/agent/basket-helper",
    "spiffe://example.org",
    "spiffe://example.org/",
    "spiffe://example.org\\agent\\basket-helper",
    "",
    "spiffe://example.org/" + "a" * 2048,
]


@pytest.mark.parametrize("sub", LOOK_ALIKES, ids=lambda sub: ascii(sub)[:70])
def test_A41_a_look_alike_of_a_spiffe_id_is_another_workload_or_none(domains: Domains, sub: str) -> None:
    domains.refuses("basket-helper", domains.draft("basket-helper").changed(sub=sub).signed())


@pytest.mark.parametrize("sub", [None, 1, True, [BASKET_HELPER], {"sub": BASKET_HELPER}, ABSENT], ids=repr)
def test_A41_a_subject_is_one_text(domains: Domains, sub: object) -> None:
    for name in WORKLOADS:
        domains.refuses(name, domains.draft(name).changed(sub=sub).signed())


# --- A42: prefixes and wildcards ------------------------------------------------------------------------------

NEARLY = ["{}-evil", "{}x", "{}/x", "{}.", "{}%", "{}*", "{}_", "x{}", "*", "%", ".*"]


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("form", [*NEARLY, "shorter", "upper"])
def test_A42_a_subject_is_matched_exactly(domains: Domains, name: str, form: str) -> None:
    subject = domains.workloads[name].subject
    changed = {"shorter": subject[:-1], "upper": subject.upper()}.get(form, form.format(subject))
    domains.refuses(name, domains.draft(name).changed(sub=changed).signed())


@pytest.mark.parametrize(
    ("registered", "shown"),
    [
        ("spiffe://example.org/agent/*", "spiffe://example.org/agent/anyone"),
        ("spiffe://example.org/agent/%", "spiffe://example.org/agent/anyone"),
        ("spiffe://example.org/agent/a_b", "spiffe://example.org/agent/axb"),
        ("spiffe://example.org/agent/a.b", "spiffe://example.org/agent/axb"),
        ("spiffe://example.org/agent/[a-z]", "spiffe://example.org/agent/a"),
        ("spiffe://example.org", "spiffe://example.org/agent/anyone"),
        ("spiffe://example.org/agent/Anyone", "spiffe://example.org/agent/anyone"),
    ],
)
def test_A42_a_registered_subject_is_no_pattern(world: World, registered: str, shown: str) -> None:
    agent = make_agent("pattern", registered, world.clock.now())
    world.services.database.write(lambda connection: agents.create(connection, agent))
    grant = world.granted(agent="pattern").grant
    with world.nothing_happens("actor.unknown_agent"):
        world.refuses(world.exchange(grant, actor_token=world.assertion(shown)), "invalid_request")


# --- A43: Kubernetes -----------------------------------------------------------------------------------------

POD = {
    "namespace": "shop",
    "pod": {"name": "buyer-1", "uid": "1"},
    "serviceaccount": {"name": "buyer", "uid": "2"},
}
KUBERNETES: dict[str, tuple[dict[str, Any], str]] = {
    "of an unknown cluster": (
        {"iss": "https://kubernetes.default.svc.cluster.local"},
        "assertion.unknown_issuer",
    ),
    "of the other cluster, signed by this": ({"iss": "https://other-cluster.example"}, "jws.unknown_kid"),
    "issuer with a slash": ({"iss": "https://cluster.example/"}, "assertion.unknown_issuer"),
    "issuer in upper case": ({"iss": "https://CLUSTER.example"}, "assertion.unknown_issuer"),
    "for the API server": ({"aud": ["https://kubernetes.default.svc"]}, "assertion.audience"),
    "for the API server too": ({"aud": ["https://kubernetes.default.svc", "ISSUER"]}, "jwt.aud"),
    "without an audience": ({"aud": ABSENT}, "jwt.aud"),
    "without exp": ({"exp": ABSENT}, "jwt.exp"),
    "without iat": ({"iat": ABSENT}, "jwt.iat"),
    "legacy": (
        {"iss": "kubernetes/serviceaccount", "exp": ABSENT, "iat": ABSENT, "nbf": ABSENT, "aud": ABSENT},
        "assertion.unknown_issuer",
    ),
    "legacy under the cluster's issuer": (
        {"exp": ABSENT, "iat": ABSENT, "nbf": ABSENT, "aud": ABSENT},
        "jwt.exp",
    ),
    "extended for a year by the API server": (
        {"exp": 31_536_000, "kubernetes.io": POD},
        "assertion.lifetime",
    ),
    "of a node": ({"sub": "system:node:worker-1"}, "assertion.subject"),
    "of a user": ({"sub": "buyer"}, "assertion.subject"),
    "of another namespace": ({"sub": "system:serviceaccount:shop-evil:buyer"}, "unknown_agent"),
    "of another account": ({"sub": "system:serviceaccount:shop:buyer-evil"}, "unknown_agent"),
    "with a colon in the namespace": ({"sub": "system:serviceaccount:shop:buyer:x"}, "assertion.subject"),
    "with an empty namespace": ({"sub": "system:serviceaccount::buyer"}, "assertion.subject"),
}


@pytest.mark.parametrize(
    ("claims", "reason"), [pytest.param(*case, id=name) for name, case in KUBERNETES.items()]
)
def test_A43_a_kubernetes_token_of_elsewhere_or_of_the_old_kind_is_refused(
    domains: Domains, claims: dict[str, Any], reason: str
) -> None:
    now = int(domains.world.clock.now().timestamp())
    here = dict(claims)
    if "exp" in here and here["exp"] is not ABSENT:
        here["exp"] = now + here["exp"]
    if isinstance(here.get("aud"), list):
        here["aud"] = [domains.world.issuer if aud == "ISSUER" else aud for aud in here["aud"]]
    domains.refuses("buyer", domains.draft("buyer").changed(**here).signed(), reason)


def test_A43_the_same_account_of_the_other_cluster_is_another_workload(domains: Domains) -> None:
    draft = domains.draft("twin").changed(sub=BUYER)
    domains.refuses("buyer", draft.signed(), "unknown_agent")
    domains.refuses("buyer", draft.changed(iss="https://cluster.example").signed(), "jws.unknown_kid")


def test_A43_what_a_pod_that_is_gone_has_left_ends_within_the_hour(sqlite_url: str, tmp_path: Path) -> None:
    """Its cluster issues no more; what it had issued is told from a living pod's by nothing but its time."""
    cluster = other_domain(tmp_path / "cluster", "cluster.example", "kubernetes", max_lifetime=600)
    with running_world(sqlite_url, tmp_path / "world", trust_domains=[cluster]) as world:
        buyer = _registered(world, "buyer", "cluster.example", BUYER, tmp_path / "cluster")
        life = {seconds: _of_the_pod(world, buyer, seconds) for seconds in (600, 601)}
        with world.nothing_happens("actor.assertion.lifetime"):
            world.refuses(world.exchange(buyer.grant, actor_token=life[601]), "invalid_request")
        assert world.exchange(buyer.grant, actor_token=life[600]).status_code == 200
        world.clock.advance(seconds=630)
        with world.nothing_happens("actor.assertion.expired"):
            world.refuses(world.exchange(buyer.grant, actor_token=life[600]), "invalid_request")


def _of_the_pod(world: World, workload: Workload, lifetime: int) -> str:
    claims = {"kubernetes.io": POD}
    return make_assertion(
        workload.folder,
        workload.subject,
        world.issuer,
        timedelta(seconds=lifetime),
        world.clock.now(),
        **claims,
    )


# --- A44, A45, A47: keys that are fetched ---------------------------------------------------------------------


@dataclass
class Fetched:
    """A server whose one trust domain has its keys on a web server of its own."""

    world: World
    keys: KeyServer
    grant: str
    signer: ECKey

    def assertion(self, kid: object = "k1", *, key: ECKey | None = None, lifetime: int = 3600) -> str:
        """An assertion of the domain's agent."""
        claims = claims_of(self.world.assertion("spiffe://web.example/agent", lifetime=lifetime))
        return Draft({"alg": "ES256", "kid": kid}, claims, key or self.signer).signed()

    def exchange(self, assertion: str | None = None) -> httpx.Response:
        """An exchange with that assertion, or with a fresh one."""
        return self.world.exchange(self.grant, actor_token=assertion or self.assertion())

    def refuses(self, assertion: str, reason: str) -> None:
        """It is refused for `reason` and leaves nothing."""
        with self.world.nothing_happens(f"actor.{reason}"):
            self.world.refuses(self.exchange(assertion), "invalid_request")


@contextmanager
def fetching(
    database_url: str,
    folder: Path,
    keys: KeyServer,
    *,
    url: str | None = None,
    answer: Answer | None = None,
    **more: Any,
) -> Iterator[Fetched]:
    """One that has asked `keys` once, as a server does when it starts; the domain's only key is k1."""
    signer = ECKey.generate_key("P-256")
    keys.serve(public(signer, kid="k1"))
    keys.answer = answer or keys.answer
    domain = {
        "name": "web.example",
        "kind": "spiffe",
        "jwks_url": url or keys.url,
        "allow_private_network": True,
    }
    with running_world(database_url, folder / "world", trust_domains=[domain | more]) as world:
        agent = make_agent("web", "spiffe://web.example/agent", world.clock.now(), trust_domain="web.example")
        world.services.database.write(lambda connection: agents.create(connection, agent))
        yield Fetched(world, keys, _grant(world, "web"), signer)


@pytest.fixture
def fetched(sqlite_url: str, tmp_path: Path) -> Iterator[Fetched]:
    """Such a server whose domain answers well, until a test has it answer otherwise."""
    with key_server() as keys, fetching(sqlite_url, tmp_path, keys) as running:
        yield running


def test_A44_a_flood_of_unknown_kids_fetches_once_in_ten_seconds(fetched: Fetched) -> None:
    assert fetched.exchange().status_code == 200
    assert len(fetched.keys.requests) == 1
    for step in range(1, 4):
        fetched.world.clock.advance(seconds=10)
        for number in range(10):
            fetched.refuses(fetched.assertion(f"unknown-{step}-{number}"), "jws.unknown_kid")
            assert fetched.exchange().status_code == 200  # known keys keep working
        assert len(fetched.keys.requests) == 1 + step


def test_A44_a_flood_at_once_fetches_once(fetched: Fetched) -> None:
    assert fetched.exchange().status_code == 200
    fetched.world.clock.advance(seconds=10)
    fetched.keys.answer = _after(0.3, fetched.keys.answer)
    flood = [fetched.assertion(f"unknown-{number}") for number in range(12)]
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda t=t: answers.append(fetched.exchange(t).status_code)) for t in flood
    ]
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    assert fetched.exchange().status_code == 200
    assert time.monotonic() - begun < 3
    for thread in threads:
        thread.join()
    assert answers == [400] * 12
    assert len(fetched.keys.requests) == 2


@pytest.mark.parametrize("kind", [JWT_SPIFFE, JWT_BEARER])
@pytest.mark.parametrize("path", ["/oauth/introspect", "/oauth/revoke"])
def test_A44_a_flood_of_client_assertions_fetches_no_more(fetched: Fetched, path: str, kind: str) -> None:
    assert fetched.exchange().status_code == 200
    for number in range(10):
        form = {
            "client_assertion_type": kind,
            "client_assertion": fetched.assertion(f"unknown-{number}"),
            "token": "x",
        }
        fetched.world.refuses(fetched.world.post(path, form), "invalid_client", status=401)
    assert len(fetched.keys.requests) == 1


@pytest.mark.parametrize("kind", [JWT_SPIFFE, JWT_BEARER])
@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/introspect", "/oauth/revoke"])
def test_A44_no_transaction_waits_for_a_domains_slow_answer(fetched: Fetched, path: str, kind: str) -> None:
    """A client assertion costs its sender nothing, and SQLite has one writer."""
    world, go_on, gave_up = fetched.world, threading.Event(), threading.Event()
    assert fetched.exchange().status_code == 200
    world.clock.advance(seconds=10)
    form = {"client_assertion_type": kind, "client_assertion": fetched.assertion("unknown"), "token": "x"}
    if path == "/oauth/token":
        form |= world.form(fetched.grant, actor_token=fetched.assertion())

    def wait(connection: socket.socket) -> None:
        if not go_on.wait(2):
            gave_up.set()

    fetched.keys.answer = wait
    waiting = threading.Thread(target=lambda: world.post(path, form))
    waiting.start()
    while len(fetched.keys.requests) < 2:
        time.sleep(0.01)
    try:
        assert fetched.exchange().status_code == 200
        assert not gave_up.is_set()  # it was answered while the other one waited
    finally:
        go_on.set()
        waiting.join()


def test_A44_what_is_refused_for_its_claims_fetches_nothing(fetched: Fetched) -> None:
    fetched.world.clock.advance(seconds=10)
    draft = Draft({"alg": "ES256", "kid": "unknown"}, claims_of(fetched.assertion()), fetched.signer)
    fetched.refuses(draft.changed(aud="https://other.example").signed(), "assertion.audience")
    fetched.refuses(draft.changed(exp=1).signed(), "assertion.expired")
    fetched.refuses(draft.changed(sub="spiffe://other.example/a").signed(), "assertion.unknown_issuer")
    fetched.refuses(draft.changed({"alg": "none"}).signed(), "jws.alg")
    assert len(fetched.keys.requests) == 1


def _after(seconds: float, answer: Answer) -> Answer:
    def wait(connection: socket.socket) -> None:
        time.sleep(seconds)
        answer(connection)

    return wait


def _flood(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")
    for _ in range(1600):
        connection.sendall(b" " * 65_536)


def _endless_header(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X: " + b"a" * 65_536 + b"\r\n")


def _a_byte_a_second(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n")
    for _ in range(60):
        connection.sendall(b" ")
        time.sleep(1)


def _redirect(place: str, status: str = "302 Found") -> Answer:
    return says(b"", status, Location=place)


SET = b'{"keys":[%s]}'
FAR_ENDS: dict[str, Answer] = {
    "100 MB": _flood,
    "an endless header": _endless_header,
    "gzip bomb": says(gzip.compress(b" " * 50_000_000), Content_Encoding="gzip"),
    "gzip bomb without a word": says(gzip.compress(b" " * 50_000_000)),
    "10,000 keys": says(SET % b",".join([b'{"kty":"EC"}'] * 10_000)),
    "10,000 levels": says(b"[" * 10_000),
    "redirect to a cloud's metadata": _redirect("http://169.254.169.254/latest/meta-data"),
    "redirect to a file": _redirect("file:///etc/passwd"),
    "permanent redirect": _redirect("https://evil.example/keys.json", "308 Permanent Redirect"),
    "error": says(b"{}", "500 Internal Server Error"),
    "no answer": lambda connection: None,
    "no HTTP": lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 10),
    "no JSON": says(b"<html>"),
    "JSON that is no set": says(b"[]"),
    "a set said twice": says(b'{"keys":[],"keys":[]}'),
    "a byte a second": _a_byte_a_second,
}


@pytest.mark.parametrize("answer", named(FAR_ENDS))
def test_A45_whatever_a_key_server_answers_known_keys_serve_on(fetched: Fetched, answer: Answer) -> None:
    assert fetched.exchange().status_code == 200
    fetched.keys.answer = answer
    fetched.world.clock.advance(seconds=300)
    begun = time.monotonic()
    assert fetched.exchange().status_code == 200
    fetched.refuses(fetched.assertion("unknown"), "jws.unknown_kid")
    assert time.monotonic() - begun < 5
    assert len(fetched.keys.requests) == 2
    assert fetched.world.client.get("/readyz").json()["checks"]["trust_domains"]["web.example"] == "stale"


def test_A45_a_server_that_never_had_keys_leaves_its_domain_without(sqlite_url: str, tmp_path: Path) -> None:
    flood = FAR_ENDS["100 MB"]
    with key_server() as keys, fetching(sqlite_url, tmp_path, keys, answer=flood) as fetched:
        for _ in range(3):
            fetched.refuses(fetched.assertion(), "keys.unavailable")
        assert keys.connections == 1


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
def test_A45_no_redirect_is_followed(sqlite_url: str, tmp_path: Path, status: str) -> None:
    with key_server() as target, key_server() as keys:
        redirect = _redirect(target.url, status)
        with fetching(sqlite_url, tmp_path, keys, answer=redirect) as fetched:
            target.serve(public(fetched.signer, kid="k1"))
            fetched.refuses(fetched.assertion(), "keys.unavailable")
        assert (target.connections, keys.connections) == (0, 1)


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1:{port}/", "https://localhost:{port}/", "https://[::ffff:127.0.0.1]:{port}/"]
)
def test_A45_a_private_address_is_never_connected_to_unless_that_is_allowed(
    sqlite_url: str, tmp_path: Path, url: str
) -> None:
    with key_server() as keys:
        inside = url.format(port=keys.port)
        with fetching(sqlite_url, tmp_path, keys, url=inside, allow_private_network=False) as fetched:
            fetched.refuses(fetched.assertion(), "keys.unavailable")
        assert keys.connections == 0


def test_A45_http_is_no_way_to_fetch_keys_unless_private_networks_are_allowed() -> None:
    for url in ("http://127.0.0.1/", "http://keys.example/", "file:///etc/passwd", "ftp://keys.example/"):
        with pytest.raises(ValidationError):
            TrustDomainSettings(name="web.example", kind="spiffe", jwks_url=url)
    with pytest.raises(ValidationError):
        TrustDomainSettings(
            name="web.example", kind="spiffe", jwks_url="http://keys.example/", allow_private_network=True
        )


@pytest.mark.parametrize(
    "later",
    [["169.254.169.254"], ["10.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["::ffff:169.254.169.254"], []],
    ids=str,
)
def test_A45_a_name_that_changes_after_the_check_changes_nothing(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: list[str]
) -> None:
    names = NameService([["127.0.0.1"], later])
    monkeypatch.setattr(fetcher, "system_resolver", names)
    with key_server() as keys:
        by_name = keys.url.replace("127.0.0.1", "localhost")
        with fetching(sqlite_url, tmp_path, keys, url=by_name) as fetched:
            assert fetched.exchange().status_code == 200
            assert names.asked == ["localhost"]  # looked up once: what was checked is what was connected to
            fetched.world.clock.advance(seconds=300)
            assert fetched.exchange().status_code == 200
            assert names.asked == ["localhost", "localhost"]
        assert keys.connections == 1


@pytest.mark.parametrize(
    "address",
    [
        "::127.0.0.1",
        "::169.254.169.254",
        "::ffff:0:10.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::a9fe:a9fe",
        "fec0::1",
        "fd00:ec2::254",
        "169.254.169.254",
        "100.64.0.1",
        "240.0.0.1",
        "255.255.255.255",
    ],
)
def test_A45_an_inner_address_in_another_dress_is_not_connected_to(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(fetcher, "system_resolver", NameService([[address]]))
    with pytest.raises(fetcher.FetchFailed, match="address"):
        fetcher.Fetcher().get_json("https://keys.example/keys.json")


@pytest.mark.parametrize(
    "address", ["::169.254.169.254", "::ffff:0:169.254.169.254", "64:ff9b:1::a9fe:a9fe", "255.255.255.255"]
)
def test_A45_a_clouds_metadata_is_not_reached_even_where_private_networks_are_allowed(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(fetcher, "system_resolver", NameService([[address]]))
    with pytest.raises(fetcher.FetchFailed, match="address"):
        fetcher.Fetcher(allow_private_network=True).get_json("https://keys.example/keys.json")


# --- A46: keys that must not verify anything ------------------------------------------------------------------

EC, RSA = ECKey.generate_key("P-256"), RSAKey.generate_key(2048)
WEAK = weak_rsa()
K1, P521 = ECKey.generate_key("secp256k1"), ECKey.generate_key("P-521")
BAD_KEYS: dict[str, tuple[dict[str, Any], Key, str, str]] = {
    "for encryption": (public(EC, use="enc"), EC, "ES256", "use"),
    "for something else": (public(EC, use="x"), EC, "ES256", "use"),
    "use that is a list": (public(EC, use=["sig"]), EC, "ES256", "use"),
    "key_ops without verify": (public(EC, key_ops=["sign", "encrypt"]), EC, "ES256", "key_ops"),
    "empty key_ops": (public(EC, key_ops=[]), EC, "ES256", "key_ops"),
    "key_ops that is text": (public(EC, key_ops="verify"), EC, "ES256", "key_ops"),
    "private": ({**EC.as_dict(private=True)}, EC, "ES256", "private"),
    "private RSA": ({**RSA.as_dict(private=True)}, RSA, "RS256", "private"),
    "weak RSA": (public(WEAK), WEAK, "RS256", "rsa_size"),
    "unknown curve": (public(K1), K1, "ES256K", "curve"),
    "of another algorithm": (public(EC, alg="ES384"), EC, "ES256", "alg"),
    "off the curve": (public(EC) | {"x": "AAAA"}, EC, "ES256", "invalid"),
    "unknown type": (public(EC) | {"kty": "XX"}, EC, "ES256", "kty"),
}


@dataclass
class Mixed:
    """A server whose one trust domain publishes whatever a test says, in a file."""

    world: World
    jwks: Path
    grant: str
    signer: ECKey
    rounds: int = 0

    def publish(self, *keys: dict[str, Any]) -> None:
        """Replace the set; the domain's own good key stays in it."""
        document = {"keys": [*keys, public(self.signer, kid="good")]}
        new = self.jwks.with_suffix(".new")
        new.write_text(json.dumps(document), encoding="utf-8")
        new.replace(self.jwks)

    def assertion(self, kid: object, key: Key, alg: str) -> str:
        """An assertion signed with that key."""
        claims = claims_of(self.world.assertion("spiffe://mixed.example/agent"))
        return Draft({"alg": alg}, claims, key).changed({"kid": kid}).signed(alg=alg)

    def exchange(self, token: str) -> httpx.Response:
        """An exchange with that assertion."""
        return self.world.exchange(self.grant, actor_token=token)

    def refuses(self, token: str, *reasons: str) -> None:
        """It is refused for one of the reasons and leaves nothing."""
        with self.world.nothing_happens():
            self.world.refuses(self.exchange(token), "invalid_request")
        assert self.world.events()[-1]["rule"] in {f"actor.{reason}" for reason in reasons}


@pytest.fixture(scope="module")
def mixed(_sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mixed]:
    """One for all tests of what is ignored."""
    folder = tmp_path_factory.mktemp("mixed")
    database = folder / "authserver.db"
    database.write_bytes(_sqlite_template.read_bytes())
    algorithms = ["ES256", "ES384", "RS256", "PS256"]
    domain = {
        "name": "mixed.example",
        "kind": "spiffe",
        "jwks_file": folder / "jwks.json",
        "algorithms": algorithms,
    }
    with running_world(f"sqlite:///{database}", folder / "world", trust_domains=[domain]) as world:
        agent = make_agent(
            "mixed", "spiffe://mixed.example/agent", world.clock.now(), trust_domain="mixed.example"
        )
        world.services.database.write(lambda connection: agents.create(connection, agent))
        yield Mixed(world, folder / "jwks.json", _grant(world, "mixed"), ECKey.generate_key("P-256"))


@pytest.mark.parametrize(
    ("jwk", "key", "alg", "reason"), [pytest.param(*case, id=name) for name, case in BAD_KEYS.items()]
)
def test_A46_a_key_that_is_for_something_else_is_ignored_and_logged(
    mixed: Mixed, jwk: dict[str, Any], key: Key, alg: str, reason: str
) -> None:
    mixed.publish(jwk | {"kid": "bad"})
    with capture_logs() as logs:
        assert mixed.exchange(mixed.assertion("good", mixed.signer, "ES256")).status_code == 200
    ignored = [entry for entry in logs if entry["event"] == "jwks.key_ignored"]
    assert [(entry["kid"], entry["log_level"]) for entry in ignored] == [("bad", "warning")]
    assert ignored[0]["reason"] in (reason, "invalid")
    mixed.refuses(mixed.assertion("bad", key, alg), "jws.unknown_kid", "jws.alg")
    mixed.refuses(mixed.assertion(ABSENT, key, alg), "jws.signature", "jws.key", "jws.alg")


def test_A46_a_symmetric_key_is_ignored_and_logged(mixed: Mixed) -> None:
    secret = OctKey.generate_key(256)
    mixed.publish({**secret.as_dict(), "kid": "bad"}, {"kty": "oct", "kid": "worse"})
    with capture_logs() as logs:
        assert mixed.exchange(mixed.assertion("good", mixed.signer, "ES256")).status_code == 200
    ignored = {entry["kid"]: entry["reason"] for entry in logs if entry["event"] == "jwks.key_ignored"}
    assert ignored == {"bad": "private", "worse": "kty"}
    assert secret.as_dict()["k"] not in str(logs)
    draft = Draft(
        {"alg": "HS256", "kid": "bad"}, claims_of(mixed.world.assertion("spiffe://mixed.example/agent")), EC
    )
    mixed.refuses(mac_text(draft.signing_input, secret.raw_value), "jws.alg")


def test_A46_keys_that_share_a_kid_are_all_ignored_and_logged(mixed: Mixed) -> None:
    other = ECKey.generate_key("P-256")
    mixed.publish(public(EC, kid="twice"), public(other, kid="twice"), public(RSA, kid="twice"))
    with capture_logs() as logs:
        assert mixed.exchange(mixed.assertion("good", mixed.signer, "ES256")).status_code == 200
    ignored = [(e["kid"], e["reason"]) for e in logs if e["event"] == "jwks.key_ignored"]
    assert ignored == [("twice", "duplicate_kid")]
    for key, alg in ((EC, "ES256"), (other, "ES256"), (RSA, "RS256")):
        mixed.refuses(mixed.assertion("twice", key, alg), "jws.unknown_kid")


@pytest.mark.parametrize("entry", [None, 1, "key", [], [[]], {}, {"kid": "a"}, {"kty": None}], ids=repr)
def test_A46_an_entry_that_is_no_key_is_ignored(mixed: Mixed, entry: Any) -> None:
    mixed.publish(entry)
    assert mixed.exchange(mixed.assertion("good", mixed.signer, "ES256")).status_code == 200


@pytest.mark.parametrize("kid", ["", 1, None, ["good"], "k\nk", "k" * 300, "\x1b[31m"], ids=repr)
def test_A46_a_key_with_a_strange_kid_is_ignored(mixed: Mixed, kid: object) -> None:
    mixed.publish(public(EC, kid=kid))
    assert mixed.exchange(mixed.assertion("good", mixed.signer, "ES256")).status_code == 200
    mixed.refuses(mixed.assertion(kid, EC, "ES256"), "jws.kid")


# --- A47: keys that were removed ------------------------------------------------------------------------------


def test_A47_a_removed_key_is_refused_within_five_minutes(fetched: Fetched) -> None:
    """GHSA-675f-rq2r-jw82: a set that is only added to never forgets."""
    token, new = fetched.assertion(), ECKey.generate_key("P-256")
    assert fetched.exchange(token).status_code == 200
    fetched.keys.serve(public(new, kid="k2"))
    fetched.world.clock.advance(seconds=299)
    assert fetched.exchange(token).status_code == 200
    fetched.world.clock.advance(seconds=1)
    fetched.refuses(token, "jws.unknown_kid")  # though its signature was good before, and is remembered
    fetched.refuses(fetched.assertion(), "jws.unknown_kid")
    assert fetched.exchange(fetched.assertion("k2", key=new)).status_code == 200


def test_A47_a_new_key_under_the_old_kid_is_another_key(fetched: Fetched) -> None:
    token, new = fetched.assertion(), ECKey.generate_key("P-256")
    assert fetched.exchange(token).status_code == 200
    fetched.keys.serve(public(new, kid="k1"))
    fetched.world.clock.advance(seconds=300)
    fetched.refuses(token, "jws.signature")
    assert fetched.exchange(fetched.assertion(key=new)).status_code == 200


def test_A47_an_empty_set_takes_all_keys_away(fetched: Fetched) -> None:
    token = fetched.assertion()
    assert fetched.exchange(token).status_code == 200
    fetched.keys.serve()
    fetched.world.clock.advance(seconds=300)
    fetched.refuses(token, "jws.unknown_kid")


def test_A47_a_key_that_leaves_the_file_is_gone_at_once(world: World) -> None:
    token, grant = world.assertion(), world.granted().grant
    assert world.exchange(grant, actor_token=token).status_code == 200
    write_jwks(world.domain / "jwks.json", {"other": ECKey.generate_key("P-256")})
    with world.nothing_happens("actor.jws.unknown_kid"):
        world.refuses(world.exchange(grant, actor_token=token), "invalid_request")


def test_A47_no_configuration_keeps_keys_longer() -> None:
    with pytest.raises(ValidationError):
        TrustDomainSettings(
            name="web.example", kind="spiffe", jwks_url="https://keys.example/", refresh_after=301
        )


# --- A48: assertions that live too long -----------------------------------------------------------------------


@pytest.mark.parametrize("name", WORKLOADS)
def test_A48_an_assertion_that_lives_longer_than_its_domain_allows_is_refused(
    domains: Domains, name: str
) -> None:
    now = int(domains.world.clock.now().timestamp())
    draft = domains.draft(name)
    assert domains.show(name, draft.changed(exp=now + 3600).signed()).status_code == 200
    for claims in (
        {"exp": now + 3601},
        {"exp": now + 60, "iat": now - 3541},
        {"exp": now + 86_400 * 365},
    ):
        domains.refuses(name, draft.changed(**claims).signed(), "assertion.lifetime")


@pytest.mark.parametrize("name", ["basket-helper", "elsewhere"])
def test_A48_an_svid_that_hides_its_beginning_counts_from_now(domains: Domains, name: str) -> None:
    now = int(domains.world.clock.now().timestamp())
    draft = domains.draft(name).changed(iat=ABSENT)
    domains.refuses(name, draft.changed(exp=now + 3601).signed(), "assertion.lifetime")
    assert domains.show(name, draft.changed(exp=now + 3600).signed()).status_code == 200


def test_A48_a_client_assertion_may_live_for_an_hour(scene: Scene) -> None:
    now = int(scene.world.clock.now().timestamp())
    for place in PRIVATE_KEY_JWT:
        scene.refuses(place, scene.draft(place).changed(exp=now + 3631).signed(), "client.lifetime")


def test_A48_an_agent_that_was_disabled_is_refused_whenever_its_assertion_was_issued(world: World) -> None:
    before, grant = world.assertion(lifetime=3600), world.granted().grant
    assert world.exchange(grant, actor_token=before).status_code == 200
    world.clock.advance(seconds=1)
    world.services.database.write(lambda c: agents.disable(c, "basket-helper", world.clock.now()))
    world.clock.advance(seconds=1)
    for token in (before, world.assertion()):
        with world.nothing_happens("actor.agent_disabled"):
            world.refuses(world.exchange(grant, actor_token=token), "invalid_request")
        form = {"client_assertion_type": JWT_SPIFFE, "client_assertion": token, "token": grant}
        with world.nothing_happens("client.disabled", "token_revocation.refused"):
            world.refuses(world.post("/oauth/revoke", form), "invalid_client", status=401)


def test_A48_a_resource_server_that_was_disabled_learns_nothing(world: World) -> None:
    token = world.exchange(world.granted().grant).json()["access_token"]
    world.services.database.write(lambda c: resource_servers.disable(c, "rs_market", world.clock.now()))
    with world.nothing_happens("client.disabled", "introspection.refused"):
        answer = world.client.post(
            "/oauth/introspect", data={"token": token}, auth=(world.market_id, world.market_secret)
        )
        world.refuses(answer, "invalid_client", status=401)


# --- A49: client assertions are used once ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "again"),
    [
        pytest.param(first, again, id=f"{first.name}, {again.name}")
        for first, again in [
            *product((AT_EXCHANGE, AT_REVOCATION), repeat=2),
            (AT_INTROSPECTION, AT_INTROSPECTION),
        ]
    ],
)
def test_A49_a_client_assertion_is_used_once_wherever_it_is_shown(
    either_scene: Scene, first: Place, again: Place
) -> None:
    draft = either_scene.draft(first)
    assert either_scene.show(first, draft.signed()).status_code == 200
    either_scene.refuses(again, draft.signed(), "client.replayed")
    either_scene.refuses(again, draft.changed({"typ": "JWT"}, x=1).signed(), "client.replayed")
    either_scene.refuses(again, draft.changed(exp=draft.claims["exp"] + 60).signed(), "client.replayed")


def test_A49_each_client_has_jtis_of_its_own(either_scene: Scene) -> None:
    jti = either_scene.draft(AT_REVOCATION).claims["jti"]
    for place in (AT_REVOCATION, AT_INTROSPECTION):
        assert (
            either_scene.show(place, either_scene.draft(place).changed(jti=jti).signed()).status_code == 200
        )


def test_A49_a_client_assertion_is_used_up_by_an_exchange_that_is_refused(either_scene: Scene) -> None:
    world, token = either_scene.world, either_scene.draft(AT_EXCHANGE).signed()
    dear = world.form("", action=world.action(amount={"currency": "EUR", "value": "99.00"}))
    form = either_scene.form(AT_EXCHANGE, token) | {"authorization_details": dear["authorization_details"]}
    with world.nothing_happens("limits.per_action"):
        world.refuses(world.post("/oauth/token", form), "invalid_authorization_details")
    for place in (AT_EXCHANGE, AT_REVOCATION):
        either_scene.refuses(place, token, "client.replayed")


def test_A49_a_client_assertion_is_used_up_by_a_request_for_another_client(either_scene: Scene) -> None:
    world, token = either_scene.world, either_scene.draft(AT_EXCHANGE).signed()
    actor = either_scene.draft(ASSERTION).changed(sub=BASKET_HELPER).signed()
    form = world.form(_grant(world, "basket-helper"), actor_token=actor)
    form |= either_scene.as_client(AT_EXCHANGE, token)
    with world.nothing_happens("client.other_agent"):
        world.refuses(world.post("/oauth/token", form), "invalid_client", status=401)
    either_scene.refuses(AT_REVOCATION, token, "client.replayed")


def test_A49_a_forged_client_assertion_uses_up_nothing(either_scene: Scene) -> None:
    draft = either_scene.draft(AT_REVOCATION)
    either_scene.refuses(AT_REVOCATION, draft.signed(EC), "jws.signature")
    assert either_scene.show(AT_REVOCATION, draft.signed()).status_code == 200


@pytest.mark.parametrize("jti", [ABSENT, None, "", 7, ["a"], "a" * 257], ids=lambda jti: repr(jti)[:20])
def test_A49_a_client_assertion_without_a_jti_could_be_replayed(scene: Scene, jti: object) -> None:
    for place in PRIVATE_KEY_JWT:
        scene.refuses(place, scene.draft(place).changed(jti=jti).signed(), "jwt.jti")


def test_A49_the_memory_of_client_assertions_is_shared_by_all_processes(world: World) -> None:
    scene = set_up(world)
    second = open_services(world.services.settings, world.clock)
    try:
        app = httpx.WSGITransport(app=build(second))
        with httpx.Client(base_url=world.url, transport=app) as other:
            for first, then in ((world.client, other), (other, world.client)):
                token = scene.draft(AT_REVOCATION).signed()
                form = scene.as_client(AT_REVOCATION, token) | {"token": "x"}
                assert first.post("/oauth/revoke", data=form).status_code == 200
                with world.nothing_happens("client.replayed", "token_revocation.refused"):
                    world.refuses(then.post("/oauth/revoke", data=form), "invalid_client", status=401)
    finally:
        second.database.dispose()


def test_A49_of_many_requests_with_one_client_assertion_one_is_answered(world: World) -> None:
    scene = set_up(world)
    token = scene.draft(AT_REVOCATION).signed()
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(scene.show(AT_REVOCATION, token).status_code))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] + [401] * 7


def test_A49_a_client_assertion_is_remembered_until_it_has_ended(world: World) -> None:
    scene = set_up(world)
    token = scene.draft(AT_REVOCATION).signed()
    assert scene.show(AT_REVOCATION, token).status_code == 200
    for seconds, reason in ((329, "client.replayed"), (1, "client.expired")):
        world.clock.advance(seconds=seconds)
        world.services.database.write(lambda connection: replay.forget(connection, world.clock.now(), 1000))
        scene.refuses(AT_REVOCATION, token, reason)


def test_A49_where_the_domain_says_so_its_assertions_are_used_once_as_client_assertions(
    database_url: str, tmp_path: Path
) -> None:
    once = other_domain(tmp_path / "once", "once.example", refuse_repeated_jti=True)
    subject = "spiffe://once.example/agent"
    with running_world(database_url, tmp_path / "world", trust_domains=[once]) as world:
        agent = _registered(world, "once", "once.example", subject, tmp_path / "once")
        life = timedelta(seconds=300)
        token = make_assertion(tmp_path / "once", subject, world.issuer, life, world.clock.now())
        form = {"client_assertion_type": JWT_SPIFFE, "token": "x"}
        assert world.post("/oauth/revoke", form | {"client_assertion": token}).status_code == 200
        for again in (token, twisted(token)):
            with world.nothing_happens("client.replayed", "token_revocation.refused"):
                answer = world.post("/oauth/revoke", form | {"client_assertion": again})
                world.refuses(answer, "invalid_client", status=401)
            with world.nothing_happens("actor.replayed"):
                world.refuses(world.exchange(agent.grant, actor_token=again), "invalid_request")
        silent = Draft(header_of(token), claims_of(token), agent.key).changed(jti=ABSENT).signed()
        with world.nothing_happens("actor.jwt.jti"):
            world.refuses(world.exchange(agent.grant, actor_token=silent), "invalid_request")
