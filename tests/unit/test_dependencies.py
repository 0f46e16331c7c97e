"""What `make setup` installs is written down to the last byte."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

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


# Of what handles what strangers send: the versions that mended what is known of them.
_FIXED = {
    "authlib": ("1.6.9", "CVE-2026-27962, CVE-2025-62706, CVE-2025-61920, CVE-2025-59420, CVE-2024-37568"),
    "cryptography": ("44.0.1", "CVE-2024-12797"),
    "h11": ("0.16.0", "CVE-2025-43859"),
    "jinja2": ("3.1.6", "CVE-2025-27516"),
    "joserfc": ("1.4.2", "CVE-2025-65015"),
    "pyjwt": ("2.10.1", "CVE-2022-29217, CVE-2024-53861"),
    "requests": ("2.32.4", "CVE-2024-47081"),
    "urllib3": ("2.6.0", "CVE-2025-66418, CVE-2025-66471, CVE-2025-50181"),
    "werkzeug": ("3.0.6", "CVE-2024-49766, CVE-2024-49767, CVE-2024-34069"),
}


@pytest.mark.parametrize("name", _FIXED)
def test_A128_what_is_known_of_a_dependency_is_mended_in_the_version_that_is_locked(name: str) -> None:
    fixed, known = _FIXED[name]
    assert Version(_locked()[name]) >= Version(fixed), known


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
