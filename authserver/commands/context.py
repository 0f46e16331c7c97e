"""What the verbs share: the server's records, opened; how records are printed; how a failure is said."""

import json
import logging
import os
import pwd
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click
import structlog

from authserver import strict_json
from authserver.clock import SystemClock
from authserver.config import ConfigurationError, load_settings
from authserver.errors import Refusal
from authserver.migration import check_usable
from authserver.policy.reading import instant_text
from authserver.services import Services, open_database, open_services
from authserver.strict_json import JsonRefused
from authserver.values import NotAValue

Verb = TypeVar("Verb", bound=Callable[..., Any])

_MOST_BYTES = 1_000_000
# Wide enough that a record stays on one line for grep, where no terminal says how wide it is.
_NO_TERMINAL = 2_000


# --- the server ---------------------------------------------------------------------------------------------------


@contextmanager
def opened() -> Iterator[Services]:
    """The configured server's services. Raises `ConfigurationError`, also where `migration.check_usable` does."""
    settings = load_settings()
    database = open_database(settings)
    try:
        check_usable(database)
        yield open_services(settings, SystemClock(), database)
    finally:
        database.dispose()


def operator() -> str:
    """Who runs the verb, for the audit: `operator:` and the account on this machine."""
    try:
        return f"operator:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:  # an account without a name, as in a container
        return f"operator:{os.getuid()}"


def read_json(path: Path) -> object:
    """The JSON in a file that the operator names; `-` is standard input. Raises `Failed`."""
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return strict_json.parse(content, max_bytes=_MOST_BYTES)
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}") from error
    except JsonRefused as error:
        raise Failed(f"{path}: {error}") from error


# --- failures -----------------------------------------------------------------------------------------------------


class Failed(click.ClickException):
    """The verb could not do it: one line on standard error, exit code 1."""

    def show(self, file: Any = None) -> None:
        """Print the message and nothing else."""
        click.echo(self.message, file=file, err=file is None)


@contextmanager
def failures_in_words() -> Iterator[None]:
    """Say what an operator can mend in one line; anything else is a defect and keeps its traceback."""
    # A verb says itself what went wrong; the events of a server would say it twice. `serve` logs as configured.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    except Refusal as refusal:
        raise Failed(in_words(refusal)) from refusal
    except (ConfigurationError, NotAValue) as error:
        raise Failed(str(error)) from error


def in_words(refusal: Refusal) -> str:
    """What a refusal says to an operator."""
    if refusal.status == 503:
        cause = refusal.__cause__
        # The driver's own words; SQLAlchemy's would show the statement's parameters.
        detail = str(getattr(cause, "orig", None) or cause or "too many conflicts").strip().splitlines()
        return f"the database cannot do it: {detail[0]}"
    return refusal.description


# --- output -------------------------------------------------------------------------------------------------------


def json_option(verb: Verb) -> Verb:
    """`--json`, as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(verb)


def json_always(verb: Verb) -> Verb:
    """`--json` on a verb that prints JSON with or without it, so that programs may say it everywhere."""
    return click.option("--json", is_flag=True, expose_value=False, help="Print JSON; always so here.")(verb)


# For verbs that take an id: some begin with a dash, and are no option for that.
TAKES_ANY_ID = {"ignore_unknown_options": True}


def instant(at: datetime | None) -> str | None:
    """An instant as records show it: RFC 3339 in UTC."""
    return None if at is None else instant_text(at)


def print_json(value: object) -> None:
    """Print one JSON value."""
    click.echo(json.dumps(value, indent=2))


def print_records(records: Iterable[Mapping[str, object]], columns: tuple[str, ...], as_json: bool) -> None:
    """Print records: a table of `columns`, or an array with all that they hold."""
    found = list(records)
    if as_json:
        print_json(found)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for record in found:
        # As `Text`, so that no value is taken for markup.
        table.add_row(*(Text(_cell(record.get(column))) for column in columns))
    Console(width=None if sys.stdout.isatty() else _NO_TERMINAL).print(table)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
