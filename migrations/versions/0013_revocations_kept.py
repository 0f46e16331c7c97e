"""A revocation is never taken back: the database refuses to change or delete it."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE TRIGGER revocations_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON revocations"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER revocations_append_only_{change.lower()} BEFORE {change} ON revocations"
            " BEGIN SELECT RAISE(ABORT, 'revocations is append-only'); END"
        )


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER revocations_append_only ON revocations")
        return
    for change in ("update", "delete"):
        op.execute(f"DROP TRIGGER revocations_append_only_{change}")
