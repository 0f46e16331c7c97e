"""F15: yesterday's back-up is restored. What was revoked since is revoked again, or nothing is minted until told."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from authserver import api_tokens, restore, stream
from authserver.accounts.api_tokens import list_all as list_tokens
from authserver.audit.heads import read_file
from authserver.audit.verification import Verified, verify
from authserver.consent import Granted
from authserver.register import disable_agent, disable_resource_server
from authserver.revoke import Target, revoke
from authserver.seal import seal
from authserver.tokens.signing_keys import all_public
from tests.world import World, running_world

SCOUT = "spiffe://example.org/agent/price-scout"


@contextmanager
def kept(sqlite_url: str, folder: Path) -> Iterator[World]:
    """A server with a witness's file, and a copy of its events elsewhere."""
    audit = {
        "witness_file": folder / "elsewhere.heads",
        "streams": [{"name": "copy", "kind": "file", "file": folder / "elsewhere.jsonl"}],
    }
    with running_world(sqlite_url, folder / "world", audit=audit) as world:
        yield world


def tend(world: World) -> None:
    """What a running server does every few seconds."""
    seal(world.services, world.clock.now())
    restore.look(world.services)
    while stream.deliver(world.services, world.clock.now()):
        pass


def put_back(world: World, url: str, backup: Path) -> None:
    """Restore the back-up under the server, as an operator does between two starts of it."""
    world.services.database.dispose()
    path = Path(str(make_url(url).database))
    for journal in ("-wal", "-shm"):
        path.with_name(path.name + journal).unlink(missing_ok=True)
    shutil.copy(backup, path)


def back_up(url: str, folder: Path) -> Path:
    """A copy of the database, consistent in itself."""
    backup = folder / "yesterday.db"
    with sqlite3.connect(str(make_url(url).database)) as source, sqlite3.connect(backup) as copy:
        source.backup(copy)
    return backup


def after_a_lost_exchange(world: World, url: str, folder: Path) -> Granted:
    """A grant whose one exchange came after the back-up that was put back."""
    granted = world.granted()
    tend(world)
    backup = back_up(url, folder)
    world.exchange(granted.grant)
    tend(world)
    put_back(world, url, backup)
    return granted


def verified(world: World, folder: Path) -> Verified:
    known = world.services.database.read(all_public)
    with (folder / "elsewhere.heads").open() as file:
        witnessed, problems = read_file(file, known)
    assert problems == []
    return world.services.database.read(lambda c: verify(c, known, world.issuer, witnessed))


def test_F15_an_old_back_up_mints_nothing_until_it_is_told(sqlite_url: str, tmp_path: Path) -> None:
    with kept(sqlite_url, tmp_path) as world:
        revoked, other = world.granted(), world.granted(agent="price-scout")
        stands = world.granted()
        assert world.exchange(stands.grant).status_code == 200
        token, _ = api_tokens.create(
            world.services, name="job", role="owner", expires_at=None, by="x", now=world.clock.now()
        )
        tend(world)
        backup = back_up(sqlite_url, tmp_path)

        now = world.clock.now()
        by = "operator:night"
        revoke(world.services, Target("delegation", revoked.grant_id), reason="stolen", by=by, now=now)
        world.services.database.write(lambda c: disable_agent(c, "price-scout", by, now))
        world.services.database.write(lambda c: disable_resource_server(c, world.shop_id, by, now))
        api_tokens.revoke(world.services, token.id, by=by, now=now)
        tend(world)
        put_back(world, sqlite_url, backup)

        assert restore.look(world.services) is not None
        rows = world.rows()
        for grant in (revoked.grant, stands.grant):
            answer = world.exchange(grant)
            assert answer.headers["Retry-After"] == "60"
            world.refuses(answer, "temporarily_unavailable", status=503)
        redeemed = world.client.post(
            "/oauth/redeem", json={"token": "x"}, auth=(world.market_id, world.market_secret)
        )
        assert redeemed.status_code == 503
        assert world.rows() == rows

        with (tmp_path / "elsewhere.jsonl").open() as copy:
            done = restore.restore(world.services, map(json.loads, copy), by=by, now=now)
        assert done.done_again == {
            "revocation": 1,
            "agent.disabled": 1,
            "resource_server.disabled": 1,
            "api_token.revoked": 1,
        }
        assert all(one.revoked_at for one in world.services.database.read(list_tokens))
        shop = (world.shop_id, world.shop_secret)
        assert world.client.post("/oauth/introspect", data={"token": "x"}, auth=shop).status_code == 401
        assert world.exchange(stands.grant).status_code == 200
        assert world.exchange(revoked.grant).status_code == 400
        assert world.exchange(other.grant, actor_token=world.assertion(SCOUT)).status_code == 400
        tend(world)
        assert verified(world, tmp_path).problems == []


def test_F15_the_operator_may_accept_the_loss_and_the_audit_says_so(sqlite_url: str, tmp_path: Path) -> None:
    with kept(sqlite_url, tmp_path) as world:
        granted = after_a_lost_exchange(world, sqlite_url, tmp_path)
        assert restore.look(world.services) is not None
        restore.restore(world.services, None, by="operator:night", now=world.clock.now())
        assert world.exchange(granted.grant).status_code == 200
        tend(world)
        assert verified(world, tmp_path).problems == []
        (event,) = (e for e in world.events() if e["event"] == "audit.restored")
        assert event["data"] == {
            "tree_size": 1,
            "witnessed_size": 2,
            "by": "operator:night",
            "done_again": {},
            "lost": {},
            "with_copy": False,
        }


def test_F15_a_copy_that_is_not_what_the_witness_has_seen_is_refused(sqlite_url: str, tmp_path: Path) -> None:
    with kept(sqlite_url, tmp_path) as world:
        granted = world.granted()
        tend(world)
        backup = back_up(sqlite_url, tmp_path)
        target = Target("delegation", granted.grant_id)
        revoke(world.services, target, reason="stolen", by="operator:night", now=world.clock.now())
        world.granted()
        tend(world)
        put_back(world, sqlite_url, backup)
        assert restore.look(world.services) is not None
        lines = (tmp_path / "elsewhere.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        edited = [
            {**event, "event": "nothing"} if event["event"] == "revocation" else event for event in events
        ]
        for copy in (edited, events[:-1], []):
            with pytest.raises(restore.CopyRefused):
                restore.restore(world.services, copy, by="operator:night", now=world.clock.now())
        assert world.exchange(granted.grant).status_code == 503


def test_F15_a_server_that_went_on_from_the_back_up_without_being_told_is_found(
    sqlite_url: str, tmp_path: Path
) -> None:
    with kept(sqlite_url, tmp_path) as world:
        granted = after_a_lost_exchange(world, sqlite_url, tmp_path)
        for _ in range(3):  # by a process that does not look
            world.granted()
            seal(world.services, world.clock.now())
        assert restore.look(world.services) is not None
        assert world.exchange(granted.grant).status_code == 503


def test_nothing_is_missing_where_nothing_was_restored(sqlite_url: str, tmp_path: Path) -> None:
    with kept(sqlite_url, tmp_path) as world:
        assert restore.look(world.services) is None  # no file yet
        world.granted()
        tend(world)
        assert restore.look(world.services) is None
        with pytest.raises(LookupError):
            restore.restore(world.services, None, by="operator:night", now=world.clock.now())
