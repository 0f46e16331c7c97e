"""`make demo`: the story is told to its end, with every refusal, and leaves nothing running."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from examples import demo, story
from examples.world import ROOT

# What a reader must have seen, each as it stands at its place on the wire.
REFUSALS = (
    "€92.00 is more than €80.00, the most at a time",
    "(limits.per_action)",
    "(merchants.categories)",
    "(merchants.countries)",
    "(datatypes)",
    "the subject_token is not acceptable",
    "access_denied",
    "the token was redeemed before",
    "the token is for another place",
    "€38.10 is due, and the token is for €10.00",
    "€30.00 is more than €29.40, all that is left",
    "the token has expired",
    "the token has ended",
    "the delegation has expired",
    "the delegation was revoked",
    "€500.00 is more than €120.00",
    "payment.finalize, and only catalog.search is allowed",
    "Ada has to agree, and so has somebody of the privacy group",
    "no token of theirs is active any more",
)


def environment(folder: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "TMPDIR": str(folder),
        "COLUMNS": "100",
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
    }


def still_running(folder: Path) -> list[str]:
    """The processes that were started for a demonstration whose data are in `folder`, its shop included."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"TMPDIR={folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def told(folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "examples.demo"],
        cwd=ROOT,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def test_the_demonstration_ends_by_itself_and_leaves_nothing(
    told: "subprocess.CompletedProcess[str]", folder: Path
) -> None:
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stderr == ""
    assert "make serve" in told.stdout
    assert list(folder.iterdir()) == []
    assert still_running(folder) == []


def test_a_demonstration_that_is_ended_from_outside_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.demo"],
        cwd=ROOT,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process:
        next(line for line in process.stdout if line.startswith("1. "))
        process.terminate()
    assert process.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
    assert still_running(tmp_path) == []


@pytest.mark.parametrize("refusal", REFUSALS)
def test_the_demonstration_shows_each_refusal(told: "subprocess.CompletedProcess[str]", refusal: str) -> None:
    assert refusal in told.stdout


def test_no_line_of_the_demonstration_is_padded(told: "subprocess.CompletedProcess[str]") -> None:
    assert [line for line in told.stdout.splitlines() if line != line.rstrip()] == []


def test_the_demonstration_shows_no_token(told: "subprocess.CompletedProcess[str]") -> None:
    assert "eyJ" not in told.stdout


def test_an_unexpected_answer_ends_the_demonstration_with_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # The shop's price and the story's differ: the first answer that is not as told.
    def wrong(self: story.Story) -> None:
        self.ada_consents()
        self._orders("42.49", "cart-1", {"oats": 1, "milk": 2, "coffee": 1, "cheese": 1, "olive-oil": 1})

    monkeypatch.setattr(story.Story, "tell", wrong)
    assert demo.main() == 1
    shown = capsys.readouterr().out
    assert "This was not expected: the shop answered 403" in shown
    assert "42.50" in shown
