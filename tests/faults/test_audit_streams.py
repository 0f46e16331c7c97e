"""F12: sealing behind, a collector down for a day: nothing is lost, what is held is bounded, all arrives in order."""

import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text, update

from authserver import stream
from authserver.audit import batches
from authserver.audit.events import Record
from authserver.notifications import collectors
from authserver.schema import AuditEvent, table_of
from authserver.seal import seal
from authserver.verify_audit import verify_here
from tests.listening import listening
from tests.world import World, running_world


class Collector:
    """A collector that takes what it is sent, or is down."""

    def __init__(self) -> None:
        self.is_down = False
        self.bodies: list[str] = []
        self.headers: list[dict[str, str]] = []

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for body in self.bodies for line in body.splitlines()]


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            if not collector.is_down:
                collector.bodies.append(body)
                collector.headers.append(dict(self.headers))
            self.send_response(503 if collector.is_down else 202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with listening(server):
        yield collector, f"http://127.0.0.1:{server.server_port}/audit"


@contextmanager
def told(database_url: str, folder: Path, **audit: Any) -> Iterator[World]:
    """A server with these settings of [audit]."""
    with running_world(database_url, folder, audit=audit) as world:
        yield world


def some_events(world: World, count: int) -> None:
    grant = world.granted().grant
    for _ in range(count):
        world.exchange(grant, action=world.action(amount={"currency": "EUR", "value": "0.01"}))


def tell(world: World) -> None:
    """What running servers do every few seconds."""
    seal(world.services, world.clock.now())
    while stream.deliver(world.services, world.clock.now()):
        pass


def test_F12_a_collector_that_was_down_for_a_day_gets_everything_in_order(
    database_url: str, tmp_path: Path
) -> None:
    with collecting() as (collector, url):
        http = {
            "name": "collector",
            "kind": "http",
            "url": url,
            "authorization": "Bearer collector",
            "allow_private_network": True,
        }
        with told(database_url, tmp_path / "world", streams=[http]) as world:
            some_events(world, 2)
            tell(world)
            assert [event["leaf"] for event in collector.events] == list(range(3))
            assert collector.headers[0]["Authorization"] == "Bearer collector"
            assert collector.headers[0]["Content-Type"] == "application/x-ndjson"
            collector.is_down = True
            for _ in range(24):
                some_events(world, 1)
                tell(world)
                world.clock.advance(hours=1)
            assert len(collector.events) == 3
            assert stream.failing(world.services)["stream:collector"] >= 24
            collector.is_down = False
            tell(world)
            assert [event["leaf"] for event in collector.events] == list(range(3 + 48))
            assert [event["event"] for event in collector.events] == [e["event"] for e in world.events()]
            assert stream.failing(world.services) == {}
            # A body is never larger than so many events, however much there is to catch up with.
            assert max(body.count("\n") for body in collector.bodies) <= 500


def test_F12_one_collector_that_is_down_holds_up_no_other(sqlite_url: str, tmp_path: Path) -> None:
    with collecting() as (collector, url):
        collector.is_down = True
        streams = [
            {"name": "down", "kind": "http", "url": url, "allow_private_network": True},
            {"name": "copy", "kind": "file", "file": tmp_path / "copy.jsonl"},
        ]
        with told(sqlite_url, tmp_path / "world", streams=streams) as world:
            some_events(world, 2)
            tell(world)
            lines = (tmp_path / "copy.jsonl").read_text().splitlines()
            assert [json.loads(line)["leaf"] for line in lines] == [0, 1, 2]


def break_one(world: World, data: str) -> None:
    """Change the second event, as somebody does whom no trigger stops."""
    table = table_of(AuditEvent)
    with world.services.database.engine.connect() as connection:
        if world.services.database.is_sqlite:
            names = connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all()
            for name in names:
                connection.execute(text(f"DROP TRIGGER {name}"))
        else:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(update(table).where(table.c.id == 2).values(data=data))
        connection.commit()


@pytest.mark.parametrize("format", ["json", "ocsf"])
@pytest.mark.parametrize("data", ["{no JSON", "7", '{"amount":NaN}', "[" * 100_000])
def test_a_row_that_somebody_broke_is_sent_as_what_it_is_and_stops_no_collector(
    sqlite_url: str, tmp_path: Path, data: str, format: str
) -> None:
    streams = [
        {"name": name, "kind": "file", "file": tmp_path / name, "format": format} for name in ("a", "b")
    ]
    with told(sqlite_url, tmp_path / "world", streams=streams) as world:
        some_events(world, 2)
        seal(world.services, world.clock.now())
        break_one(world, data)
        tell(world)
        assert stream.failing(world.services) == {}
    for name in ("a", "b"):
        lines = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        events = [line["unmapped"] if format == "ocsf" else line for line in lines]
        assert [event["leaf"] for event in events] == [0, 1, 2]
        assert [event.get("altered") for event in events] == [None, data, None]
        assert (events[1]["id"], events[1]["event"]) == (2, "exchange.permitted")


def test_a_stream_that_fails_in_a_way_nobody_thought_of_holds_up_no_other(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = [{"name": name, "kind": "file", "file": tmp_path / name} for name in ("a-broken", "whole")]
    send = collectors.send

    def broken(to: Any, lines: Any) -> None:
        if to.name == "a-broken":
            raise ZeroDivisionError
        send(to, lines)

    monkeypatch.setattr(collectors, "send", broken)
    with told(sqlite_url, tmp_path / "world", streams=streams) as world:
        for _ in range(2):
            some_events(world, 1)
            tell(world)
            world.clock.advance(minutes=10)
        assert len((tmp_path / "whole").read_text().splitlines()) == 4
        assert stream.failing(world.services) == {"stream:a-broken": 2}


@pytest.mark.parametrize("format", ["json", "ocsf"])
def test_an_event_that_fits_into_no_datagram_is_named_and_the_next_one_arrives(
    sqlite_url: str, tmp_path: Path, format: str
) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server:
        server.settimeout(10)
        server.bind(("127.0.0.1", 0))
        siem = {"name": "siem", "kind": "syslog", "transport": "udp", "format": format}
        siem["address"] = f"127.0.0.1:{server.getsockname()[1]}"
        with told(sqlite_url, tmp_path / "world", streams=[siem]) as world:
            now = world.clock.now()
            for size in (30_000, 70_000, 10):
                record = Record("import.done", client_id="basket-helper")
                world.services.database.write(lambda c: record.changed(c, now, said="x" * size))  # noqa: B023
            tell(world)
            assert stream.failing(world.services) == {}
        got = [json.loads(server.recv(65_536).partition(b" audit - ")[2]) for _ in range(3)]
    events = [one["unmapped"] if format == "ocsf" else one for one in got]
    assert [event["id"] for event in events] == [1, 2, 3]
    assert len(events[0]["data"]["said"]) == 30_000
    assert events[1]["cut"] > 70_000
    assert (events[1]["event"], events[1]["client_id"]) == ("import.done", "basket-helper")
    assert "data" not in events[1]


def test_F12_sealing_that_was_behind_catches_up(database_url: str, tmp_path: Path) -> None:
    with told(database_url, tmp_path / "world") as world:
        some_events(world, 3)
        world.clock.advance(hours=2)
        count, seconds = world.services.database.read(lambda c: batches.lag(c, world.clock.now()))
        assert (count, round(seconds)) == (4, 7200)
        assert seal(world.services, world.clock.now()) == 4
        assert world.services.database.read(lambda c: batches.lag(c, world.clock.now())) == (0, 0.0)


def test_two_processes_that_seal_at_once_seal_each_event_once(database_url: str, tmp_path: Path) -> None:
    with told(database_url, tmp_path / "world") as world:
        some_events(world, 3)
        threads = [threading.Thread(target=seal, args=(world.services, world.clock.now())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sealed = world.services.database.read(
            lambda c: [leaf.event_id for batch in batches.all_batches(c) for leaf in batch.leaves]
        )
        assert len(sealed) == len(set(sealed)) == 4


@pytest.mark.parametrize("transport", ["tcp", "udp", "unix"])
def test_a_syslog_server_gets_each_event_as_rfc_5424_has_it(
    transport: str, sqlite_url: str, tmp_path: Path
) -> None:
    """RFC 5424 §6; RFC 6587 §3.4.1 over a stream."""
    path = str(tmp_path / "log.sock")
    family = socket.AF_UNIX if transport == "unix" else socket.AF_INET
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    with closing(socket.socket(family, kind)) as server:
        server.settimeout(10)
        server.bind(path if transport == "unix" else ("127.0.0.1", 0))
        if transport != "udp":
            server.listen()
        address = path if transport == "unix" else f"127.0.0.1:{server.getsockname()[1]}"
        streams = [{"name": "siem", "kind": "syslog", "address": address, "transport": transport}]
        with told(sqlite_url, tmp_path / "world", streams=streams) as world:
            world.granted()
            tell(world)
        if transport == "udp":
            message = server.recv(65_536)
        else:
            connection, _ = server.accept()
            with closing(connection):
                length, _, message = connection.makefile("rb").read().partition(b" ")
            assert int(length) == len(message)
    head, _, event = message.partition(b" audit - ")
    priority, at, _host, program, _pid = head.decode().split(" ")
    assert (priority, program) == ("<110>1", "authserver")
    assert json.loads(event)["at"] == at
    assert json.loads(event)["event"] == "delegation.created"


def test_a_witness_gets_every_head_over_http(sqlite_url: str, tmp_path: Path) -> None:
    with (
        collecting() as (collector, url),
        told(sqlite_url, tmp_path / "world", witness_url=url, allow_private_network=True) as world,
    ):
        for _ in range(2):
            world.granted()
            tell(world)
        kept = world.services.database.read(lambda c: [batch.head for batch in batches.all_batches(c)])
        assert collector.bodies == kept
        assert collector.headers[0]["Content-Type"] == "application/jwt"


def test_what_is_committed_out_of_order_while_others_seal_raises_no_alarm_and_is_sealed_once(
    database_url: str, tmp_path: Path
) -> None:
    """PostgreSQL numbers rows when they are written, and shows them when they are committed."""
    with told(database_url, tmp_path / "world") as world:
        ended, problems = threading.Event(), list[str]()

        def write(number: int) -> None:
            by = random.Random(number)

            def slowly(connection: Connection) -> None:
                Record("page.refused").changed(connection, world.clock.now(), number=number)
                time.sleep(by.random() * 0.02)
                if by.random() < 0.1:
                    raise ValueError  # a number that nobody has

            for _ in range(40):
                with suppress(ValueError):
                    world.services.database.write(slowly)

        def seal_again() -> None:
            while not ended.is_set():
                seal(world.services, world.clock.now())

        def look_again() -> None:
            while not ended.is_set():
                problems.extend(verify_here(world.services).problems)

        writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
        others = [threading.Thread(target=target) for target in (seal_again, seal_again, look_again)]
        for thread in (*writers, *others):
            thread.start()
        for thread in writers:
            thread.join()
        ended.set()
        for thread in others:
            thread.join()
        seal(world.services, world.clock.now())
        found = verify_here(world.services)
        assert (problems, found.problems, found.unsealed) == ([], [], 0)
        assert found.sealed == len(world.events())
