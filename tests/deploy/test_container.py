"""The container's file: what it copies is there, and what it runs runs, as nobody in particular and writing nothing.

No container engine runs here: its instructions are read and done by hand, with this environment's Python.
"""

import json
import os
import re
import runpy
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from examples.processes import free_port
from tests.attacks.serving import ROOT

FILE = (ROOT / "deploy" / "Containerfile").read_text(encoding="utf-8")
PYTHON = "/opt/authserver/bin/python"


def instructions() -> list[tuple[str, str]]:
    """Each instruction with what follows it, lines put together."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", FILE, flags=re.MULTILINE))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in text.splitlines() if line.strip()]


def of(kind: str) -> list[str]:
    return [rest for name, rest in instructions() if name == kind]


def copied() -> list[tuple[list[str], str]]:
    """What comes from the checkout, and where it goes."""
    found = [shlex.split(rest) for rest in of("COPY") if not rest.startswith("--from")]
    return [(parts[:-1], parts[-1]) for parts in found]


def ignored(path: str) -> bool:
    """Whether the build would not be given the file."""
    lines = (ROOT / "deploy" / "Containerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "*"
    return f"!{path}" not in lines


def test_everything_that_it_copies_is_there_and_is_given_to_the_build() -> None:
    sources = [source for sources, _ in copied() for source in sources]
    assert len(sources) == 6
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not ignored(source), source


def test_the_image_that_runs_has_nothing_to_build_or_install_with() -> None:
    last = FILE.rpartition("\nFROM ")[2]
    assert "pip uninstall" in last
    assert not re.search(r"apt-get|pip install|gcc|build-essential", last)
    assert "--require-hashes" in FILE
    assert "--without-pip" in FILE
    assert of("USER") == ["10001:10001"]


# --- what it installs ---------------------------------------------------------------------------------------------


def locked(path: Path) -> dict[str, str]:
    blocks = re.findall(
        r"^([a-z0-9.-]+)(==\S+ \\\n(?:    --hash=\S+(?: \\)?\n)+)", path.read_text(), re.MULTILINE
    )
    return dict(blocks)


def test_A128_the_containers_lock_is_a_part_of_the_projects() -> None:
    small, whole = locked(ROOT / "deploy" / "requirements.lock"), locked(ROOT / "requirements.lock")
    assert len(small) > 40
    assert small.items() <= whole.items()
    assert not {"pytest", "playwright", "mypy", "mkdocs", "setuptools", "wheel"} & small.keys()


def test_A128_the_containers_lock_is_complete() -> None:
    """Whatever the server and its traces need, and whatever that needs, is in it."""
    small = locked(ROOT / "deploy" / "requirements.lock")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [Requirement(line) for line in project["dependencies"] + extras["server"] + extras["traces"]]
    seen = set[str]()
    while asked:
        requirement = asked.pop()
        name = canonicalize_name(requirement.name)
        assert name in small, requirement
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        for line in distribution(name).requires or []:
            needed = Requirement(line)
            environments = [{"extra": extra} for extra in (*requirement.extras, "")]
            if needed.marker is None or any(needed.marker.evaluate(one) for one in environments):
                asked.append(needed)


# --- what it runs -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Image:
    """The tree that the file puts together, for somebody who may write nothing of it."""

    folder: Path
    state: Path
    environment: dict[str, str]

    def command(self, *arguments: str) -> list[str]:
        """The entry point with these arguments, without any privilege."""
        entry = json.loads(of("ENTRYPOINT")[0])
        return [*unprivileged(), *(sys.executable if part == PYTHON else part for part in entry), *arguments]

    def runs(self, *arguments: str) -> str:
        """What a command prints that succeeds."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def unprivileged() -> list[str]:
    """Run what follows as somebody who is nothing but themselves: root without any of its privileges is that, too."""
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is not installed: root's privileges cannot be put down")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"]


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    folder, state, settings = tmp_path / "src", tmp_path / "state", tmp_path / "etc"
    for path in (folder, state, settings):
        path.mkdir()
    for sources, target in copied():
        for source in sources:
            if target.startswith("/opt/authserver/src"):
                to = folder / target.removeprefix("/opt/authserver/src").strip("/")
                copy(ROOT / source, to / Path(source).name if target.endswith("/") else to)
    (settings / "authserver.toml").write_text((ROOT / "deploy" / "authserver.toml").read_text())
    belongs_to_nobody(folder)
    said = dict(part.split("=", 1) for part in shlex.split(of("ENV")[0]))
    port = free_port()
    environment = said | {
        "PATH": "/usr/bin:/bin",
        "AUTHSERVER_CONFIG": str(settings / "authserver.toml"),
        "AUTHSERVER_DATABASE__URL": f"sqlite:///{state / 'authserver.db'}",
        "AUTHSERVER_KEYS__ENCRYPTION_KEY": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
        "AUTHSERVER_SERVER__PORT": str(port),
        "AUTHSERVER_SERVER__WORKERS": "1",
    }
    yield Image(folder, state, environment)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)


def copy(source: Path, to: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, to, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, to)


def belongs_to_nobody(folder: Path) -> None:
    """Everybody may read it, and nobody may write it: not even root, once it has put down its privileges."""
    for path in [*folder.rglob("*"), folder]:
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
        path.chmod(0o555 if path.is_dir() else 0o444)


def test_it_runs_as_nobody_in_particular_in_a_tree_that_cannot_be_written(image: Image) -> None:
    before = sorted(image.folder.rglob("*"))
    touched = subprocess.run(
        [*unprivileged(), "touch", str(image.folder / "x")], capture_output=True, check=False
    )
    assert touched.returncode != 0
    assert image.runs("migrate").endswith("the schema is up to date\n")
    (serve,) = (json.loads(rest) for rest in of("CMD"))
    with subprocess.Popen(
        image.command(*serve),
        cwd=image.folder,
        env=image.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as server:
        try:
            is_healthy(image, server)
            server.send_signal(signal.Signals[of("STOPSIGNAL")[0]])
            assert server.wait(10) == 0
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
    assert sorted(image.folder.rglob("*")) == before
    assert {path.name.partition("-")[0] for path in image.state.iterdir()} == {"authserver.db"}
    assert stat.S_IMODE(image.folder.stat().st_mode) == 0o555


def is_healthy(image: Image, server: "subprocess.Popen[bytes]") -> None:
    """By the image's own health check."""
    (check,) = (json.loads(rest[rest.index("[") :]) for rest in of("HEALTHCHECK"))
    port = image.environment["AUTHSERVER_SERVER__PORT"]
    command = [sys.executable, *(part.replace(":8000", f":{port}") for part in check[1:])]
    deadline = time.monotonic() + 20
    while subprocess.run(command, capture_output=True, check=False).returncode != 0:
        assert server.poll() is None, server.stderr and server.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_installed_package_has_the_same_verbs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["authserver", "keys", "--help"])
    with pytest.raises(SystemExit):
        runpy.run_module("authserver", run_name="__main__")
    assert "Usage: authserver keys" in capsys.readouterr().out
