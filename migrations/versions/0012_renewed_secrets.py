"""A resource server's secret that was renewed, and until when it is still taken."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("resource_servers", sa.Column("previous_secret_hash", sa.LargeBinary(), nullable=True))
    op.add_column("resource_servers", sa.Column("previous_secret_until", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("resource_servers", "previous_secret_until")
    op.drop_column("resource_servers", "previous_secret_hash")
