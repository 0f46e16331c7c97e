"""How long it takes to give back what many unused tokens hold, as `authserver.upkeep` does it.

`python -m bench.expiry COUNT` runs with the server's configuration in its environment: it puts expired reservations
into the database in bulk, with the totals that belong to them, and lets the library release them.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import cycle, islice

from sqlalchemy import Connection, insert, update

from authserver import upkeep
from authserver.clock import SystemClock
from authserver.config import load_settings
from authserver.delegations.records import DelegationRecord, list_delegations
from authserver.ids import new_id
from authserver.ledger import actions, check, transfers
from authserver.ledger.actions import ActionRecord
from authserver.ledger.spending import windows_of
from authserver.ledger.steps import Move
from authserver.schema import Action, Budget, BudgetWindow, Transfer, table_of
from authserver.services import Services, open_services
from bench.exchanges import ACTION, SHOP
from bench.processes import SERVER_CORE
from bench.world import ROOT, World

_AMOUNT = 125
_DETAILS = json.dumps({**ACTION, "locations": [SHOP]})
_BATCH = 2_000
_BUDGETS = table_of(Budget)


@dataclass(frozen=True, slots=True)
class Released:
    """How many reservations were released, and in how many seconds."""

    count: int
    seconds: float


def measure(world: World, count: int) -> Released:
    """Release `count` reservations that are spread over all delegations of a world whose server is not running."""
    ran = subprocess.run(
        ["taskset", "-c", str(SERVER_CORE), sys.executable, "-m", "bench.expiry", str(count)],
        cwd=ROOT,
        env={**os.environ, **world.environment},
        capture_output=True,
        timeout=300,
        check=False,
    )
    if ran.returncode:
        raise RuntimeError(f"bench.expiry failed: {ran.stderr.decode(errors='replace')[-2000:]}")
    return Released(**json.loads(ran.stdout))


def release(count: int) -> Released:
    """Put the reservations there and release them. Raises `RuntimeError` where the ledger is wrong before or after."""
    services = open_services(load_settings(), SystemClock())
    now = datetime.now(UTC)
    issued_at = now - timedelta(seconds=300)
    links = services.database.read(lambda connection: list(list_delegations(connection, services.stored)))
    pairs = list(islice(enumerate(cycle(links)), count))
    for start in range(0, count, _BATCH):
        batch = [_expired(link, number, issued_at) for number, link in pairs[start : start + _BATCH]]
        services.database.write(partial(_put, batch))
    held = [count // len(links) + (place < count % len(links)) for place in range(len(links))]
    for link, most in zip(links, held, strict=True):
        services.database.write(partial(_hold, link, most, issued_at))
    _must_be_right(services)
    started = time.perf_counter()
    tidied = upkeep.tidy(services, now)
    seconds = time.perf_counter() - started
    _must_be_right(services)
    return Released(tidied.reservations, seconds)


def _expired(link: DelegationRecord, number: int, issued_at: datetime) -> ActionRecord:
    expires_at = issued_at + timedelta(seconds=120)
    return ActionRecord(
        root_id=link.root_id,
        id=new_id(),
        delegation_id=link.id,
        client_id=link.client_id,
        resource_server_id="bench",
        action="payment.finalize",
        budget="debit",
        state="reserved",
        details=_DETAILS,
        scope=False,
        amount=_AMOUNT,
        authorized=0,
        captured=0,
        refunded=0,
        reference="cart-889",
        task_id=None,
        jkt=None,
        status_list=1 + number // 100_000,
        status_index=number % 100_000,
        issued_at=issued_at,
        expires_at=expires_at,
        ends_at=expires_at,
    )


def _put(batch: list[ActionRecord], connection: Connection) -> None:
    connection.execute(insert(table_of(Action)), [dict(actions.row_of(action).values) for action in batch])
    connection.execute(insert(table_of(Transfer)), list(_first_transfers(batch)))


def _first_transfers(batch: list[ActionRecord]) -> Iterator[dict[str, object]]:
    for action in batch:
        yield dict(transfers.first_row(action, Move("reserve", action.amount), action.issued_at).values)


def _hold(link: DelegationRecord, count: int, at: datetime, connection: Connection) -> None:
    if not count:
        return
    here = (_BUDGETS.c.root_id == link.root_id) & (_BUDGETS.c.delegation_id == link.id)
    held = {"reserved": count * _AMOUNT, "action_count": count, "open_count": count}
    connection.execute(update(_BUDGETS).where(here).values(held))
    for rule, window, limit in windows_of(link.details, link.not_before, None, at):
        row = {"rule": rule, "window": window, "spend_limit": limit, "spent": count * _AMOUNT}
        names = {"root_id": link.root_id, "delegation_id": link.id}
        connection.execute(insert(table_of(BudgetWindow)), [{**names, **row}])


def _must_be_right(services: Services) -> None:
    wrong = services.database.read(lambda connection: list(check.check(connection, services.stored)))
    if wrong:
        raise RuntimeError(f"the ledger is wrong in {len(wrong)} totals, the first: {wrong[0]}")


if __name__ == "__main__":
    json.dump(asdict(release(int(sys.argv[1]))), sys.stdout)
