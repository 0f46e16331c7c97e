"""Keys and secrets are exchanged, and taken back at once where they leaked (docs/rotation.md)."""

import json
import os
import re
import secrets
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from authserver.notifications import addresses
from authserver.reencrypt import SEALED
from authserver.resource_server import InvalidToken
from authserver.schema import Base
from authserver.streams import records as streams
from authserver.streams.records import Delivery, authorization_purpose
from authserver.tokens.sealing import Seal, SealBroken
from tests.commands.conftest import Manage
from tests.documents import blocks
from tests.settling import token_of
from tests.shops import market_of
from tests.world import World

# --- a signing key that leaked ------------------------------------------------------------------------------------


def kids(world: World) -> set[str]:
    world.services.signing_keys.forget()
    return {key["kid"] for key in world.client.get("/oauth/jwks").json()["keys"]}


def test_a_key_that_leaked_is_taken_back_and_all_that_it_signed_ends(running: World, beside: Manage) -> None:
    granted = running.granted()
    token = token_of(running, granted.grant, "10.00")
    assert running.introspect(token)["active"]
    (leaked,) = kids(running)
    made = beside.json("keys", "revoke", leaked, "--reason", "found in a log")
    assert (made["state"], kids(running)) == ("active", {made["kid"]})
    assert made["kid"] != leaked
    assert running.introspect(token) == {"active": False}
    running.refuses(running.exchange(granted.grant), "invalid_request")
    # What is granted anew is signed by the new key, and as good as ever.
    assert running.introspect(token_of(running, running.granted().grant, "10.00"))["active"]
    states = {key["kid"]: key["state"] for key in beside.json("keys", "list", "--json")}
    assert states == {leaked: "removed", made["kid"]: "active"}
    changes = [event for event in running.events() if event["event"].startswith("key.")]
    assert [event["event"] for event in changes] == ["key.revoked", "key.created"]
    assert changes[0]["data"] | {"by": ""} == {"by": "", "kid": leaked, "reason": "found in a log"}
    assert beside.fails("keys", "revoke", leaked, "--reason", "again") == (
        f"there is no key {leaked}, or it is gone already"
    )


def test_a_resource_server_that_verifies_offline_drops_the_key_with_the_first_token_of_another(
    running: World, beside: Manage
) -> None:
    market = market_of(running)
    grant, again = running.granted().grant, running.granted().grant
    assert market.verifier.verify(token_of(running, grant, "10.00"))
    token = token_of(running, again, "10.00")
    (leaked,) = kids(running)
    beside.json("keys", "revoke", leaked, "--reason", "found in a log")
    running.services.signing_keys.forget()
    running.clock.advance(seconds=10)  # nobody fetches keys more often than that
    assert market.verifier.verify(token_of(running, running.granted().grant, "10.00"))
    with pytest.raises(InvalidToken):
        market.verifier.verify(token)


def test_a_pending_key_is_taken_back_and_the_active_one_goes_on(running: World, beside: Manage) -> None:
    (active,) = kids(running)
    pending = beside.json("keys", "rotate")["kid"]
    assert beside.json("keys", "revoke", pending, "--reason", "a rehearsal")["kid"] == active
    assert kids(running) == {active}
    assert running.exchange(running.granted().grant).status_code == 200


# --- the encryption key -------------------------------------------------------------------------------------------


def new_key(folder: Path) -> Path:
    """As docs/rotation.md makes it."""
    path = folder / "new.key"
    script = blocks("rotation.md", "sh", "The encryption key")[0]
    subprocess.run(["bash", "-eu", "-c", script], env={**os.environ, "NEW_KEY": str(path)}, check=True)
    return path


def with_keys(manage: Manage, **said: Path) -> None:
    """Write the section anew; it stands before the trust domains."""
    text = re.sub(r"\[keys\]\n(?:.+\n)*\n", "", manage.config.read_text())
    section = "".join(f'{name} = "{path}"\n' for name, path in said.items())
    manage.config.write_text(text.replace("[[trust_domains]]", f"[keys]\n{section}\n[[trust_domains]]", 1))


def sealed(world: World) -> list[bytes]:
    def read(connection: Connection) -> list[bytes]:
        columns = [select(one.table.c[one.column]) for one in SEALED]
        return [secret for column in columns for secret in connection.scalars(column) if secret]

    return world.services.database.read(read)


def with_one_of_each(world: World) -> None:
    """A secret of every kind that a server comes to have; those that it has from the start are there."""
    services, now = world.services, world.clock.now()

    def write(connection: Connection) -> None:
        place = {"email": "a@b.example"}
        addresses.add(connection, services.seal, "ada", "email", place, now, language="en", confirmed=True)
        header = services.seal.close(b"Bearer secret", authorization_purpose("s"))
        push = Delivery("push", "https://market.example/events", header)
        streams.create(connection, world.market_id, push, None, None, 0, now, stream_id="s")

    services.database.write(write)


def test_the_encryption_key_is_exchanged_while_servers_run(running: World, beside: Manage) -> None:
    services = running.services
    with_one_of_each(running)
    grant = running.granted().grant
    old, new = services.settings.keys.encryption_key_file, new_key(beside.folder)
    before = sealed(running)
    assert len(before) == 7
    # Both are known everywhere before the new one encrypts anything.
    with_keys(beside, encryption_key_file=old, other_encryption_key_file=new)
    assert beside.json("keys", "reencrypt") == {"reencrypted": 0}
    with_keys(beside, encryption_key_file=new, other_encryption_key_file=old)
    made = beside.json("keys", "rotate")["kid"]
    assert beside.json("keys", "reencrypt") == {"reencrypted": 7}
    assert beside.json("keys", "reencrypt") == {"reencrypted": 0}
    assert not {*before} & {*sealed(running)}
    with_keys(beside, encryption_key_file=new)
    assert made in {key["kid"] for key in beside.json("keys", "list", "--json")}
    findings = json.loads(beside.run("doctor", "--json").stdout)
    assert [found["ok"] for found in findings if "key" in found["check"]] == [True, True, True]
    # The server that was running all along still signs, and what it signed before is still good.
    assert running.exchange(grant).status_code == 200
    assert {
        event["data"].get("secrets") for event in running.events() if event["event"] == "keys.reencrypted"
    } == {
        0,
        7,
    }
    with_keys(beside, encryption_key_file=old)
    assert beside.fails("keys", "list").endswith("this is another")


def test_the_other_key_must_be_there_and_nobody_elses(sqlite_manage: Manage) -> None:
    sqlite_manage.prints("keys", "list")
    key = next(sqlite_manage.folder.rglob("encryption.key"))
    with_keys(sqlite_manage, encryption_key_file=key, other_encryption_key_file=Path("nowhere.key"))
    assert "keys.other_encryption_key_file: there is no such file" in sqlite_manage.fails("keys", "list")
    other = new_key(sqlite_manage.folder)
    other.chmod(0o644)
    with_keys(sqlite_manage, encryption_key_file=key, other_encryption_key_file=other)
    assert "others can read it" in sqlite_manage.fails("keys", "list")


def test_every_secret_at_rest_is_renewed() -> None:
    columns = {
        (table.name, column.name)
        for table in Base.metadata.tables.values()
        for column in table.columns
        if column.name.startswith("encrypted_")
    }
    assert columns == {(one.table.name, one.column) for one in SEALED}


def test_a_secret_opens_with_either_key_and_is_sealed_with_one() -> None:
    first, second = secrets.token_bytes(32), secrets.token_bytes(32)
    both = Seal(second, first)
    old = Seal(first).close(b"secret", "a")
    assert both.open(old, "a") == b"secret"
    renewed = both.renew(old, "a")
    assert renewed is not None
    assert Seal(second).open(renewed, "a") == b"secret"
    assert both.renew(renewed, "a") is None
    for wrong in (
        lambda: both.open(old, "b"),
        lambda: Seal(second).open(old, "a"),
        lambda: both.renew(old, "b"),
    ):
        with pytest.raises(SealBroken):
            wrong()


# --- a resource server's secret -----------------------------------------------------------------------------------


def authenticates(world: World, secret: str) -> bool:
    answer = world.client.post("/oauth/introspect", data={"token": "x"}, auth=(world.market_id, secret))
    assert answer.status_code in (200, 401)
    return answer.status_code == 200


def test_both_secrets_are_taken_for_as_long_as_was_said(running: World, beside: Manage) -> None:
    old = running.market_secret
    new = beside.json("resource-servers", "renew-secret", running.market_id, "--overlap", "PT1H")
    assert new["id"] == running.market_id
    assert authenticates(running, old)
    assert authenticates(running, new["client_secret"])
    running.clock.advance(seconds=3_601)
    assert not authenticates(running, old)
    assert authenticates(running, new["client_secret"])
    (renewed,) = [event for event in running.events() if event["event"].endswith("secret_renewed")]
    assert renewed["data"]["resource_server"]["id"] == running.market_id
    assert new["client_secret"] not in str(renewed)


def test_a_secret_that_leaked_ends_at_once(running: World, beside: Manage) -> None:
    first = beside.json("resource-servers", "renew-secret", running.market_id)["client_secret"]
    second = beside.json("resource-servers", "renew-secret", running.market_id, "--overlap", "PT0S")
    for ended in (running.market_secret, first):
        assert not authenticates(running, ended)
    assert authenticates(running, second["client_secret"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["rs_nobody"], "there is no resource server rs_nobody"),
        (["https://key.example"], "https://key.example does not authenticate by a secret, but by jwt-spiffe"),
        (["https://key.example", "--overlap", "soon"], "must be a duration such as PT10M, PT2H or P7D"),
        (["https://key.example", "--overlap", "P9999D"], "--overlap takes at most 90 days"),
    ],
)
def test_what_has_no_secret_has_none_to_renew(sqlite_manage: Manage, options: list[str], reason: str) -> None:
    made = ("--identifier", "https://key.example", "--auth", "jwt-spiffe")
    sqlite_manage.json("resource-servers", "create", *made, "--subject", "spiffe://example.org/shop")
    assert sqlite_manage.fails("resource-servers", "renew-secret", *options) == reason
