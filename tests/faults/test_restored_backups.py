"""F15: yesterday's back-up is restored. What was revoked since is revoked again, or nothing is minted until told."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.engine import make_url

from authserver import api_tokens, manage_delegation, restore, rotate_keys, stream, upkeep
from authserver.accounts import users
from authserver.accounts.api_tokens import list_all as list_tokens
from authserver.audit import deliveries
from authserver.audit.events import Record
from authserver.audit.export import exported
from authserver.audit.heads import read_file
from authserver.audit.offline import verify_export
from authserver.audit.verification import Verified, verify
from authserver.consent import Granted
from authserver.policy.delegation_details import DelegationDetails, parse_delegation
from authserver.register import disable_agent, disable_resource_server
from authserver.revoke import Target, revoke
from authserver.seal import seal
from authserver.tokens.signing_keys import all_public, list_keys
from authserver.verify_audit import verify_here
from authserver.witnessed import look
from tests.attacks.making import record_of
from tests.attacks.serving import ROOT, Served, configuration, serving
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
    while upkeep.tend_audit(world.services, world.clock.now()):
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
    # Whoever has an export and the witness's file comes to the same.
    events = world.services.database.read(lambda c: list(exported(c)))
    with (folder / "elsewhere.heads").open() as file:
        assert verify_export(events, file, known, world.issuer).problems == []
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

        assert look(world.services) is not None
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
        assert look(world.services) is not None
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
        assert look(world.services) is not None
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
        assert look(world.services) is not None
        assert world.exchange(granted.grant).status_code == 503


def something_happens(world: World) -> None:
    """What a server that waits for its operator writes all the same: somebody signs in, an approval lapses, …"""
    world.services.database.write(lambda c: Record("sign_in.refused").changed(c, world.clock.now()))


def gone_back(world: World, url: str, folder: Path) -> tuple[Granted, Granted]:
    """A server whose database is of before a revocation: what stands, and what was revoked since."""
    stands, revoked = world.granted(), world.granted()
    tend(world)
    backup = back_up(url, folder)
    target = Target("delegation", revoked.grant_id)
    revoke(world.services, target, reason="stolen", by="operator:night", now=world.clock.now())
    tend(world)
    put_back(world, url, backup)
    return stands, revoked


def restored_from(world: World, copy: Path) -> restore.Restored:
    with copy.open() as lines:
        return restore.restore(
            world.services, map(json.loads, lines), by="operator:night", now=world.clock.now()
        )


def test_F15_what_a_waiting_server_writes_does_not_take_the_place_of_what_is_lost(
    sqlite_url: str, tmp_path: Path
) -> None:
    with kept(sqlite_url, tmp_path) as world:
        stands, revoked = gone_back(world, sqlite_url, tmp_path)
        heads = (tmp_path / "elsewhere.heads").read_text()
        for _ in range(5):
            something_happens(world)
            tend(world)
            assert world.exchange(revoked.grant).status_code == 503
        assert (tmp_path / "elsewhere.heads").read_text() == heads
        assert restored_from(world, tmp_path / "elsewhere.jsonl").done_again == {"revocation": 1}
        tend(world)
        assert world.exchange(stands.grant).status_code == 200
        assert world.exchange(revoked.grant).status_code == 400
        tend(world)
        found = verified(world, tmp_path)
        assert (found.problems, found.unsealed) == ([], 0)


def test_F15_a_history_that_went_on_is_joined_where_both_agree(sqlite_url: str, tmp_path: Path) -> None:
    """By a process without the witness's file, say: the database has as many events as the witness, but others."""
    with kept(sqlite_url, tmp_path) as world:
        stands, revoked = gone_back(world, sqlite_url, tmp_path)
        for _ in range(4):
            something_happens(world)
            seal(world.services, world.clock.now())
        tend(world)
        assert world.exchange(stands.grant).status_code == 503
        done = restored_from(world, tmp_path / "elsewhere.jsonl")
        assert (done.sealed, done.witnessed, done.done_again) == (2, 3, {"revocation": 1})
        assert world.exchange(revoked.grant).status_code == 400
        tend(world)
        assert verified(world, tmp_path).problems == []
        # And from there once more.
        backup = back_up(sqlite_url, tmp_path)
        revoke(
            world.services, Target("delegation", stands.grant_id), reason="", by="x", now=world.clock.now()
        )
        tend(world)
        put_back(world, sqlite_url, backup)
        tend(world)
        assert restored_from(world, tmp_path / "elsewhere.jsonl").done_again == {"revocation": 1}
        assert verified(world, tmp_path).problems == []


def test_F15_heads_of_a_key_that_was_made_since_count(sqlite_url: str, tmp_path: Path) -> None:
    """The database that was restored does not know the key."""
    with kept(sqlite_url, tmp_path) as world:
        granted = world.granted()
        tend(world)
        backup = back_up(sqlite_url, tmp_path)
        (old,) = world.services.database.read(list_keys)
        rotate_keys.revoke(world.services, old.kid, reason="stolen", by="x", now=world.clock.now())
        world.clock.advance(minutes=1)
        new = world.granted()
        tend(world)
        revoke(
            world.services, Target("delegation", granted.grant_id), reason="", by="x", now=world.clock.now()
        )
        tend(world)
        put_back(world, sqlite_url, backup)
        world.clock.advance(minutes=1)
        tend(world)
        assert world.exchange(granted.grant).status_code == 503
        done = restored_from(world, tmp_path / "elsewhere.jsonl")
        assert done.done_again == {"key.revoked": 1, "revocation": 1}
        world.clock.advance(minutes=1)
        for grant in (granted.grant, new.grant):
            assert world.exchange(grant).status_code == 400
        tend(world)
        assert verified(world, tmp_path).problems == []


def test_F15_what_a_person_lowered_is_lowered_again(sqlite_url: str, tmp_path: Path) -> None:
    with kept(sqlite_url, tmp_path) as world:
        granted, now = world.granted(), world.clock.now()
        user = world.services.database.read(
            lambda c: users.by_id(c, record_of(world, granted.grant_id).user_id)
        )
        assert user is not None
        tend(world)
        backup = back_up(sqlite_url, tmp_path)

        def lowered(details: DelegationDetails) -> DelegationDetails:
            said: dict[str, Any] = details.to_json()
            return parse_delegation(
                said | {"limits": said["limits"] | {"total": "100.00"}}, world.services.vocabulary
            )

        manage_delegation.lower(world.services, user, granted.grant_id, lowered, now)
        before = record_of(world, granted.grant_id).details
        tend(world)
        put_back(world, sqlite_url, backup)
        assert record_of(world, granted.grant_id).details != before
        assert restored_from(world, tmp_path / "elsewhere.jsonl").done_again == {"delegation.lowered": 1}
        assert record_of(world, granted.grant_id).details == before


def test_F15_what_a_copy_has_beyond_the_witness_is_done_again_too(sqlite_url: str, tmp_path: Path) -> None:
    """The newest events are neither sealed nor witnessed when a machine dies; an export may have them."""
    with kept(sqlite_url, tmp_path) as world:
        first, last = world.granted(), world.granted()
        tend(world)
        backup = back_up(sqlite_url, tmp_path)
        world.exchange(first.grant)
        tend(world)
        revoke(world.services, Target("delegation", last.grant_id), reason="", by="x", now=world.clock.now())
        with (tmp_path / "export.jsonl").open("w") as file:
            for event in world.services.database.read(lambda c: list(exported(c))):
                file.write(json.dumps(event) + "\n")
        put_back(world, sqlite_url, backup)
        assert restored_from(world, tmp_path / "export.jsonl").done_again == {"revocation": 1}
        assert world.exchange(last.grant).status_code == 400


def test_F15_a_witness_whose_disk_is_not_there_is_not_begun_anew(sqlite_url: str, tmp_path: Path) -> None:
    with kept(sqlite_url, tmp_path) as world:
        world.granted()
        tend(world)
        heads = tmp_path / "elsewhere.heads"
        heads.rename(tmp_path / "away")
        world.granted()
        tend(world)
        assert not heads.exists()
        assert deliveries.WITNESS_FILE in failing_after(world, 2)
        (problem,) = verify_here(world.services).problems
        assert "is not there" in problem
        (tmp_path / "away").rename(heads)
        world.clock.advance(hours=1)
        tend(world)
        assert verify_here(world.services).problems == []
        assert verified(world, tmp_path).problems == []


def failing_after(world: World, tries: int) -> dict[str, int]:
    for _ in range(tries):
        world.clock.advance(hours=1)
        tend(world)
    return stream.failing(world.services)


def manage(configured: Path, *arguments: str) -> dict[str, Any]:
    """Run a verb as an operator does; what it printed."""
    environment = {**os.environ, "AUTHSERVER_CONFIG": str(configured)}
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def status_of(served: Served, form: dict[str, str]) -> int:
    return httpx.post(f"{served.url}/oauth/token", data=form, timeout=30).status_code


def test_F15_the_program_itself_waits_and_goes_on_when_it_is_told(sqlite_url: str, tmp_path: Path) -> None:
    with kept(sqlite_url, tmp_path) as world:
        stands, revoked = gone_back(world, sqlite_url, tmp_path)
        configured = configuration(world, tmp_path)
        with configured.open("a") as file:
            file.write(f'[audit]\nwitness_file = "{tmp_path}/elsewhere.heads"\n')
        world.services.database.dispose()
        with serving(configured) as served:
            assert status_of(served, world.form(revoked.grant)) == 503
            assert status_of(served, world.form(stands.grant)) == 503
            done = manage(configured, "audit", "restore", "--from", str(tmp_path / "elsewhere.jsonl"))
            assert done["done_again"] == {"revocation": 1}
            until(lambda: status_of(served, world.form(stands.grant)) == 200)
            assert status_of(served, world.form(revoked.grant)) == 400
        assert verified(world, tmp_path).problems == []


def until(true: Callable[[], bool]) -> None:
    """Wait for what a server does within seconds."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_nothing_is_missing_where_nothing_was_restored(sqlite_url: str, tmp_path: Path) -> None:
    with kept(sqlite_url, tmp_path) as world:
        assert look(world.services) is None  # no file yet
        world.granted()
        tend(world)
        assert look(world.services) is None
        with pytest.raises(LookupError):
            restore.restore(world.services, None, by="operator:night", now=world.clock.now())
