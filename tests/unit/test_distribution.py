"""The ledger's tables can be distributed by `root_id` (docs/postgresql.md, Citus): what that asks of schema and SQL.

The server itself runs, and every statement that it sends is taken apart: not its text, but what SQLAlchemy built.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import (
    Alias,
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    Column,
    ColumnElement,
    Delete,
    FromClause,
    Insert,
    Join,
    PrimaryKeyConstraint,
    Select,
    Table,
    UniqueConstraint,
    Update,
    bindparam,
    event,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement, Grouping

from authserver import revoke, upkeep
from authserver.ledger.check import check
from authserver.revoke import Target
from authserver.schema import Action, Base, Budget, BudgetWindow, Delegation, Transfer, User, table_of
from tests.attacks.making import named
from tests.handing_over import hand_on
from tests.settling import eur, redeem, redeemed, settle, token_of
from tests.world import PRICE_SCOUT, World

LEDGER = tuple(table_of(row) for row in (Delegation, Budget, BudgetWindow, Action, Transfer))
NAMES = {table.name for table in LEDGER}


# --- the schema -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", LEDGER, ids=lambda table: table.name)
def test_root_id_is_part_of_every_key_that_is_unique(table: Table) -> None:
    keys = [key for key in table.constraints if isinstance(key, (PrimaryKeyConstraint, UniqueConstraint))]
    unique = [index for index in table.indexes if index.unique]
    assert keys
    for key in (*keys, *unique):
        assert "root_id" in key.columns, key.name


def test_only_the_tables_of_the_ledger_have_a_root_as_their_key() -> None:
    keyed = {table.name for table in Base.metadata.tables.values() if "root_id" in table.primary_key.columns}
    assert keyed == NAMES
    # Foreign keys between distributed tables are a matter of their own (docs/postgresql.md); there are none.
    assert not any(table.foreign_keys for table in Base.metadata.tables.values())


def test_the_migrated_database_has_the_same_keys(world: World) -> None:
    def read(connection: Any) -> None:
        found = inspect(connection)
        for name in NAMES:
            assert "root_id" in found.get_pk_constraint(name)["constrained_columns"]
            for unique in (*found.get_unique_constraints(name), *found.get_indexes(name)):
                assert not unique.get("unique", True) or "root_id" in unique["column_names"], unique

    world.services.database.read(read)


# --- the statements -------------------------------------------------------------------------------------------------


@dataclass
class _Roots:
    """Which tables of one statement are held to which root: those held to the same are in one group."""

    groups: dict[object, object] = field(default_factory=dict)

    def find(self, member: object) -> object:
        """The one that stands for the group of `member`."""
        while (above := self.groups.setdefault(member, member)) is not member:
            member = above
        return member

    def same(self, one: object, other: object) -> None:
        """Both are held to the same root."""
        self.groups[self.find(one)] = self.find(other)


def _tables(statement: ClauseElement) -> Iterator[FromClause]:
    """Every table of the ledger that the statement reads or writes, once for each alias."""
    seen: set[int] = set()
    for element in visitors.iterate(statement):
        table = element.table if isinstance(element, (Insert, Update, Delete)) else element
        if isinstance(table, Alias) and isinstance(table.element, Table):
            name = table.element.name
        elif isinstance(table, Table) and not _is_aliased(table, statement):
            name = table.name
        else:
            continue
        if name in NAMES and id(table) not in seen:
            seen.add(id(table))
            yield table


def _is_aliased(table: Table, statement: ClauseElement) -> bool:
    """Whether the table is only there under other names."""
    for element in visitors.iterate(statement):
        if isinstance(element, (Insert, Update, Delete)) and element.table is table:
            return False
        if isinstance(element, Select) and any(table is part for part in _parts(element)):
            return False
    return True


def _parts(select: Select[Any]) -> Iterator[FromClause]:
    for part in select.get_final_froms():
        yield from _parts_of_join(part)


def _parts_of_join(part: FromClause) -> Iterator[FromClause]:
    if isinstance(part, Join):
        yield from _parts_of_join(part.left)
        yield from _parts_of_join(part.right)
    else:
        yield part


def _conditions(statement: ClauseElement) -> Iterator[ColumnElement[Any]]:
    """What must be true of every row that the statement touches; what is behind an OR or a NOT is not among it."""
    for element in visitors.iterate(statement):
        if isinstance(element, (Select, Update, Delete)) and element.whereclause is not None:
            yield from _conjuncts(element.whereclause)
        if isinstance(element, Select):
            for part in element.get_final_froms():
                yield from _of_joins(part)


def _of_joins(part: FromClause) -> Iterator[ColumnElement[Any]]:
    if isinstance(part, Join):
        assert not part.full
        yield from _conjuncts(part.onclause)
        yield from _of_joins(part.left)
        yield from _of_joins(part.right)


def _conjuncts(condition: ClauseElement | None) -> Iterator[ColumnElement[Any]]:
    if isinstance(condition, Grouping):
        yield from _conjuncts(condition.element)
    elif isinstance(condition, BooleanClauseList) and condition.operator is operators.and_:
        for part in condition.clauses:
            yield from _conjuncts(part)
    elif isinstance(condition, ColumnElement):
        yield condition


def _is_root(side: object) -> bool:
    return isinstance(side, Column) and side.name == "root_id"


def _roots(statement: ClauseElement, value_of: Callable[[BindParameter[Any] | None], Any]) -> _Roots:
    roots = _Roots()
    for condition in _conditions(statement):
        if not isinstance(condition, BinaryExpression) or condition.operator is not operators.eq:
            continue
        for one, other in ((condition.left, condition.right), (condition.right, condition.left)):
            if _is_root(one) and _is_root(other):
                roots.same(one.table, other.table)
            elif _is_root(one) and isinstance(other, BindParameter):
                roots.same(one.table, ("value", value_of(other)))
    for element in visitors.iterate(statement):
        if isinstance(element, Insert) and element.table.name in NAMES:
            bound = dict(element._values or {}).get("root_id")  # without it, it is the parameter of that name
            roots.same(element.table, ("value", value_of(bound)))
    return roots


@dataclass
class Sent:
    """The statements of a server that touch the ledger, by the tables they touch."""

    joined: dict[tuple[str, ...], list[str]] = field(default_factory=lambda: defaultdict(list))
    apart: list[str] = field(default_factory=list)  # where two tables may be of different roots
    rootless: dict[tuple[str, ...], set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, compiled: SQLCompiler, parameters: dict[str, Any]) -> None:
        """Take one statement apart."""
        statement, text = compiled.statement, str(compiled)
        tables = list(_tables(statement))
        if not tables:
            return

        def value_of(bound: BindParameter[Any] | None) -> Any:
            return parameters["root_id" if bound is None else compiled.bind_names[bound]]

        roots = _roots(statement, value_of)
        names = tuple(sorted(_name(table) for table in tables))
        if len({id(roots.find(table)) for table in tables}) > 1:
            self.apart.append(text)
        if len(tables) > 1:
            self.joined[names].append(text)
        values = [member for member in roots.groups if isinstance(member, tuple)]
        if not any(roots.find(value) is roots.find(tables[0]) for value in values):
            self.rootless[names].add(text)


def _name(table: FromClause) -> str:
    return table.element.name if isinstance(table, Alias) else table.name  # type: ignore[attr-defined]


@contextmanager
def _listening(world: World) -> Iterator[Sent]:
    sent, engine = Sent(), world.services.database.engine

    def listen(
        connection: Any, cursor: Any, text: str, parameters: Any, context: Any, executemany: bool
    ) -> None:
        if context.compiled is None:
            assert not any(name in text for name in NAMES), text  # nobody writes SQL for the ledger as text
            return
        for one in context.compiled_parameters:
            sent.add(context.compiled, one)

    event.listen(engine, "before_cursor_execute", listen)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", listen)


def _live(world: World) -> None:
    """All that a server does with its ledger: exchange, settle, revoke at every level, give back, check."""
    limits = {"currency": "EUR", "per_action": "80.00", "total": "200.00", "count": 12}
    rules = [{"amount": "150.00", "period": "P1D"}]
    actions = ["catalog.search", "order.checkout", "payment.finalize", "refund.initiate"]
    for kind in ("delegation", "agent", "user", "trust_domain", "task", "all"):
        parent = world.granted(
            limits=limits | {"per_period": rules}, actions=actions, redelegation={"depth": 1}
        )
        child = hand_on(world, parent)
        scout = {"actor_token": world.assertion(PRICE_SCOUT)}
        world.exchange(child.grant, action=world.action(amount=eur("5.00")), **scout)
        first = token_of(world, parent.grant, "20.00", reference="cart-1")
        path = redeemed(world, first, amount=eur("15.00"))
        settle(world, f"{path}/refund", {"amount": eur("5.00")}, key=f"refund-{kind}")
        refund = token_of(world, parent.grant, "5.00", actions=["refund.initiate"], reference="cart-1")
        redeemed(world, refund)
        held = redeemed(world, token_of(world, parent.grant, "10.00"), capture=False)
        settle(world, f"{held}/capture", {"amount": eur("9.00")})
        gone = redeemed(world, token_of(world, parent.grant, "10.00"), capture=False)
        settle(world, f"{gone}/void", {})
        redeem(world, token_of(world, parent.grant, "10.00"), merchant={"country": "US"})
        assert world.exchange(parent.grant, action=world.action(amount=eur("80.00"))).status_code == 200
        assert world.exchange(parent.grant, action=world.action(amount=eur("80.00"))).status_code == 400
        world.clock.advance(seconds=120)
        assert world.exchange(parent.grant, action=world.action(amount=eur("80.00"))).status_code == 200
        answer = world.exchange(parent.grant, action=world.action(amount=eur("1.00")), task_id=f"task-{kind}")
        token = answer.json()["access_token"]
        assert world.introspect(token)["active"]
        _revoke(world, kind, parent.grant_id)
        world.client.get("/oauth/status/1")
        assert world.introspect(token) == {"active": False}
    token_of_task = world.exchange(world.granted().grant, task_id="task-party").json()["access_token"]
    party = Target("task", "task-party", "agent:basket-helper")
    revoke.revoke(world.services, party, reason="a test", by="agent", now=world.clock.now())
    assert world.introspect(token_of_task) == {"active": False}
    redeemed(world, token_of(world, world.granted().grant, "10.00"), capture=False)
    token_of(world, world.granted().grant, "10.00")
    world.clock.advance(days=7)
    assert upkeep.tidy(world.services, world.clock.now()).reservations == 2
    stored = world.services.stored
    assert world.services.database.read(lambda connection: list(check(connection, stored))) == []


def _revoke(world: World, kind: str, delegation_id: str) -> None:
    names = {"delegation": delegation_id, "agent": "basket-helper", "trust_domain": "example.org"}
    names |= {"task": "task-task", "all": "", "user": _user(world)}
    target = Target(kind, names[kind])  # type: ignore[arg-type]
    assert revoke.would_end(world.services, target, world.clock.now()).tokens
    revoke.revoke(world.services, target, reason="a test", by="operator", now=world.clock.now())


def _user(world: World) -> str:
    query = select(table_of(User).c.user_id)
    return str(world.services.database.read(lambda connection: connection.execute(query).scalar_one()))


@pytest.fixture
def sent(world: World) -> Sent:
    """What a server sends that does all that it can do."""
    with _listening(world) as listening:
        _live(world)
    return listening


def test_tables_of_the_ledger_are_joined_on_their_root(sent: Sent) -> None:
    assert sent.apart == []
    # That something was looked at: the chain of a delegation, what a revocation covers, the check of all totals.
    for tables in (("budgets", "delegations"), ("actions", "transfers")):
        assert sent.joined[tables]
    assert any(set(tables) >= {"actions", "delegations"} for tables in sent.joined)


def test_every_statement_that_writes_or_locks_is_of_one_root(sent: Sent) -> None:
    # What names no root only reads: tokens and delegations by their id, what is due, status lists, what a revocation
    # covers, the check of all totals.
    assert sent.rootless
    assert [text for texts in sent.rootless.values() for text in texts if _writes_or_locks(text)] == []
    assert set(sent.rootless) == {
        ("actions",),
        ("actions", "delegations", "delegations"),
        ("actions", "delegations", "delegations", "delegations"),  # the task of one party
        ("actions", "transfers"),
        ("budget_windows",),
        ("budgets",),
        ("budgets", "delegations"),
        ("delegations",),
        ("delegations", "delegations"),
    }


def _writes_or_locks(text: str) -> bool:
    return not text.startswith("SELECT") or "FOR UPDATE" in text


# --- the tests themselves -------------------------------------------------------------------------------------------

_BUDGETS, _ACTIONS, _TRANSFERS = (table_of(row) for row in (Budget, Action, Transfer))
_SAME_ROOT = _BUDGETS.c.root_id == _ACTIONS.c.root_id
_TOP, _BELOW = table_of(Delegation).alias("top"), table_of(Delegation).alias("below")
TOGETHER = {
    "joined": select(_BUDGETS.c.root_id).join_from(_BUDGETS, _ACTIONS, _SAME_ROOT),
    "outer_joined": select(_BUDGETS.c.root_id).join_from(_BUDGETS, _ACTIONS, _SAME_ROOT, isouter=True),
    "in_the_condition": select(_BUDGETS.c.root_id, _ACTIONS.c.id).where(_SAME_ROOT, _ACTIONS.c.id == "1"),
    "of_one_value": select(_BUDGETS.c.root_id).where(_BUDGETS.c.root_id == "a", _ACTIONS.c.root_id == "a"),
    "by_way_of_a_third": select(_BUDGETS.c.root_id).where(
        _SAME_ROOT, _TRANSFERS.c.root_id == _ACTIONS.c.root_id
    ),
    "in_a_subquery": select(_BUDGETS.c.root_id).where(select(_ACTIONS.c.id).where(_SAME_ROOT).exists()),
    "written_together": update(_BUDGETS)
    .where(_BUDGETS.c.root_id == "a")
    .values(reserved=1)
    .add_cte(insert(_ACTIONS).values(root_id=bindparam("1_root", "a"), id="1").cte("row")),
}
APART = {
    "not_joined": select(_BUDGETS.c.root_id, _ACTIONS.c.id),
    "joined_on_something_else": select(_BUDGETS.c.root_id).join_from(
        _BUDGETS, _ACTIONS, _BUDGETS.c.delegation_id == _ACTIONS.c.delegation_id
    ),
    "perhaps": select(_BUDGETS.c.root_id).where(_SAME_ROOT | (_ACTIONS.c.id == "1")),
    "just_not": select(_BUDGETS.c.root_id).where(~_SAME_ROOT),
    "of_two_values": select(_BUDGETS.c.root_id).where(_BUDGETS.c.root_id == "a", _ACTIONS.c.root_id == "b"),
    "two_names_of_one_table": select(_TOP.c.id).join_from(_TOP, _BELOW, _TOP.c.id == _BELOW.c.id),
    "in_a_subquery": select(_BUDGETS.c.root_id).where(_BUDGETS.c.delegation_id.in_(select(_ACTIONS.c.id))),
    "written_together": update(_BUDGETS)
    .where(_BUDGETS.c.root_id == "a")
    .values(reserved=1)
    .add_cte(insert(_ACTIONS).values(root_id=bindparam("1_root", "b"), id="1").cte("row")),
}


@pytest.mark.parametrize("statement", named(TOGETHER))
def test_a_statement_of_one_root_is_taken_for_one(statement: ClauseElement) -> None:
    assert _apart(statement) == []


@pytest.mark.parametrize("statement", named(APART))
def test_a_statement_that_may_be_of_two_roots_is_found(statement: ClauseElement) -> None:
    assert len(_apart(statement)) == 1


def _apart(statement: ClauseElement) -> list[str]:
    sent, compiled = Sent(), statement.compile(dialect=postgresql.dialect())
    assert isinstance(compiled, SQLCompiler)
    sent.add(compiled, compiled.construct_params())
    return sent.apart
