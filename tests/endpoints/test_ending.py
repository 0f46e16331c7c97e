"""Introspection, revocation, status lists: what a token is worth after it was made (contract §7)."""

import json
import time
import zlib
from base64 import urlsafe_b64decode

import pytest

from authserver import revoke
from authserver.revoke import Ended, Target, UnknownTarget
from tests.settling import redeemed
from tests.world import BASKET_HELPER, PRICE_SCOUT, World

JWT_SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"


def payload(token: str) -> dict[str, object]:
    """The claims of a token whose signature other tests check."""
    middle = token.split(".")[1]
    claims: dict[str, object] = json.loads(urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    return claims


def token_of(world: World, grant: str | None = None, **changes: str) -> str:
    """A fresh action token."""
    answer = world.exchange(grant or world.granted().grant, **changes)
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token


def end(world: World, kind: str, name: str) -> Ended:
    """Revoke as an operator does."""
    return revoke.revoke(world.services, Target(kind, name), reason="test", by="test", now=world.clock.now())


def is_set(world: World, token: str) -> bool:
    """The token's bit in its status list."""
    where = payload(token)["status"]["status_list"]
    answer = world.client.get(where["uri"].removeprefix(world.url))
    assert answer.headers["content-type"] == "application/statuslist+jwt"
    claims = payload(answer.text)
    assert claims["sub"] == where["uri"]
    assert 0 < claims["ttl"] <= 15
    packed = claims["status_list"]["lst"]
    bits = zlib.decompress(urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
    return bool(bits[where["idx"] // 8] >> (where["idx"] % 8) & 1)


def user_id(world: World) -> str:
    """Ada's id."""
    from authserver.accounts import users

    found = world.services.database.read(lambda connection: users.find(connection, "ada"))
    assert found is not None
    return found.user_id


def test_only_the_audience_sees_a_token_as_active(world: World) -> None:
    token = token_of(world)
    assert world.introspect(token)["active"]
    assert world.introspect(token, server="shop") == {"active": False}


def test_an_expired_token_is_inactive(world: World) -> None:
    token = token_of(world)
    world.clock.advance(seconds=120)
    assert world.introspect(token) == {"active": False}


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "e30.e30.e30"])
def test_what_is_no_token_is_inactive_or_missing(world: World, token: str) -> None:
    answer = world.client.post(
        "/oauth/introspect", data={"token": token}, auth=(world.market_id, world.market_secret)
    )
    assert answer.json() == {"active": False} if token else answer.status_code == 400


def test_a_grant_is_never_an_active_token(world: World) -> None:
    assert world.introspect(world.granted().grant) == {"active": False}


def test_introspection_without_credentials_tells_nothing(world: World) -> None:
    token = token_of(world)
    with world.nothing_happens(event="introspection.refused"):
        answer = world.post("/oauth/introspect", {"token": token})
        world.refuses(answer, "invalid_client", status=401)
    with world.nothing_happens(event="introspection.refused"):
        answer = world.client.post(
            "/oauth/introspect", data={"token": token}, auth=(world.market_id, "wrong")
        )
        world.refuses(answer, "invalid_client", status=401)
        assert answer.headers["www-authenticate"].startswith("Basic")


def test_introspection_answers_as_a_signed_jwt(world: World) -> None:
    """RFC 9701 §5."""
    token = token_of(world)
    answer = world.client.post(
        "/oauth/introspect",
        data={"token": token},
        auth=(world.market_id, world.market_secret),
        headers={"Accept": "application/token-introspection+jwt"},
    )
    assert answer.headers["content-type"] == "application/token-introspection+jwt"
    claims = payload(answer.text)
    assert claims["iss"] == world.issuer
    assert claims["token_introspection"]["active"]
    assert claims["token_introspection"]["jti"] == payload(token)["jti"]
    assert "active" not in claims


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("delegation", None),
        ("agent", "basket-helper"),
        ("user", None),
        ("trust_domain", "example.org"),
        ("task", "task-1"),
        ("all", ""),
    ],
)
def test_a_revocation_at_any_level_ends_every_path(world: World, kind: str, name: str | None) -> None:
    granted = world.granted()
    token = token_of(world, granted.grant, task_id="task-1")
    assert not is_set(world, token)
    target = {"delegation": granted.grant_id, "user": user_id(world)}.get(kind, name)
    ended = end(world, kind, target)
    assert ended == Ended(*(0, 1, 0, 0, 0, 1) if kind == "task" else (1, 1, 0, 1, 1, 1))
    assert world.introspect(token) == {"active": False}
    time.sleep(0.25)  # a status list may be that old
    assert is_set(world, token)
    assert world.rows().reserved == 0
    with world.nothing_happens():
        body = world.refuses(world.exchange(granted.grant, task_id="task-1"), "invalid_request")
    assert body["error_description"] in ("the delegation was revoked", "the task has ended")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("agent", "basket-helper"), ("user", None), ("trust_domain", "example.org"), ("all", "")],
)
def test_what_is_granted_after_a_revocation_stands(world: World, kind: str, name: str | None) -> None:
    world.granted()
    end(world, kind, name if name is not None else user_id(world))
    assert world.introspect(token_of(world, world.granted().grant))["active"]


def test_a_revocation_leaves_others_alone(world: World) -> None:
    mine, other = world.granted(), world.granted(agent="price-scout")
    token = token_of(world, other.grant, actor_token=world.assertion(PRICE_SCOUT))
    end(world, "agent", "basket-helper")
    assert world.exchange(mine.grant).status_code == 400
    assert world.introspect(token)["active"]


def test_a_dry_run_counts_and_ends_nothing(world: World) -> None:
    granted = world.granted()
    token = token_of(world, granted.grant, task_id="task-1")
    redeemed(world, token_of(world, granted.grant), capture=False)
    would = revoke.would_end(world.services, Target("all", ""), world.clock.now())
    assert would == Ended(delegations=1, tokens=1, authorized=1, agents=1, users=1, tasks=1)
    assert world.introspect(token)["active"]


def test_what_does_not_exist_is_not_revoked(world: World) -> None:
    with pytest.raises(UnknownTarget):
        end(world, "delegation", "no-such-delegation")


def by_agent(world: World, token: str, subject: str = BASKET_HELPER) -> int:
    """RFC 7009 by an agent; gives the status."""
    form = {
        "token": token,
        "client_assertion_type": JWT_SPIFFE,
        "client_assertion": world.assertion(subject),
    }
    return world.post("/oauth/revoke", form).status_code


def test_an_agent_gives_back_its_token(world: World) -> None:
    granted = world.granted()
    token = token_of(world, granted.grant)
    assert by_agent(world, token) == 200
    assert world.introspect(token) == {"active": False}
    assert world.rows().reserved == 0
    assert world.exchange(granted.grant).status_code == 200


def test_an_agent_ends_its_delegation(world: World) -> None:
    granted = world.granted()
    token = token_of(world, granted.grant)
    assert by_agent(world, granted.grant) == 200
    assert world.introspect(token) == {"active": False}
    assert world.exchange(granted.grant).status_code == 400


def test_another_agents_token_is_left_alone_and_nothing_is_told(world: World) -> None:
    granted = world.granted()
    token = token_of(world, granted.grant)
    for what in (token, granted.grant, "no.such.token"):
        with world.nothing_happens("revocation.unknown_token", "token_revocation.refused"):
            assert by_agent(world, what, PRICE_SCOUT) == 200
    assert world.introspect(token)["active"]


def test_revocation_needs_a_client(world: World) -> None:
    with world.nothing_happens(event="token_revocation.refused"):
        world.refuses(world.post("/oauth/revoke", {"token": "x"}), "invalid_client", status=401)


def test_an_unknown_status_list_is_not_found(world: World) -> None:
    assert world.client.get("/oauth/status/4711").status_code == 404
