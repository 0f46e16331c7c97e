"""The audit as a Merkle tree, what was sent where, and how old events may be taken away."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# An event goes only when it is older than what the newest row of `audit_retention` says.
_KEPT = "coalesce((SELECT max(removed_before) FROM audit_retention), 0)"


def upgrade() -> None:
    op.create_table(
        "audit_batches",
        sa.Column("first", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("event_ids", sa.LargeBinary(), nullable=False),
        sa.Column("leaf_hashes", sa.LargeBinary(), nullable=False),
        sa.Column("peaks", sa.LargeBinary(), nullable=False),
        sa.Column("tree_size", sa.BigInteger(), nullable=False),
        sa.Column("head", sa.Text(), nullable=False),
        sa.Column("sealed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("first", name=op.f("pk_audit_batches")),
    )
    op.create_table(
        "audit_retention",
        sa.Column("below", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("highest_id", sa.BigInteger(), nullable=False),
        sa.Column("removed_before", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("below", name=op.f("pk_audit_retention")),
    )
    op.create_table(
        "audit_deliveries",
        sa.Column("destination", sa.String(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("destination", name=op.f("pk_audit_deliveries")),
    )
    if op.get_bind().dialect.name == "postgresql":
        _on_postgresql()
    else:
        _on_sqlite()


def _on_postgresql() -> None:
    op.execute("DROP TRIGGER audit_events_append_only ON audit_events")
    for table in ("audit_batches", "audit_retention"):
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    op.execute(
        "CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR TRUNCATE ON audit_events"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        f"""
        CREATE FUNCTION refuse_removal() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF OLD.at >= {_KEPT} THEN
                RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN OLD;
        END
        $$
        """
    )
    op.execute(
        "CREATE TRIGGER audit_events_kept BEFORE DELETE ON audit_events"
        " FOR EACH ROW EXECUTE FUNCTION refuse_removal()"
    )


def _on_sqlite() -> None:
    op.execute("DROP TRIGGER audit_events_append_only_delete")
    op.execute(
        f"CREATE TRIGGER audit_events_append_only_delete BEFORE DELETE ON audit_events WHEN OLD.at >= {_KEPT}"
        " BEGIN SELECT RAISE(ABORT, 'audit_events is append-only'); END"
    )
    for table in ("audit_batches", "audit_retention"):
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_append_only_{change.lower()} BEFORE {change} ON {table}"
                f" BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER audit_events_kept ON audit_events")
        op.execute("DROP FUNCTION refuse_removal()")
        op.execute("DROP TRIGGER audit_events_append_only ON audit_events")
        op.execute(
            "CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    else:
        op.execute("DROP TRIGGER audit_events_append_only_delete")
        op.execute(
            "CREATE TRIGGER audit_events_append_only_delete BEFORE DELETE ON audit_events"
            " BEGIN SELECT RAISE(ABORT, 'audit_events is append-only'); END"
        )
    op.drop_table("audit_deliveries")
    op.drop_table("audit_retention")
    op.drop_table("audit_batches")
