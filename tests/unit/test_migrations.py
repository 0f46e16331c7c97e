"""The schema goes up, down and up again, and is then what schema.py says, the same on both databases."""

import threading
from collections.abc import Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, insert, inspect, text
from sqlalchemy.exc import IntegrityError

from authserver.db import Database
from authserver.migration import downgrade, is_current, pending, upgrade
from authserver.schema import AuditEvent, Base, Transfer
from tests.make import EPOCH_OF_TESTS

APPEND_ONLY = ("audit_events", "transfers")


@pytest.fixture
def database(empty_database_url: str) -> Iterator[Database]:
    database = Database(empty_database_url)
    yield database
    database.dispose()
