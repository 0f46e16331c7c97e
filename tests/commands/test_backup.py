"""`backup`: a whole copy for its owner alone, or nothing. Under load it is tried in tests/faults/test_backups.py."""

import os
import sqlite3
import stat
from pathlib import Path

from tests.commands.conftest import Manage, operator_of


def test_a_copy_is_whole_and_for_its_owner_alone_and_replaces_nothing(
    sqlite_manage: Manage, tmp_path: Path
) -> None:
    copy = tmp_path / "copies" / "copy"
    copy.parent.mkdir()
    printed = sqlite_manage.json("backup", str(copy))
    made = copy.read_bytes()
    assert printed == {"file": str(copy), "bytes": len(made)}
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]
    with sqlite3.connect(copy) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert sqlite_manage.fails("backup", str(copy)) == f"{copy}: is there already, and is left as it is"
    assert copy.read_bytes() == made


def test_a_copy_of_a_schema_that_is_behind_is_made_too(tmp_path: Path) -> None:
    """It is what one makes before an upgrade."""
    (tmp_path / "old.db").touch()
    assert operator_of(tmp_path, "sqlite:///old.db").json("backup", str(tmp_path / "copy"))["bytes"] > 0


def test_a_copy_that_cannot_be_made_is_said_in_one_line(sqlite_manage: Manage) -> None:
    assert sqlite_manage.fails("backup", "/nowhere/copy").startswith("/nowhere/copy: cannot be made: ")


def test_a_damaged_database_is_not_copied(sqlite_manage: Manage, sqlite_url: str, tmp_path: Path) -> None:
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    content = bytearray(path.read_bytes())
    content[8_192:12_288] = os.urandom(4_096)
    path.write_bytes(content)
    sqlite_manage.fails("backup", str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()


def test_postgresql_is_copied_by_its_own_tools(postgresql_url: str, tmp_path: Path) -> None:
    assert "pg_dump" in operator_of(tmp_path, postgresql_url).fails("backup", str(tmp_path / "copy"))
