"""OAuth 2.0 Device Authorization Grant (RFC 8628)."""

import re
from urllib.parse import quote

from tests.asking import allow_device, ask_by_device, form_of, poll, send
from tests.pages.browser import signed_in
from tests.world import PRICE_SCOUT, World


def test_3_2_the_answer_has_all_that_a_device_needs(shared_world: World) -> None:
    """§3.2."""
    answer = ask_by_device(shared_world)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    body = answer.json()
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", body["device_code"])
    assert re.fullmatch(r"[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}", body["user_code"])  # §6.1
    assert body["verification_uri"] == f"{shared_world.issuer}/device"
    assert body["verification_uri_complete"] == (
        f"{shared_world.issuer}/device?user_code={quote(body['user_code'])}"
    )
    assert (body["expires_in"], body["interval"]) == (600, 5)


def test_3_1_the_client_authenticates(shared_world: World) -> None:
    """§3.1: "The client authentication requirements of Section 3.2.1 of [RFC6749] apply"."""
    answer = ask_by_device(shared_world, client_assertion=None, client_assertion_type=None)
    shared_world.refuses(answer, "invalid_client", status=401)
    refused = ask_by_device(shared_world, authorization_details=None)
    shared_world.refuses(refused, "invalid_request")


def test_3_5_a_device_waits_and_then_has_its_grant(world: World) -> None:
    """§3.4, §3.5: pending, then the answer of the token endpoint; nothing is recorded while it waits."""
    asked = ask_by_device(world).json()
    with signed_in(world) as visit:
        before = len(world.events())
        world.refuses(poll(world, asked["device_code"]), "authorization_pending")
        assert len(world.events()) == before
        assert allow_device(visit, asked["user_code"]).status_code == 303
    world.clock.advance(seconds=5)
    answer = poll(world, asked["device_code"])
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["token_type"] == "Bearer"
    assert world.exchange(body["access_token"]).status_code == 200


def test_3_5_who_asks_too_fast_waits_longer(sqlite_world: World) -> None:
    """§3.5: `slow_down`, and 5 seconds more from then on."""
    asked = ask_by_device(sqlite_world).json()
    sqlite_world.refuses(poll(sqlite_world, asked["device_code"]), "authorization_pending")
    sqlite_world.clock.advance(seconds=4)
    sqlite_world.refuses(poll(sqlite_world, asked["device_code"]), "slow_down")
    sqlite_world.clock.advance(seconds=9)
    sqlite_world.refuses(poll(sqlite_world, asked["device_code"]), "slow_down")
    sqlite_world.clock.advance(seconds=15)
    sqlite_world.refuses(poll(sqlite_world, asked["device_code"]), "authorization_pending")


def test_3_5_a_person_who_says_no_is_access_denied(sqlite_world: World) -> None:
    """§3.5."""
    asked = ask_by_device(sqlite_world).json()
    with signed_in(sqlite_world) as visit:
        led = allow_device(visit, asked["user_code"], decision=["deny"])
        assert "You said no" in visit.get(led.headers["location"]).text
    with sqlite_world.nothing_happens("device_code.denied", "device_code.refused"):
        sqlite_world.refuses(poll(sqlite_world, asked["device_code"]), "access_denied")


def test_3_5_a_code_that_is_over_is_expired_token(sqlite_world: World) -> None:
    """§3.5; and its user code leads nowhere."""
    asked = ask_by_device(sqlite_world).json()
    sqlite_world.clock.advance(seconds=600)
    with sqlite_world.nothing_happens("device_code.expired", "device_code.refused"):
        sqlite_world.refuses(poll(sqlite_world, asked["device_code"]), "expired_token")
    with signed_in(sqlite_world) as visit:
        assert "has expired" in visit.post("/device", user_code=asked["user_code"]).text


def test_3_5_an_unknown_code_or_anothers_is_invalid_grant(shared_world: World) -> None:
    """RFC 6749 §5.2."""
    device_code = ask_by_device(shared_world).json()["device_code"]
    other = {"client_id": "price-scout", "client_assertion": shared_world.assertion(PRICE_SCOUT)}
    for answer in (lambda: poll(shared_world, "x" * 43), lambda: poll(shared_world, device_code, **other)):
        with shared_world.nothing_happens("device_code.unknown", "device_code.refused"):
            shared_world.refuses(answer(), "invalid_grant")


def test_6_1_a_code_is_read_as_people_type_it(sqlite_world: World) -> None:
    """§6.1: letter case and punctuation do not matter."""
    with signed_in(sqlite_world) as visit:
        for typed in ("{0}", " {0} ", "{0}-", "{1}"):
            code = ask_by_device(sqlite_world).json()["user_code"]
            written = typed.format(code, code.lower().replace("-", ""))
            assert visit.post("/device", user_code=written).status_code == 303


def test_3_3_1_the_complete_uri_fills_the_code_in_and_waits_for_the_person(
    shared_world: World,
) -> None:
    """§3.3.1: the person still confirms the code; to look changes nothing."""
    asked = ask_by_device(shared_world).json()
    with signed_in(shared_world) as visit:
        before = len(shared_world.events())
        page = visit.get(asked["verification_uri_complete"])
        assert f'value="{asked["user_code"]}"' in page.text
        assert len(shared_world.events()) == before


def test_5_4_the_page_shows_what_asks_and_from_where(sqlite_world: World) -> None:
    """§5.4: against remote phishing: the device's address, what it says it is, its code and the time."""
    asked = ask_by_device(sqlite_world, {"User-Agent": "Kettle/2.1 <b>"})
    with signed_in(sqlite_world) as visit:
        led = visit.post("/device", user_code=asked.json()["user_code"])
        text = visit.get(led.headers["location"]).text
    assert "Kettle/2.1 &lt;b&gt;" in text
    assert "127.0.0.1" in text
    assert asked.json()["user_code"] in text
    assert "Go on only if you started this yourself" in text


def test_a_code_that_is_not_of_this_request_is_not_shown(sqlite_world: World) -> None:
    """What stands in the address is not believed."""
    asked = ask_by_device(sqlite_world).json()
    with signed_in(sqlite_world) as visit:
        path = visit.post("/device", user_code=asked["user_code"]).headers["location"].split("?")[0]
        assert "The code it shows" not in visit.get(f"{path}?user_code=BBBB-BBBB").text
        assert "The code it shows" in visit.get(f"{path}?user_code={asked['user_code']}").text


def test_a_second_press_is_the_same_answer(sqlite_world: World) -> None:
    """One request, one grant."""
    asked = ask_by_device(sqlite_world).json()
    with signed_in(sqlite_world) as visit:
        path = visit.post("/device", user_code=asked["user_code"]).headers["location"].split("?")[0]
        form = form_of(visit.get(path))
        assert [send(visit, path, form).status_code for _ in range(2)] == [303, 303]
    assert [e["event"] for e in sqlite_world.events()].count("delegation.created") == 1


def test_4_the_metadata_names_the_endpoint(shared_world: World) -> None:
    """§4."""
    metadata = shared_world.client.get("/.well-known/oauth-authorization-server").json()
    assert metadata["device_authorization_endpoint"] == f"{shared_world.issuer}/oauth/device_authorization"
    assert "urn:ietf:params:oauth:grant-type:device_code" in metadata["grant_types_supported"]
