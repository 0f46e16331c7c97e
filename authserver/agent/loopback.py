"""Where the person's browser comes back to: a listener on this machine alone, for one answer (RFC 8252 §7.3)."""

import hmac
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit

from authserver.agent.answers import ExchangeRefused

_PATH = "/callback"
_LONGEST = 4_096
_PAGE = b"<!doctype html><meta charset=utf-8><title>Done</title><p>You can close this window."


class AnswerNotOurs(Exception):
    """The answer that came is another server's (RFC 9207), or says nothing that can be used."""


class Loopback:
    """Listens on a free port of 127.0.0.1 until it has the answer to `state`; a context manager."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer
        self._queries: list[dict[str, list[str]]] = []
        self._state: str | None = None
        self._arrived = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def redirect_uri(self) -> str:
        """The address of the listener. It is registered as `http://127.0.0.1/callback`: any port fits."""
        return f"http://127.0.0.1:{self._server.server_port}{_PATH}"

    def __enter__(self) -> Self:
        thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def expect(self, state: str) -> None:
        """Take the answer that has this `state`, and no other."""
        self._state = state

    def code(self, timeout: float) -> str:
        """The authorization code, when the person has allowed it; waits for `timeout` seconds.

        Raises `ExchangeRefused` where they said no or did not answer (`expired_token`), and `AnswerNotOurs`.
        """
        if not self._arrived.wait(timeout):
            raise ExchangeRefused("expired_token", "nobody answered in time")
        return code_in(self._queries[0], self._issuer)

    def take(self, target: str) -> bool:
        """Whether a request's target is the answer; nothing else of this machine ends the wait."""
        url = urlsplit(target)
        query = parse_qs(url.query, keep_blank_values=True)
        [state] = query["state"] if len(query.get("state", ())) == 1 else [""]
        if url.path != _PATH or self._state is None or not _same(state, self._state):
            return False
        if not self._arrived.is_set():
            self._queries.append(query)
            self._arrived.set()
        return True

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        loopback = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:
                """The browser, come back."""
                taken = len(self.path) <= _LONGEST and loopback.take(self.path)
                self.send_response(200 if taken else 400)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(_PAGE) if taken else 0))
                self.send_header("Cache-Control", "no-store")
                self.send_header("Referrer-Policy", "no-referrer")
                self.end_headers()
                self.wfile.write(_PAGE if taken else b"")

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: the code is in the address."""

        return Handler


def code_in(query: dict[str, list[str]], issuer: str) -> str:
    """The code of an answer that has our `state`. Raises `ExchangeRefused`, `AnswerNotOurs`."""
    # RFC 9207 §2.4: an answer of another server, or of nobody, is not looked at any further.
    if query.get("iss") != [issuer]:
        raise AnswerNotOurs("the answer does not name this server")
    if "error" in query:
        description = query.get("error_description", ["the person or the server said no"])[0]
        raise ExchangeRefused(query["error"][0], description)
    if len(query.get("code", ())) != 1:
        raise AnswerNotOurs("the answer has no code")
    return query["code"][0]


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())
