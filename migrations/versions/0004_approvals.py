"""Approvals with their answers and rules, and the messages that tell people of them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "approval_answers",
        sa.Column("approval_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("answer", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("answer IN ('approve', 'refuse')", name=op.f("ck_approval_answers_answer")),
        sa.PrimaryKeyConstraint("approval_id", "user_id", name=op.f("pk_approval_answers")),
    )
    op.create_table(
        "approval_rules",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("delegation_id", sa.String(), nullable=False),
        sa.Column("client_id", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("resource_server_id", sa.String(), nullable=False),
        sa.Column("merchant_id", sa.String(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("taken_back_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("amount > 0", name=op.f("ck_approval_rules_amount")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approval_rules")),
    )
    op.create_index("ix_approval_rules_created_by", "approval_rules", ["created_by"], unique=False)
    op.create_index("ix_approval_rules_delegation", "approval_rules", ["delegation_id"], unique=False)
    op.create_table(
        "approvals",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("delegation_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("client_id", sa.String(), nullable=False),
        sa.Column("resource_server_id", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("details_hash", sa.String(), nullable=False),
        sa.Column("scope", sa.Boolean(), nullable=False),
        sa.Column("task_id", sa.String(), nullable=True),
        sa.Column("jkt", sa.String(), nullable=True),
        sa.Column("idempotency_key", sa.String(), nullable=True),
        sa.Column("request_hash", sa.LargeBinary(), nullable=True),
        sa.Column("because", sa.String(), nullable=False),
        sa.Column("approver", sa.String(), nullable=False),
        sa.Column("escalate_to", sa.String(), nullable=False),
        sa.Column("escalate_at", sa.BigInteger(), nullable=False),
        sa.Column("escalated_at", sa.BigInteger(), nullable=True),
        sa.Column("required", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("answered_at", sa.BigInteger(), nullable=True),
        sa.Column("poll_interval", sa.Integer(), nullable=False),
        sa.Column("polled_at", sa.BigInteger(), nullable=True),
        sa.Column("action_id", sa.String(), nullable=True),
        sa.CheckConstraint("(state = 'used') = (action_id IS NOT NULL)", name=op.f("ck_approvals_used")),
        sa.CheckConstraint(
            "state IN ('waiting', 'approved', 'refused', 'expired', 'used')", name=op.f("ck_approvals_state")
        ),
        sa.CheckConstraint("required >= 1", name=op.f("ck_approvals_required")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approvals")),
        sa.UniqueConstraint("code_hash", name=op.f("uq_approvals_code_hash")),
    )
    op.create_index("ix_approvals_client", "approvals", ["client_id", "created_at"], unique=False)
    op.create_index("ix_approvals_due", "approvals", ["state", "expires_at"], unique=False)
    op.create_index("ix_approvals_user", "approvals", ["user_id", "state", "created_at"], unique=False)
    op.create_index(
        "uq_approvals_idempotency_key", "approvals", ["client_id", "idempotency_key"], unique=True
    )
    op.create_table(
        "notification_addresses",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("address_hash", sa.LargeBinary(), nullable=False),
        sa.Column("encrypted_address", sa.LargeBinary(), nullable=False),
        sa.Column("confirmed_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("channel IN ('push', 'email')", name=op.f("ck_notification_addresses_channel")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notification_addresses")),
    )
    op.create_index(
        "uq_notification_addresses_place",
        "notification_addresses",
        ["user_id", "channel", "address_hash"],
        unique=True,
    )
    op.create_table(
        "notifications",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("approval_id", sa.String(), nullable=True),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("address_id", sa.String(), nullable=True),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notifications")),
    )
    op.create_index("ix_notifications_due_at", "notifications", ["due_at"], unique=False)
    op.add_column("actions", sa.Column("approval_id", sa.String(), nullable=True))


def downgrade() -> None:

    op.drop_column("actions", "approval_id")
    op.drop_index("ix_notifications_due_at", table_name="notifications")
    op.drop_table("notifications")
    op.drop_index("uq_notification_addresses_place", table_name="notification_addresses")
    op.drop_table("notification_addresses")
    op.drop_index("uq_approvals_idempotency_key", table_name="approvals")
    op.drop_index("ix_approvals_user", table_name="approvals")
    op.drop_index("ix_approvals_due", table_name="approvals")
    op.drop_index("ix_approvals_client", table_name="approvals")
    op.drop_table("approvals")
    op.drop_index("ix_approval_rules_created_by", table_name="approval_rules")
    op.drop_index("ix_approval_rules_delegation", table_name="approval_rules")
    op.drop_table("approval_rules")
    op.drop_table("approval_answers")
