"""Subscription renewal: at most one a week, at the price that she agreed to, for that plan's shop, until she says stop.

python -m examples.purchases.subscription
"""

from authserver.agent import Delegation, ExchangeRefused, Money
from examples.purchases.buying import Friction, Scene, main

A_WEEK = Money("EUR", 2_490)


def renew(scene: Scene, delegation: Delegation) -> str:
    """One renewal, by the agent alone: what the shop answered, or why the server refused."""
    try:
        with (
            scene.agent.task(delegation) as task,
            scene.client(task, "catalog.search", "subscription.renew", at_most=A_WEEK) as shop,
        ):
            answer = shop.post("/api/subscriptions/veg-box/renewal")
            answer.raise_for_status()
            return str(answer.json()["state"])
    except ExchangeRefused as refused:
        return ", ".join(violation.constraint for violation in refused.violations) or refused.description


def agree(scene: Scene) -> Delegation:
    """What she agrees to once."""
    week = {"amount": A_WEEK.text, "period": "P7D"}
    limits = {"currency": "EUR", "per_action": A_WEEK.text, "total": "99.60", "per_period": [week]}
    return scene.ask(scene.details("catalog.search", "subscription.renew", limits=limits))


def play(scene: Scene) -> list[Friction]:
    """She agrees, it renews, it does not renew twice, she stops it."""
    with scene.costs("Once, to agree") as once:
        delegation = agree(scene)
    with scene.costs("Each renewal") as each:
        print(f"This week: {renew(scene, delegation)}")
        print(f"Again this week: refused by {renew(scene, delegation)}")
    with scene.costs("To stop it") as stop:
        scene.person.stops(delegation.grant_id)
        print(f"After that: {renew(scene, delegation)}")
    return once + each + stop


if __name__ == "__main__":
    main(play)
