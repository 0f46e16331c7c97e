"""What agents and resource servers install brings none of the server's own dependencies."""

import subprocess
import sys

import pytest

# What `authserver[agent]` and `authserver[resource-server]` do not install (pyproject.toml).
NOT_INSTALLED = [
    *("alembic", "argon2", "authlib", "cedarpy", "click", "flask", "granian", "jinja2", "msgspec", "psycopg"),
    *("pydantic", "pydantic_settings", "rich", "sqlalchemy", "werkzeug"),
]

BLOCK = f"""
import sys
for name in {NOT_INSTALLED!r}:
    sys.modules[name] = None  # makes its import fail
"""

USE_THE_RESOURCE_SERVER = """
from authserver.resource_server import InvalidToken, Introspection, Settlement, Verifier, bearer_token
Introspection("https://auth.example", "https://shop.example/api", "id", "secret")
Settlement("https://auth.example", "id", "secret")
try:
    Verifier("https://auth.example", "https://shop.example/api").verify(bearer_token("Bearer nonsense"))
except InvalidToken:
    print("works")
"""

USE_THE_AGENT = """
from authserver.agent import AgentClient, IssuerUnavailable
try:
    AgentClient("http://127.0.0.1:1", lambda: "assertion").exchange("grant", {"type": "agent_action"})
except IssuerUnavailable:
    print("works")
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
    "program", [USE_THE_RESOURCE_SERVER, USE_THE_AGENT], ids=["resource server", "agent"]
)
def test_an_extra_works_without_what_only_the_server_needs(program: str) -> None:
    assert run(program) == "works"


def test_the_extras_import_nothing_of_the_server_above_its_values() -> None:
    below = {"clock", "discovery", "dpop", "errors", "jose", "strict_json", "values"}
    own = {name.split(".")[1] for name in run(OWN_MODULES).split()}
    assert own == below | {"agent", "resource_server"}
