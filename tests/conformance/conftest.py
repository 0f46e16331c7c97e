"""What it takes to run clients written for Node, and a server that the variants of one rule share."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pages.browser import Visit, signed_in
from tests.world import World

NODE = Path(__file__).parent / "node"
Run = Callable[[str, dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="session")
def node() -> Run:
    """Runs one of the scripts beside this file, with what it is told, and gives what it prints."""
    program, npm = shutil.which("node"), shutil.which("npm")
    if program is None or npm is None:
        pytest.skip("Node.js and npm are not installed")
    if not (NODE / "node_modules").is_dir():
        subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=NODE, check=True, timeout=300)

    def run(script: str, told: dict[str, Any]) -> dict[str, Any]:
        done = subprocess.run(
            [program, script],
            cwd=NODE,
            env=os.environ | {"TOLD": json.dumps(told)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        printed: dict[str, Any] = json.loads(done.stdout)
        return printed

    return run


@pytest.fixture(scope="module")
def shared_grant(shared_world: World) -> str:
    """A grant to basket-helper on the shared server, with money enough for all tests of a file."""
    limits = {"currency": "EUR", "per_action": "80.00", "total": "100000.00"}
    return shared_world.granted(limits=limits).grant


@pytest.fixture(scope="module")
def shared_visit(shared_world: World) -> Iterator[Visit]:
    """Ada at her browser, signed in at the shared server."""
    with signed_in(shared_world) as visit:
        yield visit
