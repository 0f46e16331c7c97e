"""`/admin/policies`: the sets and how far each has come; and what another state of one would have decided."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from flask import Request, Response, request
from sqlalchemy import Connection

from authserver import move_policies, simulate
from authserver.administration.roles import Permission
from authserver.administration.windows import window_since
from authserver.errors import Refusal
from authserver.move_policies import NoSuchSet
from authserver.pages import answers
from authserver.pages.admin.entrance import Administrator, enter, page, read_form
from authserver.pages.admin.told import Step, told
from authserver.policies import states
from authserver.policies.files import PolicyFile, put_in_force, read_files
from authserver.policies.states import STATES, State
from authserver.policy.cedar_text import PolicyError
from authserver.services import Services
from authserver.simulate import Change, Period, Simulation
from authserver.texts import _

_EXAMPLES = 20
_MOST_DECISIONS = 20_000
_MOST_SECONDS = 3.0  # that one page may take; what is left out is said
_PERIODS = {"day": timedelta(days=1), "week": timedelta(days=7), "month": timedelta(days=30)}


@dataclass(frozen=True, slots=True)
class Set:
    """A set of policies in its present state."""

    file: PolicyFile
    state: State


@dataclass(frozen=True, slots=True)
class Tried:
    """What a simulation found; `whole` where it came to the end of all that the period has."""

    found: Simulation
    examples: tuple[tuple[Change, Step], ...]
    period: Period
    whole: bool


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    return [
        ("GET", "/admin/policies", lambda: show(services, request)),
        ("POST", "/admin/policies/state", lambda: move(services, request)),
        ("GET", "/admin/policies/simulate", lambda: try_out(services, request)),
    ]


def show(services: Services, request: Request) -> Response:
    """All sets with their policies."""
    administrator = enter(services, request)
    done = _("The set was moved. It counts within a second.") if request.args.get("done") == "moved" else None
    return _all(services, administrator, done=done)


def _all(
    services: Services,
    administrator: Administrator,
    wrong: PolicyError | None = None,
    done: str | None = None,
) -> Response:
    problems = [str(problem) for problem in wrong.problems] if wrong else []
    try:
        sets = _sets(services)
    except PolicyError as error:
        sets, problems = [], [str(problem) for problem in error.problems]
    return page(
        "policies",
        administrator,
        400 if wrong else 200,
        sets=sets,
        moves={one.file.name: _moves(administrator, one.state) for one in sets},
        problems=problems,
        in_force=services.policies.problem is None,
        done=done,
    )


def _moves(administrator: Administrator, state: State) -> list[State]:
    """Into which states the administrator may put a set; the operation itself asks again."""
    return [
        other
        for other in STATES
        if other != state and administrator.may("own" if "enforce" in (state, other) else "change")
    ]


def move(services: Services, request: Request) -> Response:
    """Put a set into another state; into force and out of it is for owners."""
    administrator, form = read_form(services, request, Permission.CHANGE)
    name, state = form.one("set"), next((one for one in STATES if one == form.one("state")), None)
    if name is None or state is None:
        raise _unknown()
    try:
        move_policies.move(
            services,
            name,
            state,
            by=administrator.by,
            now=services.clock.now(),
            may_enforce=administrator.may("own"),
        )
    except NoSuchSet as error:
        raise _unknown() from error
    except PolicyError as error:
        return _all(services, administrator, wrong=error)
    return answers.redirect("/admin/policies?done=moved")


def _unknown() -> Refusal:
    return Refusal("not_found", "there is no such set or state", rule="console.unknown", status=404)


def try_out(services: Services, request: Request) -> Response:
    """The form, and its result where a set was chosen."""
    administrator = enter(services, request)
    try:
        sets = _sets(services)
    except PolicyError as error:
        problems = tuple(str(problem) for problem in error.problems)
        return page("policies", administrator, sets=[], problems=problems, in_force=False, done=None)
    name = next((one.file.name for one in sets if one.file.name == request.args.get("set")), None)
    state: State = next((one for one in STATES if one == request.args.get("state")), "enforce")
    period = request.args.get("period") if request.args.get("period") in _PERIODS else "week"
    tried, problem = None, None
    if name is not None:
        try:
            tried = _tried(services, [one.file for one in sets], {name: state}, _PERIODS[period or "week"])
        except PolicyError as error:
            problem = "; ".join(str(one) for one in error.problems)
    return page(
        "simulate",
        administrator,
        sets=sets,
        name=name,
        state=state,
        states=("enforce", "draft"),
        period=period,
        periods={"day": _("Last day"), "week": _("Last week"), "month": _("Last month")},
        tried=tried,
        problem=problem,
        outcomes={"permit": _("allowed"), "forbid": _("refused"), "approval": _("awaiting approval")},
    )


def _tried(
    services: Services, files: list[PolicyFile], said: Mapping[str, State], length: timedelta
) -> Tried:
    found, now = Simulation(_EXAMPLES), services.clock.now()
    started = time.monotonic()

    def read(connection: Connection) -> tuple[Period, bool]:
        moved = {**states.read_all(connection), **said}
        policies = put_in_force(files, moved, services.vocabulary.catalogue)
        window = window_since(connection, now - length, _MOST_DECISIONS)
        period = Period(window.since, now)
        steps = simulate.simulate(services, connection, policies, period, found, window.first - 1)
        in_time = all(time.monotonic() - started < _MOST_SECONDS for _step in steps)
        return period, in_time and window.whole

    period, whole = services.database.read(read)
    catalogue = services.vocabulary.catalogue
    examples = tuple((change, told(change.event, catalogue)) for change in found.shown)
    return Tried(found, examples, period, whole)


def _sets(services: Services) -> list[Set]:
    files = read_files(services.settings.policies.directory)
    moved = services.database.read(states.read_all)
    return [Set(file, moved.get(file.name, file.state)) for file in files]
