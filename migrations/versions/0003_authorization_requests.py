"""What agents ask people to allow."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "authorization_requests",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("client_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("handle_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_code_hash", sa.LargeBinary(), nullable=True),
        sa.Column("code_hash", sa.LargeBinary(), nullable=True),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("way", sa.Text(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("grant_id", sa.String(), nullable=True),
        sa.Column("user_id", sa.String(), nullable=True),
        sa.Column("delegation_id", sa.String(), nullable=True),
        sa.Column("interval", sa.Integer(), nullable=False),
        sa.Column("polled_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "state IN ('waiting', 'allowed', 'denied', 'used')", name=op.f("ck_authorization_requests_state")
        ),
        sa.CheckConstraint(
            "action IN ('create', 'merge', 'replace')", name=op.f("ck_authorization_requests_action")
        ),
        sa.CheckConstraint(
            "(action = 'create') = (grant_id IS NULL)", name=op.f("ck_authorization_requests_grant")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_authorization_requests")),
        sa.UniqueConstraint("handle_hash", name=op.f("uq_authorization_requests_handle_hash")),
        sa.UniqueConstraint("user_code_hash", name=op.f("uq_authorization_requests_user_code_hash")),
        sa.UniqueConstraint("code_hash", name=op.f("uq_authorization_requests_code_hash")),
    )
    op.create_index(
        op.f("ix_authorization_requests_expires_at"), "authorization_requests", ["expires_at"], unique=False
    )


def downgrade() -> None:
    op.drop_table("authorization_requests")
