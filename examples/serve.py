"""A server that keeps running at http://127.0.0.1:8000, with the demonstration data, and a shop to use tokens at.

    make serve

Users, agents and resource servers are made once, in var/; each start records one more consent, for 30 days. The
configuration is the one that manage.py reads, so its verbs work beside it. Ctrl-C ends everything.
"""

import json
import os
import shlex
import signal
import sys
from contextlib import ExitStack
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

from sqlalchemy.engine import make_url

from authserver.config import SHIPPED, ConfigurationError, Settings, load_settings
from examples.processes import DidNotStart, is_free, running
from examples.world import (
    ADMINISTRATOR,
    HELPER,
    PASSWORD,
    ROOT,
    Delegated,
    Operator,
    Registered,
    VerbFailed,
    World,
    employ_an_administrator,
    populate,
    what_ada_allows_the_helper,
    workload,
)

VAR = ROOT / "var"
KEPT = VAR / "demonstration.json"  # the resource servers' secrets, which nobody can be asked for again
TRY = VAR / "try.sh"
SHOP_PORT = 8001
SHOP_URL = f"http://127.0.0.1:{SHOP_PORT}"


class PortTaken(Exception):
    """Something else listens where the server would."""


def main() -> int:
    """Serve until Ctrl-C; the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        settings = load_settings()
        _prepare_and_serve(settings)
    except (ConfigurationError, PortTaken, DidNotStart) as error:
        print(error, file=sys.stderr)
        return 1
    except VerbFailed as error:
        print(f"{error}\n\nTo start over, move {VAR} away.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nEnded.")
    return 0


def _prepare_and_serve(settings: Settings) -> None:
    port = settings.server.port
    if not is_free(port):
        raise PortTaken(f"Something listens on port {port} already; end it, or set AUTHSERVER_SERVER__PORT.")
    print(f"Getting ready; the demonstration data are in {VAR}", flush=True)
    VAR.mkdir(exist_ok=True)
    operator = Operator(
        VAR, Path(os.environ.get("AUTHSERVER_CONFIG", SHIPPED / "authserver.toml")).absolute()
    )
    world = _world(operator, settings)
    employ_an_administrator(operator)
    consent = operator.delegate(HELPER, what_ada_allows_the_helper(world.shop.identifier, timedelta(days=30)))
    _write_private(TRY, _things_to_try(settings.server.issuer, operator, world, consent))
    _serve(settings, operator, world)


def _world(operator: Operator, settings: Settings) -> World:
    """Everybody who is registered: as kept for this database, or made now."""
    database = make_url(settings.database.url.get_secret_value()).render_as_string(hide_password=True)
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    made = populate(operator, f"{SHOP_URL}/api")
    if made is not None:
        _write_private(KEPT, json.dumps(kept | {database: asdict(made)}, indent=2))
        return made
    if database not in kept:
        raise VerbFailed(
            f"{database} has the demonstration data, and {KEPT} has not the secrets that go with them"
        )
    return World(**{name: Registered(**server) for name, server in kept[database].items()})


def _serve(settings: Settings, operator: Operator, world: World) -> None:
    issuer, with_shop = settings.server.issuer, is_free(SHOP_PORT)
    shop = [sys.executable, "-m", "examples.shop", "--issuer", issuer, "--port", str(SHOP_PORT)]
    shop_knows = {"SHOP_SECRET": world.shop.secret}
    with ExitStack() as both:
        serve = [sys.executable, "manage.py", "serve"]
        server = both.enter_context(running(serve, operator.environment, ROOT))
        server.wait_until_ready(f"http://127.0.0.1:{settings.server.port}/readyz")
        if with_shop:
            with_its_id = [*shop, "--id", world.shop.id]
            both.enter_context(running(with_its_id, shop_knows, ROOT)).wait_until_ready(f"{SHOP_URL}/healthz")
        print(_welcome(issuer, with_shop=with_shop), flush=True)
        server.process.wait()


def _welcome(issuer: str, *, with_shop: bool) -> str:
    shop = (
        f"The shop Example Foods is at {SHOP_URL}." if with_shop else f"Port {SHOP_PORT} is taken: no shop."
    )
    return f"""
The server is at {issuer}, with Ada, Basket Helper, Price Scout, Example Foods and Example Market.
Ada's pages are at {issuer}/ (sign in as ada, with {PASSWORD}),
the administrators' at {issuer}/admin (sign in as {ADMINISTRATOR}, with {PASSWORD}).
{shop} In a second terminal, one by one:

    . {TRY.relative_to(ROOT)}
    exchange "$SEARCH"                          # a token to search at Example Foods
    exchange "$PAYMENT"                         # one to pay €42.50 there
    exchange "$TOO_MUCH"                        # refused, and it says why
    token "$SEARCH" | call {SHOP_URL}/api/products?search=oat
    curl -s {issuer}/.well-known/oauth-authorization-server
    .venv/bin/python manage.py delegations list

README.md has the same by hand. Ctrl-C ends it.
"""


def _things_to_try(issuer: str, operator: Operator, world: World, consent: Delegated) -> str:
    """A file for a shell to read: the values of this server, and what is long to type."""
    place = world.shop.identifier
    search = {"type": "agent_action", "actions": ["catalog.search"], "locations": [place]}
    payment = search | {"actions": ["payment.finalize"], "reference": "order-1"}
    return "\n".join(
        [
            f"ISSUER={issuer}",
            f"GRANT_ID={shlex.quote(consent.grant_id)}",
            f"GRANT={consent.grant}",
            f"SHOP={place}",
            f"SHOP_ID={shlex.quote(world.shop.id)}",
            f"SHOP_SECRET={shlex.quote(world.shop.secret)}",
            f"SEARCH={shlex.quote(json.dumps(search))}",
            f"PAYMENT={shlex.quote(json.dumps(payment | {'amount': {'currency': 'EUR', 'value': '42.50'}}))}",
            f"TOO_MUCH={shlex.quote(json.dumps(payment | {'amount': {'currency': 'EUR', 'value': '92.00'}}))}",
            _FUNCTIONS.format(
                python=shlex.quote(sys.executable),
                root=shlex.quote(str(ROOT)),
                config=shlex.quote(str(operator.config)),
                domain=shlex.quote(str(operator.domain)),
                subject=workload(HELPER),
            ),
        ]
    )


_FUNCTIONS = """
# What proves which workload is calling: a JWT-SVID of Basket Helper, good for an hour.
assertion() {{
    (cd {root} && AUTHSERVER_CONFIG={config} {python} manage.py workload assertion \\
        --directory {domain} --subject {subject} --audience "$ISSUER" --lifetime 3600)
}}

# The exchange, for the one action that is given.
exchange() {{
    curl -s "$ISSUER/oauth/token" \\
        -d grant_type=urn:ietf:params:oauth:grant-type:token-exchange \\
        -d subject_token_type=urn:authserver:token-type:delegation-grant -d "subject_token=$GRANT" \\
        -d actor_token_type=urn:ietf:params:oauth:token-type:jwt -d "actor_token=$(assertion)" \\
        --data-urlencode "authorization_details=[$1]" && echo
}}

# The token alone.
token() {{
    exchange "$1" | {python} -c 'import json, sys; print(json.load(sys.stdin)["access_token"])'
}}

# A request with the token that is read from standard input.
call() {{
    read -r bearer && curl -s -H "Authorization: Bearer $bearer" "$@" && echo
}}
"""


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    sys.exit(main())
