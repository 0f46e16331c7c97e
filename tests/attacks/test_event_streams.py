"""A resource server that turns its event streams against the server, against others, or against its own kit."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from authserver import manage_stream, transmit, upkeep
from authserver.actors import resource_servers
from authserver.discovery import IssuerUnavailable
from authserver.endpoints import ssf
from authserver.resource_server.credentials import ClientSecret
from authserver.resource_server.listening import Transmitter
from authserver.revoke import Target, revoke
from authserver.streams import records
from tests.listening import listening
from tests.settling import token_of
from tests.world import World, running_world

PUSH = "urn:ietf:rfc:8935"


def asked(world: World, method: str, path: str, **said: Any) -> httpx.Response:
    """What the market is answered."""
    auth = (world.market_id, world.market_secret)
    return httpx.request(method, f"{world.issuer}/oauth/ssf/{path}", auth=auth, timeout=30, **said)


def pushed_to(world: World, url: str) -> httpx.Response:
    """A stream to that place."""
    return asked(world, "POST", "streams", json={"delivery": {"method": PUSH, "endpoint_url": url}})


def something_ends(world: World) -> None:
    """A delegation that was used at the market."""
    granted = world.granted()
    token_of(world, granted.grant)
    target = Target("delegation", granted.grant_id)
    revoke(world.services, target, reason="stolen", by="operator", now=world.clock.now())


def trouble(world: World) -> str | None:
    """Why the last push on the only stream did not arrive."""
    transmit.push(world.services, world.clock.now())
    [(stream, _pending)] = world.services.database.read(records.all_streams)
    return stream.trouble


@contextmanager
def answering(status: int, seconds: float = 0, **headers: str) -> Iterator[tuple[str, list[str]]]:
    """A server on loopback that always answers the same, and which paths were asked for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            paths.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(seconds)
            self.send_response(status)
            for name, value in ({"Content-Length": "0"} | headers).items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with listening(server):
        yield f"http://127.0.0.1:{server.server_port}", paths


# --- a place that the server can reach and the resource server cannot -----------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "[::1]",
        "[::ffff:10.0.0.1]",
        "[fd00::1]",
        "[fe80::1]",
        "[64:ff9b::a00:1]",
    ],
)
def test_an_address_inside_is_no_place_to_push_to(sqlite_world: World, host: str) -> None:
    answer = pushed_to(sqlite_world, f"https://{host}/events")
    sqlite_world.refuses(answer, "invalid_request")
    assert asked(sqlite_world, "GET", "streams").json() == []


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001"])
def test_a_name_that_leads_inside_is_never_connected_to(sqlite_world: World, host: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as inside:
        assert pushed_to(sqlite_world, f"https://{host}:{inside.getsockname()[1]}/").status_code == 201
        something_ends(sqlite_world)
        assert trouble(sqlite_world) == "address"
        inside.setblocking(False)
        with pytest.raises(BlockingIOError):
            inside.accept()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_push_follows_nobody_elsewhere(sqlite_url: str, tmp_path: Path, status: int) -> None:
    with (
        running_world(sqlite_url, tmp_path / "world", events={"allow_private_network": True}) as world,
        answering(202) as (inside, paths_inside),
        answering(status, Location=f"{inside}/secret") as (outside, paths),
    ):
        assert pushed_to(world, f"{outside}/events").status_code == 201
        something_ends(world)
        assert trouble(world) == f"status {status}"
        assert (paths, paths_inside) == (["/events"], [])


def test_a_receiver_with_many_slow_streams_holds_up_no_other(sqlite_url: str, tmp_path: Path) -> None:
    with (
        running_world(sqlite_url, tmp_path / "world", events={"allow_private_network": True}) as world,
        answering(202, seconds=2) as (slow, _paths),
        answering(202) as (quick, paths),
    ):
        for _ in range(10):
            assert pushed_to(world, f"{slow}/events").status_code == 201
        world.clock.advance(seconds=1)  # those are due before the shop's
        delivery = {"method": PUSH, "endpoint_url": f"{quick}/events"}
        auth = (world.shop_id, world.shop_secret)
        assert (
            world.client.post("/oauth/ssf/streams", json={"delivery": delivery}, auth=auth).status_code == 201
        )
        world.clock.advance(seconds=1)
        everything = Target("all", "")
        revoke(world.services, everything, reason="fire", by="operator", now=world.clock.now())
        begun = time.monotonic()
        while not paths and time.monotonic() - begun < 1:
            transmit.push_side_by_side(world.services, world.clock.now())
            time.sleep(0.05)
        assert paths, "nothing came within a second"


# --- at the endpoints -----------------------------------------------------------------------------------------------


def test_a_stream_by_a_name_that_no_database_takes_is_unknown(world: World) -> None:
    for method, path in (("GET", "streams"), ("DELETE", "streams"), ("GET", "status")):
        answer = asked(world, method, path, params={"stream_id": "a\x00b"})
        world.refuses(answer, "not_found", status=404)


def test_no_receiver_gets_more_than_ten_streams_by_asking_at_once(world: World) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(asked, world, "POST", "streams", json={}) for _ in range(24)]
    assert sorted(one.result().status_code for one in answers) == [201] * 10 + [409] * 14
    assert len(asked(world, "GET", "streams").json()) == 10


def test_a_change_that_names_no_delivery_does_not_bring_an_old_one_back(sqlite_world: World) -> None:
    """Whatever another process of the receiver has chosen in between."""
    world = sqlite_world
    made = pushed_to(world, "https://market.example/old").json()
    services, now = world.services, world.clock.now()
    found = services.database.read(lambda c: records.find(c, made["stream_id"]))
    assert found is not None
    new = {"delivery": {"method": PUSH, "endpoint_url": "https://market.example/new"}}
    named = {"stream_id": made["stream_id"]}
    assert asked(world, "PATCH", "streams", json=named | new).status_code == 200
    receiver = services.database.read(lambda c: resource_servers.find(c, world.market_id))
    assert receiver is not None
    wish = manage_stream.Wish(None, None, "ours")
    changed = manage_stream.change(services, receiver, found, wish, now)
    assert changed.delivery.endpoint_url == "https://market.example/new"


def test_a_receiver_that_waits_many_times_leaves_places_to_wait_for_others(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = sqlite_world
    monkeypatch.setattr(ssf, "_WAIT_SECONDS", 2.5)
    path = f"poll/{asked(world, 'POST', 'streams', json={}).json()['stream_id']}"
    with ThreadPoolExecutor(24) as pool:
        polls = [pool.submit(asked, world, "POST", path, json={}) for _ in range(24)]
    waited = [poll.result().elapsed.total_seconds() > 2.4 for poll in polls]
    assert sum(waited) == 16


# --- at the kit -----------------------------------------------------------------------------------------------------


def kit(world: World) -> Transmitter:
    """The transmitter as the market's kit has it."""
    return Transmitter(world.issuer, ClientSecret(world.market_id, world.market_secret), httpx.Client())


def test_the_kit_sends_its_secret_to_its_issuer_alone(sqlite_world: World) -> None:
    transmitter = kit(sqlite_world)
    with answering(200) as (elsewhere, paths), pytest.raises(IssuerUnavailable):
        transmitter.poll({"delivery": {"endpoint_url": f"{elsewhere}/poll"}}, {})
    assert paths == []


def test_a_kit_that_was_away_for_long_makes_its_stream_go_on(sqlite_world: World) -> None:
    world = sqlite_world
    poll = {"method": "urn:ietf:rfc:8936"}
    before = kit(world).stream("kit: 1", poll)
    world.clock.advance(days=31)
    assert upkeep.tidy(world.services, world.clock.now()).abandoned_streams == 1
    transmitter = kit(world)
    after = transmitter.stream("kit: 1", poll)
    assert after["stream_id"] == before["stream_id"]
    something_ends(world)
    assert len(transmitter.poll(after, {"returnImmediately": True})["sets"]) == 2
