"""How far each set of policies has come."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "policy_states",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_by", sa.String(), nullable=False),
        sa.CheckConstraint("state IN ('draft', 'observe', 'enforce')", name=op.f("ck_policy_states_state")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_policy_states")),
    )


def downgrade() -> None:
    op.drop_table("policy_states")
