"""The reference pages, generated from the code: settings, verbs, endpoints, the API, errors. Each is Markdown."""

import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click
from flask import Flask

from authserver.commands import main
from authserver.config import SHIPPED, Settings
from authserver.explained import ERRORS

Pages = dict[str, str]  # by path below docs/

# --- settings ---------------------------------------------------------------------------------------------------------

_KEY = re.compile(r"(?:# )?(\w+) = ((?:\"[^\"]*\"|[^#])+?)(?: +# (.+))?")
_BLOCK = re.compile(r"# \[\[(\w+)(?:\.(\w+))?\]\]")
_SECTION = re.compile(r"\[+(\w+)\]+")


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the configuration, as the shipped file tells of it."""

    section: str
    key: str
    shown: str  # the value on its line
    is_default: bool  # its line is commented out: that is what holds without it
    text: str


def settings() -> list[Setting]:
    """Every key of config/authserver.toml with the comment above it; each once, in the order of the file."""
    found = dict[tuple[str, str], Setting]()
    section, comment, example = "", list[str](), False

    def add(setting: Setting) -> None:
        found.setdefault((setting.section, setting.key), setting)

    text = ""
    for line in (SHIPPED / "authserver.toml").read_text(encoding="utf-8").splitlines():
        if heading := _SECTION.fullmatch(line):
            section, comment, example = heading[1], [], False
        elif block := _BLOCK.fullmatch(line):  # an array, or another of its entries, told of by example
            text, comment, example = " ".join(comment), [], True
            if block[2]:
                add(Setting(block[1], block[2], "…", True, text))
        elif said := _KEY.fullmatch(line):
            if not example:
                text = " ".join(comment) or text  # keys below one another share what is above them
            if section and said[1] in _keys_of(section):
                add(
                    Setting(
                        section,
                        said[1],
                        "…" if example else said[2],
                        line[0] == "#",
                        (said[3] or text).strip(),
                    )
                )
            comment = []
        elif line.startswith("#") and section:
            comment.append(line[2:])
        else:
            comment, example = [], False
    return list(found.values())


@cache
def _keys_of(section: str) -> Mapping[str, Any]:
    schema = Settings.model_json_schema()
    about = schema["properties"][section]
    name = (about.get("items") or about)["$ref"].rpartition("/")[2]
    keys: Mapping[str, Any] = schema["$defs"][name]["properties"]
    return keys


def _takes(schema: Mapping[str, Any]) -> str:
    """What a key takes, from its JSON schema."""
    if below := schema.get("items", {}).get("$ref"):
        keys = Settings.model_json_schema()["$defs"][below.rpartition("/")[2]]["properties"]
        return "blocks with " + ", ".join(f"`{key}`" for key in keys)
    choices = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    (one,) = choices
    if "enum" in one:
        return "one of " + ", ".join(f"`{value}`" for value in one["enum"])
    kind = {"integer": "a whole number", "boolean": "`true` or `false`", "array": "an array"}.get(
        one["type"], "a text"
    )
    if one.get("format") == "path":
        kind = "a path"
    if one.get("format") == "password":
        kind = "a secret"
    least, most = one.get("minimum"), one.get("maximum")
    bounds = f" from {least} to {most}" if least is not None and most is not None else ""
    return kind + bounds


def settings_page() -> str:
    """All settings."""
    lines = [
        "# Settings",
        "",
        "One TOML file: `config/authserver.toml`, or the one that `AUTHSERVER_CONFIG` names.",
        "`AUTHSERVER_<SECTION>__<KEY>` in the environment goes over any value of it. Relative paths are",
        "relative to the file. A key that is wrong or unknown stops the start, with its name and what it",
        "takes. `[server] issuer`, `[database] url` and one `[[trust_domains]]` are enough; the rest has",
        "defaults.",
        "",
    ]
    section = ""
    for setting in settings():
        if setting.section != section:
            section = setting.section
            lines += [f"## {section}", "", (_docstring_of(section)), ""]
        schema = _keys_of(section)[setting.key]
        lines += [f"### `{section}.{setting.key}`", "", setting.text, "", f"- Takes {_takes(schema)}."]
        lines += (
            [f"- By default `{setting.shown}`."] if setting.is_default and "…" not in setting.shown else []
        )
        if section != "trust_domains":
            lines += [f"- In the environment: `AUTHSERVER_{section.upper()}__{setting.key.upper()}`."]
        lines += [""]
    return "\n".join(lines)


def _docstring_of(section: str) -> str:
    schema = Settings.model_json_schema()
    about = schema["properties"][section]
    name = (about.get("items") or about)["$ref"].rpartition("/")[2]
    return str(schema["$defs"][name].get("description", ""))


# --- verbs ------------------------------------------------------------------------------------------------------------


def verbs(group: click.Command = main, context: click.Context | None = None) -> Iterator[click.Context]:
    """Every verb that does something, in the order in which help shows them."""
    context = context or click.Context(group, info_name="manage.py")
    if not isinstance(group, click.Group):
        yield context
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None:
            yield from verbs(command, click.Context(command, info_name=name, parent=context))


def verbs_page() -> str:
    """All verbs of manage.py, as their help says it."""
    lines = [
        "# Verbs",
        "",
        "`python manage.py VERB`; where the package is installed without a checkout, `python -m authserver",
        "VERB`. `--help` says the same as this page. What prints records takes `--json`. Exit codes: 0 it is",
        "done, 1 it could not be, 2 it was not understood.",
        "",
    ]
    for context in verbs():
        context.max_content_width = 100
        name = context.command_path.removeprefix("manage.py ")
        lines += [f"## {name}", "", "```text", context.command.get_help(context), "```", ""]
    return "\n".join(lines)


# --- over HTTP --------------------------------------------------------------------------------------------------------

# What each endpoint is for; one that is not here is shown without words.
_ENDPOINTS = {
    "/oauth/token": "Token exchange (RFC 8693), authorization codes, device codes, deferred answers, hand-over",
    "/oauth/par": "Push what an agent asks of a person (RFC 9126)",
    "/oauth/authorize": "Where a browser is sent with a pushed request",
    "/oauth/device_authorization": "Begin at a device without a browser (RFC 8628)",
    "/oauth/grants/<grant_id>": "Read and give back a grant (FAPI Grant Management)",
    "/oauth/introspect": "Whether a token stands, for its audience (RFC 7662, RFC 9701)",
    "/oauth/revoke": "End a token or a grant (RFC 7009)",
    "/oauth/redeem": "Use a token up, once, with what really applies",
    "/oauth/redemptions/<redemption_id>/<any(capture,void,refund):verb>": "Capture, void or refund a redemption",
    "/oauth/tasks/<task_id>/complete": "End every token of a task",
    "/oauth/jwks": "The keys with which tokens verify (RFC 7517)",
    "/oauth/status/<int(max=9223372036854775807):list_id>": "Token status list, signed",
    "/.well-known/oauth-authorization-server": "Metadata (RFC 8414)",
    "/healthz": "Whether the process lives",
    "/readyz": "Whether it can decide: database and keys",
    "/metrics": "For Prometheus",
}


def application(folder: Path) -> Flask:
    """The application as it is served, on an empty database of its own in `folder`."""
    from authserver.actors.workload_files import create_domain
    from authserver.app import create_app
    from authserver.config import load_settings
    from authserver.db import Database
    from authserver.migration import upgrade

    create_domain("example.org", "spiffe", folder / "example.org")
    (folder / "authserver.toml").write_text(
        f'[server]\nissuer = "https://auth.example"\n[database]\nurl = "sqlite:///{folder}/authserver.db"\n'
        '[log]\nlevel = "error"\n'
        '[[trust_domains]]\nname = "example.org"\nkind = "spiffe"\njwks_file = "example.org/jwks.json"\n'
    )
    database = Database(f"sqlite:///{folder}/authserver.db")
    upgrade(database)
    database.dispose()
    return create_app(load_settings(folder / "authserver.toml"))


def endpoints_page(app: Flask) -> str:
    """What programs call, from the application's own table of routes; pages and the API are elsewhere."""
    lines = [
        "# Endpoints",
        "",
        "Below the issuer's address. Errors are `error`, `error_description` and `error_uri`; where something",
        "is settled, problem details (RFC 9457). [Each error has its page](errors/index.md).",
        "",
        "| method | path | |",
        "| --- | --- | --- |",
    ]
    rules = [rule for rule in app.url_map.iter_rules() if not rule.endpoint.startswith("pages.")]
    for rule in sorted(rules, key=lambda rule: rule.rule):
        if rule.rule.startswith("/api/"):
            continue
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            lines.append(f"| {method} | `{_path(rule.rule)}` | {_ENDPOINTS.get(rule.rule, '')} |")
    return "\n".join([*lines, ""])


def _path(rule: str) -> str:
    return re.sub(r"<(?:any\(([^)]*)\):\w+|(?:\w+(?:\([^)]*\))?:)?(\w+))>", _named, rule)


def _named(match: re.Match[str]) -> str:
    return match[1].replace(",", "|") if match[1] else "{" + match[2] + "}"


def api_page(app: Flask) -> str:
    """The administrators' API, from the OpenAPI document that it serves."""
    answer = app.test_client().get("/api/v1/openapi.json")
    lines = ["# Administrators' API", ""]
    if answer.status_code != 200:
        return "\n".join([*lines, "This version serves no administrators' API.", ""])
    document = answer.get_json()
    lines += [
        "Below `/api/v1`, JSON; `/api/v1/openapi.json` is the OpenAPI document that this page is made of.",
        "",
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method in {"get", "post", "put", "patch", "delete"}:
                lines += _operation(method, path, operation)
    return "\n".join(lines)


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"## {method.upper()} `{path}`", "", str(operation.get("summary", "")), "")
    if description := operation.get("description"):
        yield from (str(description), "")
    if parameters := operation.get("parameters"):
        yield from ("| parameter | in | takes |", "| --- | --- | --- |")
        for one in parameters:
            takes = _schema_in_words(one.get("schema", {}))
            yield f"| `{one['name']}` | {one['in']}{', required' if one.get('required') else ''} | {takes} |"
        yield ""
    for media in operation.get("requestBody", {}).get("content", {}).values():
        yield from (f"Takes {_schema_in_words(media.get('schema', {}))}.", "")
    answers = [
        f"`{status}` {about.get('description', '')}".strip()
        for status, about in operation["responses"].items()
    ]
    yield from (f"Answers: {'; '.join(answers)}.", "")


def _schema_in_words(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2].partition('.')[0]}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_schema_in_words(one) for one in schema["anyOf"] if one.get("type") != "null")
    return str(schema.get("type", "anything"))


# --- errors -----------------------------------------------------------------------------------------------------------


def error_pages() -> Pages:
    """A page for each error, and one that lists them."""
    listed = ["# Errors", "", "| error | what it means |", "| --- | --- |"]
    listed += [f"| [`{error}`]({error}.md) | {explained.meaning} |" for error, explained in ERRORS.items()]
    pages = {"reference/errors/index.md": "\n".join([*listed, ""])}
    for error, explained in ERRORS.items():
        pages[f"reference/errors/{error}.md"] = (
            f"# {error}\n\n{explained.meaning}\n\n## What to do\n\n{explained.what_to_do}\n\n"
            f"Source: {explained.source}. Every answer with this error has `ISSUER/errors/{error}` as its "
            "`error_uri`, or, as a problem, as its `type`: the same text, served by the server itself.\n"
        )
    return pages


def pages() -> Pages:
    """Every page of the reference."""
    with tempfile.TemporaryDirectory(prefix="authserver-docs-") as folder:
        app = application(Path(folder))
        over_http = {"reference/endpoints.md": endpoints_page(app), "reference/api.md": api_page(app)}
    return {
        "reference/settings.md": settings_page(),
        "reference/verbs.md": verbs_page(),
        **over_http,
        **error_pages(),
    }
