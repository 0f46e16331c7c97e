"""The OpenAPI 3.1 document, made of the operations that serve: their paths, bodies, queries and answers."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from authserver.admin.operations import Operation
from authserver.admin.shapes import Problem

_REF = "#/components/schemas/{model}"
_PROBLEMS = {
    400: "The request does not fit this document.",
    401: "Who calls is not known.",
    403: "The caller may not.",
    404: "There is no such record.",
    409: "It cannot be done as things stand.",
    412: "The record was changed since it was read.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "It fits this document, and cannot be done: a value means nothing here.",
    428: "If-Match is missing.",
    429: "The caller asks too often.",
    503: "It cannot be done now; nothing has happened.",
}
_TEXT = {"schema": {"type": "string"}}
_LIMIT_HEADERS = {
    "RateLimit": {"description": "What is left of the window, and when there is more.", **_TEXT},
    "RateLimit-Policy": {"description": "How many requests a caller has in a window of seconds.", **_TEXT},
}
Json = dict[str, Any]


def document_of(operations: Iterable[Operation], url: str) -> Json:
    """The document of these operations at `url`."""
    every = tuple(operations)
    schemas, components = _schemas(every)
    paths: Json = {}
    for operation in every:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Administrators' API of the authorization server",
            "version": "1",
            "description": "Agents, users, delegations and what came of them; policies; keys; revocation; the audit.",
        },
        "servers": [{"url": url}],
        "security": [{"bearer": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {str(status): _problem(text) for status, text in _PROBLEMS.items()},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API token, or a workload assertion that the configuration maps to a role.",
                },
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "__Host-session",
                    "description": "The console's session; a write sends its token in X-CSRF-Token as well.",
                },
            },
        },
    }


# --- schemas ------------------------------------------------------------------------------------------------------


def _schemas(operations: tuple[Operation, ...]) -> tuple[dict[Any, Json], Json]:
    """The schema of each type that is sent or answered, and the components that they refer to."""
    every = {one for operation in operations for one in (operation.answers, operation.query, operation.body)}
    types: list[Any] = [one for one in every | {Problem} if one is not None]
    mode: JsonSchemaMode = "validation"  # what is left out where it says nothing is not required
    inputs = [(one, mode, TypeAdapter[Any](one)) for one in sorted(types, key=repr)]
    found, definitions = TypeAdapter.json_schemas(inputs, ref_template=_REF)
    return {key: schema for (key, _), schema in found.items()}, definitions.get("$defs", {})


def _problem(text: str) -> Json:
    media = {"application/problem+json": {"schema": {"$ref": _REF.format(model="Problem")}}}
    return {"description": text, "content": media}


# --- operations ---------------------------------------------------------------------------------------------------


def _operation(operation: Operation, schemas: dict[Any, Json]) -> Json:
    described: Json = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": f"For callers who may {operation.role.value}.",
        "tags": [operation.name.partition(".")[0]],
        "parameters": [*_in_path(operation), *_in_query(operation, schemas), *_in_headers(operation)],
        "responses": {str(operation.status): _success(operation, schemas), **_refusals(operation)},
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": _needs_body(operation.body),
            "content": {"application/json": {"schema": schemas[operation.body]}},
        }
    return described


def _needs_body(body: type[BaseModel]) -> bool:
    return any(field.is_required() for field in body.model_fields.values())


def _in_path(operation: Operation) -> list[Json]:
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    schema = {"type": "string", "minLength": 1}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]


def _in_query(operation: Operation, schemas: dict[Any, Json]) -> list[Json]:
    if operation.query is None:
        return []
    properties: Json = TypeAdapter(operation.query).json_schema(ref_template=_REF)["properties"]
    return [
        {"name": name, "in": "query", "required": False, "schema": _not_null(schema)}
        for name, schema in properties.items()
    ]


def _not_null(schema: Json) -> Json:
    """A parameter is there or not; it is never null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    return {**rest, **kinds[0]}


def _in_headers(operation: Operation) -> list[Json]:
    found = []
    if operation.changes:
        found.append(
            {"name": "If-Match", "required": True, "description": "The ETag of the record as it was read."}
        )
    if operation.once:
        description = "A request that is sent again with the same key is done once."
        found.append({"name": "Idempotency-Key", "required": False, "description": description})
    pattern = {"Idempotency-Key": r"^[!-~]{1,128}$", "If-Match": r'^"[!#-~]{1,100}"$'}
    return [
        {**one, "in": "header", "schema": {"type": "string", "pattern": pattern[str(one["name"])]}}
        for one in found
    ]


def _success(operation: Operation, schemas: dict[Any, Json]) -> Json:
    headers: Json = dict(_LIMIT_HEADERS)
    if operation.shows_etag:
        headers["ETag"] = {"description": "What If-Match takes.", **_TEXT}
    schema = {"type": "string"} if operation.answers is str else schemas[operation.answers]
    return {
        "description": operation.summary,
        "headers": headers,
        "content": {operation.media_type: {"schema": schema}},
    }


def _refusals(operation: Operation) -> Json:
    statuses = {400, 401, 403, 413, 422, 429, 503}
    if "{" in operation.path or operation.body is not None:
        statuses |= {404}
    if operation.body is not None:
        statuses |= {409, 415}
    if operation.changes:
        statuses |= {412, 428}
    return {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses)}
