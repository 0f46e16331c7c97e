"""Form bodies, read strictly: every parameter once, nothing in the query string, bounded, UTF-8."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from flask import Request

from authserver.errors import Refusal
from authserver.guard import MAX_BODY_BYTES

_MAX_PARAMETERS = 64


@dataclass(frozen=True, slots=True, repr=False)
class Form:
    """The parameters of one request; a parameter without a value counts as left out (RFC 6749 §3.2)."""

    parameters: Mapping[str, tuple[str, ...]]

    def one(self, name: str) -> str | None:
        """The value, or None where it is absent. Raises `Refusal` (`invalid_request`) where it is repeated."""
        values = self.parameters.get(name, ())
        if len(values) > 1:
            raise _malformed(f"{name} is repeated", "form.repeated")
        return values[0] if values else None

    def required(self, name: str) -> str:
        """The parameter's value. Raises `Refusal` (`invalid_request`) where it is absent or repeated."""
        value = self.one(name)
        if value is None:
            raise _malformed(f"{name} is missing", f"form.{name}")
        return value

    def only_once(self, *, but: frozenset[str] = frozenset()) -> None:
        """RFC 6749 §3.2: no parameter more than once, known or not. Raises `Refusal` (`invalid_request`)."""
        if any(len(values) > 1 for name, values in self.parameters.items() if name not in but):
            raise _malformed("a parameter is repeated", "form.repeated")

    def single(self) -> dict[str, str]:
        """The parameters that were sent once, as libraries take them."""
        return {name: values[0] for name, values in self.parameters.items() if len(values) == 1}


def read_form(request: Request, most: int = _MAX_PARAMETERS) -> Form:
    """Read a POST of `application/x-www-form-urlencoded` with at most so many parameters.

    Raises `Refusal` with `invalid_request`: 413 for a body over 128 KiB, 415 for another content type, 400 otherwise.
    """
    if request.query_string:
        raise _malformed("parameters belong in the body, not in the query string", "form.query")
    if not request.mimetype and not request.content_length and "Transfer-Encoding" not in request.headers:
        return Form({})  # whoever sends nothing need not say what it is
    if request.mimetype != "application/x-www-form-urlencoded":
        raise _malformed("the body must be application/x-www-form-urlencoded", "form.content_type", 415)
    if request.mimetype_params.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise _malformed("the body must be UTF-8", "form.charset", 415)
    body = read_body(request)
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            max_num_fields=most,
            errors="strict",
        )
    except ValueError as error:
        raise _malformed("the body is not a well-formed form in UTF-8", "form.malformed") from error
    if b"%00" in body or b"\x00" in body:
        raise _malformed("the body has a NUL character", "form.nul")
    return Form(_grouped(pairs))


def read_body(request: Request) -> bytes:
    """At most 128 KiB of body. Raises `Refusal` (`invalid_request`, 413)."""
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise _malformed("the body is too large", "form.size", 413)
    body = request.stream.read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        raise _malformed("the body is too large", "form.size", 413)
    return body


def _grouped(pairs: list[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    grouped: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        if value:
            grouped[name] = (*grouped.get(name, ()), value)
    return grouped


def _malformed(description: str, rule: str, status: int = 400) -> Refusal:
    return Refusal("invalid_request", description, rule=rule, status=status)
