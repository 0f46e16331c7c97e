"""What one operation of the API is: the table that requests are served by, and that its document is made of."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from flask import Request
from pydantic import BaseModel

from authserver.admin.callers import Caller
from authserver.administration.items import Shown
from authserver.administration.lists import Looked
from authserver.administration.roles import Permission
from authserver.errors import Refusal
from authserver.services import Services

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call:
    """One request whose caller is known and may, and that fits the document."""

    services: Services
    request: Request
    caller: Caller
    now: datetime
    path: Mapping[str, Any] = field(default_factory=dict)
    query: BaseModel | None = None
    body: BaseModel | None = None

    @property
    def name(self) -> str:
        """What the path names."""
        return str(next(iter(self.path.values())))

    def asked(self, model: type[Model]) -> Model:
        """The query, which the operation's table says is a `model`."""
        return _as(self.query, model)

    def sent(self, model: type[Model]) -> Model:
        """The body, likewise."""
        return _as(self.body, model)

    def looked(self, connection: Any) -> Looked:
        """To look at lists with."""
        return Looked(self.services, connection, self.now)


def _as(there: BaseModel | None, model: type[Model]) -> Model:
    if not isinstance(there, model):
        raise TypeError(model)  # the operation's table says otherwise
    return there


@dataclass(frozen=True, slots=True)
class Reply:
    """What a successful operation answers; `location` is the path of what it made, below the API."""

    body: Mapping[str, object] | Iterable[bytes]
    etag: str | None = None
    location: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    `answers` is the shape of its success. One that `changes` a record takes `If-Match`; one that is `once` takes an
    `Idempotency-Key`. `role` is what a caller needs, `summary` what it does, in a sentence.
    """

    name: str
    method: str
    path: str
    role: Permission
    summary: str
    run: Callable[[Call], Reply]
    answers: Any
    status: int = 200
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    changes: bool = False
    shows_etag: bool = False
    once: bool = False
    media_type: str = "application/json"

    @property
    def writes(self) -> bool:
        """Whether it may change anything, so that a refusal of it is an audit event."""
        return self.role is not Permission.READ


def shown(item: Shown | None, what: str) -> Reply:
    """The answer with one record and its ETag. Raises `Refusal` (404) where there is none."""
    if item is None:
        raise not_found(what)
    return Reply(item.to_json(), etag=item.etag)


def not_found(what: str) -> Refusal:
    """There is nothing of that name."""
    return Refusal("not_found", f"there is no such {what}", rule="api.not_found", status=404)


def conflict(description: str, rule: str) -> Refusal:
    """It cannot be done as things stand."""
    return Refusal("conflict", description, rule=rule, status=409)


def must_match(call: Call, item: Shown) -> None:
    """The record is still what the caller saw; asked in the transaction of the change. Raises `Refusal` (412)."""
    if_match = call.request.if_match
    if not if_match.contains(item.etag):
        raise Refusal(
            "precondition_failed",
            "the record was changed meanwhile; read it again",
            "api.if_match",
            status=412,
        )
