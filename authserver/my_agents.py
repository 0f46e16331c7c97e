"""What a person sees of their agents: what each may do, has spent, has seen and has done. Nothing is changed here."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from authserver import strict_json
from authserver.accounts.users import User
from authserver.actors import agents, resource_servers
from authserver.actors.agents import Agent
from authserver.audit import events
from authserver.audit.events import Event
from authserver.delegations import records
from authserver.delegations.records import Chain, DelegationRecord, load_chain
from authserver.delegations.standing import Ending, endings
from authserver.errors import Refusal
from authserver.ledger import actions
from authserver.ledger.actions import ActionRecord
from authserver.ledger.spending import allowances
from authserver.policy.decide import Spent
from authserver.policy.details import stored_action
from authserver.policy.periods import window_bounds, window_index
from authserver.policy.reading import instant_text
from authserver.services import Services
from authserver.values import Money

MOST_DELEGATIONS = 200
_MOST_ACTIONS = 2_000  # that are looked through for personal data


@dataclass(frozen=True, slots=True)
class Bar:
    """One limit and how much is used. `rule` is the number of a `per_period` rule, whose window ends at `until`."""

    limit: Money
    used: Money
    rule: int | None = None
    until: datetime | None = None

    @property
    def left(self) -> Money:
        """What is left of it."""
        return Money(self.limit.currency, max(self.limit.minor - self.used.minor, 0))


@dataclass(frozen=True, slots=True)
class Held:
    """One delegation as its person sees it: whose it is, how it stands, and a bar for each limit."""

    link: DelegationRecord
    agent: Agent
    ended: Ending | None  # None while it stands; a pause counts as an end that can be undone
    bars: tuple[Bar, ...]

    @property
    def is_paused(self) -> bool:
        """Whether it is only a pause, of its own or of one above, that keeps the agent from acting."""
        return self.ended is not None and self.ended.rule == "delegation.paused"

    @property
    def is_over(self) -> bool:
        """Whether it will never be used again."""
        over = ("delegation.paused", "delegation.not_yet_valid")
        return self.ended is not None and self.ended.rule not in over


@dataclass(frozen=True, slots=True)
class Seen:
    """A kind of personal data that a place was let see, how often, and when last."""

    datatype: str
    place: str
    times: int
    last: datetime


@dataclass(frozen=True, slots=True)
class Happened:
    """One event, with the action that it is about as that stands today."""

    event: Event
    action: ActionRecord | None


def own_chain(services: Services, connection: Connection, user: User, delegation_id: str) -> Chain:
    """The person's delegation and all above it. Raises `Refusal` (404), also where it is somebody else's."""
    chain = None if "\x00" in delegation_id else load_chain(connection, delegation_id, services.stored)
    if chain is None or chain.leaf.user_id != user.user_id:
        raise Refusal("not_found", "there is no such delegation", "delegation.not_own", status=404)
    return chain


def overview(services: Services, connection: Connection, user: User, now: datetime) -> list[Held]:
    """The newest delegations of a person, those that stand first; of a hand-over only the first one."""
    links = records.roots_of_user(connection, user.user_id, services.stored, MOST_DELEGATIONS)
    held = as_held(connection, [Chain((link,), newest) for link, newest in links], now)
    return sorted(held, key=lambda one: one.is_over)


def family(
    services: Services, connection: Connection, chain: Chain, now: datetime, most: int | None = None
) -> list[Held]:
    """The delegation and all below it, each after the one above it; with `most`, those nearest to it."""
    links = records.below(connection, chain.leaf, services.stored, most)
    by_id = {link.id: link for link in (*chain.links, *links)}
    chains = [Chain(tuple(by_id[id] for id in link.path), chain.newest_revocation) for link in links]
    return as_held(connection, chains, now)


def as_held(connection: Connection, chains: Sequence[Chain], now: datetime) -> list[Held]:
    """The last delegation of each chain: how it stands and what is left of its limits."""
    ended = endings(connection, chains, now)
    known = _agents(connection, {chain.leaf.client_id for chain in chains})
    return [
        Held(link, known[link.client_id], ended.get(link.id), tuple(_bars(connection, link, now)))
        for link in (chain.leaf for chain in chains)
    ]


def _agents(connection: Connection, client_ids: Iterable[str]) -> dict[str, Agent]:
    found = (agents.find(connection, client_id) for client_id in sorted(client_ids))
    return {agent.client_id: agent for agent in found if agent is not None}


def _bars(connection: Connection, link: DelegationRecord, now: datetime) -> Iterator[Bar]:
    limits = link.details.limits
    if limits is None:
        return
    (allowance,) = allowances(connection, Chain((link,), 0), now)
    spent: Spent = allowance.spent
    yield Bar(limits.total, Money(limits.currency, spent.total))
    for number, (rule, used) in enumerate(zip(limits.per_period, spent.periods, strict=True)):
        window = window_index(link.not_before, rule.period, now)
        _, until = window_bounds(link.not_before, rule.period, window)
        yield Bar(rule.amount, Money(limits.currency, used), number, until)


def personal_data(connection: Connection, link: DelegationRecord) -> list[Seen]:
    """Which kinds of personal data its tokens opened, and where; the last first.

    A token that was issued for data counts, used or not: a place that checks tokens by itself does not say when.
    """
    seen: dict[tuple[str, str], Seen] = {}
    for action in actions.with_datatypes(connection, link.root_id, link.id, _MOST_ACTIONS):
        for datatype in stored_action(action.details).datatypes:
            key = (datatype, action.resource_server_id)
            before = seen.get(key)
            times, last = (before.times, before.last) if before else (0, action.issued_at)
            seen[key] = Seen(datatype, action.resource_server_id, times + 1, max(last, action.issued_at))
    names = _places(connection, {place for _, place in seen})
    return [Seen(one.datatype, names[one.place], one.times, one.last) for one in seen.values()]


def _places(connection: Connection, ids: Iterable[str]) -> dict[str, str]:
    found = {id: resource_servers.find(connection, id) for id in ids}
    return {id: server.name if server else id for id, server in found.items()}


def history(connection: Connection, link: DelegationRecord, before: int | None, most: int) -> list[Happened]:
    """What was done, refused and changed, the last first; `before` is the id of the event to go on from."""
    found = events.of_delegation(connection, link.id, before, most)
    ids = {event.action_id for event in found if event.action_id}
    known = actions.find_all(connection, link.root_id, ids)
    return [Happened(event, known.get(event.action_id or "")) for event in found]


def exported(
    services: Services, held: Held, seen: Sequence[Seen], done: Sequence[Happened]
) -> Mapping[str, object]:
    """All that is known of a delegation, for its person to take along."""
    return {
        "id": held.link.id,
        "agent": {"client_id": held.agent.client_id, "name": held.agent.name, "workload": held.agent.subject},
        "authorization_details": [held.link.details.to_json()],
        "granted_at": _text(held.link.created_at),
        "ended": held.ended and held.ended.reason,
        "limits": [
            {
                "limit": bar.limit.to_json(),
                "used": bar.used.to_json(),
                "until": bar.until and _text(bar.until),
            }
            for bar in held.bars
        ],
        "personal_data": [
            {"datatype": one.datatype, "place": one.place, "times": one.times, "last": _text(one.last)}
            for one in seen
        ],
        "events": [_event(one) for one in done],
    }


def _event(happened: Happened) -> dict[str, object]:
    action = happened.action
    state = {} if action is None else {"action": strict_json.parse(action.details), "state": action.state}
    return {**happened.event.to_json(), **state}


def _text(instant: datetime) -> str:
    return instant_text(instant)
