"""Statements of SQLAlchemy Core, worked out once: the text, and how values go in and come out.

What SQLAlchemy does anew each time a statement is executed costs several times as much as the database itself takes for
it. So the statements of the hot paths are prepared: written in Core like any other, then sent as they stand.
"""

from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Delete, Dialect, Insert, Select, Update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.type_api import TypeEngine

Convert = Callable[[Any], Any]
# Both drivers take parameters by name then.
_DIALECTS: dict[str, Dialect] = {
    "sqlite": sqlite.dialect(paramstyle="named"),
    "postgresql": postgresql.psycopg.dialect(),  # type: ignore[no-untyped-call]
}


@dataclass(frozen=True, slots=True)
class _Form:
    """A statement for one kind of database."""

    text: str
    constants: Mapping[str, object]
    into: tuple[tuple[str, Convert], ...]
    row: Callable[[Iterable[Any]], Any]
    out_of: tuple[tuple[int, Convert], ...]


class Prepared:
    """A statement that is sent often. Its parameters are the names of its `bindparam`s, all of them each time.

    It must not have lists in it that grow with their values (`expanding`).
    """

    def __init__(
        self,
        statement: Select[Any] | Insert | Update | Delete | Mapping[str, Insert],
        names: Iterable[str] | None = None,
    ) -> None:
        """`names` are the columns of an INSERT that has no values. A mapping has a statement for each database."""
        self._statement, self._names = statement, None if names is None else list(names)
        self._forms: dict[str, _Form] = {}

    def first(self, connection: Connection, parameters: Mapping[str, object]) -> Any | None:
        """The first row, with its columns as attributes, or None."""
        form = self._form(connection)
        row = self._run(connection, form, parameters).fetchone()
        return None if row is None else _converted(form, row)

    def all(self, connection: Connection, parameters: Mapping[str, object]) -> list[Any]:
        """Every row."""
        form = self._form(connection)
        return [_converted(form, row) for row in self._run(connection, form, parameters).fetchall()]

    def change(self, connection: Connection, parameters: Mapping[str, object]) -> int:
        """Run it; returns how many rows it changed."""
        return int(self._run(connection, self._form(connection), parameters).rowcount)

    def _run(self, connection: Connection, form: _Form, parameters: Mapping[str, object]) -> Any:
        values = {**form.constants, **parameters}
        for name, convert in form.into:
            values[name] = convert(values[name])
        if not connection.in_transaction():
            connection.begin()  # without it, SQLAlchemy would know of nothing to commit
        driver: Any = connection.connection.driver_connection
        try:
            return driver.execute(form.text, values)
        except connection.dialect.loaded_dbapi.Error as error:
            # As SQLAlchemy treats errors of its own statements: told apart, and dead connections thrown away.
            connection._handle_dbapi_exception(error, form.text, values, None, None)

    def _form(self, connection: Connection) -> _Form:
        name = connection.dialect.name
        form = self._forms.get(name)
        if form is None:
            form = self._forms[name] = self._made_for(name)
        return form

    def _made_for(self, name: str) -> _Form:
        dialect = _DIALECTS[name]
        statement = self._statement[name] if isinstance(self._statement, Mapping) else self._statement
        compiled = statement.compile(dialect=dialect, column_keys=self._names)
        into = [(bound, _into(bind.type, dialect)) for bind, bound in compiled.bind_names.items()]
        constants = {bound: bind.value for bind, bound in compiled.bind_names.items() if not bind.required}
        columns = list(statement.selected_columns) if isinstance(statement, Select) else []
        out_of = [(at, _out_of(column.type, dialect)) for at, column in enumerate(columns)]
        return _Form(
            str(compiled),
            constants,
            tuple((bound, convert) for bound, convert in into if convert is not None),
            _row_type([column.name for column in columns]),
            tuple((at, convert) for at, convert in out_of if convert is not None),
        )


def _row_type(names: list[str]) -> Callable[[Iterable[Any]], Any]:
    row: Any = namedtuple("Row", names)  # type: ignore[misc]  # its names are known when it runs
    return row._make


def _converted(form: _Form, row: Iterable[Any]) -> Any:
    values = list(row)
    for at, convert in form.out_of:
        values[at] = convert(values[at])
    return form.row(values)


def _into(type_: TypeEngine[Any], dialect: Dialect) -> Convert | None:
    return type_.dialect_impl(dialect).bind_processor(dialect)


def _out_of(type_: TypeEngine[Any], dialect: Dialect) -> Convert | None:
    return type_.dialect_impl(dialect).result_processor(dialect, None)
