"""Apache and nginx as resource servers, configured as docs/without-the-kit.md says, in front of an application."""

import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from werkzeug.serving import make_server

from authserver.app import build
from authserver.dpop import ProofKey
from examples.processes import free_port, running
from tests.conformance.tokens import claims_of
from tests.documents import blocks
from tests.settling import eur
from tests.shops import bound_token
from tests.world import MARKET, QuietHandler, World

MODULES = Path("/usr/lib/apache2/modules")
NGINX_MODULE = Path("/usr/lib/nginx/modules/ngx_http_js_module.so")


@contextmanager
def application() -> Iterator[int]:
    """An application that says what it was told; gives its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def here(world: World, said: str) -> str:
    """The documented configuration, for this server and the market."""
    for shown, real in (
        ("https://auth.example", world.issuer),
        ("https://shop.example/api", MARKET),
        ("rs_shop", world.market_id),
        ("THE_SECRET", world.market_secret),
    ):
        said = said.replace(shown, real)
    return said


def _writable(folder: Path) -> Path:
    # The worker processes run as another user, who must reach their own files.
    for parent in (folder, *folder.parents):
        if parent.owner() == folder.owner() and str(parent).startswith("/tmp/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    return folder


def apache(world: World, folder: Path, port: int, behind: int, module: str) -> list[str]:
    program, library = shutil.which("apache2"), MODULES / f"mod_{module}.so"
    if program is None or not library.exists():
        pytest.skip(f"Apache with mod_{module} is not installed")
    heading = {"auth_openidc": "Apache with mod_auth_openidc", "oauth2": "Apache with mod_oauth2"}[module]
    [block] = blocks("without-the-kit.md", "apache", heading)
    loaded = ("mpm_event", "authn_core", "authz_core", "authz_user", "proxy", "proxy_http", module)
    config = folder / "apache.conf"
    config.write_text(
        "\n".join(
            [
                f"ServerRoot {folder}\nServerName 127.0.0.1\nListen 127.0.0.1:{port}\nPidFile {folder}/apache.pid",
                f"ErrorLog {folder}/error.log\nMutex file:{folder} default\nDefaultRuntimeDir {folder}",
                *(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in loaded),
                "User www-data\nGroup www-data" if os.geteuid() == 0 else "",
                f'ProxyPass "/api" "http://127.0.0.1:{behind}/api"',
                "OIDCOAuthSSLValidateServer Off" if module == "auth_openidc" else "",
                here(world, block),
            ]
        )
    )
    return [program, "-f", str(config), "-DFOREGROUND"]


def nginx(world: World, folder: Path, port: int, behind: int) -> list[str]:
    program = shutil.which("nginx")
    if program is None or not NGINX_MODULE.exists():
        pytest.skip("nginx with njs is not installed")
    heading = "nginx (introspection by njs)"
    [script], [block] = (blocks("without-the-kit.md", language, heading) for language in ("js", "nginx"))
    (folder / "action_tokens.js").write_text(script)
    block = here(world, block).replace("/etc/nginx/action_tokens.js", str(folder / "action_tokens.js"))
    block = block.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    block = block.replace("127.0.0.1:9000", f"127.0.0.1:{behind}")
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"load_module {NGINX_MODULE};\ndaemon off;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{block}}}\n"
    )
    return [program, "-c", str(config), "-p", str(folder), "-e", str(folder / "error.log")]


@contextmanager
def by_tls(world: World) -> Iterator[str]:
    """The same server by https: mod_auth_openidc asks no other."""
    listener = make_server(
        "127.0.0.1",
        0,
        build(world.services),
        threaded=True,
        request_handler=QuietHandler,
        ssl_context="adhoc",
    )
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{listener.server_port}"
    finally:
        listener.shutdown()
        listener.server_close()


Command = Callable[[World, Path, int, int], list[str]]
INTROSPECTING: dict[str, Command] = {
    "mod_auth_openidc": lambda *where: apache(*where, "auth_openidc"),
    "nginx": nginx,
}


@contextmanager
def fronted(world: World, folder: Path, command: Command) -> Iterator[httpx.Client]:
    """The web server in front of the application, by one client for both."""
    port = free_port()
    with application() as behind, by_tls(world) as tls:
        started = command(world, _writable(folder), port, behind)
        if (config := folder / "apache.conf").exists():
            said = config.read_text().replace(f"{world.issuer}/oauth/introspect", f"{tls}/oauth/introspect")
            config.write_text(said)
        with running(started, {}, folder, folder / "output.log") as program:
            url = f"http://127.0.0.1:{port}"
            while program.process.poll() is None:
                try:
                    httpx.get(url, timeout=5)
                    break
                except httpx.HTTPError:
                    threading.Event().wait(0.05)
            assert program.process.poll() is None, (folder / "output.log").read_text()
            with httpx.Client(base_url=url, timeout=30) as client:
                yield client


def token_of(world: World, grant: str, **action: Any) -> str:
    answer = world.exchange(grant, action=world.action(**action))
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token


def by_scope(world: World, grant: str) -> str:
    """A token for an action without limits, asked for as a scope."""
    answer = world.exchange(grant, authorization_details=None, scope="catalog.search", resource=MARKET)
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token


def _details(headers: dict[str, str]) -> dict[str, Any]:
    """What the application behind is told: by nginx in a header of its own, by Apache in the token that has passed."""
    if "x-action" in headers:
        details: dict[str, Any] = json.loads(headers["x-action"])
        return details
    return claims_of(headers["oidc_access_token"])["authorization_details"][0]  # type: ignore[no-any-return]


def get(client: httpx.Client, path: str, token: str | None) -> httpx.Response:
    return client.get(path, headers={"Authorization": f"Bearer {token}"} if token else {})


@pytest.mark.parametrize("program", INTROSPECTING)
def test_a_web_server_that_introspects_takes_what_it_should(
    sqlite_world: World, tmp_path: Path, program: str
) -> None:
    world = sqlite_world
    grant = world.granted().grant
    with fronted(world, tmp_path, INTROSPECTING[program]) as client:
        token = token_of(world, grant)
        told = get(client, "/api/orders/1", token)
        assert told.status_code == 200, told.text
        assert _details(told.json())["amount"] == eur("42.50")
        assert get(client, "/api/products", by_scope(world, grant)).status_code == 200
        # A103: searching takes a token to search; A103, A105: another's token is nobody's here.
        assert get(client, "/api/products", token).status_code in (401, 403)
        elsewhere = token_of(world, grant, locations=["https://shop.example/api"], merchant=None)
        assert get(client, "/api/orders/1", elsewhere).status_code == 401
        for bad in (None, "x", token[:-4] + "AAAA"):
            assert get(client, "/api/orders/1", bad).status_code == 401
        # A101: what is bound to a key is no bearer token.
        bound = bound_token(world, grant, ProofKey.generate())
        assert get(client, "/api/orders/1", bound).status_code in (401, 403)
        # Revoked, it is refused at the next request.
        form = {"token": grant, "client_assertion": world.assertion()}
        form["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
        assert world.post("/oauth/revoke", form).status_code == 200
        assert get(client, "/api/orders/1", token).status_code == 401


def test_apache_with_mod_oauth2_verifies_offline(sqlite_world: World, tmp_path: Path) -> None:
    world = sqlite_world
    grant = world.granted().grant

    def command(*where: Any) -> list[str]:
        return apache(*where, "oauth2")

    with fronted(world, tmp_path, command) as client:
        token = token_of(world, grant)
        told = get(client, "/api/orders/1", token)
        assert told.status_code == 200, told.text
        elsewhere = token_of(world, grant, locations=["https://shop.example/api"], merchant=None)
        bound = bound_token(world, grant, ProofKey.generate())
        for bad in (None, "x", token[:-4] + "AAAA", elsewhere, bound):
            assert get(client, "/api/orders/1", bad).status_code in (401, 403), bad


def test_redeeming_takes_one_request_of_curl(sqlite_world: World) -> None:
    world, curl = sqlite_world, shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    [script] = blocks("without-the-kit.md", "sh")
    told = {"ID": world.market_id, "SECRET": world.market_secret, "ISSUER": world.issuer, "ORDER": "order-1"}
    told |= {"TOKEN": token_of(world, world.granted().grant), "PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", "-euc", script], env=told, capture_output=True, text=True, timeout=30)
    assert json.loads(done.stdout)["state"] == "captured", done.stderr
