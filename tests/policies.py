"""A server with policies of the test's own, and what it says when one of them decides."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.shipped import CONFIG
from tests.world import World, running_world

PERMIT_ALL = '@id("all") permit (principal, action, resource);\n'
LIBRARY = CONFIG / "policies" / "library"


def forbid(name: str, when: str = "", *, action: str = "payment.finalize", **annotations: str) -> str:
    """A policy that forbids an action, or all of them with `action=""`."""
    said = "".join(f'@{key}("{value}") ' for key, value in annotations.items())
    head = f'action == Action::"{action}"' if action else "action"
    return (
        f'@id("{name}") {said}forbid (principal, {head}, resource){f" when {{ {when} }}" if when else ""};\n'
    )


def write(directory: Path, **sets: str) -> Path:
    """Write sets of policies, NAME=TEXT, beside one that permits everything; gives the directory."""
    directory.mkdir(exist_ok=True)
    for name, text in ({"base": PERMIT_ALL} | sets).items():
        new = directory / f"{name}.new"
        new.write_text(text, encoding="utf-8")
        new.replace(directory / f"{name}.cedar")
    return directory


@contextmanager
def policed(
    database_url: str,
    tmp_path: Path,
    *,
    library: tuple[str, ...] = (),
    catalogue: dict[str, Any] | None = None,
    **sets: str,
) -> Iterator[World]:
    """A server that enforces those sets, and those of the shipped library; with another catalogue, if there is one."""
    directory = write(tmp_path / "policies", **sets)
    for name in library:
        shutil.copy(LIBRARY / f"{name}.cedar", directory)
    settings: dict[str, Any] = {"policies": {"directory": directory}}
    if catalogue is not None:
        settings["catalogue"] = catalogue
    with running_world(database_url, tmp_path / "world", **settings) as world:
        yield world


def forbidden(world: World, answer: httpx.Response) -> list[str]:
    """What a refused exchange crossed, by the names of the constraints."""
    body = world.refuses(answer, "invalid_authorization_details")
    return [violation["constraint"] for violation in body["violations"]]


def asks(world: World, answer: httpx.Response) -> str:
    """Hold an exchange to needing an approval; gives what asks for it, as the audit says."""
    world.refuses(answer, "access_denied", constraint="approval")
    because: str = world.events()[-1]["data"]["because"]
    return because


def last(world: World) -> dict[str, Any]:
    """What the newest audit event says."""
    data: dict[str, Any] = world.events()[-1]["data"]
    return data
