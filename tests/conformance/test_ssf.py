"""OpenID Shared Signals Framework 1.0, CAEP 1.0, RFC 8417, RFC 8935, RFC 8936: this server as a transmitter.

The other side is `ssf_receiver`, which was written against the specifications alone.
"""

import json
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey
from sqlalchemy import func, select

from authserver import jose, manage_delegation, transmit, upkeep
from authserver.accounts import users
from authserver.actors import resource_servers
from authserver.policy.delegation_details import DelegationDetails
from authserver.revoke import Target, revoke
from authserver.schema import PendingEvent, SecurityEvent, table_of
from authserver.values import Money
from tests.conformance.ssf_receiver import POLL, PUSH, PushEndpoint, Transmitter, event_of, pushed_to
from tests.settling import token_of
from tests.world import MARKET, SHOP, World, make_resource_server, running_world

CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
SSF = "https://schemas.openid.net/secevent/ssf/event-type/"
SESSION_REVOKED, CLAIMS_CHANGE = f"{CAEP}session-revoked", f"{CAEP}token-claims-change"
DELEGATION_REVOKED = "https://schemas.authserver/event/delegation-revoked"
NEAR = {"allow_private_network": True}


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    """A server that pushes to loopback, once on SQLite and once on PostgreSQL."""
    with running_world(database_url, tmp_path / "world", events=NEAR) as running:
        yield running


@pytest.fixture(scope="module")
def shared(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One on SQLite for all tests that leave nothing behind."""
    with running_world(module_database, tmp_path_factory.mktemp("ssf") / "world", events=NEAR) as running:
        yield running


def market(world: World) -> Transmitter:
    """The transmitter, as the market finds it."""
    found = Transmitter(world.issuer, MARKET, (world.market_id, world.market_secret))
    found.discover()
    return found


def shop(world: World) -> Transmitter:
    """The transmitter, as the shop finds it."""
    found = Transmitter(world.issuer, SHOP, (world.shop_id, world.shop_secret))
    found.discover()
    return found


@pytest.fixture
def receiver(shared: World) -> Iterator[Transmitter]:
    """The market at the shared server; its streams are gone afterwards."""
    transmitter = market(shared)
    yield transmitter
    for stream in transmitter.ask("GET", "configuration_endpoint").json():
        transmitter.ask("DELETE", "configuration_endpoint", stream_id=stream["stream_id"])


def ended(world: World, grant_id: str, by: str = "user:ada") -> None:
    """Revoke a delegation."""
    target = Target("delegation", grant_id)
    revoke(world.services, target, reason="Ada lost her phone", by=by, now=world.clock.now())


# --- SSF §7: metadata -----------------------------------------------------------------------------------------------


def test_7_1_the_metadata_names_every_endpoint_below_the_issuer(shared: World) -> None:
    metadata = market(shared).metadata
    assert metadata["spec_version"] == "1_0"
    assert metadata["delivery_methods_supported"] == [PUSH, POLL]
    assert metadata["default_subjects"] == "ALL"
    assert all(scheme["spec_urn"].startswith("urn:ietf:rfc:") for scheme in metadata["authorization_schemes"])
    endpoints = {name: url for name, url in metadata.items() if name.endswith("_endpoint")}
    assert {"configuration_endpoint", "status_endpoint", "verification_endpoint"} <= endpoints.keys()
    assert all(url.startswith(f"{shared.issuer}/") for url in endpoints.values())


def test_7_2_the_well_known_part_stands_before_the_issuers_path(sqlite_url: str, tmp_path: Path) -> None:
    with running_world(sqlite_url, tmp_path / "world", issuer_path="/tenant", events=NEAR) as world:
        transmitter = market(world)
        assert transmitter.stream()["delivery"]["endpoint_url"].startswith(f"{world.issuer}/oauth/")


# --- SSF §8.1.1: streams --------------------------------------------------------------------------------------------


def test_8_1_1_1_a_stream_without_delivery_is_polled(receiver: Transmitter) -> None:
    made = receiver.stream()
    assert made["delivery"]["method"] == POLL
    assert set(made["events_delivered"]) == {SESSION_REVOKED, CLAIMS_CHANGE, DELEGATION_REVOKED}


def test_8_1_1_1_only_what_was_asked_for_and_exists_is_delivered(receiver: Transmitter) -> None:
    made = receiver.stream(events_requested=[SESSION_REVOKED, "urn:example:unknown"], description="ours")
    assert made["events_delivered"] == [SESSION_REVOKED]
    assert made["description"] == "ours"


def test_8_1_1_1_each_stream_of_a_receiver_is_another_up_to_ten(receiver: Transmitter) -> None:
    assert len({receiver.stream()["stream_id"] for _ in range(10)}) == 10
    assert receiver.ask("POST", "configuration_endpoint", {}).status_code == 409


def test_8_1_1_2_a_stream_is_read_by_its_id_and_all_without_one(shared: World, receiver: Transmitter) -> None:
    assert receiver.ask("GET", "configuration_endpoint").json() == []
    made = receiver.stream()
    answer = receiver.ask("GET", "configuration_endpoint", stream_id=made["stream_id"])
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.json() == made
    assert receiver.ask("GET", "configuration_endpoint").json() == [made]
    assert receiver.ask("GET", "configuration_endpoint", stream_id="unknown").status_code == 404
    assert shop(shared).ask("GET", "configuration_endpoint").json() == []


def test_8_1_1_3_what_a_patch_does_not_name_stays(receiver: Transmitter) -> None:
    made = receiver.stream(events_requested=[SESSION_REVOKED], description="before")
    said = {"stream_id": made["stream_id"], "iss": made["iss"], "description": "after"}
    answer = receiver.ask("PATCH", "configuration_endpoint", said)
    assert answer.status_code == 200, answer.text
    assert answer.json() == made | {"description": "after"}


def test_8_1_1_4_what_a_put_does_not_name_is_gone(receiver: Transmitter) -> None:
    made = receiver.stream(
        events_requested=[SESSION_REVOKED],
        description="before",
        delivery={"method": PUSH, "endpoint_url": "https://market.example/events"},
    )
    answer = receiver.ask("PUT", "configuration_endpoint", {"stream_id": made["stream_id"]})
    replaced = answer.json()
    receiver.is_configuration(replaced)
    assert replaced["delivery"]["method"] == POLL
    assert not {"events_requested", "description"} & replaced.keys()


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_8_1_1_3_what_the_transmitter_supplies_must_match(receiver: Transmitter, method: str) -> None:
    made = receiver.stream()
    for name in ("iss", "aud", "events_supported", "events_delivered"):
        said = {"stream_id": made["stream_id"], name: "another"}
        assert receiver.ask(method, "configuration_endpoint", said).status_code == 400
        assert receiver.ask(method, "configuration_endpoint", said | {name: made[name]}).status_code == 200
    assert receiver.ask(method, "configuration_endpoint", {}).status_code == 400
    assert receiver.ask(method, "configuration_endpoint", {"stream_id": "unknown"}).status_code == 404


def test_8_1_1_5_a_deleted_stream_is_gone(receiver: Transmitter) -> None:
    named = receiver.stream()["stream_id"]
    answer = receiver.ask("DELETE", "configuration_endpoint", stream_id=named)
    assert (answer.status_code, answer.content) == (204, b"")
    for method in ("GET", "DELETE"):
        assert receiver.ask(method, "configuration_endpoint", stream_id=named).status_code == 404
    assert receiver.ask("DELETE", "configuration_endpoint").status_code == 400


@pytest.mark.parametrize(
    "delivery",
    [
        {"method": PUSH, "endpoint_url": "http://market.example/events"},
        {"method": PUSH, "endpoint_url": "file:///etc/passwd"},
        {"method": PUSH, "endpoint_url": "https://user@market.example/events"},
        {"method": PUSH, "endpoint_url": "https://market.example/a b"},
        {"method": PUSH, "endpoint_url": "https://[::1"},
        {"method": PUSH},
        {"method": "urn:example:pigeon"},
        {"method": PUSH, "endpoint_url": "https://market.example/", "authorization_header": "a\r\nb: c"},
        "poll",
    ],
)
def test_a_place_that_nobody_should_push_to_is_refused(receiver: Transmitter, delivery: object) -> None:
    answer = receiver.ask("POST", "configuration_endpoint", {"delivery": delivery})
    assert answer.status_code == 400, answer.text
    assert receiver.ask("GET", "configuration_endpoint").json() == []


# --- SSF §8.1.2: status ---------------------------------------------------------------------------------------------


def test_8_1_2_what_happens_while_a_stream_is_paused_comes_when_it_goes_on(world: World) -> None:
    receiver = market(world)
    stream, granted = receiver.stream(events_requested=[SESSION_REVOKED]), world.granted()
    token_of(world, granted.grant)
    named = {"stream_id": stream["stream_id"]}
    assert receiver.ask("GET", "status_endpoint", **named).json() == named | {"status": "enabled"}
    said = named | {"status": "paused", "reason": "we are moving"}
    assert receiver.ask("POST", "status_endpoint", said).json() == said
    ended(world, granted.grant_id)
    assert receiver.poll(stream) == ({}, False)
    receiver.ask("POST", "status_endpoint", named | {"status": "enabled"})
    assert len(receiver.poll(stream)[0]) == 1


def test_8_1_2_what_happens_while_a_stream_is_disabled_is_not_held(world: World) -> None:
    receiver = market(world)
    stream, granted = receiver.stream(), world.granted()
    token_of(world, granted.grant)
    named = {"stream_id": stream["stream_id"]}
    receiver.ask("POST", "status_endpoint", named | {"status": "disabled"})
    ended(world, granted.grant_id)
    receiver.ask("POST", "status_endpoint", named | {"status": "enabled"})
    assert receiver.poll(stream) == ({}, False)
    assert receiver.ask("POST", "status_endpoint", named | {"status": "asleep"}).status_code == 400
    assert receiver.ask("GET", "status_endpoint", stream_id="unknown").status_code == 404
    assert receiver.ask("POST", "status_endpoint", {"stream_id": "u", "status": "paused"}).status_code == 404


# --- SSF §8.1.4: verification ---------------------------------------------------------------------------------------


def test_8_1_4_a_verification_event_brings_back_the_state(shared: World, receiver: Transmitter) -> None:
    stream, state = receiver.stream(events_requested=[SESSION_REVOKED]), secrets.token_urlsafe()
    said = {"stream_id": stream["stream_id"], "state": state}
    answer = receiver.ask("POST", "verification_endpoint", said)
    assert (answer.status_code, answer.content) == (204, b"")
    [claims] = receiver.poll(stream)[0].values()
    assert event_of(claims) == (f"{SSF}verification", {"state": state})
    assert claims["sub_id"] == {"format": "opaque", "id": stream["stream_id"]}
    # §8.1.1: not more often than min_verification_interval says.
    assert receiver.ask("POST", "verification_endpoint", said).status_code == 429
    shared.clock.advance(seconds=stream["min_verification_interval"])
    assert (
        receiver.ask("POST", "verification_endpoint", {"stream_id": stream["stream_id"]}).status_code == 204
    )
    events = [event_of(claims) for claims in receiver.poll(stream)[0].values()]
    assert events[-1] == (f"{SSF}verification", {})


def test_8_1_4_of_verifications_that_nobody_reads_only_the_last_is_held(world: World) -> None:
    receiver = market(world)
    stream = receiver.stream()
    several(world, 1)
    receiver.poll(stream)  # what happened is worked out, and stays
    for state in ("first", "second", "third"):
        said = {"stream_id": stream["stream_id"], "state": state}
        assert receiver.ask("POST", "verification_endpoint", said).status_code == 204
        world.clock.advance(seconds=stream["min_verification_interval"])
    assert pending(world) == 3
    told = [event_of(claims) for claims in receiver.poll(stream)[0].values()]
    assert {type for type, _ in told[:2]} == {DELEGATION_REVOKED, SESSION_REVOKED}
    assert told[2] == (f"{SSF}verification", {"state": "third"})


def test_8_1_4_of_several_who_ask_at_once_one_gets_a_verification(world: World) -> None:
    receiver = market(world)
    stream = receiver.stream()
    said = {"stream_id": stream["stream_id"]}
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(receiver.ask, "POST", "verification_endpoint", said) for _ in range(8)]
    assert sorted(one.result().status_code for one in asked) == [204] + [429] * 7
    assert pending(world) == 1


# --- SSF §8.1.1: a receiver that does not take what it is told ------------------------------------------------------


def unread(world: World) -> tuple[Transmitter, dict[str, Any]]:
    """A stream whose receiver never reads it, and says each week that it lives."""
    receiver = market(world)
    return receiver, receiver.stream(events_requested=[SESSION_REVOKED])


@pytest.mark.parametrize("how", ["paused", "enabled", "never acknowledged"])
def test_8_1_2_nothing_is_held_for_ever_for_a_receiver_that_only_says_that_it_lives(
    world: World, how: str
) -> None:
    receiver, stream = unread(world)
    named = {"stream_id": stream["stream_id"]}
    if how == "paused":
        receiver.ask("POST", "status_endpoint", named | {"status": "paused"})
    several(world, 2)
    for week in range(5):
        assert receiver.ask("GET", "status_endpoint", **named).json()["status"] != "disabled", week
        if how == "never acknowledged":
            assert len(receiver.poll(stream)[0]) >= 2
        receiver.ask("POST", "verification_endpoint", named)
        upkeep.tidy(world.services, world.clock.now())
        assert happenings_of(world) + pending(world) >= 2
        world.clock.advance(days=7)
    assert upkeep.tidy(world.services, world.clock.now()).abandoned_streams == 1
    status = receiver.ask("GET", "status_endpoint", **named).json()
    assert status["status"] == "disabled"
    assert "30 days" in status["reason"]
    assert (pending(world), happenings_of(world)) == (0, 0)
    [event] = [event for event in world.events() if event["event"] == "event_stream.disabled"]
    assert event["data"]["stream"] == stream["stream_id"]
    # It can begin anew, and is told of what happens from then on.
    receiver.ask("POST", "status_endpoint", named | {"status": "enabled"})
    several(world, 1)
    assert len(receiver.poll(stream)[0]) == 1
    assert upkeep.tidy(world.services, world.clock.now()).abandoned_streams == 0


def test_8_1_1_a_receiver_that_takes_what_it_is_told_is_never_given_up(world: World) -> None:
    receiver, stream = unread(world)
    for _ in range(6):
        several(world, 1)
        told, _more = receiver.poll(stream)
        receiver.poll(stream, ack=list(told), maxEvents=0)
        world.clock.advance(days=7)
        assert upkeep.tidy(world.services, world.clock.now()).abandoned_streams == 0


def happenings_of(world: World) -> int:
    """How much of what happened is still kept for streams."""
    query = select(func.count()).select_from(table_of(SecurityEvent))
    return world.services.database.read(lambda connection: connection.scalar(query) or 0)


# --- who is calling -------------------------------------------------------------------------------------------------


def test_8_1_only_the_receiver_itself_manages_its_streams(shared: World, receiver: Transmitter) -> None:
    stream, other = receiver.stream(), shop(shared)
    named = {"stream_id": stream["stream_id"]}
    for auth, status in ((other.auth, 404), (None, 401), ((shared.market_id, "wrong"), 401)):
        other.auth = auth
        asked = [
            other.ask("GET", "configuration_endpoint", **named),
            other.ask("PATCH", "configuration_endpoint", named),
            other.ask("PUT", "configuration_endpoint", named),
            other.ask("DELETE", "configuration_endpoint", **named),
            other.ask("GET", "status_endpoint", **named),
            other.ask("POST", "status_endpoint", named | {"status": "disabled"}),
            other.ask("POST", "verification_endpoint", named),
            other.ask("POST", stream["delivery"]["endpoint_url"], {}),
        ]
        assert {answer.status_code for answer in asked} == {status}
        assert all("www-authenticate" in answer.headers for answer in asked if status == 401)
    assert receiver.ask("GET", "configuration_endpoint").json() == [stream]


def test_an_agent_hears_no_events(shared: World) -> None:
    bearer = {"Authorization": f"Bearer {shared.assertion()}"}
    answer = shared.client.post("/oauth/ssf/streams", json={}, headers=bearer)
    shared.refuses(answer, "forbidden", status=403)


def test_a_receiver_with_keys_of_its_own_sends_its_assertion_as_bearer(shared: World) -> None:
    key, now = ECKey.generate_key("P-256"), shared.clock.now()
    jwks = json.dumps({"keys": [{**key.as_dict(private=False), "kid": "k", "use": "sig"}]})
    server = make_resource_server(
        "bank", "https://bank.example", now, auth_method="private_key_jwt", jwks=jwks
    )
    shared.services.database.write(lambda connection: resource_servers.create(connection, server))

    def assertion(**changes: object) -> dict[str, str]:
        claims = {"iss": "rs_bank", "sub": "rs_bank", "aud": shared.issuer, "jti": secrets.token_urlsafe()}
        claims |= {"iat": int(now.timestamp()), "exp": int(now.timestamp()) + 60}  # type: ignore[dict-item]
        text = jose.sign(claims | changes, key=jose.SigningKey("k", key), typ="JWT")
        return {"Authorization": f"Bearer {text}"}

    once = assertion()
    assert shared.client.get("/oauth/ssf/streams", headers=once).json() == []
    assert shared.client.get("/oauth/ssf/streams", headers=once).status_code == 401  # its jti is used up
    other = assertion(aud="https://other.example")
    assert shared.client.get("/oauth/ssf/streams", headers=other).status_code == 401


# --- RFC 8936: poll -------------------------------------------------------------------------------------------------


def several(world: World, number: int) -> None:
    """So many delegations that were used at the market, and ended."""
    for _ in range(number):
        granted = world.granted()
        token_of(world, granted.grant, "1.00")
        ended(world, granted.grant_id)


def test_rfc8936_2_4_what_is_not_acknowledged_comes_again_and_what_is_does_not(world: World) -> None:
    receiver = market(world)
    stream = receiver.stream(events_requested=[SESSION_REVOKED])
    several(world, 3)
    first, more = receiver.poll(stream, maxEvents=2)
    assert (len(first), more) == (2, True)
    assert receiver.poll(stream, maxEvents=2)[0].keys() == first.keys()
    # §2.4: acknowledge, and get the rest, in one request.
    rest, more = receiver.poll(stream, ack=list(first), maxEvents=2)
    assert (len(rest), more) == (1, False)
    assert not rest.keys() & first.keys()
    # §2.2: maxEvents 0 only acknowledges; what is acknowledged twice, or was never there, is no error.
    assert receiver.poll(stream, ack=[*rest, *first, "unknown"], maxEvents=0) == ({}, False)
    assert receiver.poll(stream) == ({}, False)


def test_rfc8936_2_4_what_is_no_good_to_the_receiver_is_not_sent_again(world: World) -> None:
    receiver = market(world)
    stream = receiver.stream(events_requested=[SESSION_REVOKED])
    several(world, 1)
    [jti] = receiver.poll(stream)[0]
    errors = {jti: {"err": "invalid_request", "description": "no"}}
    assert receiver.poll(stream, setErrs=errors) == ({}, False)


@pytest.mark.parametrize(
    "body",
    [
        {"maxEvents": -1},
        {"maxEvents": "1"},
        {"returnImmediately": 1},
        {"ack": "jti"},
        {"ack": [1]},
        {"setErrs": []},
        {"setErrs": {"jti": "err"}},
        {"ack": ["jti"] * 1_001},
        {"ack": ["j" * 1_025]},
        {"setErrs": {"j" * 1_025: {"err": "invalid_request"}}},
        [],
    ],
)
def test_rfc8936_a_poll_that_is_not_well_formed_is_refused(receiver: Transmitter, body: object) -> None:
    stream = receiver.stream()
    assert receiver.ask("POST", stream["delivery"]["endpoint_url"], body).status_code == 400


def test_rfc8936_2_2_who_waits_is_answered_as_soon_as_there_is_something(
    sqlite_url: str, tmp_path: Path
) -> None:
    with running_world(sqlite_url, tmp_path / "world", events=NEAR) as world:
        receiver = market(world)
        stream, granted = receiver.stream(events_requested=[SESSION_REVOKED]), world.granted()
        token_of(world, granted.grant)
        later = threading.Timer(0.3, ended, (world, granted.grant_id))
        later.start()
        begun = time.monotonic()
        answer = receiver.ask("POST", stream["delivery"]["endpoint_url"], {})
        took = time.monotonic() - begun
        later.join()
        assert len(answer.json()["sets"]) == 1
        assert 0.25 < took < 1.3


# --- RFC 8935: push -------------------------------------------------------------------------------------------------


@pytest.fixture
def pushed(world: World) -> Iterator[PushEndpoint]:
    """The market, to which everything is pushed."""
    with pushed_to(market(world)) as endpoint:
        endpoint.authorization = "Bearer market-knows-this"
        delivery = {
            "method": PUSH,
            "endpoint_url": endpoint.url,
            "authorization_header": endpoint.authorization,
        }
        made = endpoint.transmitter.stream(delivery=delivery, events_requested=[SESSION_REVOKED])
        assert "authorization_header" not in made["delivery"]
        yield endpoint


def test_rfc8935_2_1_each_event_is_pushed_with_the_header_that_was_given(
    world: World, pushed: PushEndpoint
) -> None:
    several(world, 3)
    while transmit.push(world.services, world.clock.now()):
        pass
    assert len({claims["jti"] for claims in pushed.got}) == len(pushed.got) == pushed.attempts == 3
    assert transmit.push(world.services, world.clock.now()) == 0


def test_rfc8935_2_4_what_the_receiver_refuses_is_not_sent_again(world: World, pushed: PushEndpoint) -> None:
    pushed.refuses = "invalid_request"
    several(world, 1)
    while transmit.push(world.services, world.clock.now()):
        pass
    world.clock.advance(hours=1)
    assert transmit.push(world.services, world.clock.now()) == 0
    assert pushed.attempts == 1


@pytest.mark.parametrize("trouble", ["invalid_key", "authentication_failed", "access_denied"])
def test_rfc8935_2_4_what_the_receiver_can_mend_is_sent_until_it_has(
    world: World, pushed: PushEndpoint, trouble: str
) -> None:
    pushed.refuses = trouble
    several(world, 1)
    transmit.push(world.services, world.clock.now())
    assert transmit.push(world.services, world.clock.now()) == 0  # not at once
    pushed.refuses = None
    world.clock.advance(seconds=2)
    while transmit.push(world.services, world.clock.now()):
        pass
    assert len(pushed.got) == 1


def test_F12_a_receiver_that_is_down_for_a_day_misses_nothing_and_costs_little(
    world: World, pushed: PushEndpoint
) -> None:
    pushed.is_up = False
    for _ in range(6):
        several(world, 2)
        world.clock.advance(hours=4)
        while transmit.push(world.services, world.clock.now()):
            pass
    # Bounded: a few attempts, and one event worked out; the rest stays one row for each revocation.
    assert pushed.attempts <= 12
    assert pending(world) <= 2
    pushed.is_up = True
    world.clock.advance(minutes=15)
    while transmit.push(world.services, world.clock.now()):
        pass
    assert len({claims["jti"] for claims in pushed.got}) == 12
    at = [event_of(claims)[1]["event_timestamp"] for claims in pushed.got]
    assert at == sorted(at)
    assert pending(world) == 0
    figures = world.client.get("/metrics").text
    assert 'authserver_events_sent_total{method="push",outcome="not_delivered"}' in figures


def test_8_1_5_a_receiver_whose_stream_ends_is_told_so_and_what_was_held_is_dropped(
    world: World, pushed: PushEndpoint
) -> None:
    [stream] = pushed.transmitter.ask("GET", "configuration_endpoint").json()
    said = {"stream_id": stream["stream_id"], "status": "paused"}
    pushed.transmitter.ask("POST", "status_endpoint", said)
    several(world, 1)
    world.clock.advance(days=31)
    assert upkeep.tidy(world.services, world.clock.now()).abandoned_streams == 1
    [claims] = pushed.got
    assert event_of(claims) == (f"{SSF}stream-updated", {"status": "disabled"})
    assert claims["sub_id"] == {"format": "opaque", "id": stream["stream_id"]}
    assert upkeep.tidy(world.services, world.clock.now()).abandoned_streams == 0
    assert transmit.push(world.services, world.clock.now()) == 0


def pending(world: World) -> int:
    """How many events are worked out and wait."""
    query = select(func.count()).select_from(table_of(PendingEvent))
    return world.services.database.read(lambda connection: connection.scalar(query) or 0)


# --- CAEP, and what each receiver may know --------------------------------------------------------------------------


def caused(claims: dict[str, Any]) -> dict[str, Any]:
    """The optional claims of CAEP §2, without which nobody can tell what happened."""
    event = event_of(claims)[1]
    assert isinstance(event["event_timestamp"], int)
    assert event["initiating_entity"] in ("admin", "user", "policy", "system")
    assert all(event["reason_admin"].values())
    return event


def test_caep_3_1_a_revoked_delegation_is_told_to_where_it_was_used_and_by_its_names_there(
    world: World,
) -> None:
    at_market, at_shop = market(world), shop(world)
    to_market, to_shop = at_market.stream(), at_shop.stream()
    granted, unused = world.granted(), world.granted()
    token = jose.read_compact(token_of(world, granted.grant)).claims
    for grant_id in (granted.grant_id, unused.grant_id):
        ended(world, grant_id)
    told = list(at_market.poll(to_market)[0].values())
    assert [event_of(claims)[0] for claims in told] == [DELEGATION_REVOKED, SESSION_REVOKED]
    delegation, session = told
    assert delegation["sub_id"] == {"format": "opaque", "id": token["grant_id"]}
    assert caused(delegation)["grant_id"] == token["grant_id"]
    assert session["sub_id"] == {
        "format": "complex",
        "session": {"format": "opaque", "id": token["grant_id"]},
        "user": {"format": "iss_sub", "iss": world.issuer, "sub": token["sub"]},
    }
    assert caused(session)["initiating_entity"] == "user"
    assert delegation["txn"] == session["txn"]
    # What is nobody else's business: the server's own names, the operator's words, and whoever never used it.
    assert at_shop.poll(to_shop) == ({}, False)
    for name in (granted.grant_id, "phone", "ada", unused.grant_id):
        assert name not in json.dumps(told)


def test_two_receivers_cannot_compare_what_they_are_told(world: World) -> None:
    at_market, at_shop = market(world), shop(world)
    streams = at_market.stream(), at_shop.stream()
    granted = world.granted()
    token_of(world, granted.grant)
    assert world.exchange(granted.grant, action=world.action(locations=[SHOP])).status_code == 200
    ended(world, granted.grant_id)
    both = [
        receiver.poll(stream)[0].values()
        for receiver, stream in zip((at_market, at_shop), streams, strict=True)
    ]
    texts = [
        {word for claims in told for word in words(claims) if word not in (world.issuer, "opaque")}
        for told in both
    ]
    common = {word for word in texts[0] & texts[1] if len(word) >= 16}
    assert all(word.startswith(("https://schemas", "what was delegated")) for word in common), common


def words(value: object) -> set[str]:
    """Every text in a JSON value that is no member's name."""
    if isinstance(value, dict):
        return set().union(*map(words, value.values())) if value else set()
    return {value} if isinstance(value, str) else set()


LEVELS: dict[str, tuple[str, str]] = {
    "agent": ("agent", "basket-helper"),
    "user": ("user", ""),
    "trust domain": ("trust_domain", "example.org"),
}


@pytest.mark.parametrize("level", LEVELS)
def test_a_revocation_at_any_level_is_told_for_each_delegation_that_it_ends(world: World, level: str) -> None:
    receiver = market(world)
    stream = receiver.stream(events_requested=[DELEGATION_REVOKED])
    grants = {
        jose.read_compact(token_of(world, world.granted().grant, "1.00")).claims["grant_id"] for _ in range(3)
    }
    kind, name = LEVELS[level]
    if kind == "user":
        found = world.services.database.read(lambda connection: users.find(connection, "ada"))
        assert found is not None
        name = found.user_id
    target = Target(kind, name)  # type: ignore[arg-type]
    revoke(world.services, target, reason="it leaked", by="operator:root", now=world.clock.now())
    later = world.granted()
    token_of(world, later.grant, "1.00")
    told = receiver.poll(stream)[0].values()
    assert {claims["sub_id"]["id"] for claims in told} == grants
    assert {caused(claims)["initiating_entity"] for claims in told} == {"admin"}
    assert len({claims["txn"] for claims in told}) == 1


def test_when_everything_is_revoked_each_receiver_hears_one_thing(world: World) -> None:
    receiver = market(world)
    stream = receiver.stream(events_requested=[SESSION_REVOKED])
    revoke(world.services, Target("all", ""), reason="fire", by="operator:root", now=world.clock.now())
    [claims] = receiver.poll(stream)[0].values()
    assert claims["sub_id"] == {"format": "complex", "tenant": {"format": "opaque", "id": world.issuer}}


def test_caep_3_1_a_token_that_its_agent_ends_is_told_to_its_audience(world: World) -> None:
    at_market, at_shop = market(world), shop(world)
    streams = at_market.stream(), at_shop.stream()
    token = token_of(world, world.granted().grant)
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
    form = {"token": token, "client_assertion_type": kind, "client_assertion": world.assertion()}
    assert world.post("/oauth/revoke", form).status_code == 200
    [claims] = at_market.poll(streams[0])[0].values()
    jti = jose.read_compact(token).claims["jti"]
    assert claims["sub_id"] == {"format": "jwt_id", "iss": world.issuer, "jti": jti}
    assert (event_of(claims)[0], caused(claims)["initiating_entity"]) == (SESSION_REVOKED, "system")
    assert at_shop.poll(streams[1]) == ({}, False)


def test_caep_3_1_a_task_that_is_over_ends_its_tokens(world: World) -> None:
    receiver, granted = market(world), world.granted()
    stream = receiver.stream(events_requested=[SESSION_REVOKED])
    answers = [world.exchange(granted.grant, task_id=task) for task in ("mine", "mine", "other")]
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
    form = {"client_assertion_type": kind, "client_assertion": world.assertion()}
    assert world.post("/oauth/tasks/mine/complete", form).json()["tokens"] == 2
    told = receiver.poll(stream)[0].values()
    expected = {answer.json()["action_id"] for answer in answers[:2]}
    assert {claims["sub_id"]["jti"] for claims in told} == expected


def test_caep_3_2_a_pause_and_a_lower_limit_change_what_tokens_say(world: World) -> None:
    receiver, granted = market(world), world.granted()
    stream = receiver.stream(events_requested=[CLAIMS_CHANGE])
    token = jose.read_compact(token_of(world, granted.grant)).claims
    ada = world.services.database.read(lambda connection: users.find(connection, "ada"))
    assert ada is not None
    manage_delegation.pause(world.services, ada, granted.grant_id, world.clock.now())
    manage_delegation.resume(world.services, ada, granted.grant_id, world.clock.now())

    def less(details: DelegationDetails) -> DelegationDetails:
        assert details.limits is not None
        return replace(details, limits=replace(details.limits, per_action=Money("EUR", 1_000)))

    manage_delegation.lower(world.services, ada, granted.grant_id, less, world.clock.now())
    told = list(receiver.poll(stream)[0].values())
    assert [caused(claims)["claims"] for claims in told] == [
        {"active": active} for active in (False, True, False)
    ]
    assert [claims["sub_id"]["format"] for claims in told] == ["complex", "complex", "jwt_id"]
    assert told[2]["sub_id"]["jti"] == token["jti"]


def test_a_disabled_resource_server_hears_nothing_more(world: World, pushed: PushEndpoint) -> None:
    granted = world.granted()
    token_of(world, granted.grant)
    world.services.database.write(
        lambda connection: resource_servers.disable(connection, world.market_id, world.clock.now())
    )
    ended(world, granted.grant_id)
    assert transmit.push(world.services, world.clock.now()) == 0
    assert pushed.attempts == 0
