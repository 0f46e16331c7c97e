"""docs/resource-servers.md works as it stands: its blocks are run, against a real server."""

import re
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from joserfc.jwk import ECKey

from authserver.resource_server import Money, ResourceServer, Verifier
from authserver.resource_server import rejections as rejections_of_the_kit
from authserver.resource_server.flask import protect
from tests.documents import DOCS, blocks
from tests.settling import eur
from tests.shops import served, served_async
from tests.world import SHOP, World

PAGE = "resource-servers.md"


@pytest.fixture(scope="module")
def world(shared_world: World) -> World:
    """One server for all blocks."""
    return shared_world


def total_of(order: str) -> Money:
    return {"order-1": Money("EUR", 4_250)}[order]


def run(world: World, block: str, **more: Any) -> dict[str, Any]:
    """Run a block with what a reader has by then: credentials, and orders."""
    names: dict[str, Any] = {
        "__name__": "shop",
        "client_id": world.shop_id,
        "client_secret": world.shop_secret,
        "total_of": total_of,
    }
    names |= more
    exec(compile(block.replace("https://auth.example", world.issuer), PAGE, "exec"), names)
    return names


def block(heading: str, number: int = 0) -> str:
    return blocks(PAGE, "python", heading)[number]


def token_of(world: World, **changes: Any) -> str:
    limits = {"currency": "EUR", "per_action": "80.00", "total": "10000.00"}
    actions = ["catalog.search", "payment.finalize", "profile.read"]
    granted = world.granted(actions=actions, limits=limits, datatypes=["contact"])
    asked = world.action(**({"locations": [SHOP], "reference": "order-1", "merchant": None} | changes))
    answer = world.exchange(granted.grant, action=asked)
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_the_first_five_lines(world: World) -> None:
    app = run(world, block(""))["app"]
    with served(app) as client:
        token = token_of(world)
        paid = client.post("/api/orders/order-1/payment", headers=bearer(token))
        assert paid.json() == {"order": "order-1", "charged": eur("42.50")}
        assert client.post("/api/orders/order-1/payment", headers=bearer(token)).status_code == 401
        less = token_of(world, amount=eur("10.00"))
        refused = client.post("/api/orders/order-1/payment", headers=bearer(less))
        assert refused.status_code == 403
        # It looks as the page shows it.
        [shown] = blocks(PAGE, "http")
        assert set(refused.json()) == {*re.findall(r'^[ {]"(\w+)"', shown, re.MULTILINE), "error_description"}
        assert refused.json()["authorization_details"][0]["amount"] == eur("42.50")
        for part in re.findall(r'(\w+)="', shown.replace('\\"', "")):
            assert f'{part}="' in refused.headers["www-authenticate"], part


def test_fastapi(world: World) -> None:
    with served_async(run(world, block("FastAPI and Starlette"))["app"]) as client:
        paid = client.post("/api/orders/order-1/payment", headers=bearer(token_of(world)))
        assert paid.json() == {"order": "order-1", "charged": eur("42.50")}


def test_wsgi(world: World) -> None:
    with served(run(world, block("Plain WSGI and ASGI"))["application"]) as client:
        search = token_of(world, actions=["catalog.search"], amount=None, reference=None)
        assert client.get("/", headers=bearer(search)).text == "basket-helper"
        assert client.get("/").status_code == 401


def test_without_a_framework_and_money_that_is_taken_later(world: World) -> None:
    names = run(world, block("Without a framework"))
    token = token_of(world)
    paid = names["pay"]([f"Bearer {token}"], [], "POST", f"{SHOP}/pay", Money("EUR", 4_250))
    assert names["settlement"].refund(paid).state == "refunded"
    later = names | run(world, block("Money that is taken later"), **(names | {"token": token_of(world)}))
    assert later["held"].state == "authorized"
    assert (later["taken"].state, later["taken"].amount) == ("captured", Money("EUR", 4_000))
    assert later["back"].amount == Money("EUR", 500)


def test_a_persons_record(world: World) -> None:
    verifier = Verifier(world.issuer, SHOP, clock=world.clock)
    asked = {"actions": ["profile.read"], "amount": None, "reference": None}
    section = blocks(PAGE, "python", "What a person's record shows")[0]
    email = verifier.verify(token_of(world, **asked, datatypes=["email"]))
    assert run(world, section, token=email)["shown"] == {"contact": {"email": "ada@example.org"}}
    contact = verifier.verify(token_of(world, **asked, datatypes=["contact"]))
    assert set(run(world, section, token=contact)["shown"]["contact"]) == {"email", "phone"}
    assert email.expose({"mail": "a@b"}, {"mail": "email"}) == {"mail": "a@b"}


def test_stricter_and_shared(world: World, tmp_path: Path) -> None:
    names = run(world, block("Without a framework"))
    kit = run(world, "from authserver.resource_server import ResourceServer", **names)
    strict = run(world, block("When the server cannot be reached"), **kit)["strict"]
    search = token_of(world, actions=["catalog.search"], amount=None, reference=None)
    assert strict.verifier.fails_closed(strict.verifier.verify(search))
    shared = run(world, block("Several processes"), **kit, nonce_secret=bytes(32), folder=tmp_path)
    assert shared["verifier"].verify(token_of(world)).action == "payment.finalize"
    assert (tmp_path / "proofs.db").exists()


def test_every_code_of_the_table_is_one_that_the_kit_gives() -> None:
    page = (DOCS / PAGE).read_text(encoding="utf-8")
    told = set(re.findall(r'error="(\w+)"', page))
    given = {value.error for value in vars(rejections_of_the_kit).values() if hasattr(value, "error")}
    assert told == given


def test_a_key_of_its_own_in_place_of_a_secret(world: World, tmp_path: Path, monkeypatch: Any) -> None:
    key = ECKey.generate_key("P-256")
    (tmp_path / "private_key.pem").write_bytes(key.as_pem(private=True))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"app": Flask("shop"), "protect": protect, "ResourceServer": ResourceServer}
    shop = run(world, block("Without a secret"), Path=Path, **names)["shop"]
    assert shop.server.settlement is not None


def test_every_python_block_is_run_here() -> None:
    assert len(blocks(PAGE, "python")) == 9


def test_what_a_page_links_to_is_there() -> None:
    for page in (PAGE, "without-the-kit.md", "decisions/0006-challenges-name-what-would-do.md"):
        text = (DOCS / page).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([\w./-]+)\)", text):
            assert (DOCS / page).parent.joinpath(link).exists(), link
        for path in re.findall(r"`((?:tests|examples|docs)/[\w./-]+)`", text):
            assert (DOCS.parent / path).exists(), path
