"""How Alembic reaches the database: by the caller's connection, or from its command line by the configuration."""

from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection

from authserver.config import load_settings
from authserver.db import Database
from authserver.schema import Base, Instant


def render_item(kind: str, item: object, autogen_context: AutogenContext) -> str | Literal[False]:
    """Write an instant as what it is in the database: old migrations must need nothing of today's program."""
    return "sa.BigInteger()" if kind == "type" and isinstance(item, Instant) else False


def run(connection: Connection) -> None:
    """Run what was asked for in one transaction, on SQLite too: all of it or nothing."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transactional_ddl=True,
        compare_server_default=True,
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=render_item,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_from_command_line() -> None:
    """`alembic …` in a checkout; `-x url=…` names another database than the configuration does."""
    url = context.get_x_argument(as_dictionary=True).get("url")
    database = Database(url or load_settings().database.url.get_secret_value())
    database.write(run)


if context.is_offline_mode():
    raise SystemExit("migrations run on a database; SQL for later is not written")
given = context.config.attributes.get("connection")
if given is None:
    run_from_command_line()
else:
    run(given)
