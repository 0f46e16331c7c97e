"""Delegated purchasing: the agent shops by itself within bounds, and asks her about what is above €30.

python -m examples.purchases.delegated
"""

from authserver.agent import ExchangeRefused, Money, NotAgreed, Waiting
from examples.purchases.buying import Friction, Scene, main, order_and_pay

ACTIONS = ("catalog.search", "order.checkout", "payment.finalize")
MOST = Money("EUR", 8_000)


def play(scene: Scene) -> list[Friction]:
    """A small basket, a larger one that she approves, and one that she never allowed."""
    limits = {"currency": "EUR", "per_action": MOST.text, "total": "120.00"}
    with scene.costs("Once, to delegate") as once:
        details = scene.details(*ACTIONS, limits=limits, approval={"above": "30.00"})
        delegation = scene.ask(details)
    asked: list[Waiting] = []

    def waits(waiting: Waiting) -> None:
        """Her telephone tells her; the agent only waits."""
        if waiting not in asked:
            asked.append(waiting)
            scene.person.approves(waiting.approval_uri)

    with (
        scene.agent.task(delegation) as task,
        scene.client(task, *ACTIONS, at_most=MOST, waits=waits) as shop,
    ):
        with scene.costs("A basket of €12.10") as small:
            order_and_pay(shop, "small", {"oats": 1, "cheese": 1, "milk": 1})
        with scene.costs("A basket of €33.00, which she approves at the order and at the payment") as larger:
            order_and_pay(shop, "larger", {"coffee": 2})
        with scene.costs("A basket of €99.00") as too_much:
            try:
                order_and_pay(shop, "too-much", {"coffee": 6})
            except (ExchangeRefused, NotAgreed) as refused:
                print(f"Not bought: {refused}")
    return once + small + larger + too_much


if __name__ == "__main__":
    main(play)
