"""Text that is looked for inside other text: every character stands for itself (threats A123).

Capital letters do not count: those of every alphabet on PostgreSQL, A to Z on SQLite, which knows no others.
"""

from sqlalchemy import ColumnElement, func, or_

from authserver import strict_json


def holds(text: str, *columns: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether one of the columns holds `text`."""
    literal = text.replace("/", "//").replace("%", "/%").replace("_", "/_")
    # The database itself makes both sides small: Python knows letters that SQLite leaves as they are.
    pattern = func.lower(f"%{literal}%")
    return or_(*(func.lower(column).like(pattern, escape="/") for column in columns))


def json_holds(text: str, column: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether a column of `strict_json.write` holds `text`, as it stands there or inside one of its values."""
    written = strict_json.write(text)[1:-1]
    return or_(*(holds(one, column) for one in sorted({text, written})))
