"""A copy that is made under load is restored elsewhere, and is a whole server again (docs/backup.md)."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url

from tests.attacks.serving import ROOT, configuration
from tests.documents import blocks
from tests.faults.servers import server
from tests.faults.storm import Storm, storm
from tests.settling import settle, token_of
from tests.world import World

PAGE = "backup.md"


def run(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run what the page says, as an operator does."""
    return subprocess.run(
        ["bash", "-eu", "-c", script.replace("python manage.py", f"{sys.executable} manage.py")],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def runs(script: str, environment: dict[str, str]) -> str:
    done = run(script, environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def let_some_pass(shopping: Storm, many: int = 20) -> None:
    before = shopping.answers
    while shopping.answers < before + many:
        shopping.goes_on()


def restored(world: World, heading: str, said: dict[str, str], tmp_path: Path) -> str:
    """Restore the copy into an empty place, by the page's commands; the URL of the new database."""
    if heading == "SQLite":
        folder = tmp_path / "restored"
        folder.mkdir()
        runs(blocks(PAGE, "sh", heading)[1], said | {"DATABASE": str(folder / "authserver.db")})
        return f"sqlite:///{folder / 'authserver.db'}"
    url = make_url(world.services.settings.database.url.get_secret_value()).set(drivername="postgresql")
    new = url.set(database=f"{url.database}_restored")
    place = {"MAINTENANCE": url.set(database="postgres").render_as_string(), "NAME": str(new.database)}
    runs(blocks(PAGE, "sh", heading)[1], said | place | {"DATABASE": new.render_as_string()})
    return new.set(drivername="postgresql+psycopg").render_as_string()


def test_a_copy_made_under_load_is_a_whole_server_again(world: World, tmp_path: Path) -> None:
    configured = configuration(world, tmp_path)
    url = world.services.settings.database.url.get_secret_value()
    heading = "SQLite" if world.services.database.is_sqlite else "PostgreSQL"
    said = {"AUTHSERVER_CONFIG": str(configured), "BACKUP": str(tmp_path / "copy")}
    said["DATABASE"] = make_url(url).set(drivername="postgresql").render_as_string()
    granted = world.granted()
    with server(configured, workers=2) as running, storm(world, running.url, seed=3) as shopping:
        let_some_pass(shopping)
        token = token_of(world, granted.grant, "10.00")
        runs(blocks(PAGE, "sh", heading)[0], said)
        let_some_pass(shopping)
        shopping.end()
    elsewhere = said | {"AUTHSERVER_DATABASE__URL": restored(world, heading, said, tmp_path)}
    migrate, _, check = blocks(PAGE, "sh", "After a restore")[0].splitlines()
    assert runs(f"{migrate}\n{check}", elsewhere).endswith("every total is the sum of its transfers\n")
    with server(configured, environment=elsewhere) as again, httpx.Client(base_url=again.url) as client:
        # What was issued before is good for its one use, and the budget goes on from there.
        assert settle(world, "redeem", {"token": token}, client=client).status_code == 201
        assert settle(world, "redeem", {"token": token}, client=client).status_code == 409
        assert client.post("/oauth/token", data=world.form(granted.grant)).status_code == 200
    assert "right" in runs(check, elsewhere)


def test_a_copy_is_for_its_owner_alone_and_replaces_nothing(sqlite_world: World, tmp_path: Path) -> None:
    said = {"AUTHSERVER_CONFIG": str(configuration(sqlite_world, tmp_path)), "BACKUP": str(tmp_path / "copy")}
    runs(blocks(PAGE, "sh", "SQLite")[0], said)
    made = (tmp_path / "copy").read_bytes()
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.glob("copy*")) == ["copy"]
    again = run(blocks(PAGE, "sh", "SQLite")[0], said)
    assert (again.returncode, again.stderr) == (
        1,
        f"{tmp_path}/copy: is there already, and is left as it is\n",
    )
    assert (tmp_path / "copy").read_bytes() == made
    nowhere = run(blocks(PAGE, "sh", "SQLite")[0], said | {"BACKUP": "/nowhere/copy"})
    assert (nowhere.returncode, nowhere.stderr.count("\n")) == (1, 1)


def test_a_damaged_database_is_not_copied(sqlite_world: World, tmp_path: Path) -> None:
    configured = configuration(sqlite_world, tmp_path)
    path = Path(str(sqlite_world.services.database.url.database))
    sqlite_world.services.database.dispose()
    content = bytearray(path.read_bytes())
    content[8_192:12_288] = os.urandom(4_096)
    path.write_bytes(content)
    said = {"AUTHSERVER_CONFIG": str(configured), "BACKUP": str(tmp_path / "copy")}
    done = run(blocks(PAGE, "sh", "SQLite")[0], said)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("verb", ["backup"])
def test_postgresql_is_copied_by_its_own_tools(postgresql_url: str, tmp_path: Path, verb: str) -> None:
    configured = tmp_path / "authserver.toml"
    configured.write_text(
        f'''[server]\nissuer = "https://auth.example"\n[database]\nurl = "{postgresql_url}"\n'''
        """[[trust_domains]]\nname = "example.org"\nkind = "spiffe"\njwks_file = "jwks.json"\n"""
    )
    done = run(f"python manage.py {verb} {tmp_path}/copy", {"AUTHSERVER_CONFIG": str(configured)})
    assert done.returncode == 1
    assert "pg_dump" in done.stderr
