"""A delegation changes its terms while it is used: nothing is counted twice, lost, or let through."""

import threading
from datetime import timedelta
from typing import Any

from authserver import consent
from authserver.accounts import users
from authserver.db import wait_for_exchanges
from authserver.delegations.records import load_chain
from authserver.ledger.check import check
from authserver.policy.delegation_details import parse_delegation
from authserver.upkeep import tidy
from tests.world import World


def change(world: World, grant_id: str, details: dict[str, Any]) -> None:
    """As a consent to `replace` does."""
    services, now = world.services, world.clock.now()
    parsed = parse_delegation(details, services.vocabulary)

    def write(connection: Any) -> None:
        wait_for_exchanges(connection)
        chain = load_chain(connection, grant_id, services.stored)
        assert chain is not None
        ada = users.find(connection, "ada")
        assert ada is not None
        consent.change(services, connection, chain.leaf, parsed, f"user:{ada.user_id}", now)

    services.database.write(write)


def terms(world: World, total: str, day: str) -> dict[str, Any]:
    """A total and a rule for each day."""
    rule = {"amount": day, "period": "P1D"}
    limits = {"currency": "EUR", "per_action": "80.00", "total": total, "per_period": [rule]}
    return world.delegation(limits=limits)


def test_terms_that_change_in_a_storm_of_payments_leave_the_ledger_right(world: World) -> None:
    """Payments, redemptions, and tokens that die unused, while the person changes her mind again and again."""
    granted = world.granted(details=terms(world, "9000.00", "9000.00"))
    failures: list[str] = []
    rounds = 6

    def pay(number: int) -> None:
        action = world.action(amount={"currency": "EUR", "value": f"{number + 1}.00"})
        for turn in range(rounds):
            answer = world.exchange(granted.grant, action=action)
            if answer.status_code != 200:
                failures.append(answer.text)
            elif turn % 2:
                world.client.post(
                    "/oauth/redeem",
                    json={"token": answer.json()["access_token"]},
                    auth=(world.market_id, world.market_secret),
                )

    def change_again() -> None:
        for turn in range(rounds):
            change(world, granted.grant_id, terms(world, f"{9000 + turn}.00", f"{8000 + turn}.00"))

    def expire() -> None:
        for _ in range(rounds):
            tidy(world.services, world.clock.now() + timedelta(seconds=121))

    work = [*(lambda n=n: pay(n) for n in range(3)), change_again, expire]
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert world.services.database.read(lambda c: [*check(c, world.services.stored)]) == []


def test_a_window_that_spent_more_than_its_new_rule_opens_again_only_below_it(world: World) -> None:
    """What is given back lets the rule of today pass as much as it says, and not as much as was spent before."""
    granted = world.granted(details=terms(world, "900.00", "900.00"))
    for value in ("50.00", "30.00"):
        answer = world.exchange(
            granted.grant, action=world.action(amount={"currency": "EUR", "value": value})
        )
        assert answer.status_code == 200
    change(world, granted.grant_id, terms(world, "900.00", "60.00"))
    small = world.action(amount={"currency": "EUR", "value": "1.00"})
    world.refuses(world.exchange(granted.grant, action=small), "invalid_authorization_details")
    world.clock.advance(seconds=121)
    answers = []

    def pay() -> None:
        action = world.action(amount={"currency": "EUR", "value": "25.00"})
        answers.append(world.exchange(granted.grant, action=action).status_code)

    threads = [threading.Thread(target=pay) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, 200, 400, 400]
    assert world.services.database.read(lambda c: [*check(c, world.services.stored)]) == []
