"""What agents and resource servers install brings none of the server's own dependencies."""

import subprocess
import sys

import pytest

# What `authserver[agent]` and `authserver[resource-server]` do not install (pyproject.toml).
NOT_INSTALLED = [
    *(
        "alembic",
        "argon2",
        "authlib",
        "cedarpy",
        "click",
        "fastapi",
        "flask",
        "starlette",
        "granian",
        "jinja2",
        "msgspec",
        "psycopg",
    ),
    *("pydantic", "pydantic_settings", "rich", "sqlalchemy", "werkzeug"),
]

BLOCK = f"""
import sys
for name in {NOT_INSTALLED!r}:
    sys.modules[name] = None  # makes its import fail
"""

USE_THE_RESOURCE_SERVER = """
from authserver.resource_server import AsyncResourceServer, InvalidToken, Introspection, ResourceServer, Settlement
from authserver.resource_server import Verifier, asgi, wsgi
Introspection("https://auth.example", "https://shop.example/api", "id", "secret")
Settlement("https://auth.example", "id", "secret")
wsgi.Protection(ResourceServer("https://auth.example", "https://shop.example/api", "id", "secret"))
asgi.Protection(AsyncResourceServer("https://auth.example", "https://shop.example/api", "id", "secret"))
try:
    Verifier("https://auth.example", "https://shop.example/api").verify("nonsense")
except InvalidToken:
    print("works")
"""

USE_THE_AGENT = """
for name in ("grpc", "httpx2", "mcp", "spiffe"):
    sys.modules[name] = None
import asyncio
from authserver.agent import Action, Agent, AsyncAgent, IssuerUnavailable, SpiffeWorkloadApi, WorkloadUnknown
agent = Agent("http://127.0.0.1:1", lambda: "assertion", sleep=lambda seconds: None)
try:
    agent.exchange("grant", {"type": "agent_action"})
except IssuerUnavailable:
    pass
async def ask():
    async with AsyncAgent("http://127.0.0.1:1", lambda: "assertion") as other:
        await other.token_for("grant", Action("catalog.search", at="https://shop.example"))
try:
    asyncio.run(ask())
except IssuerUnavailable:
    pass
try:
    SpiffeWorkloadApi().assertion("https://auth.example")
except WorkloadUnknown:
    print("works")
"""

USE_DPOP = """
from datetime import UTC, datetime, timedelta
sys.modules["httpx"] = None
from authserver.dpop import Nonces, ProofKey, SeenProofs, read_proof
now, nonces, url = datetime.now(UTC), Nonces(bytes(32), timedelta(minutes=5)), "https://api.example/things"
proof = ProofKey.generate().proof("POST", url, now=now, access_token="t", nonce=nonces.make(now))
SeenProofs().use(read_proof(proof, method="POST", url=url, now=now, nonces=nonces, access_token="t"), now)
own = {name.split(".")[1] for name in sys.modules if name.startswith("authserver.")}
print("works" if own == {"dpop", "errors", "jose", "strict_json"} else own)
"""

OWN_MODULES = """
import authserver.agent, authserver.resource_server
print(*sorted(name for name in sys.modules if name.startswith("authserver.")))
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BLOCK + program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "program", [USE_THE_RESOURCE_SERVER, USE_THE_AGENT, USE_DPOP], ids=["resource server", "agent", "dpop"]
)
def test_an_extra_works_without_what_only_the_server_needs(program: str) -> None:
    assert run(program) == "works"


def test_the_extras_import_nothing_of_the_server_above_its_values() -> None:
    below = {"clock", "discovery", "dpop", "errors", "jose", "strict_json", "values"}
    own = {name.split(".")[1] for name in run(OWN_MODULES).split()}
    assert own == below | {"agent", "resource_server"}
