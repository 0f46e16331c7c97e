"""Every page of the console at 390 and at 1280 pixels, light and dark; the pictures are in tests/screenshots/."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.pages.admin.scene import Company, a_company
from tests.pages.browser import signed_in_page
from tests.pages.test_screens import LOOKS, SIZES, looks_right
from tests.world import World, running_world


@pytest.fixture(scope="module")
def company(
    module_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[World, Company]]:
    """One world for all looks: they change nothing."""
    with running_world(module_database, tmp_path_factory.mktemp("console") / "world") as world:
        yield world, a_company(world)


def pages_of(world: World, company: Company) -> dict[str, str]:
    """The pages, by the name of their picture."""
    groceries = company.life.groceries.grant_id
    action = next(e["action_id"] for e in world.events() if e["event"] == "redemption.permitted")
    refused = next(
        number + 1 for number, e in enumerate(world.events()) if e["event"] == "exchange.refused"
    )
    user = world.events()[0]
    ada = next(e["data"]["user"] for e in world.events() if e["event"] == "delegation.created")
    assert user
    return {
        "overview": "/admin",
        "decisions": "/admin/decisions?live=off",
        "decision": f"/admin/decisions/{refused}",
        "search": "/admin/search?q=a",
        "agents": "/admin/agents",
        "agent": "/admin/agents/basket-helper",
        "users": "/admin/users",
        "user": f"/admin/users/{ada}",
        "servers": "/admin/resource-servers",
        "server": "/admin/resource-servers/rs_shop",
        "delegations": "/admin/delegations",
        "delegation": f"/admin/delegations/{groceries}",
        "action": f"/admin/actions/{action}",
        "revoke": "/admin/revoke",
        "revoke-agent": "/admin/revoke?kind=agent&target=basket-helper",
        "revoke-all": "/admin/revoke?kind=all",
        "figures": "/admin/figures",
        "catalogue": "/admin/catalogue",
        "domains": "/admin/trust-domains",
        "keys": "/admin/keys",
        "policies": "/admin/policies",
        "simulate": "/admin/policies/simulate?set=quiet-hours&state=enforce&period=week",
    }


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_every_page_can_be_read_by_everybody(
    browser: Browser, company: tuple[World, Company], size: str, scheme: Any
) -> None:
    world, made = company
    options: dict[str, Any] = {"viewport": SIZES[size], "color_scheme": scheme}
    # One of the looks is in Dutch, with its longer words.
    options["locale"] = "nl-NL" if (size, scheme) == ("narrow", "dark") else "en-GB"
    with signed_in_page(browser, world, "owner", **options) as page:
        for name, path in pages_of(world, made).items():
            answer = page.goto(path)
            assert answer is not None
            assert answer.status == 200, path
            looks_right(page, f"admin-{name}", f"{size}-{scheme}")
