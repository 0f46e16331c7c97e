"""Delegations that are handed on for one task, and tasks that one agent or one user ended."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("delegations", sa.Column("task_id", sa.String(), nullable=True))
    op.create_index(
        "ix_delegations_task",
        "delegations",
        ["task_id"],
        sqlite_where=sa.text("task_id IS NOT NULL"),
        postgresql_where=sa.text("task_id IS NOT NULL"),
    )
    op.create_table(
        "ended_tasks",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("party", sa.String(), nullable=False),
        sa.Column("ended_by", sa.String(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", "party", name=op.f("pk_ended_tasks")),
    )


def downgrade() -> None:
    op.drop_table("ended_tasks")
    op.drop_index("ix_delegations_task", "delegations")
    op.drop_column("delegations", "task_id")
