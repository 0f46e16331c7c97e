"""What `make setup` installs is written down to the last byte."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _locked() -> dict[str, str]:
    """Each name of the lock with its version."""
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", LOCK, re.MULTILINE))


def _asked_for() -> list[Requirement]:
    project = PROJECT["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    asked = map(Requirement, [*project["dependencies"], *extras, *PROJECT["dependency-groups"]["build"]])
    return [requirement for requirement in asked if requirement.name != project["name"]]


def test_A128_every_dependency_is_pinned_with_hashes() -> None:
    statements = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", LOCK, flags=re.MULTILINE)).splitlines()
    assert len(statements) == len(_locked()) > 50
    for statement in statements:
        assert re.fullmatch(r"[a-z0-9.-]+==\S+( +--hash=sha256:[0-9a-f]{64})+ *", statement)


def test_A128_the_lock_names_no_registry() -> None:
    assert not re.search(r"https?:|--(extra-)?index|--find-links", LOCK)


@pytest.mark.parametrize("requirement", _asked_for(), ids=str)
def test_the_lock_holds_what_the_project_asks_for(requirement: Requirement) -> None:
    assert requirement.specifier.contains(_locked()[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("extra", ["resource-server", "agent"])
def test_the_kits_bring_neither_flask_nor_sqlalchemy(extra: str) -> None:
    project = PROJECT["project"]
    asked = {
        Requirement(line).name for line in project["dependencies"] + project["optional-dependencies"][extra]
    }
    assert not {"Flask", "SQLAlchemy", "Authlib"} & asked
    assert not {"flask", "sqlalchemy"} & _brought_by({canonicalize_name(name) for name in asked})


def _brought_by(names: set[str]) -> set[str]:
    """The names with everything they need, as the lock's `# via` lines say."""
    needed_by = {
        name: set(re.findall(r"[a-z0-9.-]+", via))
        for name, via in re.findall(r"^([a-z0-9.-]+)==(?:.*\\\n)+.*\n((?: +#.*\n)+)", LOCK, re.MULTILINE)
    }
    while more := {name for name, parents in needed_by.items() if parents & names} - names:
        names = names | more
    return names
