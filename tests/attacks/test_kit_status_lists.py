"""Status lists as a resource server with the kit takes them (draft-ietf-oauth-status-list §8.3, §11; threat A104)."""

import asyncio
import base64
import random
import time
import zlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from authserver import jose
from authserver.resource_server import InvalidToken, IssuerUnavailable, Presented
from authserver.resource_server.status_list import StatusList, unpack
from tests.attacks.making import named
from tests.issuer import LIST, SEARCH, SHOP, FakeIssuer, details, new_key, packed, running_issuer

MONEY = {"authorization_details": [details(datatypes=None, reference=None)]}
DATA = {
    "authorization_details": [details(actions=["profile.read"], amount=None, merchant=None, reference=None)]
}
ORDER = {
    "authorization_details": [
        details(actions=["order.change_address"], amount=None, merchant=None, datatypes=None)
    ]
}
HARMLESS = {"authorization_details": [SEARCH]}
FAILS_CLOSED = {"money": MONEY, "personal data": DATA, "somebody's order": ORDER}


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with running_issuer() as fake:
        yield fake


def zlib64(data: bytes, behind: bytes = b"") -> str:
    return base64.urlsafe_b64encode(zlib.compress(data, 9) + behind).rstrip(b"=").decode()


# --- the draft's vectors --------------------------------------------------------------------------------------------

ONE_BIT = (
    "eNrt3AENwCAMAEGogklACtKQPg9LugC9k_ACvreiogEAAKkeCQAAAAAAAAAAAAAAAAAAAIBylgQAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAXG9IAAAAAAAAAPwsJAAAAAAAAAAAAAAAvhsSAAAAAAAAAAAA7KpLAAAAAAAAAAAAAAAAAAAA"
    "AJsLCQAAAAAAAAAAADjelAAAAAAAAAAAKjDMAQAAAACAZC8L2AEb"
)
TWO_BITS = (
    "eNrt2zENACEQAEEuoaBABP5VIO01fCjIHTMStt9ovGVIAAAAAABAbiEBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEB5"
    "WwIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAAID0ugQAAAAAAAAAAAAAAAAAQG12SgAAAAAAAAAAAAAAAAAAAAAAAAAAAOCSIQEAAAAAAAAAAAAAAAAAAAAAAAD8ExIA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAwJEuAQAAAAAAAAAAAAAAAAAAAAAAAMB9SwIAAAAAAAAAAAAAAAAAAACoYUoA"
    "AAAAAAAAAAAAAEBqH81gAQw"
)
PLACES = (0, 1993, 25460, 159495, 495669, 554353, 645645, 723232, 854545, 934534, 1000345)
VECTORS = {
    "§4.1 one bit": (1, "eNrbuRgAAhcBXQ", dict(enumerate([1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]))),
    "§4.1 two bits": (2, "eNo76fITAAPfAgc", dict(enumerate([1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3]))),
    "C.1 one bit": (1, ONE_BIT, dict.fromkeys(PLACES, 1)),
    "C.2 two bits": (2, TWO_BITS, dict(zip(PLACES, (1, 2, 1, 3, 1, 1, 2, 1, 1, 2, 3), strict=True))),
}


@pytest.mark.parametrize("vector", named(VECTORS))
def test_the_drafts_vectors_are_read(issuer: FakeIssuer, vector: tuple[int, str, dict[int, int]]) -> None:
    width, lst, statuses = vector
    read = StatusList(width, unpack(lst), timedelta(seconds=15), issuer.clock.now())
    assert {index: read.status(index) for index in statuses} == statuses
    if len(statuses) == len(PLACES):
        assert len(read.packed) * 8 // width == 2**20
        others = (index for index in range(0, 2**20, 997) if index not in statuses)
        assert not any(read.status(index) for index in others)


@pytest.mark.parametrize(("width", "status"), [(1, 1), (2, 1), (2, 2), (4, 15), (8, 255)])
def test_whatever_a_token_is_but_good_it_is_refused(issuer: FakeIssuer, width: int, status: int) -> None:
    """§7.1: every status but 0x00 means that the token must not be used."""
    bits = bytearray(64)
    bits[7 * width // 8] = status << (7 * width % 8)
    issuer.list_claims = {"status_list": {"bits": width, "lst": zlib64(bytes(bits))}}
    with pytest.raises(InvalidToken, match=r"token\.ended") as refused:
        issuer.verifier().verify(issuer.token())
    assert (refused.value.status, refused.value.error) == (401, "invalid_token")
    neighbour = {"status_list": {"uri": issuer.url + LIST, "idx": 8}}
    issuer.verifier().verify(issuer.token(status=neighbour))


# --- A104: what is served is no good --------------------------------------------------------------------------------


def serve(issuer: FakeIssuer, how: str) -> None:
    now = int(issuer.clock.now().timestamp())
    good = issuer.status_list()
    header, claims, signature = good.decode().split(".")
    claims_alone: dict[str, dict[str, Any]] = {
        "stale: it has ended": {"exp": now},
        "stale: it says that it is old": {"iat": now - 46},
        "from the future": {"iat": now + 31},
        "without an end": {"exp": None},
        "without a beginning": {"iat": None},
        "without a life": {"ttl": None},
        "with a life of zero": {"ttl": 0},
        "with a life of years": {"ttl": 10**9},
        "another issuer's": {"iss": "https://other.example"},
        "without issuer": {"iss": None},
        "another place's": {"sub": issuer.url + "/status/2"},
        "without place": {"sub": None},
        "no list": {"status_list": None},
        "a list that is text": {"status_list": "eNrbuRgAAhcBXQ"},
        "three bits": {"status_list": {"bits": 3, "lst": packed(set())}},
        "bits as text": {"status_list": {"bits": "1", "lst": packed(set())}},
        "true bits": {"status_list": {"bits": True, "lst": packed(set())}},
        "truncated inside": {"status_list": {"bits": 1, "lst": packed(set(range(0, 900, 7)))[:-8]}},
        "no zlib": {"status_list": {"bits": 1, "lst": "AAAA"}},
        "no base64": {"status_list": {"bits": 1, "lst": "%%%%"}},
        "empty": {"status_list": {"bits": 1, "lst": ""}},
        "something behind it": {"status_list": {"bits": 1, "lst": zlib64(bytes(64), b"more")}},
        "zip bomb": {"status_list": {"bits": 1, "lst": zlib64(bytes(64 * 2**20))}},
        "too short for the token": {"status_list": {"bits": 1, "lst": zlib64(b"")}},
    }
    bodies = {
        "unsigned": f"{header}.{claims}.",
        "unsigned by name": f"eyJhbGciOiJub25lIn0.{claims}.",
        "truncated": good.decode()[:-10],
        "cut in the middle": good.decode()[: len(good) // 2],
        "with another signature": f"{header}.{claims}.{signature[::-1]}",
        "empty answer": "",
        "a page": "<html>Sign in to the wi-fi</html>",
        "not ascii": "ÿ",
        "enormous": "e30." + "A" * 2**20 + ".AA",
    }
    if how in claims_alone:
        issuer.list_claims = claims_alone[how]
    elif how in bodies:
        issuer.served_list = bodies[how].encode()
    elif how == "signed by a stranger":
        issuer.list_key = jose.SigningKey(issuer.key.kid, new_key().key)
    elif how == "of another type":
        issuer.list_typ = "at+jwt"
    else:
        raise AssertionError(how)


BAD = [
    *("stale: it has ended", "stale: it says that it is old", "from the future", "without an end"),
    *("without a beginning", "without a life", "with a life of zero", "with a life of years"),
    *("another issuer's", "without issuer", "another place's", "without place", "no list"),
    *(
        "a list that is text",
        "three bits",
        "bits as text",
        "true bits",
        "truncated inside",
        "no zlib",
        "no base64",
    ),
    *("empty", "something behind it", "zip bomb", "unsigned", "unsigned by name", "truncated"),
    *("cut in the middle", "with another signature", "empty answer", "a page", "not ascii", "enormous"),
    *("signed by a stranger", "of another type"),
]


@pytest.mark.parametrize("how", BAD)
def test_A104_a_bad_list_is_no_list_and_money_does_not_move(issuer: FakeIssuer, how: str) -> None:
    serve(issuer, how)
    verifier = issuer.verifier()
    with pytest.raises(IssuerUnavailable):
        verifier.verify(issuer.token(**MONEY))
    # What names nobody's money or data goes on: its token lives for minutes at most.
    assert verifier.verify(issuer.token(**HARMLESS)).is_harmless


@pytest.mark.parametrize("claims", named(FAILS_CLOSED))
def test_A104_a_server_that_is_away_is_a_no_for_money_and_data(
    issuer: FakeIssuer, claims: dict[str, Any]
) -> None:
    verifier = issuer.verifier()
    verifier.verify(issuer.token(**HARMLESS))
    issuer.is_up = False
    verifier.verify(issuer.token(**claims))  # the list is fresh
    issuer.clock.advance(seconds=15)
    verifier.verify(issuer.token(**claims))
    issuer.clock.advance(seconds=1)
    with pytest.raises(IssuerUnavailable):
        verifier.verify(issuer.token(**claims))
    assert verifier.verify(issuer.token(**HARMLESS)).is_harmless
    issuer.clock.advance(minutes=30)
    assert verifier.verify(issuer.token(**HARMLESS)).is_harmless
    issuer.is_up = True
    issuer.clock.advance(seconds=1)
    verifier.verify(issuer.token(**claims))


def test_A104_the_last_answer_counts_for_a_harmless_token_however_old(issuer: FakeIssuer) -> None:
    verifier, now = issuer.verifier(), int(issuer.clock.now().timestamp())
    token = issuer.token(exp=now + 300, **HARMLESS)
    issuer.ended.add(7)
    with pytest.raises(InvalidToken, match=r"token\.ended"):
        verifier.verify(token)
    issuer.is_up = False
    issuer.clock.advance(seconds=200)
    with pytest.raises(InvalidToken, match=r"token\.ended"):
        verifier.verify(token)


def test_A104_the_rule_can_be_made_stricter_and_not_laxer(issuer: FakeIssuer) -> None:
    strict = issuer.verifier(also_fail_closed=["catalog.search"], longest_age=timedelta(seconds=2))
    strict.verify(issuer.token(**HARMLESS))
    issuer.is_up = False
    issuer.clock.advance(seconds=3)
    with pytest.raises(IssuerUnavailable):
        strict.verify(issuer.token(**HARMLESS))
    issuer.is_up = True
    lax = issuer.verifier(longest_age=timedelta(days=1))
    lax.verify(issuer.token(**MONEY))
    issuer.is_up = False
    issuer.clock.advance(seconds=16)
    with pytest.raises(IssuerUnavailable):
        lax.verify(issuer.token(**MONEY))


@pytest.mark.parametrize(
    "status",
    [
        None,
        {},
        {"status_list": {}},
        {"status_list": {"uri": "https://evil.example/status/1", "idx": 7}},
        {"status_list": {"uri": "ISSUER.evil.example/status/1", "idx": 7}},
        {"status_list": {"uri": "ISSUER/status/1", "idx": -1}},
        {"status_list": {"uri": "ISSUER/status/1", "idx": "7"}},
        {"status_list": {"uri": "ISSUER/status/1", "idx": 2_048 * 8}},
        {"status_list": {"uri": 1, "idx": 7}},
    ],
    ids=str,
)
def test_A104_a_token_without_a_good_place_is_refused(issuer: FakeIssuer, status: Any) -> None:
    """§8.3: out of bounds is a refusal; a list elsewhere is never asked for."""
    place = status and status.get("status_list")
    if place and isinstance(place.get("uri"), str):
        place = place | {"uri": place["uri"].replace("ISSUER", issuer.url)}
        status = {"status_list": place}
    with pytest.raises(InvalidToken):
        issuer.verifier().verify(issuer.token(status=status))


def test_A104_a_list_larger_than_a_token_is_read(issuer: FakeIssuer) -> None:
    """A list in which every other token was ended does not compress."""
    ended = set(random.Random(1).sample(range(131_072), 60_000)) - {7}
    issuer.list_claims = {"status_list": {"bits": 1, "lst": packed(ended, 16_384)}}
    assert len(issuer.status_list()) > jose.MAX_TOKEN_BYTES
    issuer.verifier().verify(issuer.token())


# --- kept fresh -----------------------------------------------------------------------------------------------------


def wait_for(condition: Any, seconds: float = 3.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_revocation_is_known_within_a_second_without_a_request_that_waits(issuer: FakeIssuer) -> None:
    verifier, token = issuer.verifier(), issuer.token()
    verifier.verify(token)
    issuer.ended.add(7)
    started = time.monotonic()

    def is_refused() -> bool:
        try:
            verifier.verify(token)
        except InvalidToken:
            return True
        return False

    wait_for(is_refused)
    assert time.monotonic() - started < 1.2


def test_a_list_that_did_not_change_is_not_sent_again(issuer: FakeIssuer) -> None:
    issuer.etag = 'W/"one"'
    verifier = issuer.verifier()
    verifier.verify(issuer.token())
    issuer.served_list = b"nobody reads this"
    issuer.clock.advance(seconds=16)
    verifier.verify(issuer.token(**MONEY))  # 304: the one that is there counts again
    assert issuer.fetches(LIST) == 2
    issuer.clock.advance(seconds=45)
    with pytest.raises(IssuerUnavailable):  # but never past its own end
        verifier.verify(issuer.token(**MONEY))


def test_nothing_is_asked_for_where_nobody_needs_it(issuer: FakeIssuer) -> None:
    verifier = issuer.verifier()
    time.sleep(0.9)
    assert issuer.asked == []
    verifier.verify(issuer.token())
    issuer.clock.advance(seconds=61)  # a minute without any token
    time.sleep(0.9)
    before = len(issuer.asked)
    time.sleep(0.9)
    assert len(issuer.asked) == before


def test_a_server_that_is_slow_is_asked_by_one_and_not_by_all(issuer: FakeIssuer) -> None:
    verifier = issuer.verifier()
    verifier.verify(issuer.token(**HARMLESS))
    issuer.is_up = False
    issuer.clock.advance(seconds=16)
    before = issuer.fetches(LIST)
    for _ in range(50):
        verifier.verify(issuer.token(**HARMLESS))
    assert issuer.fetches(LIST) - before <= 2  # one by a request, and perhaps one in the background


def test_an_event_loop_waits_for_nothing_that_is_known(issuer: FakeIssuer) -> None:
    verifier = issuer.verifier()

    async def check(token: str) -> str:
        presented = Presented.parse([f"Bearer {token}"], [], method="GET", url=SHOP)
        return (await verifier.check_async(presented)).jti

    async def everything() -> list[str]:
        first = await check(issuer.token(jti="first"))
        others = await asyncio.gather(*(check(issuer.token(jti=f"t{number}")) for number in range(20)))
        return [first, *others]

    assert asyncio.run(everything()) == ["first", *(f"t{number}" for number in range(20))]
    assert issuer.fetches(LIST) == issuer.fetches("/jwks") == 1
    issuer.ended.add(7)
    issuer.clock.advance(seconds=16)
    with pytest.raises(InvalidToken):
        asyncio.run(check(issuer.token()))
