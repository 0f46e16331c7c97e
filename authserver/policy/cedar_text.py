"""Policies as they are written: the text of a file, cut into policies that know their line and what they use.

Each policy has `@id`, once in all files. `@reason` is told to whom it refuses; `@approval` makes a forbid one that
holds unless that person or group has agreed.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import cedarpy

from authserver.policy.catalogue import parse_approver
from authserver.values import NotAValue

# What a violation says where no policy decided: no policy may be called so.
NO_POLICY = "none"

# To Cedar, a carriage return ends a comment as well.
_PIECE = re.compile(r'//[^\r\n]*|"(?:\\.|[^"\\])*"|;|\s+|[^\s;"/]+|.', re.DOTALL)
# What nests, in text that is no string and no comment.
_OPENS, _CLOSES = "([{", ")]}"
_OPERATOR = re.compile(r"&&|\|\||[+*.\[-]|\belse\b")
_DEEPEST, _MOST_OPERATORS = 100, 1_000
_ID = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong in a file of policies. `line` counts from 1; 0 is the file as a whole."""

    file: str
    line: int
    policy: str | None
    problem: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.policy}: {self.problem}" if self.policy else f"{place}: {self.problem}"


class PolicyError(ValueError):
    """Policies cannot be used; each line of the message names file, line and policy."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Source:
    """One file of policies, which is one set: drafted, observed or enforced together."""

    name: str
    file: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy. `approver` is None, `user` or `group:NAME`; `actions` are the names its head allows, None for all.

    `uses` are the names of all attributes that it reads, of whatever.
    """

    id: str
    effect: Literal["permit", "forbid"]
    reason: str | None
    approver: str | None
    file: str
    line: int
    text: str = field(repr=False)
    body: Mapping[str, Any] = field(repr=False)
    actions: frozenset[str] | None
    uses: frozenset[str]

    @property
    def always(self) -> bool:
        """Whether it says the same of every request for its actions."""
        anyone = all(self.body[part]["op"] == "All" for part in ("principal", "resource"))
        return anyone and not self.body["conditions"]

    def problem(self, problem: str) -> Problem:
        """Something that is wrong with it."""
        return Problem(self.file, self.line, self.id, problem)


def read_policies(source: Source) -> tuple[Policy, ...]:
    """The policies of a file, in its order. Raises `PolicyError` with all that is wrong."""
    policies, problems = list[Policy](), list[Problem]()
    for line, text in _statements(source.text):
        try:
            _not_too_deep(text)
            policies.append(_policy(source, line, text))
        except RecursionError:
            problems.append(Problem(source.file, line, None, _TOO_DEEP))
        except ValueError as error:
            problems.append(Problem(source.file, line, None, str(error)))
    if problems:
        raise PolicyError(tuple(problems))
    return tuple(policies)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each policy with the line where it begins. In Cedar a semicolon ends a policy, and stands nowhere else."""
    line, begins, pieces = 1, 0, list[str]()
    for piece in _PIECE.findall(text):
        is_said = not (piece.isspace() or piece.startswith("//"))
        begins = begins or (line if is_said else 0)
        line += piece.count("\n")
        if begins:
            pieces.append(piece)
        if piece == ";":
            yield begins, "".join(pieces)
            begins, pieces = 0, []
    if begins:
        yield begins, "".join(pieces)


_TOO_DEEP = 'is too long or too deeply nested; a list takes a set: ["a", "b"].contains(context.merchant)'


def _not_too_deep(text: str) -> None:
    """Cedar follows what nests by its own stack, and a process whose stack is full is gone."""
    depth = deepest = operators = 0
    for piece in _PIECE.findall(text):
        if piece.startswith(('"', "//")):
            continue
        operators += len(_OPERATOR.findall(piece))
        for letter in piece:
            depth += (letter in _OPENS) - (letter in _CLOSES)
            deepest = max(deepest, depth)
    if deepest > _DEEPEST or operators > _MOST_OPERATORS:
        raise ValueError(_TOO_DEEP)


def _policy(source: Source, line: int, text: str) -> Policy:
    parsed = json.loads(cedarpy.policies_to_json_str(text))
    if parsed["templates"]:
        raise ValueError("takes a policy, not a template (?principal, ?resource)")
    (body,) = parsed["staticPolicies"].values()
    said = body.get("annotations", {})
    _known_annotations(said, body["effect"])
    uses = frozenset(_uses([condition["body"] for condition in body["conditions"]]))
    name = _id(said)
    try:
        prepared({name: body})
    except (
        ValueError
    ) as error:  # what Cedar reads as text, it does not as JSON where that nests over 127 levels
        raise ValueError(_TOO_DEEP) from error
    return Policy(
        id=name,
        effect=body["effect"],
        reason=said.get("reason"),
        approver=said.get("approval"),
        file=source.file,
        line=line,
        text=text,
        body=body,
        actions=_actions(body["action"]),
        uses=uses,
    )


def prepared(bodies: Mapping[str, Mapping[str, Any]]) -> cedarpy.PolicySet:
    """Policies as Cedar holds them, under their own names, so that its answers and complaints name them."""
    return cedarpy.PolicySet.from_json_str(
        json.dumps({"templates": {}, "staticPolicies": bodies, "templateLinks": []})
    )


def _known_annotations(said: Mapping[str, str], effect: str) -> None:
    for name, value in said.items():
        parse = _ANNOTATIONS.get(name)
        if parse is None:
            raise ValueError(f"@{name}: there are @id, @reason and @approval")
        try:
            parse(value)
        except NotAValue as error:
            raise ValueError(f"@{name}: {error}") from error
    if effect == "permit" and "approval" in said:
        raise ValueError("@approval: goes with forbid, which holds unless somebody agrees")


def _id(said: Mapping[str, str]) -> str:
    if "id" not in said:
        raise ValueError("takes @id, by which answers and the audit name it")
    return said["id"]


def _parse_id(value: str) -> None:
    if not _ID.fullmatch(value) or value == NO_POLICY:
        raise NotAValue("takes 1 to 64 of a-z 0-9 _ . - and not the word none")


def _parse_reason(value: str) -> None:
    if not 1 <= len(value) <= 200 or not value.isprintable():
        raise NotAValue("takes a sentence of 1 to 200 characters")


_ANNOTATIONS: Mapping[str, Callable[[str], object]] = {
    "id": _parse_id,
    "reason": _parse_reason,
    "approval": parse_approver,
}


def _actions(head: Mapping[str, Any]) -> frozenset[str] | None:
    if head["op"] == "All":
        return None
    entities = head["entities"] if "entities" in head else [head["entity"]]
    return frozenset(entity["id"] for entity in entities)


def _uses(expression: object) -> Iterator[str]:
    """Every attribute that is read, of whatever: more than what costs something to know, never less."""
    if isinstance(expression, list):
        for part in expression:
            yield from _uses(part)
    elif isinstance(expression, dict):
        for operator, operands in expression.items():
            if operator == "Var" and operands == "context":
                raise ValueError("takes members of context, never context as a whole")
            if operator in (".", "has"):
                yield operands["attr"]
                yield from () if operands["left"] == {"Var": "context"} else _uses(operands["left"])
            elif operator == "Record":
                yield from _uses([*operands.values()])
            elif operator != "Value":
                yield from _uses(operands)
