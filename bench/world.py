"""A server of ours as its users run it, with agents, a shop, delegations and requests prepared for it.

`python -m bench.world grants` is the part that runs with the server's configuration: it records delegations in bulk
through the library functions behind `manage.py delegations create`, and prints their grants.
"""

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from itertools import cycle, islice
from pathlib import Path
from urllib.parse import urlencode

from joserfc.jwk import ECKey

from authserver.dpop import ProofKey
from bench.databases import Store
from bench.exchanges import DOMAIN, SHOP, assertion, delegation, exchange_request, subject_of
from bench.load import http_request
from bench.peer_server import basic
from bench.processes import SERVER_CORE, Running, free_port, serving

ROOT = Path(__file__).resolve().parent.parent
AGENTS = 50
_LIFE = timedelta(days=30)
_BATCH = 500


@dataclass(frozen=True, slots=True)
class World:
    """A configured server that is not running yet. `grants` are those of delegations, agent by agent in turn."""

    folder: Path
    store: Store
    port: int
    environment: Mapping[str, str]
    shop: tuple[str, str]
    grants: tuple[str, ...]

    @property
    def issuer(self) -> str:
        """The issuer, which is where the server listens."""
        return f"http://127.0.0.1:{self.port}"

    def serve(self, *options: str, cores: Sequence[int] = (SERVER_CORE,)) -> AbstractContextManager[Running]:
        """Run it by `manage.py serve` with its defaults, unless options say otherwise."""
        command = [sys.executable, "manage.py", "serve", "--port", str(self.port), *options]
        return self.run(command, "authserver", cores)

    def run(
        self, command: Sequence[str], name: str, cores: Sequence[int] = (SERVER_CORE,)
    ) -> AbstractContextManager[Running]:
        """Run it by another command line."""
        return serving(
            name,
            command,
            self.port,
            self.folder,
            cores=cores,
            environment=self.environment,
            directory=ROOT,
        )

    def new_exchanges(self) -> tuple[bytes, ...]:
        """One exchange for each grant, each with an assertion that nobody has seen."""
        key, issuer = self._domain_key(), self.issuer
        agents = cycle(range(AGENTS))
        return tuple(
            exchange_request(grant, assertion(key, subject_of(agent), issuer))
            for grant, agent in zip(self.grants, agents, strict=False)
        )

    def reused_exchanges(self, grants: int = 200) -> tuple[bytes, ...]:
        """The exchanges of agents that present one assertion and a few grants again and again."""
        key, issuer = self._domain_key(), self.issuer
        assertions = [assertion(key, subject_of(agent), issuer) for agent in range(AGENTS)]
        return tuple(
            exchange_request(grant, actor)
            for grant, actor in zip(self.grants[:grants], cycle(assertions), strict=False)
        )

    def introspections(self, exchanges: Sequence[bytes]) -> tuple[bytes, ...]:
        """Introspections of fresh tokens, got from the running server by these exchanges."""
        return tuple(
            http_request("/oauth/introspect", urlencode({"token": token}).encode(), [basic(*self.shop)])
            for token in self.tokens(exchanges)
        )

    def redemptions(self, exchanges: Sequence[bytes]) -> tuple[bytes, ...]:
        """Redemptions of fresh tokens, each of which can be sent once, within the token's two minutes."""
        return tuple(
            http_request(
                "/oauth/redeem",
                json.dumps({"token": token}).encode(),
                [basic(*self.shop)],
                "application/json",
            )
            for token in self.tokens(exchanges)
        )

    def tokens(self, exchanges: Sequence[bytes]) -> list[str]:
        """Fresh action tokens, got from the running server one after another."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        tokens = []
        for request in exchanges:
            form = request.partition(b"\r\n\r\n")[2]
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request("POST", "/oauth/token", form, headers)
            tokens.append(json.loads(connection.getresponse().read())["access_token"])
        connection.close()
        return tokens

    def bound_tokens(self, exchanges: Sequence[bytes], key: ProofKey) -> list[str]:
        """The same, bound to a key: each exchange with a proof, and with the nonce of the answer before it."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        tokens: list[str] = []
        nonce = None
        for request in exchanges:
            form = request.partition(b"\r\n\r\n")[2]
            for _ in range(2):  # the first one of all is told the nonce
                url, now = f"{self.issuer}/oauth/token", datetime.now(UTC)
                headers = {"Content-Type": "application/x-www-form-urlencoded"}
                headers["DPoP"] = key.proof("POST", url, now=now, nonce=nonce)
                connection.request("POST", "/oauth/token", form, headers)
                answer = connection.getresponse()
                nonce, body = answer.headers["DPoP-Nonce"], json.loads(answer.read())
                if "access_token" in body:
                    tokens.append(body["access_token"])
                    break
        connection.close()
        return tokens

    def revoke(self, token: str, agent: int) -> None:
        """Have that agent give a token back; returns when the server has answered."""
        form = {
            "token": token,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",
            "client_assertion": assertion(self._domain_key(), subject_of(agent), self.issuer),
        }
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/oauth/revoke", urlencode(form), headers)
        status = connection.getresponse().status
        connection.close()
        if status != 200:
            raise RuntimeError(f"the revocation was answered {status}")

    def _domain_key(self) -> ECKey:
        return ECKey.import_key((self.folder / "domain" / "private_key.pem").read_bytes())


def build(folder: Path, store: Store, delegations: int, depth: int = 1) -> World:
    """Configure a server in a folder by its own command line and give it this many delegations.

    Each is the last of a chain of `depth`, 1 being what a user allowed.
    """
    port = free_port()
    file = folder / "authserver.toml"
    environment = {"AUTHSERVER_CONFIG": str(file)}
    domain = ["workload", "create-domain", DOMAIN, "--kind", "spiffe", "--directory", str(folder / "domain")]
    block = _manage(domain, {})
    file.write_text(
        f'[server]\nissuer = "http://127.0.0.1:{port}"\n[database]\nurl = "{store.url}"\n'
        f'[keys]\nencryption_key_file = "encryption.key"\n[log]\nlevel = "warning"\n{block}',
        encoding="utf-8",
    )
    _manage(["migrate"], environment)
    shop = json.loads(_manage(["resource-servers", "create", "--identifier", SHOP], environment))
    grants = _grants(environment, delegations, depth)
    return World(folder, store, port, environment, (shop["id"], shop["client_secret"]), grants)


def _manage(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    return _run([sys.executable, "manage.py", *arguments], environment).decode()


def _grants(environment: Mapping[str, str], count: int, depth: int) -> tuple[str, ...]:
    output = _run([sys.executable, "-m", "bench.world", str(count), str(depth)], environment)
    grants: tuple[str, ...] = pickle.loads(output)
    return grants


def _run(command: Sequence[str], environment: Mapping[str, str]) -> bytes:
    ran = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, timeout=900, check=False
    )
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command[1:4])} failed: {ran.stderr.decode(errors='replace')[-2000:]}")
    return ran.stdout


# --- inside the configured server's own process -------------------------------------------------------------------


def record(count: int, depth: int) -> tuple[str, ...]:
    """Register the agents and a user, and record `count` delegations in the configured database; gives their grants.

    Each is handed on by its agent to itself until it is the last of a chain of `depth`.
    """
    from sqlalchemy import Connection

    from authserver import register
    from authserver.accounts.users import NewUser
    from authserver.clock import SystemClock
    from authserver.config import load_settings
    from authserver.delegations import records
    from authserver.delegations.records import NewDelegation
    from authserver.policy.delegation_details import parse_delegation
    from authserver.services import open_services
    from authserver.tokens import grants
    from authserver.tokens.grants import GrantClaims

    services = open_services(load_settings(), SystemClock())
    now = datetime.now(UTC).replace(microsecond=0)
    expires = (now + _LIFE).isoformat().replace("+00:00", "Z")
    details = parse_delegation(delegation(expires), services.vocabulary)

    def register_all(connection: Connection) -> str:
        for agent in range(AGENTS):
            members = {"client_id": f"agent-{agent}", "trust_domain": DOMAIN, "subject": subject_of(agent)}
            register.create_agent(connection, register.parse_agent(members, services, now), "bench")
        person = NewUser("alice", "Alice Example")
        return register.create_user(connection, person, services.issuer, "bench", now).user_id

    user_id = services.database.write(register_all)

    def last_of_chain(connection: Connection, new: NewDelegation) -> str:
        made = records.create(connection, new, services.stored, now)
        for _ in range(depth - 1):
            chain = records.load_chain(connection, made, services.stored)
            assert chain is not None
            made = records.create(connection, replace(new, above=chain.leaf), services.stored, now)
        return made

    def signed(client_id: str, agent: int, delegation_id: str) -> str:
        claims = GrantClaims(
            issuer=services.issuer,
            subject=services.pairwise.user(user_id, client_id),
            client_id=client_id,
            may_act=services.actor(DOMAIN, subject_of(agent)),
            grant_id=delegation_id,
            issued_at=now,
            expires_at=details.expires,
            authorization_details=details.to_json(),
        )
        return grants.sign(claims, services.signing_keys)

    agents = list(islice(cycle(range(AGENTS)), count))
    made: list[str] = []
    for start in range(0, count, _BATCH):
        batch = agents[start : start + _BATCH]

        def record_batch(connection: Connection, batch: list[int] = batch) -> list[str]:
            new = [NewDelegation(user_id, f"agent-{agent}", details, now, "bench") for agent in batch]
            return [last_of_chain(connection, one) for one in new]

        made.extend(services.database.write(record_batch))
    usable = zip(agents, made, strict=True)
    # More than these are never presented; signing a million grants would only take time.
    return tuple(signed(f"agent-{agent}", agent, id) for agent, id in islice(usable, 40_000))


if __name__ == "__main__":
    started = time.monotonic()
    result = record(int(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.buffer.write(pickle.dumps(result))
    print(f"{len(result)} grants in {time.monotonic() - started:.1f} s", file=sys.stderr)
