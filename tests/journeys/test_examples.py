"""The example resource servers, started as their READMEs say, with an agent that has a key of its own."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from authserver.actors.workload_files import make_assertion
from authserver.dpop import ProofKey
from examples.processes import free_port, running
from examples.stage import Stage, stage
from examples.world import FOODS, HELPER, ROOT, instant, workload
from tests.world import EXCHANGE, JWT

CASINO = {"id": "m_666", "category": "7995", "country": "NL"}
KEY = {"X-Merchant-Key": "the-merchant"}


@dataclass
class Payments:
    """The payment API, and an agent that Ada lets use her card at grocery shops."""

    place: Stage
    url: str
    key: ProofKey
    grant: str
    client: httpx.Client

    def exchange(self, action: dict[str, Any]) -> httpx.Response:
        """An exchange with a proof, and once more with the nonce that the first answer brings."""
        domain, issuer, now = self.place.operator.domain, self.place.issuer, datetime.now(UTC)
        form = {"grant_type": EXCHANGE, "subject_token": self.grant, "subject_token_type": JWT}
        form |= {"actor_token": make_assertion(domain, workload(HELPER), issuer, timedelta(minutes=5), now)}
        form |= {"actor_token_type": JWT, "authorization_details": json.dumps([action])}
        endpoint, nonce = f"{issuer}/oauth/token", None
        for _ in range(2):
            proof = self.key.proof("POST", endpoint, now=datetime.now(UTC), nonce=nonce)
            answer = self.client.post(endpoint, data=form, headers={"DPoP": proof})
            nonce = answer.headers.get("DPoP-Nonce")
            if answer.status_code == 200:
                break
        return answer

    def ask(self, method: str, path: str, token: str, body: object = None) -> httpx.Response:
        """A request with token and proof, and once more with the API's own nonce."""
        nonce = None
        for _ in range(2):
            url, now = f"{self.url}{path}", datetime.now(UTC)
            proof = self.key.proof(method, url, now=now, access_token=token, nonce=nonce)
            headers = {"Authorization": f"DPoP {token}", "DPoP": proof}
            answer = self.client.request(method, url, headers=headers, json=body)
            nonce = answer.headers.get("DPoP-Nonce")
            if 'error="use_dpop_nonce"' not in answer.headers.get("WWW-Authenticate", ""):
                break
        return answer


def payment(value: str, merchant: str = "m_123") -> dict[str, Any]:
    return {"amount": {"currency": "EUR", "value": value}, "merchant": merchant, "reference": "order-1"}


@pytest.fixture(scope="module")
def payments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Payments]:
    folder = tmp_path_factory.mktemp("payments")
    with stage(folder) as place, httpx.Client(timeout=30) as client:
        url = f"http://127.0.0.1:{free_port()}"
        api = place.operator.record("resource-servers", "create", "--identifier", url, "--name", "Payments")
        granted = place.operator.delegate(HELPER, _what_ada_allows(url))
        command = [sys.executable, "-m", "examples.payment_api", "--issuer", place.issuer]
        command += ["--port", url.rpartition(":")[2], "--id", api["id"]]
        knows = {"API_SECRET": api["client_secret"], "MERCHANT_KEY": KEY["X-Merchant-Key"]}
        with running(command, knows, ROOT, folder / "payments.log") as program:
            program.wait_until_ready(f"{url}/healthz")
            yield Payments(place, url, ProofKey.generate(), granted.grant, client)


def _what_ada_allows(url: str) -> dict[str, Any]:
    return {
        "type": "agent_delegation",
        "actions": ["payment_instrument.use", "profile.read"],
        "locations": [url],
        "limits": {"currency": "EUR", "per_action": "80.00", "total": "300.00"},
        "merchants": {"categories": ["5411", "7995"], "countries": ["NL"]},
        "datatypes": ["payment_instrument", "email"],
        "expires": instant(datetime.now(UTC) + timedelta(days=1)),
    }


def test_S16_a_stored_card_takes_a_token_and_a_key(payments: Payments) -> None:
    """Without a token the API says what it takes; the agent adds what it knows, asks its server, and pays."""
    nothing = payments.client.post(f"{payments.url}/payments", json=payment("42.50"))
    assert nothing.status_code == 401
    found = re.search(r'resource_metadata="([^"]+)"', nothing.headers["WWW-Authenticate"])
    assert found is not None
    about = payments.client.get(found[1]).json()
    assert (about["resource"], about["authorization_servers"]) == (payments.url, [payments.place.issuer])
    [wanted] = nothing.json()["authorization_details"]
    action = wanted | {name: payment("42.50")[name] for name in ("amount", "reference")} | {"merchant": FOODS}
    token = payments.exchange(action).json()["access_token"]
    done = payments.ask("POST", "/payments", token, payment("42.50"))
    assert done.status_code == 201, done.text
    assert done.json()["state"] == "authorized"
    again = payments.ask("POST", "/payments", token, payment("42.50"))
    assert again.status_code == 401
    path = f"{payments.url}/payments/{done.json()['payment']}"
    assert payments.client.post(f"{path}/capture", headers={"X-Merchant-Key": "another"}).status_code == 401
    some = {"currency": "EUR", "value": "40.00"}
    captured = payments.client.post(f"{path}/capture", headers=KEY, json=some)
    assert captured.json() == {"payment": done.json()["payment"], "state": "captured", "amount": some}
    assert payments.client.post(f"{path}/void", headers=KEY).status_code == 409
    assert payments.client.post(f"{path}/refund", headers=KEY).json()["state"] == "refunded"


def test_A103_a_token_for_groceries_does_not_pay_the_casino(payments: Payments) -> None:
    action = {"type": "agent_action", "actions": ["payment_instrument.use"], "locations": [payments.url]}
    action |= {"amount": payment("20.00")["amount"], "reference": "order-1"}
    token = payments.exchange(action | {"merchant": FOODS}).json()["access_token"]
    refused = payments.ask("POST", "/payments", token, payment("20.00", "m_666"))
    assert refused.status_code == 403
    assert {entry["constraint"] for entry in refused.json()["violations"]} == {
        "merchant.id",
        "merchant.category",
    }
    for bad in (payment("20.01"), payment("20.00", "m_404"), payment("twenty"), {}, [], "x"):
        assert payments.ask("POST", "/payments", token, bad).status_code in (403, 404, 422)
    assert payments.ask("POST", "/payments", token, payment("20.00")).status_code == 201


def test_S13_of_the_wallet_only_what_the_token_names_is_shown(payments: Payments) -> None:
    action = {"type": "agent_action", "actions": ["profile.read"], "locations": [payments.url]}
    token = payments.exchange(action | {"datatypes": ["payment_instrument"]}).json()["access_token"]
    shown = payments.ask("GET", "/instruments", token).json()
    assert set(shown) == {"payment_instrument"}
    other = payments.exchange(action | {"datatypes": ["email"]}).json()["access_token"]
    assert payments.ask("GET", "/instruments", other).status_code == 403


def test_without_a_token_the_shop_says_what_would_do(payments: Payments) -> None:
    shop = payments.place.shop_url
    answer = httpx.get(f"{shop}/api/products")
    assert answer.status_code == 401
    wanted = {"type": "agent_action", "actions": ["catalog.search"], "locations": [f"{shop}/api"]}
    assert answer.json()["authorization_details"] == [wanted]
    assert (
        httpx.get(f"{shop}/.well-known/oauth-protected-resource/api").json()["resource_name"]
        == "Example Foods"
    )


@pytest.mark.parametrize("example", ["shop", "payment_api"])
def test_what_a_readme_says_can_be_started(example: str) -> None:
    folder = ROOT / "examples" / example
    said = (folder / "README.md").read_text(encoding="utf-8")
    program = (folder / "__main__.py").read_text(encoding="utf-8")
    assert f"python -m examples.{example}" in said
    for name in re.findall(r"`(?:GET|POST) (/[a-z/]+)", said):
        assert f'"{name.rstrip("/")}' in program, name
    for option in re.findall(r"--(issuer|port|id)\b", said):
        assert f'"--{option}"' in program
    assert Path(folder / "__init__.py").exists()
