"""Callers of the administrators' API, one for each role, at a world's server."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from authserver import api_tokens
from authserver.administration.roles import Role
from tests.world import World

BASE = "/api/v1"


@dataclass
class Client:
    """One caller with an API token."""

    world: World
    id: str
    token: str

    def ask(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **said: Any
    ) -> httpx.Response:
        """Send one request; `said` is what httpx takes."""
        headers = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        return self.world.client.request(method, BASE + path, headers=headers, **said)

    def get(self, path: str, **parameters: str | int) -> Any:
        """What a GET answers that succeeds."""
        answer = self.ask("GET", path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: object = None, *, status: int = 200, **headers: str) -> Any:
        """What a POST answers."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.ask("POST", path, json={} if body is None else body, headers=named)
        assert answer.status_code == status, answer.text
        return answer.json()

    def patch(self, path: str, change: object) -> httpx.Response:
        """Read a record, then change it as it was read."""
        etag = self.ask("GET", path).headers["ETag"]
        return self.ask("PATCH", path, json=change, headers={"If-Match": etag})

    @property
    def by(self) -> str:
        """What the audit calls this caller."""
        return f"api_token:{self.id}"


Caller = Callable[[str], Client]


def client_of(world: World, role: Role | str, **lifetime: Any) -> Client:
    """A new caller with that role."""
    made, text = api_tokens.create(
        world.services,
        name=f"a {role}",
        role=str(role),
        expires_at=lifetime.get("expires_at"),
        by="operator:tests",
        now=world.clock.now(),
    )
    return Client(world, made.id, text)


def is_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Hold an answer to what a refusal of the API looks like (RFC 9457); gives its body."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert {"type", "title", "detail"} <= body.keys()
    return body


def agent(client_id: str, **members: object) -> dict[str, object]:
    """A new agent of example.org."""
    return {
        "client_id": client_id,
        "trust_domain": "example.org",
        "subject": f"spiffe://example.org/agent/{client_id}",
        **members,
    }
