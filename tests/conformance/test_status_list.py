"""Token Status List (draft-ietf-oauth-status-list): one bit for each action token."""

import time
import zlib
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from authserver import upkeep
from authserver.app import build
from authserver.schema import Action, StatusListBlock, table_of
from authserver.services import open_services
from authserver.tokens.status_lists import CAPACITY, encode
from tests.conformance.tokens import JWT_SPIFFE, claims_of, decoded, header_of, token_of, verified
from tests.world import World

MEDIA_TYPE = "application/statuslist+jwt"


def place_of(token: str) -> dict[str, Any]:
    """The list that a token names, and its place there."""
    place: dict[str, Any] = claims_of(token)["status"]["status_list"]
    return place


def fetch(world: World, token: str) -> httpx.Response:
    """The list that the token names, as anyone gets it."""
    return world.client.get(place_of(token)["uri"], headers={"Accept": MEDIA_TYPE})


def bits(claims: dict[str, Any]) -> bytes:
    """The decoded list."""
    return zlib.decompress(decoded(claims["status_list"]["lst"]))


def is_set(world: World, token: str) -> bool:
    """The token's own bit: counted from the least significant one of each byte."""
    index = place_of(token)["idx"]
    return bool(bits(claims_of(fetch(world, token).text))[index // 8] >> index % 8 & 1)


def revoke(world: World, token: str) -> None:
    """Have the agent give the token back."""
    form = {"client_assertion_type": JWT_SPIFFE, "client_assertion": world.assertion()}
    assert world.post("/oauth/revoke", {"token": token} | form).status_code == 200


# --- §4: the list -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ended", "beginning"),
    [
        ([0, 3, 4, 5, 7, 8, 9, 13, 15], "b9a3"),  # the draft's own example, of §4.1
        ([], "0000"),
        ([0], "0100"),
        ([7, 8], "8001"),
        (range(16), "ffff"),
    ],
)
def test_the_bits_are_in_the_drafts_order(ended: list[int], beginning: str) -> None:
    """§4.1: from the least significant bit of each byte to the most significant one."""
    found = bits({"status_list": {"lst": encode(ended)}})
    assert found[:2].hex() == beginning
    assert not any(found[2:])
    assert len(found) * 8 == CAPACITY


def test_the_last_place_of_a_list_is_in_it() -> None:
    """§4.1 and §8.3: no index is out of bounds."""
    assert bits({"status_list": {"lst": encode([CAPACITY - 1])}})[-1] == 0x80


def test_the_list_is_compressed_base64url_without_padding() -> None:
    """§4.1 (zlib) and §4.2."""
    lst = encode(range(0, CAPACITY, 3))
    assert set(lst) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert len(encode([])) < 100


# --- §5: the token that it comes in ---------------------------------------------------------------------------


def test_a_list_is_a_signed_jwt_of_its_own_type(shared_world: World) -> None:
    """§5.1: `typ` is statuslist+jwt; the signature is good with a published key."""
    answer = fetch(shared_world, token_of(shared_world))
    assert header_of(answer.text)["typ"] == "statuslist+jwt"
    assert verified(shared_world, answer.text)["status_list"]["bits"] == 1


def test_the_subject_is_the_uri_that_the_token_names(shared_world: World) -> None:
    """§5.1 and §8.3: letter by letter."""
    token = token_of(shared_world)
    claims = verified(shared_world, fetch(shared_world, token).text)
    assert claims["sub"] == place_of(token)["uri"]
    assert claims["iss"] == shared_world.issuer


def test_a_list_says_from_when_it_is_and_how_long_it_may_be_kept(sqlite_world: World) -> None:
    """§5.1: `iat`, `exp`, `ttl`; contract §7: at most 15 seconds."""
    token = token_of(sqlite_world)
    sqlite_world.clock.advance(seconds=10)
    claims = verified(sqlite_world, fetch(sqlite_world, token).text)
    now = int(sqlite_world.clock.now().timestamp())
    assert claims["iat"] == now
    assert type(claims["ttl"]) is int
    assert 0 < claims["ttl"] <= 15
    assert now + claims["ttl"] <= claims["exp"]


def test_a_list_says_nothing_more(shared_world: World) -> None:
    """§5.1 and §12.4: nothing of what the tokens are or whose."""
    claims = verified(shared_world, fetch(shared_world, token_of(shared_world)).text)
    assert set(claims) == {"iss", "sub", "iat", "exp", "ttl", "status_list"}
    assert set(claims["status_list"]) == {"bits", "lst"}


# --- §6, §7: the tokens that refer to it ------------------------------------------------------------------------


def test_every_token_names_its_place(shared_world: World) -> None:
    """§6.2: `status_list` with a `uri` and an `idx` within the list (§8.3)."""
    token = token_of(shared_world)
    place = place_of(token)
    assert set(place) == {"uri", "idx"}
    assert place["uri"].startswith(f"{shared_world.issuer}/oauth/status/")
    assert type(place["idx"]) is int
    assert 0 <= place["idx"] < len(bits(claims_of(fetch(shared_world, token).text))) * 8


def test_no_two_tokens_share_a_place(shared_world: World, shared_grant: str) -> None:
    """§13.2 and §13.3: none is allocated twice, refused requests included; the order tells nothing (§12.5)."""
    places = []
    for number in range(24):
        if number % 3 == 0:
            assert shared_world.exchange(shared_grant, resource="https://nobody.example").status_code == 400
        places.append(place_of(token_of(shared_world, shared_grant)))
    indices = [place["idx"] for place in places]
    assert len({(place["uri"], place["idx"]) for place in places}) == len(places)
    assert indices not in (sorted(indices), sorted(indices, reverse=True))


def test_the_bit_is_set_when_a_token_is_revoked_and_not_before(world: World) -> None:
    """§7.1: 0x00 is valid, 0x01 is invalid."""
    grant = world.granted().grant
    one, other = token_of(world, grant), token_of(world, grant)
    assert (is_set(world, one), is_set(world, other)) == (False, False)
    revoke(world, one)
    time.sleep(0.25)  # a list may be that old
    assert (is_set(world, one), is_set(world, other)) == (True, False)


def test_only_revoked_tokens_have_their_bit_set(sqlite_world: World) -> None:
    """§7.1: all other places say valid, whether a token is there or not (§13.3)."""
    grant = sqlite_world.granted().grant
    tokens = [token_of(sqlite_world, grant) for _ in range(5)]
    for token in tokens[:3]:
        revoke(sqlite_world, token)
    found = bits(claims_of(fetch(sqlite_world, tokens[0]).text))
    assert sum(byte.bit_count() for byte in found) == 3


def test_the_bit_of_everything_below_a_revoked_grant_is_set(sqlite_world: World) -> None:
    """§7.1, contract §7: whatever way a token ended."""
    grant = sqlite_world.granted().grant
    tokens = [token_of(sqlite_world, grant) for _ in range(3)]
    revoke(sqlite_world, grant)
    assert [is_set(sqlite_world, token) for token in tokens] == [True] * 3


# --- §8: over HTTP ------------------------------------------------------------------------------------------


def test_anyone_gets_the_list_by_its_uri(shared_world: World) -> None:
    """§8.1 and §8.2: GET, 2xx, and its own media type; no longer kept by caches than `ttl`."""
    answer = fetch(shared_world, token_of(shared_world))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == MEDIA_TYPE
    max_age = int(answer.headers["cache-control"].rpartition("max-age=")[2])
    assert max_age <= claims_of(answer.text)["ttl"]


@pytest.mark.parametrize("accept", [MEDIA_TYPE, "*/*", "application/*"])
def test_whatever_is_accepted_the_list_is_a_jwt(shared_world: World, shared_grant: str, accept: str) -> None:
    """§8.1: this form is the only one that there is."""
    where = place_of(token_of(shared_world, shared_grant))["uri"]
    answer = shared_world.client.get(where, headers={"Accept": accept})
    assert answer.headers["content-type"] == MEDIA_TYPE


@pytest.mark.parametrize("list_id", ["0", "4711", "-1", "x", "9" * 18, "9" * 19, "9" * 40, ""])
def test_a_list_that_does_not_exist_is_not_found(shared_world: World, list_id: str) -> None:
    """§8.2: no 2xx without a list."""
    answer = shared_world.client.get(f"/oauth/status/{list_id}")
    assert answer.status_code == 404
    assert answer.json()["error"] == "not_found"


# --- §8.1, RFC 9110 §13: who has it already ---------------------------------------------------------------------------


def again(world: World, token: str, etag: str) -> httpx.Response:
    """The list, for somebody who has one with that tag."""
    return world.client.get(place_of(token)["uri"], headers={"If-None-Match": etag})


def test_who_has_the_list_is_told_that_it_still_counts(sqlite_world: World) -> None:
    """RFC 9110 §13.1.2 and §15.4.5: 304 without a body, with what says how long it may be kept."""
    token = token_of(sqlite_world)
    first = fetch(sqlite_world, token)
    same = again(sqlite_world, token, first.headers["etag"])
    assert (same.status_code, same.content) == (304, b"")
    assert same.headers["etag"] == first.headers["etag"]
    assert same.headers["cache-control"] == first.headers["cache-control"]
    assert again(sqlite_world, token, 'W/"another"').status_code == 200


def test_a_bit_that_changes_changes_the_tag_at_once(world: World) -> None:
    grant = world.granted().grant
    token = token_of(world, grant)
    etag = fetch(world, token).headers["etag"]
    revoke(world, token)
    time.sleep(0.25)  # a list may be that old
    changed = again(world, token, etag)
    assert changed.status_code == 200
    assert changed.headers["etag"] != etag
    assert is_set(world, token)


def test_a_list_is_signed_anew_long_before_it_ends(sqlite_world: World) -> None:
    """§5.1: a copy that is confirmed again and again never reaches its `exp`."""
    token = token_of(sqlite_world)
    first = fetch(sqlite_world, token)
    sqlite_world.clock.advance(seconds=5)
    time.sleep(0.25)
    second = again(sqlite_world, token, first.headers["etag"])
    assert second.status_code == 200
    assert claims_of(second.text)["exp"] == claims_of(first.text)["exp"] + 5


def test_all_processes_give_a_list_the_same_tag(world: World) -> None:
    """A cache, or a resource server, that meets another process each time is still told 304."""
    token = token_of(world)
    path = place_of(token)["uri"].removeprefix(world.issuer)
    other = build(open_services(world.services.settings, world.clock)).test_client()
    assert other.get(path).headers["ETag"] == fetch(world, token).headers["etag"]
    assert other.get(path, headers={"If-None-Match": fetch(world, token).headers["etag"]}).status_code == 304


# --- §11.4 of draft-21, contract §7: lists retire ---------------------------------------------------------------------


def full(world: World) -> None:
    """Fill the newest list, so that the next block is of a new one."""
    table = table_of(StatusListBlock)
    world.services.database.write(lambda c: c.execute(update(table).values(next_index=CAPACITY)))


def test_a_list_retires_when_none_of_its_tokens_can_be_accepted(world: World) -> None:
    grant = world.granted().grant
    old = token_of(world, grant)
    full(world)
    world.clock.advance(minutes=61)  # what the process had left of its block is not used any more
    new = token_of(world, grant)
    assert place_of(new)["uri"] != place_of(old)["uri"]
    world.clock.advance(minutes=170)
    assert upkeep.tidy(world.services, world.clock.now()).status_lists == 0
    assert fetch(world, old).status_code == 200
    world.clock.advance(minutes=11)
    last = token_of(world, grant)
    assert upkeep.tidy(world.services, world.clock.now()).status_lists == 1
    time.sleep(0.25)
    assert fetch(world, old).status_code == 404
    assert fetch(world, last).status_code == 200
    assert not is_set(world, last)


def test_a_list_with_a_token_that_lives_does_not_retire(world: World) -> None:
    grant = world.granted().grant
    token_of(world, grant)
    full(world)
    world.clock.advance(minutes=61)
    token_of(world, grant)
    live = token_of(world, grant)
    world.clock.advance(hours=4)
    table = table_of(Action)
    jti = claims_of(live)["jti"]
    world.services.database.write(
        lambda c: c.execute(
            update(table)
            .where(table.c.id == jti)
            .values(status_list=1, expires_at=world.clock.now() + timedelta(seconds=60))
        )
    )
    assert upkeep.tidy(world.services, world.clock.now()).status_lists == 0
    assert fetch(world, live).status_code == 200


def test_the_newest_list_never_retires(sqlite_world: World) -> None:
    token = token_of(sqlite_world)
    sqlite_world.clock.advance(days=30)
    assert upkeep.tidy(sqlite_world.services, sqlite_world.clock.now()).status_lists == 0
    assert fetch(sqlite_world, token).status_code == 200
