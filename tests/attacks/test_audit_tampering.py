"""A126: an audit row changed, removed, inserted or moved, or the newest cut off, by somebody who may write anything."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey
from sqlalchemy import Connection, delete, insert, select, text, update

from authserver import jose
from authserver.audit import batches, heads
from authserver.audit.export import exported
from authserver.audit.export import heads as all_heads
from authserver.audit.offline import verify_export
from authserver.audit.spans import Numbers
from authserver.audit.verification import Verified, verify
from authserver.config import AuditStreamSettings
from authserver.schema import AuditBatch, AuditEvent, AuditRetention, table_of
from authserver.seal import remove_old, seal
from authserver.stream import deliver
from authserver.tokens.signing_keys import all_public
from tests.world import World

EVENTS, BATCHES, REMOVALS = table_of(AuditEvent), table_of(AuditBatch), table_of(AuditRetention)
TABLES = ("audit_events", "audit_batches", "audit_retention")


@pytest.fixture
def sealed(world: World) -> World:
    """A server with three batches of events of every kind: permitted, refused, revoked."""
    grant = world.granted().grant
    for amount in ("12.00", "92.00", "13.00"):
        world.exchange(grant, action=world.action(amount={"currency": "EUR", "value": amount}))
        assert seal(world.services, world.clock.now()) > 0
    return world


def found(world: World, connection: Connection, witnessed: list[heads.Head] | None = None) -> Verified:
    return verify(connection, keys(world), world.issuer, witnessed or [])


def keys(world: World) -> Any:
    return world.services.database.read(all_public)


@contextmanager
def tampering(world: World) -> Iterator[Connection]:
    """A connection of somebody whom no trigger stops; what they did is undone afterwards."""
    with world.services.database.engine.connect() as connection:
        connection.begin()
        if world.services.database.is_sqlite:
            connection.exec_driver_sql("BEGIN")
            names = connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all()
            for name in names:
                connection.execute(text(f"DROP TRIGGER {name}"))
        else:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
        yield connection
        connection.exec_driver_sql("ROLLBACK")
        connection.invalidate()


def bent(value: object, by: random.Random) -> object:
    """The value with one bit, or one character, another."""
    if isinstance(value, bytes):
        at, bit = by.randrange(len(value)), 1 << by.randrange(8)
        return value[:at] + bytes([value[at] ^ bit]) + value[at + 1 :]
    if isinstance(value, int):
        return value ^ 1 << by.randrange(20)
    if isinstance(value, str):
        at = by.randrange(len(value)) if value else 0
        return value[:at] + ("~" if value[at : at + 1] != "~" else "!") + value[at + 1 :]
    return "" if value is None else value + timedelta(microseconds=1 << by.randrange(40))  # type: ignore[operator]


def test_what_nobody_touched_verifies(sealed: World) -> None:
    result = sealed.services.database.read(lambda connection: found(sealed, connection))
    assert result.problems == []
    assert (result.sealed, result.unsealed) == (len(sealed.events()), 0)


def test_A126_one_flipped_bit_anywhere_is_found(sealed: World) -> None:
    by = random.Random(126)
    for table, key in ((EVENTS, EVENTS.c.id), (BATCHES, BATCHES.c.first)):
        names = [column.name for column in table.columns]
        rows = sealed.services.database.read(lambda c, t=table: c.execute(select(t)).all())
        for row in by.sample(rows, min(len(rows), 3)):
            for name in names:
                with tampering(sealed) as connection:
                    change = {name: bent(getattr(row, name), by)}
                    connection.execute(update(table).where(key == getattr(row, key.name)).values(change))
                    assert found(sealed, connection).problems, (table.name, name, change)


def test_A126_a_row_that_is_removed_inserted_or_moved_is_named(sealed: World) -> None:
    ids = sealed.services.database.read(lambda c: c.scalars(select(EVENTS.c.id).order_by(EVENTS.c.id)).all())
    with tampering(sealed) as connection:
        connection.execute(delete(EVENTS).where(EVENTS.c.id == ids[1]))
        assert found(sealed, connection).problems == [f"event {ids[1]}: was removed"]
    with tampering(sealed) as connection:
        row = connection.execute(select(EVENTS).where(EVENTS.c.id == ids[1])).one()
        connection.execute(insert(EVENTS), {**row._mapping, "id": -5})
        problems = found(sealed, connection).problems
        assert problems == ["event -5: was not there when those around it were sealed"]
    with tampering(sealed) as connection:
        for before, after in ((ids[0], 10_000), (ids[1], ids[0]), (10_000, ids[1])):
            connection.execute(update(EVENTS).where(EVENTS.c.id == before).values(id=after))
        problems = found(sealed, connection).problems
        assert problems == [f"event {number}: was changed after it was sealed" for number in ids[:2]]


def test_A126_a_batch_that_is_removed_or_moved_is_found(sealed: World) -> None:
    firsts = sealed.services.database.read(lambda c: c.scalars(select(BATCHES.c.first)).all())
    for first in sorted(firsts)[:-1]:
        with tampering(sealed) as connection:
            connection.execute(delete(BATCHES).where(BATCHES.c.first == first))
            assert found(sealed, connection).problems
    with tampering(sealed) as connection:
        connection.execute(update(BATCHES).where(BATCHES.c.first == firsts[-1]).values(first=1_000_000))
        assert found(sealed, connection).problems


def test_A126_newest_rows_that_are_cut_off_show_by_a_head_that_was_kept_elsewhere(sealed: World) -> None:
    kept = sealed.services.database.read(lambda c: [heads.read(h, keys(sealed)) for h in all_heads(c)])
    with tampering(sealed) as connection:
        newest = batches.latest(connection)
        assert newest is not None
        connection.execute(delete(BATCHES).where(BATCHES.c.first == newest.first))
        connection.execute(delete(EVENTS).where(EVENTS.c.id.in_([leaf.event_id for leaf in newest.leaves])))
        assert found(sealed, connection).problems == []  # by itself, it cannot know
        (problem,) = found(sealed, connection, kept).problems
        assert problem.startswith(f"the newest {len(newest.leaves)} events are cut off")


def test_A126_a_history_that_was_written_anew_is_not_what_the_witness_has_seen(sealed: World) -> None:
    """Whoever has the signing key, too, can make everything fit but what is outside."""
    kept = sealed.services.database.read(lambda c: [heads.read(h, keys(sealed)) for h in all_heads(c)])
    key = sealed.services.signing_keys.active()
    with tampering(sealed) as connection:
        first = connection.scalar(select(EVENTS.c.id).order_by(EVENTS.c.id))
        connection.execute(update(EVENTS).where(EVENTS.c.id == first).values(rule="permit"))
        connection.execute(delete(BATCHES))
        now = sealed.clock.now().replace(microsecond=0)
        leaves = batches.unsealed(connection, 1_000)
        tree = batches.Tree().with_leaves([leaf.hash for leaf in leaves])
        batches.append(connection, None, leaves, tree, heads.sign(tree, sealed.issuer, key, now), now)
        assert found(sealed, connection).problems == []
        assert "another history" in found(sealed, connection, kept).problems[0]


def test_A126_the_database_itself_refuses_to_change_any_of_it(sealed: World) -> None:
    for table in TABLES[:2]:
        for change in (
            f"DELETE FROM {table}",
            f"UPDATE {table} SET {'at' if table == TABLES[0] else 'first'} = 1",
        ):
            with (
                sealed.services.database.engine.connect() as connection,
                pytest.raises(Exception, match="append-only"),
            ):
                connection.execute(text(change))


def test_A126_an_export_is_verified_without_the_database(sealed: World) -> None:
    events = sealed.services.database.read(lambda c: list(exported(c)))
    lines = sealed.services.database.read(lambda c: [f"{head}\n" for head in all_heads(c)])
    verified = verify_export(events, lines, keys(sealed), sealed.issuer)
    assert (verified.problems, verified.sealed) == ([], len(events))
    by = random.Random(1)
    for place, event in enumerate(events):
        for name, value in event.items():
            changed: object = {**value, "x": 1} if isinstance(value, dict) else bent(value, by)
            others = [*events[:place], {**event, name: changed}, *events[place + 1 :]]
            assert verify_export(others, lines, keys(sealed), sealed.issuer).problems, name
        assert verify_export(
            [*events[:place], *events[place + 1 :]], lines, keys(sealed), sealed.issuer
        ).problems
    assert (
        verify_export(events[::-1], lines, keys(sealed), sealed.issuer).problems == []
    )  # order is in the leaves
    assert verify_export(events, [], keys(sealed), sealed.issuer).problems
    assert verify_export(events, lines, keys(sealed), "https://other.example").problems


def test_A126_one_flipped_character_in_a_file_of_heads_is_found(sealed: World) -> None:
    lines = sealed.services.database.read(lambda c: [f"{head}\n" for head in all_heads(c)])
    known, by, whole = keys(sealed), random.Random(2), "".join(lines)

    def wrong(text: str) -> list[str]:
        kept, problems = heads.read_file(text.splitlines(keepends=True), known)
        return problems + [f"head after {head.tree_size}" for head in kept if not head.signed]

    assert wrong(whole) == []
    for at in by.sample(range(len(whole)), 200):
        assert wrong(whole[:at] + chr(ord(whole[at]) ^ 1 << by.randrange(7)) + whole[at + 1 :]), whole[at]


def test_A126_a_head_that_no_key_of_this_server_has_signed_is_a_problem(sealed: World) -> None:
    foreign = jose.SigningKey("foreign", ECKey.generate_key("P-256"))
    tree = sealed.services.database.read(batches.latest)
    assert tree is not None
    line = heads.sign(tree.tree, sealed.issuer, foreign, sealed.clock.now())
    kept, problems = heads.read_file([line], keys(sealed))
    assert problems == []
    (problem,) = sealed.services.database.read(lambda c: found(sealed, c, kept)).problems
    assert "signed by no key of this server" in problem
    events = sealed.services.database.read(lambda c: list(exported(c)))
    assert verify_export(events, [line], keys(sealed), sealed.issuer).problems


def test_a_line_that_was_cut_short_and_written_again_is_no_problem(sealed: World) -> None:
    lines = sealed.services.database.read(lambda c: [f"{head}\n" for head in all_heads(c)])
    assert heads.read_file([lines[0], f"{lines[1][:50]}\n", *lines[1:]], keys(sealed))[1] == []


def add(world: World, number: int) -> None:
    """An event under a number that was taken before; PostgreSQL numbers rows before they are committed."""
    row = world.services.database.read(lambda c: c.execute(select(EVENTS).limit(1)).one())._mapping

    def write(connection: Connection) -> None:
        connection.execute(insert(EVENTS), {**row, "id": number})
        if not world.services.database.is_sqlite:
            connection.execute(
                text("SELECT setval('audit_events_id_seq', (SELECT max(id) FROM audit_events))")
            )

    world.services.database.write(write)


def test_an_event_that_is_committed_late_is_sealed_once_and_is_no_sign_of_tampering(sealed: World) -> None:
    database, now = sealed.services.database, sealed.clock.now()
    taken = database.read(lambda c: max(c.scalars(select(EVENTS.c.id)).all())) + 1
    add(sealed, taken + 1)
    assert seal(sealed.services, now) == 1
    add(sealed, taken)
    waiting = database.read(lambda connection: found(sealed, connection))
    assert (waiting.problems, waiting.unsealed) == ([], 1)
    assert database.read(lambda c: batches.lag(c, now))[0] == 1
    assert [seal(sealed.services, now) for _ in range(3)] == [1, 0, 0]
    result = database.read(lambda connection: found(sealed, connection))
    assert (result.problems, result.unsealed) == ([], 0)


def test_an_event_that_was_committed_late_is_sealed_by_a_server_that_starts_much_later(sealed: World) -> None:
    taken = sealed.services.database.read(lambda c: max(c.scalars(select(EVENTS.c.id)).all())) + 1
    add(sealed, taken + 3)
    seal(sealed.services, sealed.clock.now())
    add(sealed, taken + 1)
    sealed.clock.advance(days=3)
    add(sealed, taken + 4)
    assert seal(sealed.services, sealed.clock.now()) == 2
    result = sealed.services.database.read(lambda connection: found(sealed, connection))
    assert (result.problems, result.unsealed) == ([], 0)


def test_late_events_among_many_batches_are_each_sealed_once(sqlite_world: World) -> None:
    """Whatever the order in which numbers are committed, within what a transaction may take."""
    world, by = sqlite_world, random.Random(7)
    world.granted()
    seal(world.services, world.clock.now())
    start = world.services.database.read(lambda c: max(c.scalars(select(EVENTS.c.id)).all())) + 1
    order = sorted(range(start, start + 150), key=lambda number: number + by.randrange(20))
    for number in order:
        add(world, number)
        if by.random() < 0.5:
            seal(world.services, world.clock.now())
        world.clock.advance(seconds=by.randrange(3))
    seal(world.services, world.clock.now())
    result = world.services.database.read(lambda connection: found(world, connection))
    assert (result.problems, result.unsealed) == ([], 0)


@given(st.lists(st.integers(0, 40)))
def test_numbers_with_holes_are_those_that_were_put_in(numbers: list[int]) -> None:
    kept = Numbers()
    for number in numbers:
        kept.add(number)
    assert {number for number in range(-1, 42) if number in kept} == set(numbers)
    assert kept.highest() == max(numbers, default=0)


def keeping(world: World, days: int) -> None:
    settings = world.services.settings
    kept = settings.model_copy(update={"audit": settings.audit.model_copy(update={"keep_days": days})})
    object.__setattr__(world.services, "settings", kept)


def pass_days(world: World, days: int) -> list[int]:
    """What a server does in so many days, every six hours; how many events were taken away each time."""
    removed = []
    for _ in range(days * 4):
        world.clock.advance(hours=6)
        seal(world.services, world.clock.now())
        removed.append(remove_old(world.services, world.clock.now()))
    return removed


def test_retention_goes_on_for_years_and_the_tree_stays_verifiable(sqlite_world: World) -> None:
    """What says that events were taken away is never taken away itself."""
    world = sqlite_world
    keeping(world, 2)
    world.granted()
    pass_days(world, 4)
    world.granted()
    assert sum(pass_days(world, 8)) > 0
    result = world.services.database.read(lambda connection: found(world, connection))
    assert result.problems == []
    assert {event["event"] for event in world.events()} == {"audit.retention"}
    # Once a day at most, and not about itself for ever.
    assert len(world.events()) <= 12


def test_A126_a_removal_that_the_audit_does_not_tell_of_is_found(sealed: World) -> None:
    keeping(sealed, 30)
    sealed.clock.advance(days=32)
    assert remove_old(sealed.services, sealed.clock.now()) > 0
    # At once: the event that tells of it is not sealed yet.
    assert sealed.services.database.read(lambda c: found(sealed, c)).problems == []
    by = random.Random(3)
    row = sealed.services.database.read(lambda c: c.execute(select(REMOVALS)).one())
    for column in REMOVALS.columns:
        with tampering(sealed) as connection:
            connection.execute(update(REMOVALS).values({column.name: bent(getattr(row, column.name), by)}))
            assert found(sealed, connection).problems, column.name


def test_an_event_that_was_sealed_late_outlives_the_batch_that_passed_it_over(sealed: World) -> None:
    """Retention goes by batches: the number of an event does not say in which it is."""
    keeping(sealed, 30)
    midnight = sealed.clock.now().replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    taken = sealed.services.database.read(lambda c: max(c.scalars(select(EVENTS.c.id)).all())) + 1
    add(sealed, taken + 1)
    seal(sealed.services, midnight - timedelta(seconds=1))
    add(sealed, taken)
    seal(sealed.services, midnight + timedelta(seconds=1))
    remove_old(sealed.services, midnight + timedelta(days=30))
    result = sealed.services.database.read(lambda connection: found(sealed, connection))
    assert (result.problems, result.removed_by_retention) == ([], taken - 1)


def test_what_retention_took_away_is_told_from_what_somebody_removed(sealed: World) -> None:
    keeping(sealed, 30)
    before = len(sealed.events())
    sealed.clock.advance(days=32)
    sealed.granted()
    seal(sealed.services, sealed.clock.now())
    assert remove_old(sealed.services, sealed.clock.now()) == before
    seal(sealed.services, sealed.clock.now())
    result = sealed.services.database.read(lambda connection: found(sealed, connection))
    assert (result.problems, result.removed_by_retention) == ([], before)
    assert remove_old(sealed.services, sealed.clock.now()) == 0
    with tampering(sealed) as connection:
        newest = connection.scalar(select(EVENTS.c.id).order_by(EVENTS.c.id.desc()))
        connection.execute(delete(EVENTS).where(EVENTS.c.id == newest))
        assert found(sealed, connection).problems


def test_retention_leaves_what_a_stream_has_not_taken_yet(sealed: World, tmp_path: Path) -> None:
    settings, target = sealed.services.settings, tmp_path / "not-there-yet" / "events"
    stream = AuditStreamSettings(name="archive", kind="file", file=target)
    audit = settings.audit.model_copy(update={"keep_days": 30, "streams": (stream,)})
    object.__setattr__(sealed.services, "settings", settings.model_copy(update={"audit": audit}))
    before = len(sealed.events())
    sealed.clock.advance(days=31)
    assert deliver(sealed.services, sealed.clock.now()) == 0
    assert remove_old(sealed.services, sealed.clock.now()) == 0
    target.parent.mkdir()
    sealed.clock.advance(seconds=60)
    while deliver(sealed.services, sealed.clock.now()):
        pass
    assert len(target.read_text().splitlines()) == before
    assert remove_old(sealed.services, sealed.clock.now()) == before
