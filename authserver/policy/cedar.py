"""An organisation's policies: may this agent do this here and now, whatever a user has delegated to it?

Cedar decides. A policy set is prepared once and asked many times; it does no input or output.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import cedarpy

from authserver.errors import Violation
from authserver.policy.catalogue import Catalogue
from authserver.policy.cedar_text import NO_POLICY, Policy, PolicyError, Problem, prepared
from authserver.policy.decide import NeedsApproval, Permit, Refuse
from authserver.policy.facts import Caller, Facts, attributes_of, groups_of, schema_text

_BLAMED = re.compile(r"`([^`]+)`")  # Cedar names the policy first in whatever it says
_PAIRS_KEPT = 512  # agents at resource servers whose entities are kept as Cedar holds them


@dataclass(frozen=True, slots=True)
class Ask:
    """A forbid that holds unless `approver` (`user`, `group:NAME`) agrees."""

    policy: str
    approver: str


@dataclass(frozen=True, slots=True)
class PolicyAnswer:
    """What the policies say: forbidden, or to be asked for, or neither. `decided_by` names those that decided.

    `failed` are the policies that could not be evaluated, each in Cedar's words; every one of them forbids.
    """

    forbidden: tuple[Violation, ...] = ()
    asks: tuple[Ask, ...] = ()
    decided_by: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """In one word: `forbid`, `approval` or `permit`."""
        if self.forbidden:
            return "forbid"
        return "approval" if self.asks else "permit"


def narrowed(
    answer: Permit | Refuse | NeedsApproval, policies: PolicyAnswer
) -> Permit | Refuse | NeedsApproval:
    """What the delegation and the policies say together.

    INVARIANT: policies only narrow: what is permitted with them is permitted without
    (test_whatever_is_permitted_with_policies_is_permitted_without).
    """
    if policies.forbidden:
        crossed = answer.violations if isinstance(answer, Refuse) else ()
        return Refuse((*crossed, *policies.forbidden), budget_only=False)
    if isinstance(answer, Refuse) or not policies.asks:
        return answer
    # The policy's, also where the delegation asks: no rule of a user's lifts what the organisation wants.
    because = f"policy:{policies.asks[0].policy}"
    asked_of = tuple(dict.fromkeys(ask.approver for ask in policies.asks))
    if isinstance(answer, NeedsApproval):
        approvers = tuple(dict.fromkeys((*answer.approvers, *asked_of)))
        return NeedsApproval(answer.action, answer.entry, because, approvers)
    return NeedsApproval(answer.action, answer.entry, because, asked_of)


@dataclass(frozen=True, slots=True)
class _Slice:
    """The policies that can have a say about one action."""

    policies: Mapping[str, Policy]
    permitted_by: tuple[str, ...]  # permits that hold for every request
    permits: cedarpy.PolicySet | None  # those that depend on something
    forbids: cedarpy.PolicySet | None
    uses: frozenset[str]  # every attribute that one of them reads

    @property
    def constant(self) -> PolicyAnswer | None:
        """The answer, where it is the same for every request."""
        if self.permits is None and self.forbids is None:
            return _answer_without_forbids(self.permitted_by)
        return None


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Policies that fit the catalogue and each other."""

    policies: Mapping[str, Policy]
    slices: Mapping[str, _Slice] = field(repr=False)
    actions: str = field(repr=False)  # the actions with their groups, as entities

    @classmethod
    def build(cls, policies: Sequence[Policy], catalogue: Catalogue) -> "PolicySet":
        """Check the policies against the schema and prepare them. Raises `PolicyError`, each problem with its line."""
        if problems := (*_repeated(policies), *_wrong(policies, catalogue)):
            raise PolicyError(problems)
        prepared = dict[tuple[str, ...], _Slice]()
        slices = dict[str, _Slice]()
        for action in catalogue.names:
            names = {action, *groups_of(catalogue, action)}
            chosen = [policy for policy in policies if policy.actions is None or policy.actions & names]
            key = tuple(policy.id for policy in chosen)
            slices[action] = prepared.get(key) or prepared.setdefault(key, _slice(chosen))
        return cls({policy.id: policy for policy in policies}, slices, _action_entities(catalogue))

    def unpermitted(self) -> tuple[str, ...]:
        """The actions that no policy permits, whatever the request."""
        return tuple(
            name for name, chosen in self.slices.items() if not chosen.permitted_by and chosen.permits is None
        )

    def constant(self, action: str) -> PolicyAnswer | None:
        """The answer for an action for which the policies say the same of every request; None where they do not."""
        return self.slices[action].constant

    def uses(self, action: str) -> frozenset[str]:
        """The names of all attributes that the policies for this action read; what else there is they need not know."""
        return self.slices[action].uses

    def same(self, other: "PolicySet", action: str) -> bool:
        """Whether both have the same policies for this action."""
        return self.slices[action].policies.keys() == other.slices[action].policies.keys()

    def judge(self, facts: Facts) -> PolicyAnswer:
        """What the policies say of a request. A policy that cannot be evaluated forbids."""
        chosen = self.slices[facts.action.action]
        permitted_by, failed = chosen.permitted_by, list[str]()
        if chosen.permits is not None:
            more_permits, failed = self._satisfied(chosen.permits, facts, chosen.uses)
            permitted_by += more_permits
        matched: tuple[str, ...] = ()
        if chosen.forbids is not None:
            matched, more = self._satisfied(chosen.forbids, facts, chosen.uses)
            failed += more
        if not matched and not failed:
            return _answer_without_forbids(permitted_by)
        return _answer(chosen.policies, permitted_by, matched, failed, facts.approved_by)

    def _satisfied(
        self, policies: cedarpy.PolicySet, facts: Facts, uses: frozenset[str]
    ) -> tuple[tuple[str, ...], list[str]]:
        """The policies, all of one effect, that hold for a request; and what went wrong with others."""
        request = {
            "principal": {"type": "Agent", "id": facts.caller.client_id},
            "action": {"type": "Action", "id": facts.action.action},
            "resource": {"type": "ResourceServer", "id": facts.resource_server},
            "context": facts.context(uses),  # Cedar takes longer to read it than to decide
        }
        entities = _entities(self.actions, facts.caller, facts.resource_server, facts.platform)
        said = cedarpy.is_authorized(request, policies, entities).diagnostics
        return tuple(said.reasons), list(said.errors)


def _answer_without_forbids(permitted_by: tuple[str, ...]) -> PolicyAnswer:
    if permitted_by:
        return PolicyAnswer(decided_by=permitted_by)
    refused = Violation(f"policy:{NO_POLICY}", reason="no policy permits this")
    return PolicyAnswer((refused,), decided_by=(NO_POLICY,))


def _answer(
    policies: Mapping[str, Policy],
    permitted_by: tuple[str, ...],
    matched: Sequence[str],
    failed: Sequence[str],
    approved_by: frozenset[str],
) -> PolicyAnswer:
    forbidden, asks = list[Violation](), list[Ask]()
    # In the order of the files, so that the same request is answered with the same words.
    for policy in (policy for name, policy in policies.items() if name in {*matched}):
        if policy.approver is None:
            forbidden.append(Violation(f"policy:{policy.id}", reason=policy.reason))
        elif policy.approver not in approved_by:
            asks.append(Ask(policy.id, policy.approver))
    for message in failed:
        forbidden.append(Violation(f"policy:{_blamed(message)}", reason="the policy cannot be evaluated"))
    if not permitted_by:
        forbidden += _answer_without_forbids(()).forbidden
    names = [v.constraint.removeprefix("policy:") for v in forbidden] or [ask.policy for ask in asks]
    decided_by = tuple(dict.fromkeys(names)) or permitted_by
    return PolicyAnswer(tuple(forbidden), tuple(asks), decided_by, tuple(failed))


def _blamed(message: str) -> str:
    found = _BLAMED.search(message)
    return found[1] if found and message.startswith("error while evaluating policy") else NO_POLICY


def _slice(chosen: Sequence[Policy]) -> _Slice:
    permitted_by = tuple(policy.id for policy in chosen if policy.effect == "permit" and policy.always)
    # Those, too, that can add nothing: one that cannot be evaluated denies, whatever the others say.
    permits = [policy for policy in chosen if policy.effect == "permit" and not policy.always]
    forbids = [policy for policy in chosen if policy.effect == "forbid"]
    return _Slice(
        policies={policy.id: policy for policy in chosen},
        permitted_by=permitted_by,
        permits=_prepared(permits),
        forbids=_prepared(forbids),
        uses=frozenset().union(*(policy.uses for policy in (*permits, *forbids))),
    )


def _prepared(policies: Sequence[Policy]) -> cedarpy.PolicySet | None:
    return prepared({policy.id: policy.body for policy in policies}) if policies else None


def _repeated(policies: Sequence[Policy]) -> Iterator[Problem]:
    first = dict[str, Policy]()
    for policy in policies:
        earlier = first.setdefault(policy.id, policy)
        if earlier is not policy:
            yield policy.problem(f"@id: there is one already, at {earlier.file}:{earlier.line}")


def _wrong(policies: Sequence[Policy], catalogue: Catalogue) -> Iterator[Problem]:
    known = attributes_of(catalogue)
    # Cedar takes `context has typo` for something that is never there: such a forbid would never hold.
    for policy in policies:
        yield from (
            policy.problem(f"attribute `{name}` is not known") for name in sorted(policy.uses - known)
        )
    named = [policy for policy in policies if policy.uses <= known]
    found = cedarpy.validate_policies(
        "\n".join(policy.text for policy in named), cedarpy.Schema.from_str(schema_text(catalogue))
    )
    for error in found.errors:
        number = int(error.policy_id.removeprefix("policy"))
        yield named[number].problem(error.error.removeprefix(f"for policy `{error.policy_id}`, "))


def _action_entities(catalogue: Catalogue) -> str:
    members = {name: groups_of(catalogue, name) for name in catalogue.names}
    groups = {group: () for above in members.values() for group in above}
    return json.dumps(
        [_entity("Action", name, above=("Action", *above)) for name, above in {**groups, **members}.items()]
    )


def _entity(
    kind: str, name: str, attributes: Mapping[str, object] | None = None, above: tuple[str, ...] = ()
) -> dict[str, object]:
    parents = [{"type": above[0], "id": parent} for parent in above[1:]]
    return {"uid": {"type": kind, "id": name}, "attrs": dict(attributes or {}), "parents": parents}


@lru_cache(maxsize=_PAIRS_KEPT)
def _entities(actions: str, caller: Caller, resource_server: str, platform: bool) -> cedarpy.Entities:
    known = {"owner": caller.owner, "risk": caller.risk}
    agent = {"trust_domain": caller.trust_domain, **{k: v for k, v in known.items() if v is not None}}
    pair = [
        _entity("TrustDomain", caller.trust_domain),
        _entity("Agent", caller.client_id, agent, ("TrustDomain", caller.trust_domain)),
        _entity("ResourceServer", resource_server, {"platform": platform}),
    ]
    return _action_graph(actions).with_added_json_str(json.dumps(pair))


@lru_cache(maxsize=8)
def _action_graph(actions: str) -> cedarpy.Entities:
    return cedarpy.Entities.from_json_str(actions)
