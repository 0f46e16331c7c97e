"""How tests get a grant as an agent does: ask, let a person answer, come for it. Everything over HTTP."""

import hashlib
import json
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from authserver.actors.client_authentication import JWT_SPIFFE
from authserver.schema import Agent as AgentRow
from authserver.schema import table_of
from tests.pages.browser import Visit, csrf_of
from tests.world import BASKET_HELPER, World

CALLBACK = "https://helper.example/callback"
LOOPBACK = "http://127.0.0.1/callback"
CODE = "authorization_code"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
VERIFIER = "a-verifier-of-more-than-43-characters-that-a-test-knows"


def challenge_of(verifier: str) -> str:
    """RFC 7636 §4.2."""
    return urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def register_redirect_uris(world: World, *uris: str, client_id: str = "basket-helper") -> None:
    """As `manage.py agents create --redirect-uri` does."""
    agents = table_of(AgentRow)
    change = agents.update().where(agents.c.client_id == client_id).values(redirect_uris=json.dumps(uris))
    world.services.database.write(lambda connection: connection.execute(change))


def as_agent(world: World, subject: str = BASKET_HELPER) -> dict[str, str]:
    """The parameters by which an agent authenticates."""
    return {"client_assertion_type": JWT_SPIFFE, "client_assertion": world.assertion(subject)}


def request_of(world: World, **changes: Any) -> dict[str, str]:
    """A pushed authorization request that is good, but for what is given; None takes a parameter away."""
    details = changes.pop("details", None) or world.delegation()
    form: dict[str, Any] = {
        "response_type": "code",
        "client_id": "basket-helper",
        "redirect_uri": CALLBACK,
        "state": "a state of the agent's",
        "code_challenge": challenge_of(VERIFIER),
        "code_challenge_method": "S256",
        "authorization_details": json.dumps([details]),
        **as_agent(world),
    }
    return {name: value for name, value in (form | changes).items() if value is not None}


def push(world: World, headers: dict[str, str] | None = None, **changes: Any) -> httpx.Response:
    """Push a request."""
    return world.post("/oauth/par", request_of(world, **changes), headers)


def pushed(world: World, **changes: Any) -> str:
    """The `request_uri` of a request that was taken."""
    register_redirect_uris(world, CALLBACK, LOOPBACK)
    answer = push(world, **changes)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["request_uri"])


def claim(
    world: World, code: str, *, headers: dict[str, str] | None = None, **changes: Any
) -> httpx.Response:
    """Come for the grant with a code."""
    form: dict[str, Any] = {
        "grant_type": CODE,
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
        "client_id": "basket-helper",
        **as_agent(world),
    }
    kept = {name: value for name, value in (form | changes).items() if value is not None}
    return world.post("/oauth/token", kept, headers)


def ask_by_device(
    world: World, headers: Mapping[str, str | bytes] | None = None, **changes: Any
) -> httpx.Response:
    """Ask as a device does."""
    details = changes.pop("details", None) or world.delegation()
    form: dict[str, Any] = {
        "client_id": "basket-helper",
        "authorization_details": json.dumps([details]),
        **as_agent(world),
    }
    kept = {name: value for name, value in (form | changes).items() if value is not None}
    return world.client.post("/oauth/device_authorization", data=kept, headers=dict(headers or {}))


def poll(world: World, device_code: str, **changes: Any) -> httpx.Response:
    """Ask whether there is an answer."""
    form: dict[str, Any] = {
        "grant_type": DEVICE,
        "device_code": device_code,
        "client_id": "basket-helper",
        **as_agent(world),
    }
    return world.post("/oauth/token", {k: v for k, v in (form | changes).items() if v is not None})


def parameters_of(url: str) -> dict[str, str]:
    """The query of a redirect, each parameter once."""
    pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def fresh_verifier() -> str:
    """Another verifier."""
    return secrets.token_urlsafe(48)


# --- the person -----------------------------------------------------------------------------------------------------

_BOX = re.compile(r'<input type="(checkbox|radio)" name="([^"]+)" value="([^"]*)"( checked)?')
_FIELD = re.compile(r'<input name="([^"]+)"(?: type="date")? value="([^"]*)"')


def form_of(page: httpx.Response) -> dict[str, list[str]]:
    """The consent form as a browser would send it, untouched."""
    assert page.status_code in (200, 400), page.text
    form: dict[str, list[str]] = {"decision": ["allow"], "csrf": [csrf_of(page)]}
    for _, name, value, checked in _BOX.findall(page.text):
        if checked:
            form.setdefault(name, []).append(unescape(value))
    for name, value in _FIELD.findall(page.text):
        form[name] = [unescape(value)]
    return form


def open_request(visit: Visit, request_uri: str, client_id: str = "basket-helper") -> httpx.Response:
    """Go where the agent sends the browser."""
    return visit.get("/oauth/authorize", params={"client_id": client_id, "request_uri": request_uri})


def consent_page(visit: Visit, request_uri: str) -> tuple[str, httpx.Response]:
    """The path of the consent page, and the page."""
    led = open_request(visit, request_uri)
    assert led.status_code == 303, led.text
    path = led.headers["location"]
    assert path.startswith("/consent/"), path
    return path, visit.get(path)


def send(visit: Visit, path: str, form: dict[str, list[str]]) -> httpx.Response:
    """Press the button."""
    return visit.client.post(path, data=form)


def allow(visit: Visit, request_uri: str, **changes: list[str]) -> httpx.Response:
    """Say yes, as a browser does, with some fields changed; `trust` unless another preset is given."""
    path, page = consent_page(visit, request_uri)
    return send(visit, path, form_of(page) | {"preset": ["trust"]} | changes)


def code_from(answer: httpx.Response) -> str:
    """The code in the redirect back to the agent."""
    assert answer.status_code == 303, answer.text
    return parameters_of(answer.headers["location"])["code"]


def grant_by_code(world: World, visit: Visit, **changes: Any) -> dict[str, Any]:
    """The whole way: ask, allow, come for it."""
    answer = claim(world, code_from(allow(visit, pushed(world, **changes))))
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def allow_device(visit: Visit, user_code: str, **changes: list[str]) -> httpx.Response:
    """Type the code of a device, and say yes; gives what the last press led to."""
    led = visit.post("/device", user_code=user_code)
    assert led.status_code == 303, led.text
    path = led.headers["location"]
    page = visit.get(path)
    return send(visit, path.split("?")[0], form_of(page) | {"preset": ["trust"]} | changes)
