"""The one way to say no."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Violation:
    """One limit that a request crossed, so that an agent can mend its request.

    `constraint` is the path of the delegation's member (`limits.per_action`), `catalogue.KEY` or `policy:ID`;
    `requested` and `allowed` are JSON values. For an amount, `allowed` is what is left. `reason` is a policy's own
    sentence.
    """

    constraint: str
    requested: object = None
    allowed: object = None
    reason: str | None = None

    def to_json(self) -> dict[str, object]:
        """The violation as an answer shows it; members that say nothing are left out."""
        members = {
            "constraint": self.constraint,
            "requested": self.requested,
            "allowed": self.allowed,
            "reason": self.reason,
        }
        return {name: value for name, value in members.items() if value is not None}


def error_uri(issuer: str, error: str) -> str:
    """The page of this server that explains the error (RFC 6749 §5.2 `error_uri`, RFC 9457 §3.1.1 `type`)."""
    return f"{issuer}/errors/{error}"


@dataclass(slots=True)
class Refusal(Exception):
    """A request that is refused: nothing was minted, reserved or half written.

    `error` is the OAuth error code; `description` is for the caller (ASCII, no quotation marks: RFC 6749 §5.2);
    `rule` names what refused, for the audit and the log; `violations` are all limits that were crossed.
    """

    error: str
    description: str
    rule: str = ""
    violations: tuple[Violation, ...] = ()
    status: int = 400
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)  # further members of a problem (RFC 9457 §3.2)

    def to_json(self, issuer: str) -> dict[str, object]:
        """The body of the answer, contract §6."""
        body: dict[str, object] = {
            "error": self.error,
            "error_description": self.description,
            "error_uri": error_uri(issuer, self.error),
        }
        if self.violations:
            body["violations"] = [violation.to_json() for violation in self.violations]
        return body

    def to_problem(self, issuer: str) -> dict[str, object]:
        """The same as problem details (RFC 9457), where contract §7 asks for them."""
        problem: dict[str, object] = {
            "type": error_uri(issuer, self.error),
            "title": self.error.replace("_", " "),
            "status": self.status,
            "detail": self.description,
        }
        if self.violations:
            problem["violations"] = [violation.to_json() for violation in self.violations]
        return problem | dict(self.extra)
