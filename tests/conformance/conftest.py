"""What it takes to run clients written for Node."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
