"""What tests are made of: databases and the records in them."""

from authserver.db import Database
from authserver.migration import upgrade


def migrate(url: str) -> None:
    """Bring the database at `url` up to date, as `manage.py migrate` does."""
    database = Database(url)
    try:
        upgrade(database)
    finally:
        database.dispose()
