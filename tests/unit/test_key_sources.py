"""Keys of trust domains: kept for minutes, never fetched more often than every ten seconds (A44, A45, A47, F08)."""

import json
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from joserfc.jwk import ECKey, RSAKey
from structlog.testing import capture_logs

from authserver.actors.fetcher import Fetcher, FetchFailed
from authserver.actors.key_sources import (
    SPIFFE_JWKS_USES,
    BundleKeys,
    DiscoveredKeys,
    FileKeys,
    KeySource,
    UrlKeys,
)
from authserver.jose import TokenRefused

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
URL = "https://keys.example/jwks.json"


def jwk(kid: str, **more: object) -> dict[str, object]:
    """A fresh public key."""
    return {**ECKey.generate_key("P-256").as_dict(private=False), "kid": kid, **more}


class Web(Fetcher):
    """What is found where, in place of the network; counts what was asked."""

    def __init__(self, **documents: object) -> None:
        super().__init__()
        self.documents: dict[str, object] = dict(documents)
        self.asked: list[str] = []
        self.during: Callable[[], None] = lambda: None

    def get_json(self, url: str) -> object:
        self.asked.append(url)
        self.during()
        if url not in self.documents:
            raise FetchFailed("timeout")
        return self.documents[url]


def web(*kids: str) -> Web:
    """A web with one JWK Set."""
    return Web(**{URL: {"keys": [jwk(kid) for kid in kids]}})


def kids(source: KeySource, now: datetime) -> list[str | None]:
    """The kids of the keys that count now."""
    return [key.kid for key in source.current(now).keys]


def url_keys(fetcher: Fetcher) -> UrlKeys:
    """A source with the usual times: refreshed after five minutes, stale for one hour."""
    return UrlKeys("example", fetcher, URL)


def test_keys_are_fetched_once_and_serve_for_five_minutes() -> None:
    found = web("a")
    source = url_keys(found)
    for seconds in range(0, 300, 7):
        assert kids(source, NOW + seconds * SECOND) == ["a"]
    assert found.asked == [URL]
    assert kids(source, NOW + 300 * SECOND) == ["a"]
    assert len(found.asked) == 2


def test_A47_a_removed_key_is_gone_within_five_minutes() -> None:
    found = web("old", "new")
    source = url_keys(found)
    assert kids(source, NOW) == ["old", "new"]
    found.documents[URL] = {"keys": [jwk("new")]}
    assert kids(source, NOW + 5 * MINUTE) == ["new"]
    assert len(source.current(NOW + 5 * MINUTE).identities) == 1


def test_A44_unknown_kids_cause_one_fetch_in_ten_seconds() -> None:
    found = web("a")
    source = url_keys(found)
    source.current(NOW)
    for tenth in range(0, 100):
        source.after_unknown_kid(NOW + tenth * SECOND / 10)
        assert kids(source, NOW + tenth * SECOND / 10) == ["a"]
    assert len(found.asked) == 1
    source.after_unknown_kid(NOW + 10 * SECOND)
    source.after_unknown_kid(NOW + 19 * SECOND)
    assert len(found.asked) == 2


def test_A44_a_new_key_is_found_by_its_unknown_kid() -> None:
    found = web("a")
    source = url_keys(found)
    source.current(NOW)
    found.documents[URL] = {"keys": [jwk("b")]}
    assert [key.kid for key in source.after_unknown_kid(NOW + 11 * SECOND).keys] == ["b"]


def test_A44_a_domain_that_is_down_is_asked_at_most_every_ten_seconds() -> None:
    found = Web()
    source = url_keys(found)
    for second in range(60):
        with pytest.raises(TokenRefused, match=r"keys\.unavailable"):
            source.current(NOW + second * SECOND)
    assert len(found.asked) == 6


def test_F08_known_keys_serve_until_they_are_too_stale() -> None:
    found = web("a")
    source = url_keys(found)
    source.current(NOW)
    del found.documents[URL]
    assert source.freshness(NOW).state == "fresh"
    for minutes in (5, 30, 65):
        assert kids(source, NOW + minutes * MINUTE) == ["a"]
        assert source.freshness(NOW + minutes * MINUTE).state == "stale"
    with pytest.raises(TokenRefused, match=r"keys\.unavailable"):
        source.current(NOW + 65 * MINUTE + SECOND)
    assert source.freshness(NOW + 65 * MINUTE + SECOND).state == "unavailable"


def test_F08_a_domain_that_comes_back_is_used_within_a_minute() -> None:
    found = web("a")
    source = url_keys(found)
    source.current(NOW)
    del found.documents[URL]
    for second in range(300, 1200):
        source.current(NOW + second * SECOND)
    assert len(found.asked) < 25  # it costs a worker little while it is down
    found.documents[URL] = {"keys": [jwk("b")]}
    for second in range(1200, 1260):
        source.current(NOW + second * SECOND)
    assert kids(source, NOW + 1260 * SECOND) == ["b"]


@pytest.mark.parametrize("document", [[], {}, {"keys": "a"}, {"keys": [{}] * 10_000}])
def test_A45_a_document_that_is_no_bounded_jwk_set_leaves_the_known_keys(document: object) -> None:
    found = web("a")
    source = url_keys(found)
    source.current(NOW)
    found.documents[URL] = document
    with capture_logs() as events:
        assert kids(source, NOW + 5 * MINUTE) == ["a"]
    assert [event["event"] for event in events] == ["keys.unreadable"]


def test_an_empty_set_takes_all_keys_away() -> None:
    found = web("a")
    source = url_keys(found)
    source.current(NOW)
    found.documents[URL] = {"keys": []}
    assert kids(source, NOW + 5 * MINUTE) == []
    assert source.freshness(NOW + 5 * MINUTE).state == "unavailable"


def test_F07_keys_are_read_anew_when_the_clock_is_set_back() -> None:
    found = web("a")
    source = url_keys(found)
    source.current(NOW)
    source.current(NOW - timedelta(days=365))
    source.current(NOW - timedelta(days=365))
    assert len(found.asked) == 2


def test_other_threads_go_on_with_known_keys_while_one_fetches() -> None:
    found = web("a")
    source = url_keys(found)
    source.current(NOW)
    fetching, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        fetching.set()
        assert go_on.wait(5)

    found.during = wait
    thread = threading.Thread(target=source.current, args=(NOW + 5 * MINUTE,))
    thread.start()
    assert fetching.wait(5)
    assert kids(source, NOW + 5 * MINUTE) == ["a"]  # at once, from memory
    go_on.set()
    thread.join(5)
    assert len(found.asked) == 2


def test_at_the_start_all_threads_wait_for_one_fetch() -> None:
    found = web("a")
    source = url_keys(found)
    answers: list[list[str | None]] = []
    gate = threading.Barrier(8)

    def ask() -> None:
        gate.wait(5)
        answers.append(kids(source, NOW))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert answers == [["a"]] * 8
    assert found.asked == [URL]


def test_a_jwks_takes_keys_for_signatures_and_those_without_use() -> None:
    found = Web(
        **{URL: {"keys": [jwk("a"), jwk("b", use="sig"), jwk("c", use="jwt-svid"), jwk("d", use="enc")]}}
    )
    assert kids(url_keys(found), NOW) == ["a", "b"]
    spiffe = UrlKeys("example.org", found, URL, uses=SPIFFE_JWKS_USES)
    assert kids(spiffe, NOW) == ["a", "b", "c"]


def test_a_spiffe_bundle_takes_only_its_entries_for_jwt_svids() -> None:
    x509_svid = RSAKey.generate_key(2048).as_dict(private=False) | {"use": "x509-svid", "x5c": ["MIIB"]}
    entries = [x509_svid, jwk("a", use="jwt-svid"), jwk("b"), jwk("c", use="sig")]
    found = Web(**{URL: {"keys": entries, "spiffe_sequence": 12, "spiffe_refresh_hint": 2_419_200}})
    assert kids(BundleKeys("example.org", found, URL), NOW) == ["a"]


ISSUER = "https://issuer.example"
DISCOVERY = f"{ISSUER}/.well-known/openid-configuration"


def test_discovery_finds_the_keys_of_the_issuer() -> None:
    found = Web(**{DISCOVERY: {"issuer": ISSUER, "jwks_uri": URL}, URL: {"keys": [jwk("a")]}})
    assert kids(DiscoveredKeys("example", found, ISSUER), NOW) == ["a"]
    assert found.asked == [DISCOVERY, URL]


def test_discovery_of_an_issuer_with_a_path_appends_to_it() -> None:
    found = Web()
    with pytest.raises(TokenRefused):
        DiscoveredKeys("example", found, f"{ISSUER}/realms/one/").current(NOW)
    assert found.asked == [f"{ISSUER}/realms/one/.well-known/openid-configuration"]


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://other.example", "jwks_uri": URL},
        {"issuer": f"{ISSUER}/", "jwks_uri": URL},
        {"jwks_uri": URL},
        {"issuer": ISSUER},
        {"issuer": ISSUER, "jwks_uri": 1},
        [],
    ],
)
def test_a_discovery_document_of_another_issuer_or_without_keys_is_refused(document: object) -> None:
    found = Web(**{DISCOVERY: document, URL: {"keys": [jwk("a")]}})
    with pytest.raises(TokenRefused, match=r"keys\.unavailable"):
        DiscoveredKeys("example", found, ISSUER).current(NOW)
    assert found.asked == [DISCOVERY]


def test_A45_discovery_cannot_lead_to_a_file_or_an_inner_address() -> None:
    class Half(Fetcher):
        """Only the discovery document is made up; the rest is fetched in earnest."""

        def get_json(self, url: str) -> object:
            if url == DISCOVERY:
                return {"issuer": ISSUER, "jwks_uri": self.leads_to}
            return super().get_json(url)

        leads_to = ""

    for leads_to, why in (("file:///etc/passwd", "url"), ("https://169.254.169.254/", "address")):
        fetcher = Half()
        fetcher.leads_to = leads_to
        with capture_logs() as events, pytest.raises(TokenRefused):
            DiscoveredKeys("example", fetcher, ISSUER).current(NOW)
        assert events[0]["reason"] == why


def write(path: Path, *found: str) -> None:
    """Replace the file by a JWK Set, as a deployment would."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"keys": [jwk(kid) for kid in found]}))
    os.replace(new, path)  # noqa: PTH105


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    write(path, "a")
    source = FileKeys("example", path)
    assert kids(source, NOW) == ["a"]
    first = source.current(NOW)
    assert source.current(NOW) is first  # not read again for nothing
    write(path, "b")
    assert kids(source, NOW) == ["b"]


def test_a_broken_file_leaves_what_was_there_for_a_while(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    write(path, "a")
    source = FileKeys("example", path, stale_for=timedelta(minutes=10))
    assert kids(source, NOW) == ["a"]
    path.write_text('{"keys": [')
    with capture_logs() as events:
        assert kids(source, NOW + MINUTE) == ["a"]
        assert kids(source, NOW + 2 * MINUTE) == ["a"]
    assert [event["reason"] for event in events] == ["json"]  # said once, not for every token
    assert source.freshness(NOW + 2 * MINUTE).state == "stale"
    path.unlink()
    assert kids(source, NOW + 11 * MINUTE) == ["a"]
    with pytest.raises(TokenRefused, match=r"keys\.unavailable"):
        source.current(NOW + 11 * MINUTE + SECOND)
    write(path, "b")
    assert kids(source, NOW + 12 * MINUTE) == ["b"]


def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    source = FileKeys("example", tmp_path / "jwks.json")
    with pytest.raises(TokenRefused, match=r"keys\.unavailable"):
        source.current(NOW)
    assert source.freshness(NOW).state == "unavailable"
    write(tmp_path / "jwks.json", "a")
    assert kids(source, NOW) == ["a"]


def test_an_unchanged_file_never_grows_stale(tmp_path: Path) -> None:
    write(tmp_path / "jwks.json", "a")
    source = FileKeys("example", tmp_path / "jwks.json")
    source.current(NOW)
    later = NOW + timedelta(days=365)
    assert kids(source, later) == ["a"]
    assert source.freshness(later).state == "fresh"


@pytest.mark.parametrize("content", ["[]", "{}", "x" * 600_000, '{"keys":[],"keys":[]}'])
def test_a_file_that_is_no_bounded_jwk_set_gives_no_keys(tmp_path: Path, content: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(content)
    with pytest.raises(TokenRefused, match=r"keys\.unavailable"):
        FileKeys("example", path).current(NOW)
