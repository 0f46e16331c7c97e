"""Connections to PostgreSQL: a pool that notices who went away, and a transaction begun in one round trip."""

from typing import cast

import psycopg
from psycopg.pq import ExecStatus
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import ExceptionContext

# read_only_sql_transaction: what was the primary is a standby now.
_DEMOTED = "25006"
# A server that vanishes from the network says nothing: without these, libpq waits for hours. The URL may say others.
_NETWORK = {
    "connect_timeout": 5,
    "keepalives_idle": 5,  # seconds, as the next
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
}


def begin_with(connection: Connection, statement: str) -> None:
    """Begin a transaction with a SELECT, in one round trip, where the driver alone would make two."""
    connection.begin()  # SQLAlchemy's own notion of a transaction; nothing is sent
    driver = cast("psycopg.Connection[object]", connection.connection.driver_connection)
    result = driver.pgconn.exec_(f"BEGIN; {statement}".encode())
    if result.status != ExecStatus.TUPLES_OK:
        error = psycopg.errors.error_from_result(result)
        connection._handle_dbapi_exception(error, None, None, None, None)


def postgresql_engine(url: URL, pool_size: int, timeout: int, prepared: bool) -> Engine:
    """A pool of at most `pool_size` connections; `timeout` of a statement in ms, `prepared` as `Database` says it."""
    given = url.query.get("options", ())
    options = [given] if isinstance(given, str) else [*given]
    # The second lets nobody keep locks who was stopped in the middle: revocations wait for all exchanges.
    for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
        options.append(f"-c {name}={timeout}")
    network = {name: value for name, value in _NETWORK.items() if name not in url.query}
    # psycopg prepares what it has sent five times; None is never.
    preparing: dict[str, None] = {} if prepared else {"prepare_threshold": None}
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_reset_on_return=None,  # every transaction here is committed or rolled back by its own end
        connect_args={**network, **preparing, "options": " ".join(options)},
    )

    @event.listens_for(engine, "handle_error")
    def leave_a_standby(context: ExceptionContext) -> None:
        if getattr(context.original_exception, "sqlstate", None) == _DEMOTED:
            context.is_disconnect = True  # all connections are made anew, to whoever is the primary

    return engine
