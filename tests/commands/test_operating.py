"""What keeps a server in order: migrate, ledger, keys, audit, prune, doctor, workload (contract §11)."""

import dataclasses
import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, update

from authserver.db import Database
from authserver.schema import AuditEvent, Budget, EventStream, SigningKey, table_of
from authserver.upkeep import Tidied
from tests.commands.conftest import Manage, operator_of
from tests.fakes import SettableClock
from tests.world import World

HELPER = "spiffe://example.org/agent/helper"
AGENT = ("agents", "create", "--client-id", "a", "--trust-domain", "example.org", "--subject", HELPER)


def spoil_a_budget(url: str) -> None:
    """Change a running total behind the ledger's back."""
    database = Database(url)
    database.write(lambda connection: connection.execute(update(table_of(Budget)).values(reserved=1)))
    database.dispose()


# --- migrate ------------------------------------------------------------------------------------------------------


def test_a_database_is_migrated_once(empty_database_url: str, tmp_path: Path) -> None:
    manage = operator_of(tmp_path, empty_database_url)
    applied = manage.prints("migrate").splitlines()
    assert applied[0].startswith("applied 0001")
    assert applied[-1] == "the schema is up to date"
    assert manage.prints("migrate") == "the schema is up to date\n"
    assert manage.json("agents", "list", "--json") == []


def test_the_folder_of_an_embedded_database_is_made(tmp_path: Path) -> None:
    manage = operator_of(tmp_path, "sqlite:///var/authserver.db")
    manage.prints("migrate")
    assert (tmp_path / "var" / "authserver.db").is_file()


@pytest.mark.parametrize(
    "verb", [AGENT, ("agents", "list"), ("serve",), ("revoke", "--all"), ("ledger", "check"), ("prune",)]
)
def test_nothing_is_done_with_a_schema_that_is_behind(
    empty_database_url: str, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    manage = operator_of(tmp_path, empty_database_url)
    assert manage.fails(*verb) == "the database's schema is behind: run  python manage.py migrate"


def test_a_database_that_cannot_be_reached_is_said_in_one_line(tmp_path: Path) -> None:
    manage = operator_of(tmp_path, "sqlite:///nowhere/authserver.db")
    assert manage.fails("agents", "list") == "the database cannot do it: unable to open database file"


def test_a_configuration_error_is_said_by_its_message(tmp_path: Path) -> None:
    manage = Manage(tmp_path, '[server]\nissuer = "ftp://auth.example"\n[database]\nurl = "sqlite:///a.db"\n')
    for verb in (("serve",), ("migrate",), ("agents", "list")):
        result = manage.run(*verb)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == (
            f"{manage.config}: server.issuer: takes an https URL; http is for loopback addresses only\n"
            f"{manage.config}: trust_domains: is required\n"
        )


# --- ledger -------------------------------------------------------------------------------------------------------


def test_a_ledger_that_adds_up_is_right(running: World, beside: Manage) -> None:
    assert running.exchange(running.granted().grant).status_code == 200
    assert beside.prints("ledger", "check").startswith("the ledger is right")
    assert beside.json("ledger", "check", "--json") == []


def test_a_total_that_is_not_the_sum_of_its_transfers_is_found(
    running: World, beside: Manage, database_url: str
) -> None:
    granted = running.granted()
    spoil_a_budget(database_url)
    result = beside.run("ledger", "check", "--json")
    assert (result.exit_code, result.stderr) == (1, "the ledger is wrong in 1 totals\n")
    assert json.loads(result.stdout) == [
        {"delegation_id": granted.grant_id, "total": "reserved", "recorded": 1, "computed": 0}
    ]
    assert granted.grant_id in beside.run("ledger", "check").stdout


# --- keys ---------------------------------------------------------------------------------------------------------


def test_a_rotated_key_is_published_before_it_signs(running: World, beside: Manage) -> None:
    (first,) = beside.json("keys", "list", "--json")
    assert first["state"] == "active"
    made = beside.json("keys", "rotate")
    assert made["state"] == "pending"
    old, new = beside.json("keys", "list", "--json")
    assert (old["kid"], old["state"], old["retires_at"]) == (first["kid"], "active", made["activates_at"])
    assert new["kid"] == made["kid"]
    running.services.signing_keys.forget()
    assert {key["kid"] for key in running.client.get("/oauth/jwks").json()["keys"]} == {
        old["kid"],
        new["kid"],
    }
    assert [event["event"] for event in running.events()] == ["key.created"]


def test_no_private_key_is_ever_shown(sqlite_manage: Manage) -> None:
    shown = sqlite_manage.prints("keys", "rotate") + sqlite_manage.prints("keys", "list", "--json")
    assert '"d"' not in shown
    assert "PRIVATE" not in shown


# --- audit --------------------------------------------------------------------------------------------------------


def test_the_audit_is_exported_line_by_line_in_order(running: World, beside: Manage) -> None:
    grant = running.granted().grant
    running.exchange(grant)
    running.exchange("nonsense")
    events = [json.loads(line) for line in beside.prints("audit", "export").splitlines()]
    assert [event["event"] for event in events] == [
        "delegation.created",
        "exchange.permitted",
        "exchange.refused",
    ]
    assert [event["id"] for event in events] == sorted(event["id"] for event in events)
    assert grant not in json.dumps(events)


# --- prune --------------------------------------------------------------------------------------------------------


def test_pruning_gives_back_what_dead_tokens_held(
    running: World, beside: Manage, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = running.granted().grant
    assert running.exchange(grant, headers={"Idempotency-Key": "one"}).status_code == 200
    assert running.rows().reserved == 4250
    later = SettableClock(datetime.now(UTC) + timedelta(days=8))
    monkeypatch.setattr("authserver.commands.context.SystemClock", lambda: later)
    nothing = dict.fromkeys((field.name for field in dataclasses.fields(Tidied)), 0)
    assert beside.json("prune") == nothing | {"reservations": 1, "idempotency_keys": 1}
    assert (running.rows().reserved, running.rows().idempotency_keys) == (0, 0)
    assert beside.json("prune") == nothing
    assert beside.json("ledger", "check", "--json") == []


# --- doctor -------------------------------------------------------------------------------------------------------


def findings(manage: Manage) -> tuple[int, dict[str, bool]]:
    """The exit code, and what is as it should be."""
    result = manage.run("doctor", "--json")
    return result.exit_code, {finding["check"]: finding["ok"] for finding in json.loads(result.stdout)}


@pytest.fixture
def healthy(sqlite_url: str, tmp_path: Path) -> Manage:
    """The verbs, with a server that has started once."""
    manage = operator_of(tmp_path, sqlite_url)
    manage.prints("keys", "list")
    return manage


def wrong(manage: Manage) -> list[str]:
    """What the doctor finds wrong."""
    exit_code, found = findings(manage)
    assert exit_code == 1
    return [check for check, ok in found.items() if not ok]


def test_a_healthy_server_has_a_line_for_each_check(healthy: Manage) -> None:
    exit_code, found = findings(healthy)
    assert (exit_code, set(found.values())) == (0, {True})
    assert list(found) == [
        "configuration",
        "catalogue",
        "schema",
        "durability",
        "encryption key",
        "signing keys",
        "trust domain example.org",
        "trust domain cluster",
        "ledger",
        "policies",
        "files",
        "metrics",
        "clock",
        "key age",
        "sealing",
        "witnesses",
        "history",
        "event receivers",
    ]
    lines = healthy.prints("doctor").splitlines()
    assert [line.split("  ")[0] for line in lines] == ["ok"] * len(found)


def test_the_doctor_changes_nothing(sqlite_manage: Manage) -> None:
    sqlite_manage.prints("doctor")
    assert not (sqlite_manage.folder / "encryption.key").exists()
    assert sqlite_manage.json("doctor", "--json")[5]["detail"] == "will be made at the first start"


def test_the_doctor_finds_a_key_that_others_can_read(healthy: Manage) -> None:
    (healthy.folder / "encryption.key").chmod(0o644)
    assert wrong(healthy) == ["encryption key", "signing keys"]


def test_the_doctor_finds_a_key_that_is_gone(healthy: Manage) -> None:
    (healthy.folder / "encryption.key").unlink()
    assert wrong(healthy) == ["encryption key", "signing keys"]
    assert not (healthy.folder / "encryption.key").exists()


def test_the_doctor_finds_a_key_that_is_another(healthy: Manage, tmp_path: Path) -> None:
    (healthy.folder / "encryption.key").unlink()
    other = operator_of(tmp_path, f"sqlite:///{tmp_path / 'other.db'}")
    other.prints("migrate")
    other.prints("keys", "list")
    manage = operator_of(tmp_path, f"sqlite:///{tmp_path / 'authserver.db'}")
    assert wrong(manage) == ["signing keys"]


def test_the_doctor_finds_a_trust_domain_without_keys(healthy: Manage) -> None:
    (healthy.folder / "example.org" / "jwks.json").unlink()
    assert wrong(healthy) == ["trust domain example.org"]


STREAM = {
    "id": "s1",
    "resource_server_id": "rs_1",
    "status": "enabled",
    "method": "push",
    "endpoint_url": "https://shop.example/events",
    "read_event": 0,
    "read_within": "",
    "failures": 9,
    "trouble": "connect",
}


def test_the_doctor_finds_what_is_behind_or_old(healthy: Manage, sqlite_url: str) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=200)
    database = Database(sqlite_url)

    def spoil(connection: Connection) -> None:
        connection.execute(table_of(SigningKey).update().values(activates_at=long_ago))
        connection.execute(table_of(AuditEvent).insert().values(at=long_ago, event="a.b", data="{}"))
        times = dict.fromkeys(("created_at", "due_at", "failing_since", "heard_at"), long_ago)
        connection.execute(table_of(EventStream).insert().values(STREAM | times))

    database.write(spoil)
    database.dispose()
    assert wrong(healthy) == ["key age", "sealing", "event receivers"]
    said = {check["check"]: check["detail"] for check in json.loads(healthy.run("doctor", "--json").stdout)}
    assert "200 days old: run  python manage.py keys rotate" in said["key age"]
    assert "https://shop.example/events: connect, for 4800 h 0 min" in said["event receivers"]


def test_the_doctor_finds_a_schema_that_is_behind(tmp_path: Path) -> None:
    assert wrong(operator_of(tmp_path, f"sqlite:///{tmp_path / 'empty.db'}"))[0] == "schema"


def test_the_doctor_finds_a_ledger_that_is_wrong(running: World, beside: Manage, database_url: str) -> None:
    running.granted()
    spoil_a_budget(database_url)
    assert "ledger" in wrong(beside)


def test_the_doctor_finds_a_database_that_forgets(postgresql_url: str, tmp_path: Path) -> None:
    """The tests' own PostgreSQL does not wait for the disk."""
    manage = operator_of(tmp_path, postgresql_url)
    result = manage.run("doctor")
    assert (result.exit_code, result.stderr) == (1, "1 of 19 checks failed\n")
    assert "WRONG  durability: what is committed can be lost: fsync off" in result.stdout


def test_the_doctor_says_what_is_wrong_with_the_configuration(tmp_path: Path) -> None:
    manage = Manage(tmp_path, "[server]\n")
    assert wrong(manage) == ["configuration"]


# --- workload -----------------------------------------------------------------------------------------------------


def test_a_trust_domain_is_made_ready_for_the_configuration(tmp_path: Path) -> None:
    manage = Manage(tmp_path, "")
    directory = tmp_path / "domain"
    block = manage.prints(
        "workload", "create-domain", "example.com", "--kind", "spiffe", "--directory", str(directory)
    )
    assert block.startswith('[[trust_domains]]\nname = "example.com"\n')
    assert f'jwks_file = "{directory}/jwks.json"' in block
    assert stat.S_IMODE((directory / "private_key.pem").stat().st_mode) == 0o600
    start = '[server]\nissuer = "https://auth.example"\n[database]\nurl = "sqlite:///a.db"\n'
    (tmp_path / "authserver.toml").write_text(start + block)
    manage.prints("migrate")
    assert "trust domain example.com" in [check["check"] for check in manage.json("doctor", "--json")]


def test_a_trust_domain_is_made_once_and_of_a_kind_that_there_is(tmp_path: Path) -> None:
    manage = Manage(tmp_path, "")
    create = ("workload", "create-domain", "--directory", str(tmp_path / "d"))
    made = manage.json(*create, "cluster", "--kind", "kubernetes", "--json")
    assert (made["name"], made["kind"]) == ("cluster", "kubernetes")
    assert "there is a trust domain already" in manage.fails(*create, "cluster", "--kind", "kubernetes")
    assert "name: takes 1 to 255" in manage.fails(*create, "Exa mple", "--kind", "spiffe")
    assert manage.run(*create, "cluster", "--kind", "ldap").exit_code == 2


def test_an_assertion_is_good_for_the_configured_server(running: World, beside: Manage) -> None:
    subject = "spiffe://example.org/agent/basket-helper"
    assertion = ("workload", "assertion", "--directory", str(running.domain), "--subject", subject)
    grant = running.granted().grant
    assert running.exchange(grant, actor_token=beside.prints(*assertion).strip()).status_code == 200
    elsewhere = beside.prints(*assertion, "--audience", "https://other.example", "--lifetime", "60").strip()
    running.refuses(running.exchange(grant, actor_token=elsewhere), "invalid_request")


def test_an_assertion_needs_a_trust_domain(tmp_path: Path) -> None:
    manage = Manage(tmp_path, "")
    arguments = ("workload", "assertion", "--directory", str(tmp_path), "--subject", "a", "--audience", "b")
    assert "there is no trust domain here" in manage.fails(*arguments)
