"""A real web server on loopback, which has the documents of a trust domain: its keys, its discovery document."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.listening import listening

DISCOVERY = "/.well-known/openid-configuration"


@dataclass
class Web:
    """What is found under which path; it may change at any time. `asked` are the paths, in order."""

    url: str
    documents: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def publish(self, path: str, *keys: Mapping[str, object]) -> None:
        """Have a JWK Set there from now on."""
        self.documents[path] = {"keys": list(keys)}

    def discoverable(self, jwks_path: str, **changes: object) -> None:
        """Have the discovery document of this server as an issuer (OpenID Connect Discovery §4)."""
        usual = {
            "issuer": self.url,
            "jwks_uri": self.url + jwks_path,
            "response_types_supported": ["id_token"],
        }
        self.documents[DISCOVERY] = usual | changes


@contextmanager
def running_web() -> Iterator[Web]:
    """Run one that has nothing yet."""
    web = Web("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            web.asked.append(self.path)
            found = web.documents.get(self.path)
            body = json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: what was asked is in `asked`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.url = f"http://127.0.0.1:{server.server_port}"
    with listening(server):
        yield web
