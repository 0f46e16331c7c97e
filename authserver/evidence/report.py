"""The report: each control, what was found of it, and the last entries of the audit that show it at work."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any, Literal

from jinja2 import Environment, StrictUndefined
from sqlalchemy import func, select

from authserver.audit.events import Event, newest_of
from authserver.evidence import checks
from authserver.evidence.facts import Facts, Finding
from authserver.policy.reading import instant_text
from authserver.schema import AuditEvent, table_of

_EVENTS = table_of(AuditEvent)
_ENTRIES = 3
# How far back entries are looked for, in events: what was last done long ago is not "at work".
_LATELY = 200_000
State = Literal["met", "partly met", "not met", "does not apply"]


@dataclass(frozen=True, slots=True)
class Control:
    """A control of a framework, and what this server says of it (`controls.toml`)."""

    framework: str
    id: str
    title: str
    applies: Literal["yes", "partly", "no"]
    says: str
    checks: tuple[str, ...]
    events: tuple[str, ...]
    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Assessed:
    """A control with what was found."""

    control: Control
    state: State
    findings: tuple[Finding, ...]
    entries: tuple[Event, ...]

    def to_json(self) -> dict[str, object]:
        """For the report."""
        control = self.control
        return {
            "framework": control.framework,
            "id": control.id,
            "title": control.title,
            "applies": control.applies,
            "state": self.state,
            "says": control.says,
            "findings": [asdict(finding) for finding in self.findings],
            "entries": [_entry(entry) for entry in self.entries],
            "tests": [f"test_{row}_…" for row in control.rows],
        }


def controls() -> tuple[Control, ...]:
    """All controls, in the order of the file."""
    text = files("authserver.evidence").joinpath("controls.toml").read_text(encoding="utf-8")
    return tuple(_control(entry) for entry in tomllib.loads(text)["controls"])


def assess(facts: Facts) -> list[Assessed]:
    """Go through all controls. Each check is made once, however many controls ask for it."""
    known = controls()
    found = {
        name: checks.run(name, facts) for name in sorted({n for control in known for n in control.checks})
    }
    return [_assessed(facts, control, found) for control in known]


def to_json(facts: Facts, assessed: Sequence[Assessed]) -> dict[str, object]:
    """The report for programs."""
    return {
        "issuer": facts.services.issuer,
        "made_at": instant_text(facts.now),
        "controls": [one.to_json() for one in assessed],
    }


def to_html(facts: Facts, assessed: Sequence[Assessed]) -> str:
    """The report for people: one page that needs nothing else."""
    text = files("authserver.evidence").joinpath("report.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(text)
    frameworks = dict.fromkeys(one.control.framework for one in assessed)
    by_framework = {name: [one for one in assessed if one.control.framework == name] for name in frameworks}
    counts = {
        name: {state: sum(one.state == state for one in ones) for state in ("met", "partly met", "not met")}
        for name, ones in by_framework.items()
    }
    return template.render(
        issuer=facts.services.issuer, made_at=facts.now, by_framework=by_framework, counts=counts
    )


def _entry(event: Event) -> dict[str, object]:
    # Enough to look it up by. What was bought, by whom and from which address stays in the audit, and is not copied.
    return {name: value for name, value in event.to_json().items() if name != "data"}


def _control(entry: dict[str, Any]) -> Control:
    members: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in entry.items()}
    return Control(**members)


def _assessed(facts: Facts, control: Control, found: Mapping[str, Finding]) -> Assessed:
    findings = tuple(found[name] for name in control.checks)
    newest = facts.connection.scalar(select(func.max(_EVENTS.c.id))) or 0
    entries = (
        newest_of(facts.connection, control.events, newest - _LATELY, _ENTRIES) if control.events else []
    )
    return Assessed(control, _state(control, findings), findings, tuple(entries))


def _state(control: Control, findings: Sequence[Finding]) -> State:
    if control.applies == "no":
        return "does not apply"
    held = [finding.met for finding in findings if finding.met is not None]
    if held and all(held):
        # What lies outside of this server is never met by it alone.
        return "met" if control.applies == "yes" else "partly met"
    return "partly met" if any(held) else "not met"
