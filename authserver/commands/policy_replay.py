"""`policy simulate` and `policy explain`: what was decided, and what other policies would have said."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click
from sqlalchemy import Connection

from authserver import simulate as simulation
from authserver.audit.events import Event, find_event
from authserver.commands.context import (
    TAKES_ANY_ID,
    Failed,
    instant,
    json_option,
    opened,
    print_json,
    print_records,
)
from authserver.policies import states
from authserver.policies.files import PolicyFile, put_in_force, read_files
from authserver.policies.states import State
from authserver.policy.cedar_text import Policy, PolicyError
from authserver.services import Services, load_policies
from authserver.values import NotAValue


def directory_option(verb: Callable[..., None]) -> Callable[..., None]:
    """`--directory`: other policies than the configured ones."""
    return click.option(
        "--directory",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where the policies are; else the configured directory.",
    )(verb)


@contextmanager
def policies_in_words() -> Iterator[None]:
    """Say what is wrong with policies, a line each."""
    try:
        yield
    except PolicyError as error:
        raise Failed(str(error)) from error


@click.command("simulate")
@directory_option
@click.option("--from", "since", help="The first instant, such as 2026-11-24T00:00:00Z; else a week ago.")
@click.option("--to", "until", help="The instant before which it ends; else now.")
@click.option("--enforce", "enforced", multiple=True, metavar="SET", help="As if this set were enforced.")
@click.option("--draft", "drafted", multiple=True, metavar="SET", help="As if this set had no say.")
@click.option(
    "--examples", type=click.IntRange(0, 1000), default=10, show_default=True, help="How many to show."
)
@json_option
def simulate(
    directory: Path | None,
    since: str | None,
    until: str | None,
    enforced: Sequence[str],
    drafted: Sequence[str],
    examples: int,
    as_json: bool,
) -> None:
    """Ask other policies again for each decision of a period, and show what would have come out otherwise.

    The policies are those of --directory, each set in its present state unless --enforce or --draft say otherwise.
    """
    said: Mapping[str, State] = {**dict.fromkeys(enforced, "enforce"), **dict.fromkeys(drafted, "draft")}
    found = simulation.Simulation(examples)
    with opened() as services, policies_in_words():
        files = read_files(directory or services.settings.policies.directory)
        _known(said, files)
        period = _period(services.clock.now(), since, until)

        def read(connection: Connection) -> None:
            present = states.read_all(connection)
            moved = {file.name: present[file.name] for file in files if file.name in present} | dict(said)
            policies = put_in_force(files, moved, services.vocabulary.catalogue)
            steps = simulation.simulate(services, connection, policies, period, found)
            for _ in _with_progress(steps, simulation.how_many(connection, period)):
                pass

        services.database.read(read)
    _print_simulation(found, as_json)


def _known(said: Mapping[str, State], files: Sequence[PolicyFile]) -> None:
    if unknown := sorted(said.keys() - {file.name for file in files}):
        raise Failed(f"{', '.join(unknown)}: there is no such set")


def _period(now: datetime, since: str | None, until: str | None) -> simulation.Period:
    try:
        return simulation.Period.read(since, until, now)
    except NotAValue as error:
        raise Failed(f"--from and --to: {error}") from error


def _with_progress(steps: Iterator[None], total: int) -> Iterator[None]:
    from rich.console import Console
    from rich.progress import track

    # On standard error, and only for somebody who looks.
    console = Console(stderr=True)
    yield from track(
        steps, "Asking again", total, console=console, disable=not console.is_terminal, transient=True
    )


def _print_simulation(found: simulation.Simulation, as_json: bool) -> None:
    shown = [change.to_json() for change in found.shown]
    if as_json:
        print_json({**found.to_json(), "examples": shown})
        return
    click.echo(f"{found.decisions} decisions, of which {found.changed} would have been others")
    if found.skipped:
        click.echo(f"{found.skipped} more could not be asked again: what they were about is gone")
    for (before, after), count in sorted(found.changes.items()):
        click.echo(f"  {before} -> {after}: {count}")
    for policy, count in found.by_policy.most_common():
        click.echo(f"  by {policy}: {count}")
    if shown:
        print_records(
            shown, ("event", "at", "client_id", "before", "after", "policies", "asked"), as_json=False
        )


@dataclass(frozen=True, slots=True)
class _Explained:
    event: Event
    outcome: str
    decided_by: Mapping[str, Policy | None]  # None where there is no such policy any more
    context: Mapping[str, object] | None  # None where what it was about is gone

    def to_json(self) -> dict[str, object]:
        policies = [_shown_policy(name, policy) for name, policy in self.decided_by.items()]
        return {
            **self.event.to_json(),
            "outcome": self.outcome,
            "decided_by": policies,
            "context": self.context,
        }

    def lines(self) -> Iterator[str]:
        yield f"{instant(self.event.at)}  {self.event.client_id}: {self.outcome}"
        for name, words in _TOLD.items():
            if name in self.event.data:
                yield f"{words}: {json.dumps(self.event.data[name], ensure_ascii=False)}"
        yield f"known then: {json.dumps(self.context, ensure_ascii=False)}"
        for name, policy in self.decided_by.items():
            yield f"decided by {name} ({_place(policy) or 'which is there no more'})"
            yield from (f"    {line}" for line in (policy.text if policy else "").splitlines())


_TOLD = {
    "asked": "asked for",
    "violations": "crossed",
    "because": "asks because of",
    "policy_errors": "failed",
    "observed": "observed",
}


@click.command("explain", context_settings=TAKES_ANY_ID)
@click.argument("name", metavar="ID")
@json_option
def explain(name: str, as_json: bool) -> None:
    """Tell how one decision came about: ID is an action_id, or the number of an audit event.

    What the policies knew is computed for the instant of the decision; the policies that are shown are today's.
    """
    with opened() as services:
        load_policies(services)
        explained = services.database.read(lambda connection: _explained(services, connection, name))
    if as_json:
        print_json(explained.to_json())
        return
    for line in explained.lines():
        click.echo(line)


def _explained(services: Services, connection: Connection, name: str) -> _Explained:
    event = find_event(connection, name)
    outcome = simulation.outcome_of(event) if event is not None else None
    if event is None or outcome is None:
        raise Failed(f"{name}: there is no decision with that action_id, nor an audit event of that number")
    known = simulation.known_of(services, connection, event)
    return _Explained(event, outcome, known.policies, known.context)


def _shown_policy(name: str, policy: Policy | None) -> dict[str, object]:
    if policy is None:
        return {"policy": name, "there": False}
    return {
        "policy": name,
        "there": True,
        "place": _place(policy),
        "effect": policy.effect,
        "reason": policy.reason,
        "approval": policy.approver,
        "text": policy.text,
    }


def _place(policy: Policy | None) -> str | None:
    return f"{policy.file}:{policy.line}" if policy else None
