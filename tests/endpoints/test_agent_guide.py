"""docs/agents.md works as it stands: its blocks are run, in order, against a real server, shop and Workload API."""

import asyncio
import re
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from authserver import agent as kit
from tests.agents import Market, running_books
from tests.approving import answers
from tests.asking import allow, allow_device, parameters_of
from tests.documents import DOCS, blocks
from tests.pages.browser import Visit
from tests.workload_api import WorkloadApi, running_workload_api
from tests.world import BASKET_HELPER

PAGE = "agents.md"


class Browser:
    """Ada's, as `webbrowser` finds it."""

    def __init__(self, ada: Visit) -> None:
        self._ada = ada

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
        answer = allow(self._ada, parameters_of(url)["request_uri"])
        return httpx.get(answer.headers["location"]).status_code == 200


@pytest.fixture
def reader(
    market: Market, ada: Visit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    """What a reader has by then: a Workload API, a browser, something to ask for."""
    monkeypatch.setattr(webbrowser, "_tryorder", [])
    monkeypatch.setattr(webbrowser, "_browsers", {})
    webbrowser.register("ada", None, Browser(ada), preferred=True)  # type: ignore[arg-type]
    with running_workload_api(WorkloadApi(BASKET_HELPER, market.world.domain), tmp_path) as socket:
        monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", socket)
        yield {"what_i_need": market.details(), "__name__": "agent"}


def run(market: Market, names: dict[str, Any], block: str, **said: str) -> dict[str, Any]:
    """Run a block with this server and shop in place of the page's."""
    replaced = {"https://auth.example": market.world.issuer, "https://shop.example": market.url} | said
    for name, value in replaced.items():
        block = block.replace(name, value)
    exec(compile(block, PAGE, "exec"), names)
    return names


def block(heading: str, number: int = 0) -> str:
    return blocks(PAGE, "python", heading)[number]


def order_of(market: Market, product: str) -> str:
    """An order of Ada's at the shop."""
    task = market.agent().task(market.delegated())
    auth = task.auth("catalog.search", "order.checkout", at_most=kit.Money("EUR", 5_000))
    made = httpx.post(f"{market.url}/api/orders", json={"cart": "c", "items": {product: 1}}, auth=auth)
    assert made.status_code == 201, made.text
    return str(made.json()["order"])


def test_the_first_five_lines(market: Market, reader: dict[str, Any]) -> None:
    names = run(market, reader, block(""), **{"order-1": order_of(market, "coffee")})
    assert names["paid"].json()["charged"] == {"currency": "EUR", "value": "16.50"}


def test_a_device_one_action_an_approval_and_an_exact_one(
    market: Market, reader: dict[str, Any], ada: Visit, capsys: pytest.CaptureFixture[str]
) -> None:
    names = run(market, reader, block(""), **{"order-1": order_of(market, "oats")})
    names = run(market, names, block("Asking a person"))

    def sleep(seconds: float) -> None:
        market.world.clock.advance(seconds=int(seconds))
        [code] = re.findall(r"type (\S+)", capsys.readouterr().out)
        allow_device(ada, code)

    usual = names["agent"]._sleep
    names["agent"]._sleep = sleep
    run(market, names, block("Asking a person", 1))
    names["agent"]._sleep = usual
    assert names["delegation"].details["limits"]["per_action"] == "80.00"
    run(market, names, block("One action"))
    assert names["crossed"] == {"limits.per_action": "80.00"}
    assert '`{"limits.per_action": "80.00"}`' in (DOCS / PAGE).read_text(encoding="utf-8")
    names["token"] = names["agent"].token_for(
        names["delegation"], kit.Action("catalog.search", market.identifier)
    )
    assert set(run(market, names, block("One action", 1))["headers"]) == {"Authorization", "DPoP"}
    # An exact action, with what is held here; then a task that is handed on.
    with names["agent"].task(names["delegation"]) as names["task"]:
        exact = run(market, names, block("Tokens by what"), **{"order-2": order_of(market, "oats")})
    assert exact["paid"].json()["state"] == "paid"


def test_an_approval(market: Market, reader: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    def sleep(seconds: float) -> None:
        market.world.clock.advance(seconds=int(seconds) + 1)
        answers(market.world, capsys.readouterr().out.split("/")[-1].strip())

    names = reader | {
        "agent": market.agent(sleep=sleep),
        "delegation": market.delegated(approval={"above": "10.00"}),
        "pay": kit.Action("payment.finalize", market.identifier, kit.Money("EUR", 1_100), reference="o"),
    }
    assert run(market, names, block("Where a person has to approve"))["token"].token_type == "DPoP"


def test_handing_on_and_an_event_loop_and_mcp(market: Market, reader: dict[str, Any]) -> None:
    names = reader | {
        "agent": market.agent(),
        "delegation": market.delegated(redelegation={"depth": 1}),
        "Money": kit.Money,
        "SpiffeWorkloadApi": kit.SpiffeWorkloadApi,
        "httpx": httpx,
    }
    handed = run(market, names, block("Tasks, and handing on"))["handed"]
    assert handed.actions == {"catalog.search"}
    search = run(market, names, block("In an event loop"))["search"]
    assert [found["product"] for found in asyncio.run(search("gouda"))] == ["cheese"]
    with running_books(market.world) as identifier:
        merchants = {"categories": ["5942"], "countries": ["NL"]}
        allowed = {
            "locations": [identifier],
            "merchants": merchants,
            "actions": ["catalog.search", "payment.finalize"],
        }
        names["delegation"] = market.delegated(**allowed)
        buy = run(market, names, block("MCP clients"), **{"https://books.example/mcp": identifier})["buy"]
        assert not asyncio.run(buy("b-102")).is_error


def test_every_python_block_is_run_here() -> None:
    assert len(blocks(PAGE, "python")) == 10


def test_every_name_of_the_page_is_one_of_the_kit() -> None:
    text = (DOCS / PAGE).read_text(encoding="utf-8")
    for name in re.findall(r"`([A-Z]\w+)(?:\([^`]*\))?`", text):
        assert hasattr(kit, name) or name in {"SPIFFE_ENDPOINT_SOCKET"}, name
    for link in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (DOCS / link).exists(), link
    for path in re.findall(r"`(examples/[\w./-]+)`", text):
        assert (DOCS.parent / path).exists(), path
