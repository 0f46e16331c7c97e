"""`GET /metrics`: everything Prometheus reads, from whichever process is asked, for whoever may."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from authserver import metrics
from tests.attacks.key_server import key_server, says
from tests.attacks.serving import configuration, serving
from tests.settling import eur, redeem, token_of
from tests.world import World, example_org, running_world

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str) -> Samples:
    """Every sample, by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(client: httpx.Client, **headers: str) -> Samples:
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return read(answer.text)


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


def exchanges(samples: Samples, outcome: str, reason: str, grant: str = "exchange") -> float:
    return value(samples, "authserver_exchanges_total", grant=grant, outcome=outcome, reason=reason)


def test_exchanges_are_counted_by_outcome_and_reason(shared_world: World) -> None:
    world, granted = shared_world, shared_world.granted()
    before = scrape(world.client)
    assert world.exchange(granted.grant).status_code == 200
    for _ in range(2):
        assert world.exchange(granted.grant, action=world.action(amount=eur("81.00"))).status_code == 400
    world.post("/oauth/token", {"grant_type": "none"})
    after = scrape(world.client)
    added = {
        (outcome, reason): exchanges(after, outcome, reason) - exchanges(before, outcome, reason)
        for outcome, reason in (
            ("permitted", "permit"),
            ("refused", "limits.per_action"),
            ("refused", "token.unsupported_grant_type"),
        )
    }
    assert list(added.values()) == [1, 2, 1], added
    count = "authserver_exchange_seconds_count"
    assert value(after, count, grant="exchange") - value(before, count, grant="exchange") == 4


def test_redemptions_and_approvals_are_counted(shared_world: World) -> None:
    world = shared_world
    granted = world.granted(approval={"above": "10.00"})
    before = scrape(world.client)
    assert world.exchange(granted.grant, completion_mode="deferred").status_code == 400
    token = token_of(world, world.granted().grant)
    assert redeem(world, token).status_code == 201
    assert redeem(world, token).status_code == 409
    after = scrape(world.client)

    def settled(outcome: str, reason: str) -> float:
        name, labels = "authserver_settlements_total", {"step": "redemption", "outcome": outcome}
        return value(after, name, reason=reason, **labels) - value(before, name, reason=reason, **labels)

    assert settled("permitted", "permit") == 1
    assert settled("refused", "settle.redeemed") == 1
    assert (
        exchanges(after, "deferred", "approval.above") == exchanges(before, "deferred", "approval.above") + 1
    )
    waiting = "authserver_approvals_waiting"
    assert value(after, waiting) == value(before, waiting) + 1


def test_A122_no_id_and_no_secret_is_in_the_metrics(shared_world: World) -> None:
    world, granted = shared_world, shared_world.granted()
    answer = world.exchange(granted.grant, task_id="secret-task")
    world.exchange(granted.grant, action=world.action(actions=["made.up"]), audience="nobody")
    text = world.client.get("/metrics").text
    ids = [granted.grant_id, granted.grant, answer.json()["access_token"], answer.json()["action_id"]]
    for kept in (*ids, "secret-task", "made.up", "nobody", "ada", "basket-helper", "price-scout", "m_123"):
        assert kept not in text


def test_reasons_are_bounded_whatever_they_are_made_of() -> None:
    meters = metrics._Meters()
    named = {meters.bounded(f"policy:ours-{number}") for number in range(1_000)}
    assert named == {"policy"}
    assert len({meters.bounded(f"rule.{number}") for number in range(1_000)}) == 301


# --- who may read ---------------------------------------------------------------------------------------------------


def test_metrics_are_for_the_machine_itself_unless_more_is_said(shared_world: World) -> None:
    assert shared_world.client.get("/metrics").status_code == 200
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
        answer = shared_world.client.get("/metrics", headers={header: "127.0.0.1"})
        shared_world.refuses(answer, "forbidden", status=403)


@pytest.fixture(scope="module")
def far_world(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server whose operator's network is another, and who has a token."""
    said = {"networks": ["192.0.2.0/24"], "token": "correct-horse-battery-staple"}
    directory = tmp_path_factory.mktemp("far")
    shutil.copy(module_database.removeprefix("sqlite:///"), directory / "far.db")
    with running_world(f"sqlite:///{directory / 'far.db'}", directory / "world", metrics=said) as world:
        yield world


def test_whoever_has_the_token_reads_from_anywhere(far_world: World) -> None:
    bearer = {"Authorization": "Bearer correct-horse-battery-staple", "X-Forwarded-For": "203.0.113.9"}
    assert far_world.client.get("/metrics", headers=bearer).status_code == 200
    for said in ("", "Bearer", "Bearer wrong", "Bearer correct-horse-battery-stapl\u00e9", "Basic Og=="):
        answer = far_world.client.get(
            "/metrics", headers={"Authorization": said.encode("latin-1")} if said else {}
        )
        far_world.refuses(answer, "invalid_token", status=401)
        assert answer.headers["www-authenticate"] == "Bearer"


# --- what a program reads -------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (apt install prometheus)"
)
def test_promtool_finds_nothing_to_say(shared_world: World) -> None:
    text = shared_world.client.get("/metrics").text
    found = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


def test_one_scrape_shows_all_workers(sqlite_world: World, tmp_path: Path) -> None:
    world, granted = sqlite_world, sqlite_world.granted()
    with (
        serving(configuration(world, tmp_path), workers=2) as served,
        httpx.Client(base_url=served.url, timeout=30) as client,
    ):
        deadline = time.monotonic() + 20  # the second may start later than the first
        while value(scrape(client), "authserver_workers") != 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for _ in range(12):
            form = world.form(granted.grant, action=world.action(amount=eur("1.00")))
            # A connection of its own for each, so that both workers get some.
            assert httpx.post(f"{served.url}/oauth/token", data=form).status_code == 200
        for _ in range(6):
            samples = read(httpx.get(f"{served.url}/metrics").text)
            assert exchanges(samples, "permitted", "permit") == 12
        assert value(samples, "authserver_database_connections", state="idle") >= 1
        assert value(samples, "authserver_trust_domain_keys_usable", trust_domain="example.org") == 1


# --- F08: a trust domain's keys cannot be reached -------------------------------------------------------------------


def test_F08_readyz_and_the_metrics_say_that_a_trust_domains_keys_are_stale_and_then_gone(
    sqlite_url: str, tmp_path: Path
) -> None:
    with key_server() as keys:
        settings: dict[str, Any] = example_org(tmp_path / "world")
        domain = {name: said for name, said in settings.items() if name != "jwks_file"}
        domain |= {"jwks_url": keys.url, "allow_private_network": True, "stale_for": 3_600}
        directory = tmp_path / "world"

        def served() -> None:
            keys.serve(*json.loads((directory / "example.org" / "jwks.json").read_text())["keys"])

        with running_world(sqlite_url, directory, trust_domains=[domain]) as world:
            served()
            world.clock.advance(minutes=6)
            granted = world.granted()
            assert world.exchange(granted.grant).status_code == 200
            assert state_of(world) == ("ok", 1.0, 1.0)
            keys.answer = says(b"", "503 Service Unavailable")
            world.clock.advance(minutes=30)
            assert world.exchange(granted.grant).status_code == 200
            assert state_of(world) == ("stale", 0.0, 1.0)
            assert (
                value(
                    scrape(world.client),
                    "authserver_trust_domain_keys_age_seconds",
                    trust_domain="example.org",
                )
                == 1_800
            )
            world.clock.advance(minutes=40)
            world.refuses(world.exchange(granted.grant), "invalid_request")
            assert state_of(world) == ("unavailable", 0.0, 0.0)
            assert exchanges(scrape(world.client), "refused", "actor.keys.unavailable") >= 1
            served()
            world.clock.advance(minutes=2)
            assert world.exchange(granted.grant).status_code == 200
            assert state_of(world) == ("ok", 1.0, 1.0)


def state_of(world: World) -> tuple[str, float, float]:
    """What `/readyz` says of example.org's keys, and whether the metrics call them fresh, and usable."""
    answer, samples = world.client.get("/readyz"), scrape(world.client)
    said = answer.json()["checks"]["trust_domains"]["example.org"]
    assert answer.status_code == (503 if said == "unavailable" else 200)
    fresh, usable = (
        value(samples, f"authserver_trust_domain_keys_{name}", trust_domain="example.org")
        for name in ("fresh", "usable")
    )
    return said, fresh, usable
