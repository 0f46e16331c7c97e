"""What ended or changed, the streams by which resource servers hear of it, and what they have not taken yet."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "security_events",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("party", sa.String(), nullable=False),
        sa.Column("revocation_id", sa.BigInteger(), nullable=True),
        sa.Column("initiator", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('revoked', 'paused', 'resumed', 'lowered')", name=op.f("ck_security_events_kind")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_security_events")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "event_streams",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("resource_server_id", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("endpoint_url", sa.String(), nullable=True),
        sa.Column("encrypted_authorization", sa.LargeBinary(), nullable=True),
        sa.Column("events_requested", sa.Text(), nullable=True),
        sa.Column("description", sa.String(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("read_event", sa.BigInteger(), nullable=False),
        sa.Column("read_within", sa.String(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failing_since", sa.BigInteger(), nullable=True),
        sa.Column("trouble", sa.String(), nullable=True),
        sa.Column("verified_at", sa.BigInteger(), nullable=True),
        sa.Column("heard_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "status IN ('enabled', 'paused', 'disabled')", name=op.f("ck_event_streams_status")
        ),
        sa.CheckConstraint("method IN ('push', 'poll')", name=op.f("ck_event_streams_method")),
        sa.CheckConstraint(
            "(method = 'push') = (endpoint_url IS NOT NULL)", name=op.f("ck_event_streams_endpoint")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_streams")),
    )
    op.create_index(op.f("ix_event_streams_resource_server_id"), "event_streams", ["resource_server_id"])
    op.create_table(
        "pending_events",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("stream_id", sa.String(), nullable=False),
        sa.Column("jti", sa.String(), nullable=False),
        sa.Column("claims", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pending_events")),
        sqlite_autoincrement=True,
    )
    op.create_index("uq_pending_events_jti", "pending_events", ["stream_id", "jti"], unique=True)


def downgrade() -> None:
    op.drop_table("pending_events")
    op.drop_table("event_streams")
    op.drop_table("security_events")
