"""Two pages that are made of the tests: each threat with what holds it, each standard clause by clause."""

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TESTS, DOCS = ROOT / "tests", ROOT / "docs"
_NUMBERS = re.compile(r"[ACFS]\d+(?=_)")
_CLAUSE_IN_NAME = re.compile(
    r"(?=rfc\d|caep_|\d)(?P<of>(?:rfc\d+|caep)?)_?(?P<section>(?:\d+(?:_\d+)*)?)_(?=[a-z])"
)
_CLAUSE = re.compile(r"((?:RFC \d+ |[A-Za-z-]+ )?)(§[0-9A-Z][0-9.A-Z]*)")


@dataclass(frozen=True, slots=True)
class Test:
    """One test: its file, its name, and what its docstring says."""

    file: str
    name: str
    told: str

    def sentence(self) -> str:
        """Its name, as the sentence that it is."""
        words = re.sub(r"^test_(?:[ACFS]\d+_)*", "", self.name)
        if cited := _CLAUSE_IN_NAME.match(words):
            words = words[cited.end() :]
        words = words.replace("_", " ")
        return words[:1].upper() + words[1:]


@cache
def tests() -> tuple[Test, ...]:
    """Every test there is, by file and line."""
    return tuple(test for path in sorted(TESTS.rglob("test_*.py")) for test in _tests_of(path))


def _tests_of(path: Path) -> Iterator[Test]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield Test(str(path.relative_to(ROOT)), node.name, ast.get_docstring(node) or "")


def by_number() -> dict[str, list[Test]]:
    """The tests of each threat, fault, invariant and row of the product: by the numbers in their names."""
    found: dict[str, list[Test]] = defaultdict(list)
    for test in tests():
        for number in _NUMBERS.findall(test.name):
            found[number].append(test)
    return found


def threats() -> dict[str, dict[str, str]]:
    """The rows, by group and number, in words."""
    return tomllib.loads((DOCS / "threats.toml").read_text(encoding="utf-8"))


def threats_page() -> str:
    """Each threat and fault, what must be, and the tests that hold the server to it."""
    held = by_number()
    lines = [
        "# Threats, and the tests that hold them",
        "",
        "What was thought of, and what is tried in the tests against it. A row is held by the tests with its",
        "number in their names; the page is made from them when it is built. Unless a row says otherwise,",
        "afterwards there is no token, no reservation, no half-written row, and one audit event that names",
        "the rule. [The threat model](threat-model.md) says who attacks what, and what is relied on.",
        "",
    ]
    for group, rows in threats().items():
        lines += [f"## {group}", "", "| | what is tried, and what must be | tests |", "| --- | --- | --- |"]
        for number, text in rows.items():
            lines.append(f"| {number} | {text} | {_files(held.get(number, []))} |")
        lines.append("")
    return "\n".join(lines)


def _files(found: list[Test]) -> str:
    if not found:
        return "**none yet**"
    counts: dict[str, int] = defaultdict(int)
    for test in found:
        counts[test.file] += 1
    return "<br>".join(f"`{file.removeprefix('tests/')}` {many}" for file, many in sorted(counts.items()))


# --- standards --------------------------------------------------------------------------------------------------------


def standards() -> list[dict[str, Any]]:
    """The standards, as docs/standards.toml tells of them."""
    found: list[dict[str, Any]] = tomllib.loads((DOCS / "standards.toml").read_text(encoding="utf-8"))[
        "standard"
    ]
    return found


def standards_page() -> str:
    """Each standard: what of it is held, clause by clause with the test, and what is not."""
    lines = [
        "# Standards, clause by clause",
        "",
        "Which clause of which standard the server is held to, by which test; and which it is not. Clauses",
        "with a test are read from the tests themselves when this page is built; what is not held, and why,",
        "is written by hand.",
        "",
    ]
    for standard in standards():
        lines += [f"## {standard['title']}", "", standard["here"], ""]
        rows = [*_clauses(standard.get("tests", [])), *_by_hand(standard.get("held", []))]
        if rows:
            lines += ["| clause | held to | test |", "| --- | --- | --- |", *rows, ""]
        missing = standard.get("not", [] if rows else ["Nothing of it is there in this version."])
        if missing:
            lines += ["Not held:", "", *(f"- {one}" for one in missing), ""]
    return "\n".join(lines)


def _clauses(files: list[str]) -> Iterator[str]:
    for test in tests():
        if test.file.removeprefix("tests/") in files and (clause := clause_of(test)):
            yield f"| {clause} | {test.sentence()} | `{test.file.removeprefix('tests/')}::{test.name}` |"


def clause_of(test: Test) -> str:
    """The sections that a test cites: at the beginning of its name, or in the first line of its docstring."""
    if in_name := _CLAUSE_IN_NAME.match(test.name.removeprefix("test_")):
        of, section = in_name["of"], in_name["section"]
        standard = re.sub(r"^rfc", "RFC ", of) if of.startswith("rfc") else of.upper()
        return " ".join(filter(None, (standard, section and f"§{section.replace('_', '.')}")))
    cited = _CLAUSE.findall(test.told.split("\n")[0])
    named = [
        ("" if not of.startswith("RFC") else of) + clause.rstrip(".")
        for of, clause in cited
        if of != "contract "
    ]
    return ", ".join(dict.fromkeys(named))


def _by_hand(held: list[dict[str, str]]) -> Iterator[str]:
    by_name = {test.name: test for test in tests()}
    for one in held:
        test = by_name[one["test"]]
        yield f"| {one['clause']} | {test.sentence()} | `{test.file.removeprefix('tests/')}::{test.name}` |"


def pages() -> dict[str, str]:
    """Both pages."""
    return {"threats.md": threats_page(), "standards.md": standards_page()}
