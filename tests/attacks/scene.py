"""The places where a server takes a signed token, each with a token that is good there and how one is refused."""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from joserfc.jwk import ECKey, RSAKey

from authserver.actors import agents, resource_servers
from authserver.actors.client_authentication import JWT_BEARER, JWT_SPIFFE
from authserver.actors.workload_files import create_domain
from tests.attacks.forge import Draft, Key, claims_of, header_of, public
from tests.world import World, make_agent, make_resource_server, running_world

KEYHOLDER = "spiffe://example.org/agent/keyholder"
CHECKER = "spiffe://example.org/server/checker"


@dataclass(frozen=True)
class Place:
    """How a token is refused where it is shown. `rule` is the audit's, before the reason."""

    name: str
    error: str
    status: int
    event: str
    rule: str


def _client(name: str, event: str) -> Place:
    return Place(name, "invalid_client", 401, event, "")


ASSERTION = Place("assertion", "invalid_request", 400, "exchange.refused", "actor.")
GRANT = Place("grant", "invalid_request", 400, "exchange.refused", "grant.")
PROOF = Place("proof", "invalid_dpop_proof", 400, "exchange.refused", "dpop.")
AT_EXCHANGE = _client("client_assertion-at-exchange", "exchange.refused")
AT_INTROSPECTION = _client("client_assertion-at-introspection", "introspection.refused")
AT_REVOCATION = _client("client_assertion-at-revocation", "token_revocation.refused")
SVID_AT_INTROSPECTION = _client("svid-at-introspection", "introspection.refused")
SVID_AT_REVOCATION = _client("svid-at-revocation", "token_revocation.refused")

WORKLOAD = (ASSERTION, SVID_AT_INTROSPECTION, SVID_AT_REVOCATION)
PRIVATE_KEY_JWT = (AT_EXCHANGE, AT_INTROSPECTION, AT_REVOCATION)
CLIENT = (*PRIVATE_KEY_JWT, SVID_AT_INTROSPECTION, SVID_AT_REVOCATION)
EVERYWHERE = (ASSERTION, GRANT, PROOF, *CLIENT)
# One place for each reader of tokens, and each endpoint once: for the rows with many variants.
EACH_READER = (ASSERTION, GRANT, PROOF, AT_INTROSPECTION, SVID_AT_REVOCATION)
EACH_ASSERTION = (ASSERTION, AT_INTROSPECTION, AT_REVOCATION, SVID_AT_REVOCATION)


def _more_keys() -> dict[str, Key]:
    return {"p384": ECKey.generate_key("P-384"), "rsa": RSAKey.generate_key(2048)}


@dataclass
class Scene:
    """A server with an agent and a resource server that may show who they are in every way there is.

    Nothing that is tried here may leave a trace, so that one serves all tests of a file; its clock stands still.
    """

    world: World
    domain_keys: dict[str, Key]  # what example.org publishes, by kid
    client_keys: dict[str, Key]  # what keyholder and checker registered, by kid
    proof_key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256"))
    grant: str = ""
    nonce: str = ""

    def draft(self, place: Place) -> Draft:
        """A token that is good at that place."""
        if place is GRANT:
            return Draft(header_of(self.grant), claims_of(self.grant), self.server_key)
        if place is PROOF:
            header = {"alg": "ES256", "typ": "dpop+jwt", "jwk": public(self.proof_key)}
            return Draft(header, self._proof_claims(), self.proof_key)
        if place in PRIVATE_KEY_JWT:
            name = "keyholder" if place is not AT_INTROSPECTION else "rs_checker"
            return Draft(
                {"alg": "ES256", "kid": "p256"}, self._claims(name, iss=name), self.client_keys["p256"]
            )
        subject = KEYHOLDER if place is not SVID_AT_INTROSPECTION else CHECKER
        header = {"alg": "ES256", "kid": "p256", "typ": "JWT"}
        return Draft(header, self._claims(subject), self.domain_keys["p256"])

    def other_keys(self, place: Place) -> dict[str, Key]:
        """Keys that are known at that place under `p384` and `rsa`."""
        return self.client_keys if place in PRIVATE_KEY_JWT else self.domain_keys

    @property
    def server_key(self) -> ECKey:
        """The private key of the server itself, for what it would never sign."""
        return self.world.services.signing_keys.active().key

    def show(self, place: Place, token: str) -> httpx.Response:
        """Send the token there, in a request that is good otherwise."""
        if place is AT_INTROSPECTION or place is SVID_AT_INTROSPECTION:
            return self.world.post("/oauth/introspect", self.as_client(place, token) | {"token": "x"})
        if place is AT_REVOCATION or place is SVID_AT_REVOCATION:
            return self.world.post("/oauth/revoke", self.as_client(place, token) | {"token": "x"})
        return self.world.post("/oauth/token", self.form(place, token), self.headers(place, token))

    def form(self, place: Place, token: str) -> dict[str, str]:
        """The form of an exchange with the token at its place."""
        form = self.world.form(self.grant, actor_token=self.draft(ASSERTION).signed())
        members: dict[Place, dict[str, str]] = {
            ASSERTION: {"actor_token": token},
            GRANT: {"subject_token": token},
            PROOF: {},
        }
        return form | (members[place] if place in members else self.as_client(place, token))

    def headers(self, place: Place, token: str) -> dict[str, str]:
        """The headers of that exchange."""
        return {"DPoP": token} if place is PROOF else {}

    def as_client(self, place: Place, token: str) -> dict[str, str]:
        """The two parameters of a client assertion."""
        kind = JWT_BEARER if place in PRIVATE_KEY_JWT else JWT_SPIFFE
        return {"client_assertion_type": kind, "client_assertion": token}

    def refuses(
        self, place: Place, token: str, reason: str | None = None, rule: str | None = None
    ) -> dict[str, Any]:
        """Show the token; it is refused as that place refuses, for `reason`, and leaves nothing; gives the body."""
        expected = rule if rule is not None else reason and place.rule + reason
        with self.world.nothing_happens(expected, place.event):
            return self.world.refuses(self.show(place, token), place.error, status=place.status)

    def _claims(self, subject: str, **more: object) -> dict[str, object]:
        now = int(self.world.clock.now().timestamp())
        claims: dict[str, object] = {"sub": subject, "aud": self.world.issuer, "iat": now, "exp": now + 300}
        return claims | {"jti": secrets.token_urlsafe(16)} | more

    def _proof_claims(self) -> dict[str, object]:
        return {
            "jti": secrets.token_urlsafe(16),
            "htm": "POST",
            "htu": self.world.services.token_endpoint,
            "iat": int(self.world.clock.now().timestamp()),
            "nonce": self.nonce,
        }


@contextmanager
def running_scene(database_url: str, directory: Path) -> Iterator[Scene]:
    """A server on that database with everything of a scene."""
    with running_world(database_url, directory) as world:
        yield set_up(world)


def set_up(world: World) -> Scene:
    """Register keyholder (an agent) and checker (a resource server), each with keys and with a workload."""
    scene = Scene(world, {"p256": world.domain_key().key} | _more_keys(), _client_keys())
    write_jwks(world.domain / "jwks.json", scene.domain_keys)
    now, jwks = world.clock.now(), json.dumps(jwk_set(scene.client_keys))

    def write(connection: Any) -> None:
        agents.create(connection, make_agent("keyholder", KEYHOLDER, now, jwks=jwks))
        for name, changes in (
            ("checker", {"auth_method": "private_key_jwt", "jwks": jwks}),
            ("workload", {"auth_method": "jwt-spiffe", "subject": CHECKER}),
        ):
            server = make_resource_server(name, f"https://{name}.example/api", now, **changes)
            resource_servers.create(connection, server)

    world.services.database.write(write)
    ample = {"currency": "EUR", "per_action": "80.00", "total": "1000000.00"}
    scene.grant = world.granted(agent="keyholder", limits=ample).grant
    scene.nonce = world.services.nonces.make(now)
    return scene


def _client_keys() -> dict[str, Key]:
    return {"p256": ECKey.generate_key("P-256")} | _more_keys()


def jwk_set(keys: dict[str, Key]) -> dict[str, object]:
    """The JWK Set of their public halves."""
    return {"keys": [public(key, kid=kid) for kid, key in keys.items()]}


def write_jwks(path: Path, keys: dict[str, Key]) -> None:
    """Replace a trust domain's file."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(jwk_set(keys)), encoding="utf-8")
    new.replace(path)


def other_domain(directory: Path, name: str, kind: str = "spiffe", **settings: object) -> dict[str, Any]:
    """Make another trust domain in files; gives its settings."""
    create_domain(name, kind, directory)
    issuer = {} if kind == "spiffe" else {"issuer": f"https://{name}"}
    return {"name": name, "kind": kind, "jwks_file": directory / "jwks.json"} | issuer | settings
