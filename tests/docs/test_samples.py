"""What people copy from the documents is well-formed, and speaks of verbs, options and settings that there are."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from pydantic import BaseModel, ValidationError

from authserver.commands import main
from authserver.config import Settings, TrustDomainSettings
from tests.attacks.serving import ROOT
from tools import evidence_of_tests

DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]


@dataclass(frozen=True)
class Sample:
    """One block of a document."""

    document: Path
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}-{self.number}"


def samples() -> Iterator[Sample]:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        found = re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
        for number, (indent, language, block) in enumerate(found, 1):
            lines = [line.removeprefix(indent) for line in block.splitlines()]
            yield Sample(document, number, language, "\n".join(lines) + "\n")


def of(*languages: str) -> list[Any]:
    return [pytest.param(one, id=str(one)) for one in samples() if one.language in languages]


def test_every_block_says_what_it_is() -> None:
    known = {
        "sh",
        "toml",
        "json",
        "python",
        "yaml",
        "text",
        "mermaid",
        "ini",
        "sql",
        "nginx",
        "apache",
        "http",
    }
    others = {one.language for one in samples()} - known
    assert others <= {"", "js", "javascript", "java", "cedar", "html"}, others


# --- commands -----------------------------------------------------------------------------------------------------


def commands(text: str) -> Iterator[list[str]]:
    """The words of each call of manage.py, up to what the shell makes of the rest."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in re.findall(r"python[\w.]* manage\.py ([^\n|&;)#>`]+)", joined):
        yield shlex.split(line.replace("'", "").replace('"', ""))


@pytest.mark.parametrize("sample", of("sh", "", "text"))
def test_every_verb_and_option_is_one_that_there_is(sample: Sample) -> None:
    for words in commands(sample.text):
        if words[0].isupper() or words[0] == "…":
            continue  # VERB
        command, rest = found(words)
        options = {option for parameter in command.params for option in parameter.opts}
        for word in rest:
            if word.startswith("--"):
                assert word.partition("=")[0] in options | {"--help"}, (words, word)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_verb_in_the_prose_is_one_that_there_is(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    for line in re.findall(r"`(?:python )?manage\.py ([^`]+)`", text):
        words = shlex.split(line)
        if not words[0].isupper():
            found(words)


def found(words: list[str]) -> tuple[click.Command, list[str]]:
    command: click.Command = main
    rest = list(words)
    while isinstance(command, click.Group):
        below = command.get_command(click.Context(command), rest[0]) if rest else None
        if below is None and command is not main:
            return command, rest  # a noun alone
        assert below is not None, words
        command, rest = below, rest[1:]
    return command, rest


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_and_file_that_is_named_is_there(document: Path) -> None:
    text, names = document.read_text(encoding="utf-8"), {test.name for test in evidence_of_tests.tests()}
    for name in re.findall(r"\btest_\w+\b(?!\.py)", text):
        assert name in names, name
    for path in re.findall(r"`((?:tests|tools|deploy|docs|examples|bench)/[\w./-]*(?:\.\w+|/))`", text):
        assert (ROOT / path).exists(), path


# --- data ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", of("toml"))
def test_toml_parses_and_what_is_configuration_is_taken(sample: Sample) -> None:
    read = tomllib.loads(sample.text)
    for section, values in read.items():
        field = Settings.model_fields.get(section)
        model = field.annotation if field else None
        if section == "trust_domains":
            for domain in values:
                TrustDomainSettings(**domain)
        elif isinstance(model, type) and issubclass(model, BaseModel) and isinstance(values, dict):
            takes(model, values)


def takes(model: type[BaseModel], values: dict[str, Any]) -> None:
    """Hold the keys that are said to what they take; those that are required may be said elsewhere."""
    try:
        model(**values)
    except ValidationError as error:
        wrong = [problem for problem in error.errors() if problem["type"] != "missing"]
        assert wrong == []


@pytest.mark.parametrize("sample", of("json"))
def test_json_parses(sample: Sample) -> None:
    decoder, rest = json.JSONDecoder(), sample.text.strip()
    while rest:
        _, end = decoder.raw_decode(rest)
        rest = rest[end:].strip()


@pytest.mark.parametrize("sample", of("yaml"))
def test_yaml_parses(sample: Sample) -> None:
    assert list(yaml.safe_load_all(sample.text))


@pytest.mark.parametrize("sample", of("python"))
def test_python_compiles(sample: Sample) -> None:
    compile(sample.text, str(sample), "exec", flags=0x2000)  # with a bare `await`, as in a notebook
