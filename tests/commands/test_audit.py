"""`audit`: what an auditor does with it, on the server and far from it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from authserver.commands import main
from tests.commands.conftest import Manage


@pytest.fixture
def audited(sqlite_manage: Manage) -> Manage:
    """A server with some sealed events, in more than one batch."""
    for number in range(5):
        name = f"agent-{number}"
        sqlite_manage.prints(
            "agents",
            "create",
            "--client-id",
            name,
            "--trust-domain",
            "example.org",
            "--subject",
            f"spiffe://example.org/{name}",
        )
        sqlite_manage.prints("audit", "seal")
    return sqlite_manage


@pytest.fixture
def elsewhere(audited: Manage, tmp_path: Path) -> Any:
    """An auditor who has the server's keys and name, and neither its configuration nor its database."""
    keys = tmp_path / "keys.json"
    keys.write_text(audited.prints("audit", "keys"))
    runner, nothing = CliRunner(), {"AUTHSERVER_CONFIG": str(tmp_path / "no-such-file")}

    def verify(*arguments: str) -> tuple[int, dict[str, Any]]:
        issuer = "https://auth.example"
        command = ["audit", "verify", *arguments, "--jwks", str(keys), "--issuer", issuer]
        result = runner.invoke(main, command, env=nothing)
        return result.exit_code, json.loads(result.stdout)

    return verify


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_an_auditor_verifies_an_export_without_the_server(
    audited: Manage, elsewhere: Any, tmp_path: Path
) -> None:
    export, heads = audited.prints("audit", "export"), audited.prints("audit", "heads")
    kept = written(tmp_path / "heads.txt", heads)
    whole = ("--export", written(tmp_path / "events.jsonl", export), "--heads", kept)
    code, found = elsewhere(*whole)
    assert (code, found["ok"], found["sealed"]) == (0, True, 5)
    assert found["root_hash"] == json.loads(audited.prints("audit", "verify"))["root_hash"]
    changed = export.replace("agent-2", "agent-9")
    code, found = elsewhere("--export", written(tmp_path / "changed.jsonl", changed), "--heads", kept)
    assert (code, found["ok"]) == (1, False)


def test_a_proof_that_an_event_is_in_the_tree_needs_only_the_keys(
    audited: Manage, elsewhere: Any, tmp_path: Path
) -> None:
    for number in range(1, 6):
        proof = json.loads(audited.prints("audit", "prove", "--event", str(number)))
        said = written(tmp_path / "proof.json", json.dumps(proof))
        assert elsewhere("--proof", said) == (
            0,
            {"ok": True, "shows": f"event {number} is leaf {number - 1} of the 5 that were signed"},
        )
        for bent in (
            proof | {"event": proof["event"] | {"event": "agent.enabled"}},
            proof | {"event": proof["event"] | {"leaf": 5 - proof["event"]["leaf"]}},
            proof | {"inclusion": proof["inclusion"][::-1][1:]},
            proof | {"inclusion": "no list"},
            proof | {"head": proof["head"][:-4]},
            {},
        ):
            code, found = elsewhere("--proof", written(tmp_path / "bent.json", json.dumps(bent)))
            assert (code, found["ok"]) == (1, False), bent


def test_a_proof_that_the_tree_only_grew_needs_only_the_keys(
    audited: Manage, elsewhere: Any, tmp_path: Path
) -> None:
    for size in range(1, 6):
        proof = json.loads(audited.prints("audit", "prove", "--since", str(size)))
        said = written(tmp_path / "proof.json", json.dumps(proof))
        shows = f"the first {size} of the 5 events that were signed are as they were"
        assert elsewhere("--proof", said) == (0, {"ok": True, "shows": shows})
        for bent in (
            proof | {"consistency": [*proof["consistency"], "00" * 32]},
            proof | {"earlier_head": proof["head"]} if size < 4 else {},
        ):
            code, _ = elsewhere("--proof", written(tmp_path / "bent.json", json.dumps(bent)))
            assert code == 1, (size, bent)


def test_there_is_no_proof_of_what_is_not_sealed(audited: Manage) -> None:
    for arguments in (("--event", "99"), ("--since", "99"), (), ("--event", "1", "--since", "1")):
        assert audited.run("audit", "prove", *arguments).exit_code != 0


def test_an_export_goes_on_after_an_event(audited: Manage) -> None:
    every = audited.prints("audit", "export").splitlines()
    assert audited.prints("audit", "export", "--after", "3").splitlines() == every[3:]
    assert audited.prints("audit", "export", "--after", "5") == ""
    assert audited.prints("audit", "export", "--since", "2001-01-01", "--until", "2001-01-02") == ""
    assert len(audited.prints("audit", "export", "--format", "ocsf", "--after", "4").splitlines()) == 1
