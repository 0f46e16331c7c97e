"""How risky an agent is, agents whose client_id is the address of a document, and chains of escalation."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("agents", sa.Column("risk", sa.String(), nullable=True))
    op.add_column("agents", sa.Column("document_read_at", sa.BigInteger(), nullable=True))
    op.add_column("agents", sa.Column("document_due_at", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_agents_document",
        "agents",
        ["document_due_at"],
        sqlite_where=sa.text("document_due_at IS NOT NULL"),
        postgresql_where=sa.text("document_due_at IS NOT NULL"),
    )
    op.add_column("approvals", sa.Column("later_steps", sa.Text(), nullable=True))
    op.add_column("approvals", sa.Column("later_due_at", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("approvals", "later_due_at")
    op.drop_column("approvals", "later_steps")
    op.drop_index("ix_agents_document", "agents")
    op.drop_column("agents", "document_due_at")
    op.drop_column("agents", "document_read_at")
    op.drop_column("agents", "risk")
