"""The words that ship with the server, and the two examples of the contract (§4), for tests of what is allowed."""

import json
import tomllib
from pathlib import Path

from authserver.policy.catalogue import parse_catalogue
from authserver.policy.reading import Vocabulary
from authserver.values import CountryGroups, Datatypes

CONFIG = Path(__file__).resolve().parent.parent / "config"


def document(name: str) -> dict[str, object]:
    """One of the shipped files, as TOML gives it."""
    return tomllib.loads((CONFIG / name).read_text(encoding="utf-8"))


VOCABULARY = Vocabulary(
    catalogue=parse_catalogue(document("actions.toml"), "actions.toml"),
    datatypes=Datatypes.parse(document("datatypes.toml"), "datatypes.toml"),
    country_groups=CountryGroups.parse(document("country-groups.toml"), "country-groups.toml"),
)

DELEGATION = """
{"type": "agent_delegation",
 "actions": ["catalog.search", "order.checkout", "payment.finalize"],
 "locations": ["https://shop.example/api"],
 "limits": {"currency": "EUR", "per_action": "80.00", "total": "300.00",
            "per_period": [{"amount": "150.00", "period": "P7D"},
                           {"amount": "40.00", "period": "P1D", "categories": ["5811-5814"]}], "count": 20},
 "merchants": {"categories": ["5411", "5811-5814"], "countries": ["NL", "EU"], "ids": ["m_123"],
               "except": {"categories": ["5813"], "countries": [], "ids": []}},
 "datatypes": ["shipping_address"],
 "approval": {"above": "50.00", "actions": ["personal_data.export"]},
 "redelegation": {"depth": 1},
 "not_before": "2026-11-24T00:00:00Z", "expires": "2026-12-24T00:00:00Z"}
"""

ACTION = """
{"type": "agent_action",
 "actions": ["payment.finalize"],
 "locations": ["https://shop.example/api"],
 "amount": {"currency": "EUR", "value": "42.50"},
 "merchant": {"id": "m_123", "category": "5411", "country": "NL", "name": "Example Foods"},
 "datatypes": ["shipping_address"],
 "reference": "cart-889"}
"""

LEFT_OUT = object()


def changed(text: str, changes: dict[str, object]) -> dict[str, object]:
    """An example with other members: `{"limits.total": "10.00"}` sets, `LEFT_OUT` removes."""
    details: dict[str, object] = json.loads(text)
    for path, value in changes.items():
        *parents, name = path.split(".")
        members = details
        for parent in parents:
            members = members[parent]  # type: ignore[assignment]
        if value is LEFT_OUT:
            del members[name]
        else:
            members[name] = value
    return details
