"""S14: one-click checkout, subscription renewal, delegated purchasing, and how much a person has to do for each."""

import re
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import func, select

from authserver.agent import Money, NotAgreed
from authserver.schema import Action, table_of
from examples.person import Person
from examples.purchases import delegated, one_click, subscription
from examples.purchases.buying import Friction, Scene
from examples.shop import __main__ as shop
from examples.world import ROOT
from tests.agents import Market, running_market
from tests.asking import LOOPBACK, register_redirect_uris
from tests.pages.browser import PASSWORD, add_user
from tests.world import World

SIGN_IN = Friction(1, 1)
ASKED_ONCE = Friction(1, 1)
NOTHING = Friction(0, 0)


@pytest.fixture
def market(sqlite_world: World) -> Iterator[Market]:
    with running_market(sqlite_world) as running:
        yield running


@pytest.fixture
def scene(market: Market) -> Scene:
    world = market.world
    add_user(world, "ada")
    register_redirect_uris(world, LOOPBACK)

    def sleep(seconds: float) -> None:
        world.clock.advance(seconds=int(seconds) + 1)

    ada = Person(world.issuer, "ada", PASSWORD)
    assert Friction(ada.pages, ada.presses) == SIGN_IN
    return Scene(ada, market.agent(sleep=sleep), market.url, market.identifier)


def test_S14_one_click_checkout_takes_one_press_once_and_then_none(scene: Scene, market: Market) -> None:
    assert one_click.play(scene) == stated("one-click checkout") == [ASKED_ONCE, NOTHING]
    assert captured(market) == 1_235


def test_S14_a_subscription_renews_by_itself_once_a_week_until_it_is_stopped(
    scene: Scene, market: Market
) -> None:
    delegation = subscription.agree(scene)
    for _ in range(4):
        assert subscription.renew(scene, delegation) == "renewed"
        assert "limits.per_period" in subscription.renew(scene, delegation)
        market.world.clock.advance(days=7)
        time.sleep(0.3)  # the server's list of ended tokens may be that old, by no test's clock
    # Four weeks were agreed to, and the fifth is not paid.
    assert "limits.total" in subscription.renew(scene, delegation)
    assert captured(market) == 4 * 2_490
    assert Friction(scene.person.pages, scene.person.presses) == Friction(2, 2)


def test_S14_stopping_a_subscription_takes_one_page_and_one_press(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = subscription.play(scene)
    assert counted == stated("subscription renewal") == [ASKED_ONCE, NOTHING, Friction(1, 1)]
    told = capsys.readouterr().out
    assert "Again this week: refused by limits.per_period" in told
    assert "After that: the delegation was revoked" in told


def test_S14_a_dearer_subscription_is_not_paid(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    delegation = subscription.agree(scene)
    monkeypatch.setitem(shop.PLANS, "veg-box", Money("EUR", 2_590))
    with pytest.raises(NotAgreed):
        subscription.renew(scene, delegation)
    # Nor by a program that would: the delegation has the last word.
    monkeypatch.setattr(subscription, "A_WEEK", Money("EUR", 9_900))
    assert "limits.per_action" in subscription.renew(scene, delegation)


def test_S14_delegated_purchasing_asks_above_what_was_agreed_and_never_spends_more(
    scene: Scene, market: Market
) -> None:
    counted = delegated.play(scene)
    assert counted == stated("delegated purchasing") == [ASKED_ONCE, NOTHING, Friction(2, 2), NOTHING]
    assert captured(market) == 1_210 + 3_300


def captured(market: Market) -> int:
    """What was really paid, in cents."""
    query = select(func.coalesce(func.sum(table_of(Action).c.captured), 0))
    return market.world.services.database.read(lambda c: int(c.scalar(query) or 0))


def stated(way: str) -> list[Friction]:
    """What the README states for one of the ways, in its order."""
    said = (ROOT / "examples" / "purchases" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| {way} \|[^|]+\| (\d+) \| (\d+) \|$", said, re.MULTILINE)
    assert rows, way
    return [Friction(int(pages), int(presses)) for pages, presses in rows]
