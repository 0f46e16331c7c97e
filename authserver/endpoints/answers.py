"""Answers as JSON, and the one shape of an error."""

from collections.abc import Iterable, Mapping

from flask import Response, current_app

from authserver import strict_json
from authserver.errors import Refusal


def json_answer(
    body: Mapping[str, object], status: int = 200, headers: Iterable[tuple[str, str]] = ()
) -> Response:
    """A JSON body that nobody keeps: it may have a secret in it (RFC 6749 §5.1)."""
    response = Response(strict_json.write(body), status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    response.headers["Pragma"] = "no-cache"
    for name, value in headers:
        response.headers[name] = value
    return response


def error_answer(refusal: Refusal) -> Response:
    """The refusal as contract §6 shows errors."""
    return json_answer(refusal.to_json(issuer_here()), refusal.status, refusal.headers.items())


def issuer_here() -> str:
    """The issuer of the server that is answering."""
    issuer: str = current_app.extensions["authserver"].issuer
    return issuer
