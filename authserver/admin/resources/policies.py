"""`/policies`: the sets, whether they are sound, what they would have said, and how far each has come."""

import time
from pathlib import Path

from sqlalchemy import Connection

from authserver import move_policies, simulate
from authserver.admin.bodies import ListQuery, PolicyCheck, PolicySimulation, PolicyState, PolicyText
from authserver.admin.operations import Call, Operation, Reply, not_found
from authserver.admin.resources.listing import page_of_all
from authserver.admin.shapes import Checked, MovedSet, PageOf, PolicySet, Simulated
from authserver.administration.roles import Permission, Role
from authserver.administration.windows import window_since
from authserver.members import without_none
from authserver.policies import states
from authserver.policies.files import InForce, PolicyFile, put_in_force, read_files
from authserver.policies.states import State
from authserver.policy.cedar_text import PolicyError, Problem, Source, read_policies
from authserver.simulate import Period, Simulation

_MOST_DECISIONS = 20_000
_MOST_SECONDS = 3.0  # that one request may take; what is left out is said


def list_sets(call: Call) -> Reply:
    """A page of the sets. Raises `PolicyError` where the files cannot be read."""
    files = read_files(call.services.settings.policies.directory)
    moved = call.services.database.read(states.read_all)
    sets = (
        PolicySet(file.name, moved.get(file.name, file.state), [policy.id for policy in file.policies])
        for file in files
    )
    return page_of_all(call, sets, "set")


def check(call: Call) -> Reply:
    """Whether they are sound."""
    try:
        files = _files(call, call.sent(PolicyCheck).draft)
        in_force = put_in_force(files, {}, call.services.vocabulary.catalogue)
    except PolicyError as error:
        return Reply({"ok": False, "problems": [problem_members(problem) for problem in error.problems]})
    return Reply(
        {
            "ok": True,
            "problems": [],
            "policies": sum(len(file.policies) for file in files),
            "unpermitted": list(in_force.enforced.unpermitted()),
        }
    )


def problem_members(problem: Problem) -> dict[str, object]:
    """One thing that is wrong, without where on the machine the file is."""
    policy = {} if problem.policy is None else {"policy": problem.policy}
    return {"file": Path(problem.file).name, "line": problem.line, "problem": problem.problem, **policy}


def try_out(call: Call) -> Reply:
    """What other policies would have said."""
    body, started = call.sent(PolicySimulation), time.monotonic()
    found = Simulation(body.examples)
    files, period = _files(call, body.draft), Period.read(body.since, body.until, call.now)

    def read(connection: Connection) -> bool:
        policies = _would_be(call, connection, files, body.states)
        window = window_since(connection, period.since, _MOST_DECISIONS)
        within = Period(max(period.since, window.since), period.until)
        steps = simulate.simulate(call.services, connection, policies, within, found, window.first - 1)
        return all(time.monotonic() - started < _MOST_SECONDS for _step in steps) and window.whole

    whole = call.services.database.read(read)
    examples = [without_none(**change.to_json()) for change in found.shown]
    return Reply({**found.to_json(), "examples": examples, "whole": whole})


def _would_be(
    call: Call, connection: Connection, files: tuple[PolicyFile, ...], said: dict[str, State]
) -> InForce:
    if unknown := said.keys() - {file.name for file in files}:
        raise not_found(f"set of policies as {min(unknown)!a}")
    present = states.read_all(connection)
    moved = {file.name: present[file.name] for file in files if file.name in present} | dict(said)
    return put_in_force(files, moved, call.services.vocabulary.catalogue)


def _files(call: Call, draft: PolicyText | None) -> tuple[PolicyFile, ...]:
    """The files as they are, or with one set as the caller sent it."""
    files = read_files(call.services.settings.policies.directory)
    if draft is None:
        return files
    before = next((file for file in files if file.name == draft.set), None)
    policies = read_policies(Source(draft.set, f"{draft.set}.cedar", draft.text))
    state: State = "enforce" if before is None else before.state
    sent = PolicyFile(draft.set, Path(f"{draft.set}.cedar"), state, policies)
    return (*(file for file in files if file.name != draft.set), sent)


def move(call: Call) -> Reply:
    """Put a set into another state."""
    # What is in force is an owner's to say, also that it no longer is.
    moved = move_policies.move(
        call.services,
        call.name,
        call.sent(PolicyState).state,
        by=call.caller.by,
        now=call.now,
        may_enforce=call.caller.role is Role.OWNER,
    )
    return Reply(moved.to_json())


OPERATIONS = (
    Operation(
        "policies.list",
        "GET",
        "/policies",
        Permission.READ,
        "A page of the sets of policies, and how far each has come.",
        list_sets,
        PageOf[PolicySet],
        query=ListQuery,
    ),
    Operation(
        "policies.check",
        "POST",
        "/policies/check",
        Permission.READ,
        "Check the policies for syntax, names and types, as they are or with one set as it is sent.",
        check,
        Checked,
        body=PolicyCheck,
    ),
    Operation(
        "policies.simulate",
        "POST",
        "/policies/simulate",
        Permission.READ,
        "Ask other policies again for the decisions of a period; nothing is changed.",
        try_out,
        Simulated,
        body=PolicySimulation,
    ),
    Operation(
        "policies.move",
        "POST",
        "/policies/{set}/state",
        Permission.CHANGE,
        "Draft, observe or enforce a set; into force and out of it is for owners.",
        move,
        MovedSet,
        body=PolicyState,
        once=True,
    ),
)
