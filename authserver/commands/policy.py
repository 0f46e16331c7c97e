"""`policy`: what the organisation allows; written in files, checked, tested, tried on what happened, then enforced."""

import tomllib
from dataclasses import asdict
from pathlib import Path

import click

from authserver.commands.context import (
    Failed,
    json_always,
    json_option,
    opened,
    operator,
    print_json,
    print_records,
)
from authserver.commands.policy_replay import directory_option, explain, policies_in_words, simulate
from authserver.config import load_settings
from authserver.move_policies import NoSuchSet, move
from authserver.policies import states
from authserver.policies.files import PolicyFile, put_in_force, read_files
from authserver.policies.states import State
from authserver.policy.cases import Result, on_their_own, parse_cases, run
from authserver.policy.cedar import PolicySet
from authserver.policy.cedar_text import PolicyError
from authserver.policy.reading import Vocabulary
from authserver.services import load_vocabulary

_COLUMNS = ("set", "state", "policies", "file")
_CASES = ".test.toml"


@click.group("policy")
def verb() -> None:
    """The organisation's policies: sets of rules in files, each drafted, observed or enforced."""


# --- before they count --------------------------------------------------------------------------------------------


@verb.command("check")
@directory_option
@json_option
def check(directory: Path | None, as_json: bool) -> None:
    """Check every policy for syntax, names and types, and say what is wrong in which line; then it exits with 1.

    It needs no database.
    """
    vocabulary, place = _configured(directory)
    try:
        files = read_files(place)
        in_force = put_in_force(files, {}, vocabulary.catalogue)
    except PolicyError as error:
        if as_json:
            print_json({"ok": False, "problems": [asdict(problem) for problem in error.problems]})
            raise SystemExit(1) from error
        raise Failed(str(error)) from error
    count, unpermitted = sum(len(file.policies) for file in files), in_force.enforced.unpermitted()
    if as_json:
        print_json({"ok": True, "problems": [], "policies": count, "unpermitted": list(unpermitted)})
        return
    click.echo(f"{count} policies in {len(files)} sets are sound")
    if unpermitted:
        click.echo(f"no policy that is enforced from the start permits {', '.join(unpermitted)}")


@verb.command("test")
@directory_option
@json_option
def test(directory: Path | None, as_json: bool) -> None:
    """Run the cases of each set, in NAME.test.toml beside NAME.cedar; exits with 1 if one comes out otherwise.

    Each set is asked on its own: what it does not forbid is permitted, unless it permits something itself.
    """
    vocabulary, place = _configured(directory)
    with policies_in_words():
        results = [(file, result) for file in read_files(place) for result in _results(file, vocabulary)]
    failed = [result for _, result in results if result.wrong is not None]
    records = [_shown_result(file, result) for file, result in results]
    if as_json:
        print_json(records)
    else:
        print_records(records, ("set", "case", "outcome", "wrong"), as_json=False)
        click.echo(f"{len(results) - len(failed)} of {len(results)} cases come out as expected")
    if failed:
        raise SystemExit(1)


def _configured(directory: Path | None) -> tuple[Vocabulary, Path]:
    settings = load_settings()
    return load_vocabulary(settings), directory or settings.policies.directory


def _results(file: PolicyFile, vocabulary: Vocabulary) -> list[Result]:
    path = file.path.with_name(file.name + _CASES)
    if not path.exists():
        return []
    try:
        cases = parse_cases(tomllib.loads(path.read_text(encoding="utf-8")), vocabulary)
    except (OSError, ValueError) as error:
        raise Failed(f"{path}: {error}") from error
    policies = PolicySet.build(on_their_own(file.policies), vocabulary.catalogue)
    return [run(case, policies) for case in cases]


def _shown_result(file: PolicyFile, result: Result) -> dict[str, object]:
    return {
        "set": file.name,
        "case": result.case.name,
        "outcome": result.answer.outcome,
        "policies": list(result.answer.decided_by),
        "wrong": result.wrong,
    }


# --- how far they have come ---------------------------------------------------------------------------------------


@verb.command("list")
@json_option
def list_sets(as_json: bool) -> None:
    """Show all sets of policies and how far each has come."""
    with opened() as services, policies_in_words():
        moved = services.database.read(states.read_all)
        files = read_files(services.settings.policies.directory)
    records = (
        {
            "set": file.name,
            "state": moved.get(file.name, file.state),
            "policies": [policy.id for policy in file.policies],
            "file": str(file.path),
        }
        for file in files
    )
    print_records(records, _COLUMNS, as_json)


@verb.command("draft")
@click.argument("name", metavar="SET")
@json_always
def draft(name: str) -> None:
    """Take a set out of use: it is checked, and has no say."""
    _move(name, "draft")


@verb.command("observe")
@click.argument("name", metavar="SET")
@json_always
def observe(name: str) -> None:
    """Watch what a set would say: it decides nothing, and its answers stand in the audit beside the real ones."""
    _move(name, "observe")


@verb.command("enforce")
@click.argument("name", metavar="SET")
@json_always
def enforce(name: str) -> None:
    """Put a set in force: within a second, every server process refuses what it forbids."""
    _move(name, "enforce")


def _move(name: str, state: State) -> None:
    with opened() as services, policies_in_words():
        try:
            moved = move(services, name, state, by=operator(), now=services.clock.now())
        except NoSuchSet as error:
            raise Failed(str(error)) from error
    print_json(moved.to_json())


verb.add_command(simulate)
verb.add_command(explain)
