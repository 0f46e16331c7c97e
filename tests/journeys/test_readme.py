"""The first exchange by hand works exactly as it stands in README.md, and the answers are those that it shows."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.stage import Stage, stage
from examples.world import ROOT

END = "\x1e"  # between what two blocks print


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path) as running:
        yield running


def by_hand(place: Stage) -> list[tuple[str, list[object]]]:
    """Each block of commands with the answers shown below it, at this server's own addresses and in its own folder."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## A first exchange by hand")[1]
    section = section.split("In Python an agent")[0]
    for said, here in (
        ("http://127.0.0.1:8000", place.issuer),
        ("http://127.0.0.1:8001", place.shop_url),
        ("var/", f"{place.operator.folder}/"),
        (".venv/bin/python", sys.executable),
    ):
        section = section.replace(said, here)
    steps: list[tuple[str, list[object]]] = []
    for kind, text in re.findall(r"```(sh|json)\n(.*?)```", section, re.DOTALL):
        if kind == "sh":
            steps.append((text, []))
        else:
            steps[-1][1].append(json.loads(text))
    return steps


def documents(text: str) -> list[object]:
    """The JSON documents that stand one after another in what was printed."""
    found, rest = [], text.strip()
    while rest:
        document, end = json.JSONDecoder().raw_decode(rest)
        found.append(document)
        rest = rest[end:].strip()
    return found


def fits(shown: object, real: object) -> bool:
    """Whether the answer is the one shown; a text that was cut short there stands for any."""
    if isinstance(shown, dict) and isinstance(real, dict):
        return shown.keys() == real.keys() and all(fits(shown[name], real[name]) for name in shown)
    if isinstance(shown, str) and shown.endswith("…"):
        return isinstance(real, str)
    return shown == real


def test_the_commands_of_the_readme_give_the_answers_of_the_readme(place: Stage) -> None:
    steps = by_hand(place)
    script = f"\nprintf '{END}'\n".join(commands for commands, _ in steps)
    done = subprocess.run(
        ["bash", "-eu", "-c", script],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"} | place.operator.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    printed = [documents(text) for text in done.stdout.split(END)]
    assert len(printed) == len(steps)
    for (commands, shown), real in zip(steps, printed, strict=True):
        assert len(shown) == len(real), (commands, real)
        assert all(map(fits, shown, real)), (commands, real)
    assert sum(len(shown) for _, shown in steps) == 5
