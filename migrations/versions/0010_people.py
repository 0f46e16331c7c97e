"""How many requests of an agent wait, how a person had signed in who consented, and in which language they are told."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_authorization_requests_waiting",
        "authorization_requests",
        ["client_id", "expires_at"],
        sqlite_where=sa.text("state = 'waiting'"),
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.add_column("authorization_requests", sa.Column("authenticated_at", sa.BigInteger(), nullable=True))
    op.add_column("authorization_requests", sa.Column("acr", sa.String(), nullable=True))
    op.add_column("notification_addresses", sa.Column("language", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("notification_addresses", "language")
    op.drop_column("authorization_requests", "acr")
    op.drop_column("authorization_requests", "authenticated_at")
    op.drop_index("ix_authorization_requests_waiting", "authorization_requests")
