"""A copy that is made under load is restored elsewhere, and is a whole server again (docs/backup.md)."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner
from sqlalchemy import make_url

from authserver.app import build
from authserver.commands import main
from authserver.config import load_settings
from authserver.services import open_services
from tests.attacks.serving import ROOT, configuration
from tests.documents import blocks
from tests.faults.servers import server
from tests.faults.storm import Storm, storm
from tests.settling import settle, token_of
from tests.shops import served
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


def let_some_pass(shopping: Storm, many: int = 10) -> None:
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
    with server(configured) as running, storm(world, running.url, shoppers=3, seed=3) as shopping:
        let_some_pass(shopping)
        token = token_of(world, granted.grant, "10.00")
        runs(blocks(PAGE, "sh", heading)[0], said)
        let_some_pass(shopping)
        shopping.end()
    elsewhere = configuration(world, tmp_path, database_url=restored(world, heading, said, tmp_path))
    _, ledger, audit = blocks(PAGE, "sh", "After a restore")[0].splitlines()
    assert checks_out(elsewhere, ledger).startswith("the ledger is right")
    assert json.loads(checks_out(elsewhere, audit))["problems"] == []
    app = build(open_services(load_settings(elsewhere), world.clock))
    with served(app) as client:
        # What was issued before is good for its one use, and the budget goes on from there.
        assert settle(world, "redeem", {"token": token}, client=client).status_code == 201
        assert settle(world, "redeem", {"token": token}, client=client).status_code == 409
        assert client.post("/oauth/token", data=world.form(granted.grant)).status_code == 200


def checks_out(configured: Path, line: str) -> str:
    """What a verb of the page prints that succeeds."""
    python, manage, *verb = shlex.split(line)
    assert (python, manage) == ("python", "manage.py")
    result = CliRunner().invoke(
        main, verb, env={"AUTHSERVER_CONFIG": str(configured)}, catch_exceptions=False
    )
    assert result.exit_code == 0, result.stderr
    return result.stdout
