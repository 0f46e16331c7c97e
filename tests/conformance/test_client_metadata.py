"""draft-ietf-oauth-client-id-metadata-document, as far as an agent that has a workload needs it (decision 15)."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from authserver.actors import agents
from authserver.actors.agents import Agent
from authserver.agent_documents import DocumentRefused, fetcher_of, read, refresh, start
from authserver.config import ClientMetadataSettings, ConfigurationError
from authserver.members import parse_client_id
from authserver.values import NotAValue
from tests.asking import as_agent, push
from tests.attacks.key_server import KeyServer, key_server, says
from tests.certificates import Authority
from tests.commands.conftest import Manage, operator_of
from tests.conformance.tokens import JWT_BEARER, own_assertion, public
from tests.world import World, running_world

SCOUT = "spiffe://example.org/agent/news-scout"
CALLBACK = "https://scout.example/callback"
ALLOWED = ClientMetadataSettings(allow_private_network=True)


@dataclass
class Published:
    """A web server with one document, and a server at which its agent is registered."""

    world: World
    manage: Manage
    web: KeyServer

    @property
    def client_id(self) -> str:
        """Where the document is."""
        return f"http://127.0.0.1:{self.web.port}/agents/scout.json"

    def says(self, **members: object) -> None:
        """What the document says from now on; None leaves a member out."""
        usual: dict[str, object] = {
            "client_id": self.client_id,
            "client_name": "News Scout",
            "redirect_uris": [CALLBACK, "http://127.0.0.1/callback", "scout://callback"],
            "grant_types": ["authorization_code"],
        }
        said = {name: value for name, value in (usual | members).items() if value is not None}
        self.web.answer = says(json.dumps(said).encode(), Content_Type="application/json")

    def register(self, **options: str) -> dict[str, Any]:
        """As an operator does."""
        usual = {"client-id": self.client_id, "trust-domain": "example.org", "subject": SCOUT} | options
        words = [word for name, value in usual.items() for word in (f"--{name}", value)]
        made: dict[str, Any] = self.manage.json("agents", "create", *words)
        return made

    def agent(self) -> Agent:
        found = self.world.services.database.read(lambda c: agents.find(c, self.client_id))
        assert found is not None
        return found

    def asks(self, redirect_uri: str = CALLBACK, **changes: Any) -> Any:
        """The agent pushes a request."""
        said = {"client_id": self.client_id, "redirect_uri": redirect_uri, **as_agent(self.world, SCOUT)}
        return push(self.world, **(said | changes))

    def follow(self, **later: float) -> int:
        """Time goes on, and the server looks at what is due."""
        self.world.clock.advance(**later)
        return refresh(self.world.services, fetcher_of(ALLOWED), self.world.clock.now())


@contextmanager
def published(url: str, directory: Path) -> Iterator[Published]:
    with (
        key_server() as web,
        running_world(url, directory / "world", client_metadata={"allow_private_network": True}) as world,
    ):
        manage = operator_of(directory / "world", url, world.issuer)
        manage.config.write_text(
            manage.config.read_text() + "\n[client_metadata]\nallow_private_network = true\n"
        )
        manage.clock = world.clock
        known = Published(world, manage, web)
        known.says()
        yield known


@pytest.fixture
def scout(sqlite_url: str, tmp_path: Path) -> Iterator[Published]:
    with published(sqlite_url, tmp_path) as known:
        yield known


@pytest.fixture(scope="module")
def nobody(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    """One for all tests after which nobody is registered."""
    with published(module_database, tmp_path_factory.mktemp("nobody")) as known:
        yield known


def test_an_agent_with_a_document_asks_with_what_is_written_there(database_url: str, tmp_path: Path) -> None:
    """§5: the metadata says so; its name, its redirect URIs and nothing else come from the document."""
    with published(database_url, tmp_path) as scout:
        metadata = scout.world.client.get("/.well-known/oauth-authorization-server").json()
        assert metadata["client_id_metadata_document_supported"] is True
        made = scout.register()
        assert made["name"] == "News Scout"
        assert made["redirect_uris"] == [CALLBACK, "http://127.0.0.1/callback"]
        assert scout.asks().status_code == 201
        assert scout.asks("http://127.0.0.1:9999/callback").status_code == 201
        for elsewhere in (f"{CALLBACK}/x", "scout://callback", "https://scout.example/"):
            scout.world.refuses(scout.asks(elsewhere), "invalid_request")
        assert len(scout.web.requests) == 1  # nothing is fetched while an agent asks
        # A grant for it goes to its workload, and to no other.
        grant = scout.world.granted(agent=scout.client_id).grant
        assert scout.world.exchange(grant, actor_token=scout.world.assertion(SCOUT)).status_code == 200
        scout.world.refuses(scout.world.exchange(grant), "invalid_request")


def test_over_https_with_a_certificate_that_counts(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path)
    with key_server(tls=authority.tls) as web:
        client_id = f"https://127.0.0.1:{web.port}/scout.json"
        web.answer = says(json.dumps({"client_id": client_id, "redirect_uris": [CALLBACK]}).encode())
        trusting = ClientMetadataSettings(allow_private_network=True, ca_file=authority.ca_file)
        assert read(fetcher_of(trusting), client_id).redirect_uris == (CALLBACK,)
        for others in (ALLOWED, ClientMetadataSettings(ca_file=authority.ca_file)):
            with pytest.raises(DocumentRefused) as refused:
                read(fetcher_of(others), client_id)
            assert refused.value.reason in ("tls", "address")
    with pytest.raises(ConfigurationError, match=r"client_metadata\.ca_file"):
        fetcher_of(ClientMetadataSettings(ca_file=tmp_path / "none.pem"))


def test_a_url_that_nobody_registered_is_no_client_and_is_not_fetched(nobody: Published) -> None:
    """Decision 15: who may act is known by its workload; so a document of a stranger says nothing."""
    before = len(nobody.web.requests)
    stranger = as_agent(nobody.world, "spiffe://example.org/agent/stranger")
    for credentials in (stranger, as_agent(nobody.world), {"client_assertion": None}):
        answer = nobody.asks(**credentials)
        nobody.world.refuses(answer, "invalid_client", status=401)
    page = nobody.world.client.get(
        "/oauth/authorize", params={"client_id": nobody.client_id, "request_uri": nobody.client_id}
    )
    assert page.status_code == 400
    assert len(nobody.web.requests) == before


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"client_id": None}, "client_id"),
        ({"client_id": "https://other.example/scout.json"}, "client_id"),
        ({"client_secret": "s"}, "secret"),
        ({"client_secret_expires_at": 0}, "secret"),
        ({"token_endpoint_auth_method": "client_secret_basic"}, "secret"),
        ({"token_endpoint_auth_method": "client_secret_jwt"}, "secret"),
        ({"token_endpoint_auth_method": 7}, "secret"),
        ({"redirect_uris": CALLBACK}, "redirect_uris"),
        ({"redirect_uris": [CALLBACK] * 101}, "redirect_uris"),
        ({"token_endpoint_auth_method": "private_key_jwt"}, "jwks"),
        ({"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": []}}, "jwks"),
        ({"token_endpoint_auth_method": "private_key_jwt", "jwks": "keys"}, "jwks"),
        ({"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": 7}, "jwks"),
        ({"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "file:///etc/passwd"}, "url"),
        ({"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "http://169.254.169.254/"}, "url"),
        (
            {"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://169.254.169.254/"},
            "address",
        ),
        ({"padding": "x" * 70_000}, "size"),
    ],
)
def test_a_document_that_is_not_in_order_registers_nobody(
    nobody: Published, members: dict[str, object], reason: str
) -> None:
    nobody.says(**members)
    words = ("--client-id", nobody.client_id, "--trust-domain", "example.org", "--subject", SCOUT)
    assert nobody.manage.fails("agents", "create", *words).endswith(f"cannot be used: {reason}")
    assert nobody.world.services.database.read(lambda c: agents.find(c, nobody.client_id)) is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (says(b"", "302 Found", Location="http://127.0.0.1/elsewhere.json"), "status"),
        (says(b"{}", "404 Not Found"), "status"),
        (says(b"[]"), "json"),
        (says(b'{"client_id": "a", "client_id": "b"}'), "json"),
        (says(b"<html>"), "json"),
        (lambda connection: connection.close(), "protocol"),
    ],
)
def test_an_answer_that_is_no_document_registers_nobody(nobody: Published, answer: Any, reason: str) -> None:
    nobody.web.answer = answer
    with pytest.raises(DocumentRefused) as refused:
        read(fetcher_of(ALLOWED), nobody.client_id)
    assert refused.value.reason == reason


def test_private_addresses_are_not_reached_unless_they_are_allowed(nobody: Published) -> None:
    before = len(nobody.web.requests)
    with pytest.raises(DocumentRefused) as refused:
        read(fetcher_of(ClientMetadataSettings()), nobody.client_id)
    assert refused.value.reason == "url"
    assert len(nobody.web.requests) == before


@pytest.mark.parametrize(
    "client_id",
    [
        "https://scout.example",
        "https://scout.example/",
        "https://scout.example//a",
        "https://Scout.example/a",
        "https://scout.example/a?b=c",
        "https://scout.example/a#b",
        "https://u@scout.example/a",
        "https://scout.example/./a",
        "https://scout.example/b/../a",
        "https://scout.example/%2e%2e/a",
        "https://scout.example/%2E%2E/a",
        "https://scout.example:/a",
        "https://scout.example:0/a",
        "https://sc\u00f6ut.example/a",
        "https://scout.example/a b",
        "https://scout.example/a\n",
        "http://scout.example/a",
        "ftp://scout.example/a",
        "https://scout.example/" + "a" * 512,
        "scout:json",
    ],
)
def test_a_client_id_has_one_spelling(client_id: str) -> None:
    """§3 of the draft: https, a path, no dot segments, no fragment, no user name; and here no query."""
    with pytest.raises(NotAValue):
        parse_client_id(client_id)


def test_what_is_in_the_document_is_not_said_again(nobody: Published) -> None:
    words = ("--client-id", nobody.client_id, "--trust-domain", "example.org", "--subject", SCOUT)
    error = nobody.manage.fails("agents", "create", *words, "--redirect-uri", CALLBACK)
    assert "redirect_uris is in the document at client_id" in error


# --- following it -------------------------------------------------------------------------------------------------


def test_the_server_follows_a_document_that_changes(database_url: str, tmp_path: Path) -> None:
    with published(database_url, tmp_path) as scout:
        scout.register()
        assert scout.follow(seconds=1) == 1
        assert scout.follow(seconds=299) == 0
        other = "https://scout.example/other"
        scout.says(redirect_uris=[other], client_name="Your Bank")
        assert scout.follow(seconds=1) == 1
        assert scout.asks(other).status_code == 201
        scout.world.refuses(scout.asks(CALLBACK), "invalid_request")
        # What users know it by is not the document's to change.
        assert scout.agent().name == "News Scout"
        read_anew = [e for e in scout.world.events() if e["event"] == "agent.document_read"]
        assert [e["data"]["document"]["redirect_uris"] for e in read_anew] == [[other]]
        # What cannot be read changes nothing, and is tried again.
        scout.web.answer = says(b"", "500 Oops")
        assert scout.follow(seconds=300) == 1
        assert scout.asks(other).status_code == 201


def test_keys_of_a_document_authenticate_until_they_are_taken_out_or_it_is_gone(scout: Published) -> None:
    """§6.2: private_key_jwt with keys of the document. Within five minutes what was taken out is refused."""
    one, other = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
    published = [public(key, kid=key.thumbprint()) for key in (one, other)]
    private = ECKey.generate_key("P-256").as_dict(private=True)
    method = {"token_endpoint_auth_method": "private_key_jwt"}
    scout.says(**method, jwks={"keys": [*published, private]})
    scout.register()
    assert '"d":' not in (scout.agent().jwks or "")

    def by(key: ECKey) -> int:
        assertion = own_assertion(scout.world, scout.client_id, key)
        status: int = scout.asks(client_assertion_type=JWT_BEARER, client_assertion=assertion).status_code
        return status

    assert (by(one), by(other)) == (201, 201)
    scout.says(**method, jwks={"keys": published[1:]})
    assert scout.follow(seconds=300) == 1
    assert (by(one), by(other)) == (401, 201)
    scout.web.answer = says(b"", "503 Down")
    assert scout.follow(minutes=60) == 1
    assert by(other) == 201
    assert scout.follow(minutes=5) == 1
    assert by(other) == 401
    assert scout.world.events()[-2]["event"] == "agent.document_stale"
    assert scout.asks().status_code == 201  # its workload speaks for it all the same
    scout.says(**method, jwks={"keys": published[1:]})
    assert scout.follow(minutes=5) == 1
    assert by(other) == 201


def test_keys_may_be_at_an_address_of_their_own(scout: Published) -> None:
    key = ECKey.generate_key("P-256")
    with key_server() as keys:
        keys.serve(public(key, kid="k"))
        scout.says(token_endpoint_auth_method="private_key_jwt", jwks_uri=keys.url)
        scout.register()
    assertion = own_assertion(scout.world, scout.client_id, key, header={"kid": "k"})
    assert scout.asks(client_assertion_type=JWT_BEARER, client_assertion=assertion).status_code == 201


def test_one_process_reads_what_is_due(scout: Published) -> None:
    scout.register()
    agent, now = scout.agent(), scout.world.clock.now()
    again = now + timedelta(minutes=5)
    claims = [
        scout.world.services.database.write(lambda c: agents.claim_document(c, agent, now, again))
        for _ in range(2)
    ]
    assert claims == [True, False]


def test_a_file_for_apply_names_it_and_the_document_fills_in(scout: Published) -> None:
    table = (
        f'[[agents]]\nclient_id = "{scout.client_id}"\ntrust_domain = "example.org"\nsubject = "{SCOUT}"\n'
    )
    file = scout.manage.file("scout.toml", f'{table}risk = "medium"\n')
    scout.manage.prints("apply", file)
    assert (scout.agent().name, scout.agent().redirect_uris) == ("127.0.0.1", ())
    assert scout.follow(seconds=1) == 1
    assert (scout.agent().name, scout.agent().risk) == ("News Scout", "medium")
    assert scout.manage.prints("apply", file) == "nothing differs\n"
    scout.manage.prints("apply", scout.manage.file("scout.toml", f'{table}name = "Scout"\nrisk = "low"\n'))
    assert (scout.agent().name, scout.agent().risk, len(scout.agent().redirect_uris)) == ("Scout", "low", 2)


def test_a_thread_of_the_server_follows_by_itself_and_outlives_what_fails(
    scout: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authserver.agent_documents._EVERY_SECONDS", 0.02)
    table = (
        f'[[agents]]\nclient_id = "{scout.client_id}"\ntrust_domain = "example.org"\nsubject = "{SCOUT}"\n'
    )
    scout.manage.prints("apply", scout.manage.file("scout.toml", table))
    scout.web.answer = says(b"{")
    stop = start(scout.world.services)
    try:
        comes(lambda: len(scout.web.requests) == 1)
        scout.says()
        scout.world.clock.advance(seconds=300)
        comes(lambda: scout.agent().redirect_uris != ())
        assert len(scout.web.requests) == 2
    finally:
        stop.set()
    assert scout.asks().status_code == 201


def comes(condition: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
