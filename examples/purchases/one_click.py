"""One-click checkout: the click is in the agent; the server asks nothing more.

python -m examples.purchases.one_click
"""

from authserver.agent import Money
from examples.purchases.buying import Friction, Scene, main, order_and_pay

MOST = Money("EUR", 4_000)


def play(scene: Scene) -> list[Friction]:
    """What she does once, and what she does at each purchase."""
    limits = {"currency": "EUR", "per_action": MOST.text, "total": "200.00"}
    actions = ("catalog.search", "order.checkout", "payment.finalize")
    with scene.costs("Once, to set it up") as once:
        delegation = scene.ask(scene.details(*actions, limits=limits))
    with (
        scene.costs("Each purchase") as each,
        scene.agent.task(delegation) as task,
        scene.client(task, *actions, at_most=MOST) as shop,
    ):
        paid = order_and_pay(shop, "breakfast", {"oats": 2, "milk": 3})
    print(f"Paid €{paid['charged']['value']}")
    return once + each


if __name__ == "__main__":
    main(play)
