"""Shoppers that ask for, use and give back tokens at the same time, each insisting until it has its answer.

Every request has an `Idempotency-Key` and is sent again, as it was, after a lost connection or a 503. So when the storm
is over, each shopper knows what must be in the database: exactly that, whatever was killed meanwhile.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
from sqlalchemy import Connection, func, select, text

from authserver.consent import Granted
from authserver.errors import Refusal
from authserver.ledger.check import check
from authserver.schema import Action, AuditEvent, Budget, IdempotencyKey, table_of
from tests.world import World

INSISTS_SECONDS = 90
LIMITS = {"currency": "EUR", "per_action": "80.00", "total": "90000.00"}
# Where an action may have gone beyond what was answered: further along the ledger's state machine.
BEYOND = {
    "reserved": {"authorized", "captured", "refunded", "voided", "expired"},
    "authorized": {"captured", "refunded", "voided"},
    "captured": {"refunded"},
    "refunded": set[str](),
    "voided": set[str](),
}


@dataclass
class Bought:
    """What a shopper knows of one action: amounts in cents, and how often each event must be in the audit."""

    id: str
    delegation: Granted
    amount: int
    expires: float  # as time.time() tells it
    state: str = "reserved"
    authorized: int = 0
    captured: int = 0
    refunded: int = 0
    events: Counter[str] = field(default_factory=Counter)

    def row(self) -> tuple[Any, ...]:
        """As it must stand in the database."""
        return self.state, self.amount, self.authorized, self.captured, self.refunded


class Gone(Exception):
    """The storm was called off while a request had no answer."""


@dataclass
class Shopper:
    """One agent and the shop that it buys at, in a thread of their own."""

    world: World
    url: str
    number: int
    shared: Granted
    chance: random.Random
    calm: threading.Event  # set: finish what was begun, begin nothing new
    revokes: bool  # whether it ends delegations, and makes new ones in this process
    bought: list[Bought] = field(default_factory=list)
    refused: int = 0
    waits: list[float] = field(
        default_factory=list
    )  # seconds from the first sending of each request to its answer
    resent: int = 0
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        """A delegation of its own, besides the one that all share."""
        self.own = self._new_delegation()
        self.errands = [errand for errand in _ERRANDS if self.revokes or errand is not Shopper._revoke_all]
        self.client = httpx.Client(base_url=self.url, timeout=20)
        self.count = 0

    def run(self) -> None:
        """Shop until it is calm."""
        try:
            with self.client:
                while not self.calm.is_set():
                    self.chance.choice(self.errands)(self)
        except BaseException as error:  # noqa: BLE001  # told by the thread that waits for this one
            self.failure = error

    # --- errands -------------------------------------------------------------------------------------------

    def _buy(self) -> None:
        if bought := self._token():
            self._redeem(*bought, capture=True)
            if self.chance.random() < 0.5:
                self._refund(bought[0], bought[0].captured // 2)
                self._refund(bought[0], bought[0].captured - bought[0].refunded)

    def _order(self) -> None:
        if bought := self._token():
            self._redeem(*bought, capture=False)
            verb = self.chance.choice(["capture", "void", "later"])
            if verb == "capture":
                less = bought[0].authorized - self.chance.choice([0, 1])
                self._step(bought[0], "capture", less)
                bought[0].state, bought[0].captured, bought[0].authorized = "captured", less, 0
            elif verb == "void":
                self._step(bought[0], "void", None)
                bought[0].state, bought[0].authorized = "voided", 0

    def _lie(self) -> None:
        if bought := self._token():
            action, token = bought
            body = {"token": token, "merchant": {"category": "7995"}}
            answer = self._insist(lambda key: self._shop("redeem", body, key))
            assert answer.status_code == 409, answer.text
            assert answer.json()["voided"] is True
            action.state = "voided"
            action.events["redemption.refused"] += 1

    def _give_up(self) -> None:
        if bought := self._token():
            self._revoke(bought[1])
            bought[0].state = "voided"

    def _leave(self) -> None:
        self._token()

    def _revoke_all(self) -> None:
        """End the delegation of one's own, and begin another."""
        mine = [bought for bought in self.bought if bought.delegation is self.own]
        self._revoke(self.own.grant)
        for bought in mine:
            if bought.state == "reserved":
                bought.state = "voided"
        answer = self._insist(lambda key: self._exchange(self.own, 100, key))
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), answer.text
        self.own = self._new_delegation()

    # --- requests ------------------------------------------------------------------------------------------

    def _token(self) -> tuple[Bought, str] | None:
        """A token, or None where the budget that all share is spent."""
        granted = self.chance.choice([self.shared, self.own])
        amount = self.chance.randint(10, 1_000)
        self.count += 1
        key = f"exchange-{self.number}-{self.count}"
        answer = self._insist(lambda _: self._exchange(granted, amount, key))
        if answer.status_code == 400:
            assert [v["constraint"] for v in answer.json()["violations"]] == ["limits.total"], answer.text
            self.refused += 1
            return None
        assert answer.status_code == 200, answer.text
        body = answer.json()
        action = Bought(body["action_id"], granted, amount, time.time() + body["expires_in"])
        action.events["exchange.permitted"] += 1
        self.bought.append(action)
        if self.chance.random() < 0.3:
            again = self._insist(lambda _: self._exchange(granted, amount, key))
            assert again.status_code == 200, again.text
            assert _claims(again.json()["access_token"]) == _claims(body["access_token"])
        return action, body["access_token"]

    def _redeem(self, action: Bought, token: str, *, capture: bool) -> None:
        taken = action.amount - self.chance.choice([0, 1])
        body = {"token": token, "capture": capture, "amount": _eur(taken)}
        answer = self._insist(lambda key: self._shop("redeem", body, key))
        assert answer.status_code == 201, answer.text
        assert answer.json()["amount"] == _eur(taken)
        action.state = "captured" if capture else "authorized"
        action.captured, action.authorized = (taken, 0) if capture else (0, taken)
        action.events["redemption.permitted"] += 1

    def _refund(self, action: Bought, amount: int) -> None:
        if amount:
            self._step(action, "refund", amount)
            action.refunded += amount
            action.state = "refunded" if action.refunded == action.captured else "captured"

    def _step(self, action: Bought, verb: str, amount: int | None) -> None:
        body = {} if amount is None else {"amount": _eur(amount)}
        answer = self._insist(lambda key: self._shop(f"redemptions/{action.id}/{verb}", body, key))
        assert answer.status_code == 200, answer.text
        action.events[f"{verb}.permitted"] += 1

    def _revoke(self, token: str) -> None:
        def send(_: str) -> httpx.Response:
            form = {
                "token": token,
                "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",
                "client_assertion": self._assertion(),
            }
            return self.client.post("/oauth/revoke", data=form)

        answer = self._insist(send)
        assert answer.status_code == 200, answer.text

    def _exchange(self, granted: Granted, amount: int, key: str) -> httpx.Response:
        form = self.world.form(
            granted.grant, action=self.world.action(amount=_eur(amount)), actor_token=self._assertion()
        )
        return self.client.post("/oauth/token", data=form, headers={"Idempotency-Key": key})

    def _shop(self, path: str, body: dict[str, Any], key: str) -> httpx.Response:
        credentials = (self.world.market_id, self.world.market_secret)
        headers = {"Idempotency-Key": key}
        return self.client.post(f"/oauth/{path}", json=body, auth=credentials, headers=headers)

    def _insist(self, send: Callable[[str], httpx.Response]) -> httpx.Response:
        """Send a request until it is answered for good (contract §6: after a 503 again, with the same key)."""
        self.count += 1
        key, begun = f"{self.number}-{self.count}", time.monotonic()
        while time.monotonic() < begun + INSISTS_SECONDS:
            try:
                answer = send(key)
            except httpx.TransportError:
                time.sleep(0.02)
            else:
                if answer.status_code != 503:
                    self.waits.append(time.monotonic() - begun)
                    return answer
                assert int(answer.headers["retry-after"]) > 0
                time.sleep(0.05)
            self.resent += 1
        raise Gone(f"no answer for {INSISTS_SECONDS} s")

    def _assertion(self) -> str:
        self.world.clock.set(datetime.now(UTC))
        return self.world.assertion()

    def _new_delegation(self) -> Granted:
        self.world.clock.set(datetime.now(UTC))
        while True:
            try:
                return self.world.granted(limits=LIMITS)
            except Refusal as refusal:
                if refusal.status != 503:
                    raise
                time.sleep(0.05)


_ERRANDS = (
    Shopper._buy,
    Shopper._buy,
    Shopper._buy,
    Shopper._order,
    Shopper._order,
    Shopper._lie,
    Shopper._give_up,
    Shopper._leave,
    Shopper._revoke_all,
)


@dataclass
class Storm:
    """All shoppers, and what they hold the database to."""

    world: World
    shoppers: list[Shopper]
    threads: list[threading.Thread]
    calm: threading.Event

    @property
    def bought(self) -> list[Bought]:
        """All actions that were answered for."""
        return [bought for shopper in self.shoppers for bought in list(shopper.bought)]

    @property
    def answers(self) -> int:
        """How many requests were answered for good."""
        return sum(len(shopper.waits) for shopper in self.shoppers)

    @property
    def resent(self) -> int:
        """How many times a request was sent again."""
        return sum(shopper.resent for shopper in self.shoppers)

    def goes_on(self) -> None:
        """No shopper has given up."""
        for shopper in self.shoppers:
            if shopper.failure is not None:
                raise shopper.failure

    def end(self) -> None:
        """Let each shopper finish what it began."""
        self.calm.set()
        for thread in self.threads:
            thread.join(INSISTS_SECONDS + 30)
        self.goes_on()

    def answered(self) -> dict[str, str]:
        """The state of each action as it was last answered."""
        return {bought.id: bought.state for bought in self.bought}

    def holds(self, answered: dict[str, str]) -> None:
        """At this instant nothing that was answered is lost, and no total is wrong."""
        is_sound(self.world)
        found = {row.id: row.state for row in _rows(self.world, Action)}
        for action_id, state in answered.items():
            now = found[action_id]
            assert now == state or now in BEYOND[state], (action_id, state, now)

    def has_done_exactly_this(self) -> None:
        """After the storm: the database holds what was answered for, once, and nothing else."""
        is_sound(self.world)
        bought = self.bought
        found = {
            r.id: (r.state, r.amount, r.authorized, r.captured, r.refunded) for r in _rows(self.world, Action)
        }
        for action in bought:
            # What nobody used may have lapsed, though not a moment too soon.
            lapsed = action.state == "reserved" and time.time() >= action.expires - 1
            if lapsed and found[action.id][0] == "expired":
                action.state = "expired"
        assert found == {action.id: action.row() for action in bought}
        shared = sum(_taken(b) for b in bought if b.delegation is self.shoppers[0].shared)
        grant_id = self.shoppers[0].shared.grant_id
        (row,) = [row for row in _rows(self.world, Budget) if row.delegation_id == grant_id]
        assert row.reserved + row.authorized + row.captured - row.refunded == shared <= row.total_limit
        self._told_once()

    def _told_once(self) -> None:
        """C9: one audit event for each decision, however often its request was sent."""
        table, often = table_of(AuditEvent), ("token_revocation.permitted", "exchange.repeated")
        query = (
            select(table.c.action_id, table.c.event, func.count())
            .where(table.c.action_id.is_not(None), table.c.event.not_in(often))
            .group_by(table.c.action_id, table.c.event)
        )
        rows = self.world.services.database.read(lambda c: c.execute(query).all())
        found = {(action, event): number for action, event, number in rows}
        due = {(b.id, event): number for b in self.bought for event, number in b.events.items()}
        assert found.items() ^ due.items() == set()


@contextmanager
def storm(
    world: World, url: str, *, shoppers: int = 6, total: str = "9000.00", seed: int = 1, revokes: bool = True
) -> Iterator[Storm]:
    """So many shoppers at work at the server at `url`, until the block ends."""
    shared = world.granted(limits=LIMITS | {"total": total})
    calm = threading.Event()
    found = [
        Shopper(world, url, n, shared, random.Random(f"{seed}-{n}"), calm, revokes) for n in range(shoppers)
    ]
    threads = [threading.Thread(target=shopper.run, name=f"shopper-{shopper.number}") for shopper in found]
    running = Storm(world, found, threads, calm)
    for thread in threads:
        thread.start()
    try:
        yield running
    finally:
        calm.set()
        for thread in threads:
            thread.join(INSISTS_SECONDS + 30)


def is_sound(world: World) -> None:
    """C1 and C2: the database is whole, every total is the sum of its transfers, and no limit is crossed."""

    def examine(connection: Connection) -> None:
        assert list(check(connection, world.services.stored)) == []
        if connection.dialect.name == "sqlite":
            assert connection.scalar(text("PRAGMA integrity_check")) == "ok"
        keys, actions = table_of(IdempotencyKey), table_of(Action)
        dangling = select(keys.c.key).where(keys.c.action_id.not_in(select(actions.c.id)))
        assert connection.scalars(dangling).all() == []

    world.services.database.read(examine)
    for row in _rows(world, Budget):
        assert row.reserved + row.authorized + row.captured - row.refunded <= row.total_limit


def _taken(bought: Bought) -> int:
    held = {"reserved": bought.amount, "voided": 0, "expired": 0}
    return held.get(bought.state, bought.authorized + bought.captured - bought.refunded)


def _rows(world: World, row: type[Any]) -> Sequence[Any]:
    return world.services.database.read(lambda c: c.execute(select(table_of(row))).all())


def _claims(token: str) -> str:
    # All but the signature: an ECDSA signature is another each time.
    return token.rpartition(".")[0]


def _eur(cents: int) -> dict[str, str]:
    return {"currency": "EUR", "value": f"{cents // 100}.{cents % 100:02}"}
