"""What the documents say of the ledger is what the code does."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from sqlalchemy import CheckConstraint

from authserver import upkeep
from authserver.ledger.steps import EFFECTS, Effect
from authserver.schema import Base

ROOT = Path(__file__).resolve().parent.parent.parent
LEDGER = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
HAND_OVER = (ROOT / "docs" / "hand-over.md").read_text(encoding="utf-8")
POSTGRESQL = (ROOT / "docs" / "postgresql.md").read_text(encoding="utf-8")
LEDGERS_TABLES = ("actions", "transfers", "budgets", "budget_windows")
_NUMBERS = {"": 0, "+": 1, "−": -1, "+1": 1, "−1": -1}


def _rows(text: str, first_column: str) -> list[list[str]]:
    """The rows of the table whose first column has that name."""
    _, _, table = text.partition(f"| {first_column} |")
    lines = table.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_of_transfers_is_the_one_of_the_code() -> None:
    told = {
        kind.strip("`"): Effect(*(_NUMBERS[cell] for cell in effects))
        for kind, _, *effects in _rows(LEDGER, "transfer")
    }
    assert [field.name for field in fields(Effect)] == re.findall(r"\w+", _heading("transfer"))[3:]
    assert told == dict(EFFECTS)


def _heading(first_column: str) -> str:
    (line,) = [line for line in LEDGER.splitlines() if line.startswith(f"| {first_column} |")]
    return line


def test_every_constraint_of_the_ledger_is_told() -> None:
    checks = {
        str(constraint.name)
        for table in Base.metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint) and table.name in LEDGERS_TABLES
    }
    assert {*re.findall(r"`(ck_\w+)`", LEDGER)} == checks


@pytest.mark.parametrize(
    "document", [LEDGER, POSTGRESQL, HAND_OVER], ids=["ledger", "postgresql", "hand-over"]
)
def test_every_test_and_file_that_is_named_is_there(document: str) -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    for name in re.findall(r"\btest_\w+\b(?!\.py)", document):
        assert f"def {name}(" in tests, name
    for path in re.findall(r"`((?:tests|authserver|ledger)/[\w/.]*)`|\]\(([\w/.-]+)\)", document):
        named = path[0].replace("ledger/steps", "authserver/ledger/steps") or f"docs/{path[1]}"
        assert (ROOT / named.replace("authserver/authserver/", "authserver/")).exists(), path


def test_upkeep_is_as_often_and_as_much_as_told() -> None:
    assert (upkeep._EVERY_SECONDS, upkeep._BATCH) == (5.0, 200)
    assert "every five seconds in every server process, 200 actions in a transaction" in LEDGER
