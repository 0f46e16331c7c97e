"""A revocation is known at a resource server with the kit within a second, by events alone."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from flask import Flask
from werkzeug.serving import make_server

from authserver.endpoints import ssf
from authserver.resource_server import InvalidToken, ResourceServer, verifier
from authserver.resource_server.flask import protect
from authserver.revoke import Target, revoke
from examples.processes import free_port
from tests.attacks.serving import configuration, serving
from tests.listening import listening
from tests.settling import token_of
from tests.world import MARKET, QuietHandler, World, running_world

NEAR = {"allow_private_network": True}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Status lists are fetched once, when the first token comes: what ends after that is known by events alone."""
    monkeypatch.setattr(verifier, "_EVERY_SECONDS", 3_600)
    monkeypatch.setattr(ssf, "_WAIT_SECONDS", 1.0)  # a server that ends waits for who waits


def market(world: World, **options: str) -> ResourceServer:
    return ResourceServer(world.issuer, MARKET, world.market_id, world.market_secret, **options)  # type: ignore[arg-type]


def ends(world: World, grant_id: str) -> None:
    target = Target("delegation", grant_id)
    revoke(world.services, target, reason="stolen", by="operator", now=world.clock.now())


def refused_after(server: ResourceServer, token: str, act: Callable[[], object]) -> float:
    """Seconds from when `act` was done until the token is refused, which it was not before."""
    server.verifier.verify(token)
    act()
    done = time.monotonic()
    while time.monotonic() - done < 5:
        try:
            server.verifier.verify(token)
        except InvalidToken:
            return time.monotonic() - done
        time.sleep(0.005)
    raise AssertionError("it is still taken")


@pytest.mark.usefixtures("alone")
def test_a_revocation_is_known_within_a_second_where_the_kit_listens(sqlite_world: World) -> None:
    server = market(sqlite_world)
    listener = server.listen()
    assert listener.is_connected.wait(10)
    for _ in range(2):
        granted = sqlite_world.granted()
        token = token_of(sqlite_world, granted.grant)
        assert refused_after(server, token, lambda: ends(sqlite_world, granted.grant_id)) < 1  # noqa: B023
    assert server.verifier.hears_events
    listener.stop()
    until = time.monotonic() + 5
    while server.verifier.hears_events and time.monotonic() < until:
        time.sleep(0.01)
    assert not server.verifier.hears_events, "status lists would be fetched seldom, and no event come"


@pytest.mark.usefixtures("alone")
def test_a_revocation_is_known_within_a_second_where_the_server_pushes(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has two processes, which push; the revocation is made by another."""
    monkeypatch.setenv("AUTHSERVER_EVENTS__ALLOW_PRIVATE_NETWORK", "true")
    port = free_port()
    with running_world(sqlite_url, tmp_path / "world", events=NEAR) as world:
        server = market(
            world,
            base_url=f"http://127.0.0.1:{port}",
            events_path="/events",
            events_authorization="Bearer the-server-knows-this",
        )
        app = Flask("market")
        protect(app, server)
        with (
            listening(make_server("127.0.0.1", port, app, threaded=True, request_handler=QuietHandler)),
            serving(configuration(world, tmp_path), workers=2),
        ):
            server.subscribe()
            server.subscribe()  # changes nothing
            granted = world.granted()
            token = token_of(world, granted.grant)
            assert refused_after(server, token, lambda: ends(world, granted.grant_id)) < 1
        streams = world.client.get("/oauth/ssf/streams", auth=(world.market_id, world.market_secret)).json()
        assert len(streams) == 1


def test_whoever_waits_for_events_keeps_nobody_from_a_turn(sqlite_world: World, tmp_path: Path) -> None:
    """Polls that wait are many more than the requests that are at work at once."""
    world, auth = sqlite_world, (sqlite_world.market_id, sqlite_world.market_secret)
    stream = world.client.post("/oauth/ssf/streams", json={}, auth=auth).json()
    path = stream["delivery"]["endpoint_url"].removeprefix(world.issuer)
    granted = world.granted()
    token_of(world, granted.grant)
    with serving(configuration(world, tmp_path)) as served, ThreadPoolExecutor(12) as pool:
        begun = time.monotonic()
        polls = [
            pool.submit(httpx.post, served.url + path, json={}, auth=auth, timeout=20) for _ in range(12)
        ]
        time.sleep(0.3)
        form = world.form(granted.grant)
        assert httpx.post(f"{served.url}/oauth/token", data=form).status_code == 200
        assert time.monotonic() - begun < 2
        threading.Timer(0.2, ends, (world, granted.grant_id)).start()
        answers = [poll.result().json() for poll in polls]
        assert time.monotonic() - begun < 3
        assert all(len(answer["sets"]) == 2 for answer in answers)
