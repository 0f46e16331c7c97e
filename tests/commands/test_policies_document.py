"""docs/policies.md: what it shows is sound and runs, and what it lists is what there is."""

import re
from pathlib import Path

import pytest

from authserver.config import SHIPPED
from authserver.policies.files import LIBRARY, read_files
from authserver.policy import facts
from tests.commands.conftest import Manage, operator_of
from tests.policies import write

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)


def rows(first_column: str) -> dict[str, str]:
    """The second column of the table whose first column has that name, by the first."""
    table = TEXT.partition(f"| {first_column} |")[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {cell[0].strip("`"): cell[1] for cell in cells}


@pytest.fixture
def author(tmp_path: Path) -> Manage:
    """The verbs with the policies and the cases of the document."""
    manage = operator_of(tmp_path, f"sqlite:///{tmp_path}/authserver.db")
    (company,), (cases,) = blocks("cedar"), blocks("toml")
    directory = write(tmp_path / "policies", company=company)
    (directory / "company.test.toml").write_text(cases, encoding="utf-8")
    manage.config.write_text(f'{manage.config.read_text()}\n[policies]\ndirectory = "policies"\n')
    return manage


def test_the_policies_that_are_shown_are_sound_and_do_what_their_cases_say(author: Manage) -> None:
    assert "3 policies in 2 sets are sound" in author.prints("policy", "check")
    assert "3 of 3 cases come out as expected" in author.prints("policy", "test")


def test_the_commands_that_are_shown_run(sqlite_manage: Manage) -> None:
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) == 7
    for command in commands:
        program, _, arguments = command.partition(" manage.py ")
        assert program == "python"
        result = sqlite_manage.run(*arguments.split(" "))
        if "explain" in arguments:  # of a fresh server there is nothing to tell yet
            assert "there is no decision" in result.stderr
        else:
            assert result.exit_code == 0, (command, result.output)


def test_the_members_of_context_are_those_that_there_are() -> None:
    shown = rows("member")
    assert shown.pop(facts.SINCE) == "Record"
    schema = {name.strip("?"): (kind, name.endswith("?")) for name, kind in facts._CONTEXT.items()}
    words = {"Set<String>": "Set of String"}
    assert shown == {
        name: words.get(kind, kind) + (", may be absent" if optional else "")
        for name, (kind, optional) in schema.items()
    }


def test_the_library_is_what_is_listed() -> None:
    shipped = {
        file.name: ", ".join(f"`{policy.id}`" for policy in file.policies)
        for file in read_files(SHIPPED / "policies")
        if file.path.parent.name == LIBRARY
    }
    assert rows("set") == shipped
