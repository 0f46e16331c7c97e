"""A buyer agent in plain Python: it takes a shopping list, asks its person once, and buys.

    python -m examples.buyer --issuer http://127.0.0.1:8000 --client-id basket-helper --token-file svid.jwt \
        --shop http://127.0.0.1:8001 --at-most 20.00 oats=2 milk=1

It has no browser: it shows a code, which its person types at the server. There is no password, API key or secret in it;
what it is, its platform says, by the assertion in the file.
"""

import argparse
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import httpx

from authserver.agent import (
    Agent,
    DeviceCode,
    ExchangeRefused,
    IssuerUnavailable,
    Money,
    NotAgreed,
    Task,
    TokenFile,
    Waiting,
    WorkloadUnknown,
)

ACTIONS = ["catalog.search", "order.checkout", "payment.finalize"]


def what_i_need(shop: str, at_most: Money) -> dict[str, object]:
    """No more than this one purchase takes, for an hour."""
    return {
        "type": "agent_delegation",
        "actions": ACTIONS,
        "locations": [shop],
        "limits": {"currency": at_most.currency, "per_action": at_most.text, "total": at_most.text},
        "merchants": {"categories": ["5411"], "countries": ["any"]},
        "datatypes": ["shipping_address"],
        "expires": f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}",
    }


def show(code: DeviceCode) -> None:
    """Where the person types what."""
    print(f"Open {code.verification_uri} and type {code.user_code}", flush=True)


def tell(waiting: Waiting) -> None:
    """Somebody has to approve a step."""
    print(f"Waiting for an approval: {waiting.approval_uri}", flush=True)


def buy(task: Task, shop: str, items: Mapping[str, int], at_most: Money) -> str:
    """Order and pay; the payment's name. What is not sold ends it before anything is ordered."""
    auth = task.auth(*ACTIONS, at_most=at_most, waits=tell)
    with httpx.Client(base_url=shop, auth=auth, timeout=30) as client:
        sold = {product["product"] for product in client.get("/api/products").raise_for_status().json()}
        if missing := items.keys() - sold:
            raise LookupError(f"not sold here: {', '.join(sorted(missing))}")
        basket = {"cart": task.id, "items": dict(items)}
        order = client.post("/api/orders", json=basket).raise_for_status().json()
        print(f"Ordered for {order['total']['value']} {order['total']['currency']}", flush=True)
        paid = client.post(f"/api/orders/{order['order']}/payment").raise_for_status().json()
        return str(paid["payment"])


def main() -> int:
    """The exit code: 0 paid, 1 not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--issuer", required=True, help="the authorization server's issuer identifier")
    parser.add_argument("--client-id", required=True, help="this agent, as `agents create` registered it")
    parser.add_argument("--token-file", required=True, help="the workload's assertion, kept fresh by others")
    parser.add_argument("--shop", required=True, help="the shop's address; its API is at /api")
    parser.add_argument("--at-most", required=True, help="euros, such as 20.00")
    parser.add_argument("items", nargs="+", metavar="PRODUCT=NUMBER")
    said = parser.parse_args()
    at_most = Money.parse("EUR", said.at_most)
    items = {name: int(number) for name, _, number in (item.partition("=") for item in said.items)}
    agent = Agent(said.issuer, TokenFile(said.token_file), said.client_id)
    try:
        delegation = agent.delegate_by_device(what_i_need(f"{said.shop}/api", at_most), show=show)
        with agent.task(delegation) as task:
            print(f"Paid: {buy(task, said.shop, items, at_most)}")
    except ExchangeRefused as refused:
        reasons = [f"{v.constraint}: {v.requested} asked, {v.allowed} allowed" for v in refused.violations]
        print("\n".join([f"Refused: {refused}", *reasons]), file=sys.stderr)
        return 1
    except (NotAgreed, LookupError, IssuerUnavailable, WorkloadUnknown, httpx.HTTPError) as error:
        print(f"Not bought: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
