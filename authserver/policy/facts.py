"""What a policy may know of one request: the principal, the place, and the members of `context`."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from authserver.policy.catalogue import Catalogue
from authserver.policy.details import ActionDetails
from authserver.values import Datatypes

# What costs a statement to know, so that it is asked for only where a policy uses it.
OWNER = "owner"
RISK = "risk"
RISKS = ("low", "medium", "high")  # of an agent, as an operator thinks of it
SINCE = "seconds_since"
FIRST_PAYMENT = "first_payment"
RECENT = ("payments_last_hour", "payments_last_day", "spent_last_hour", "spent_last_day")
COUNTED = frozenset({SINCE, *RECENT})  # what another request at the same moment would change


@dataclass(frozen=True, slots=True)
class Caller:
    """The agent: its `client_id`, where its workload comes from, and where that was looked up, who answers for it and
    how risky it is.
    """

    client_id: str
    trust_domain: str
    owner: str | None = None
    risk: str | None = None


@dataclass(frozen=True, slots=True)
class History:
    """What happened before under the same root delegation, as far as it was asked for.

    `since`: for each action, the seconds since a token for it was issued last. `recent`: by the names of `RECENT`,
    debits that were neither voided nor expired, in numbers and in minor units.
    """

    since: Mapping[str, int] = field(default_factory=dict)
    first_payment: bool | None = None
    recent: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    """One request, as policies see it. `budget_left` is in minor units; `datatypes` hold all that is contained."""

    caller: Caller
    resource_server: str
    platform: bool
    action: ActionDetails
    datatypes: frozenset[str]
    user: str
    at: datetime
    dpop: bool
    task: str | None = None
    chain_depth: int = 0
    budget_left: int | None = None
    approved_by: frozenset[str] = frozenset()
    history: History = field(default_factory=History)

    def context(self, uses: Collection[str]) -> str:
        """The members of `context` that `uses` names, as Cedar reads them, JSON; what is not known is left out."""
        merchant, amount, history = self.action.merchant, self.action.amount, self.history
        members: dict[str, object] = {
            "user": self.user,
            "datatypes": sorted(self.datatypes),
            "hour": self.at.hour,
            "minute": self.at.minute,
            "weekday": self.at.isoweekday(),
            "chain_depth": self.chain_depth,
            "approved_by": sorted(self.approved_by),
            "dpop": self.dpop,
            SINCE: dict(history.since),
            "reference": self.action.reference,
            "task": self.task,
            "budget_left": self.budget_left,
            FIRST_PAYMENT: history.first_payment,
            **history.recent,
        }
        if amount is not None:
            members |= {"amount": amount.minor, "currency": amount.currency}
        if merchant is not None:
            members |= {
                "merchant": merchant.id,
                "category": merchant.category and merchant.category.code,
                "country": merchant.country and merchant.country.code,
            }
        return json.dumps(
            {name: value for name, value in members.items() if value is not None and name in uses}
        )


def with_contained(asked: tuple[str, ...], datatypes: Datatypes) -> frozenset[str]:
    """The data types with all that they contain: who asks for `contact` asks for `email`, too."""
    return frozenset(asked).union(*(datatypes.contains.get(name, frozenset()) for name in asked))


_AGENT = {"trust_domain": "String", f"{OWNER}?": "String", f"{RISK}?": "String"}
_RESOURCE_SERVER = {"platform": "Bool"}
_CONTEXT = {
    "user": "String",
    "amount?": "Long",
    "currency?": "String",
    "merchant?": "String",
    "category?": "String",
    "country?": "String",
    "datatypes": "Set<String>",
    "reference?": "String",
    "hour": "Long",
    "minute": "Long",
    "weekday": "Long",
    "task?": "String",
    "chain_depth": "Long",
    "budget_left?": "Long",
    "approved_by": "Set<String>",
    "dpop": "Bool",
    FIRST_PAYMENT: "Bool",
    **dict.fromkeys(RECENT, "Long"),
}


def schema_text(catalogue: Catalogue) -> str:
    """The Cedar schema of a catalogue: what a policy may name, and the type of each."""
    since = _record({f'"{name}"?': "Long" for name in catalogue.names})
    groups = {group for name in catalogue.names for group in groups_of(catalogue, name)}
    return "\n".join(
        (
            "entity TrustDomain;",
            f"entity Agent in [TrustDomain] {_record(_AGENT)};",
            f"entity ResourceServer {_record(_RESOURCE_SERVER)};",
            f"type Facts = {_record({**_CONTEXT, SINCE: since})};",
            *(f'action "{group}";' for group in sorted(groups)),
            *(_action_text(catalogue, name) for name in catalogue.names),
        )
    )


def attributes_of(catalogue: Catalogue) -> frozenset[str]:
    """The names of all attributes of the schema: of principals, places, `context`, and what is in those."""
    named = (name.removesuffix("?") for name in (*_AGENT, *_RESOURCE_SERVER, *_CONTEXT, SINCE))
    return frozenset((*named, *catalogue.names))


def _record(members: Mapping[str, str]) -> str:
    return "{ " + ", ".join(f"{name}: {kind}" for name, kind in members.items()) + " }"


def groups_of(catalogue: Catalogue, action: str) -> tuple[str, ...]:
    """The groups that an action belongs to, by which policies may name many at once."""
    entry = catalogue.entries[action]
    return f"budget:{entry.budget}", f"owner:{entry.owner}"


def _action_text(catalogue: Catalogue, name: str) -> str:
    groups = ", ".join(f'Action::"{group}"' for group in groups_of(catalogue, name))
    applies = "{ principal: [Agent], resource: [ResourceServer], context: Facts }"
    return f'action "{name}" in [{groups}] appliesTo {applies};'
