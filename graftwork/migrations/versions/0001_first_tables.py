"""The first tables: ledger (append-only, hash-chained), claims, run heads, looks at a holdout, manifests."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

REFUSAL = "the ledger is append-only"


def upgrade() -> None:
    """Make the tables, and have the ledger refuse what an append-only table never needs."""
    op.create_table(
        "ledger",
        sa.Column("model", sa.String, primary_key=True),
        sa.Column("alias", sa.String, primary_key=True),
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("from_version", sa.Integer),
        sa.Column("to_version", sa.Integer, nullable=False),
        sa.Column("bundle_digest", sa.String, nullable=False),
        sa.Column("recipe_digest", sa.String, nullable=False),
        sa.Column("manifest_digest", sa.String, nullable=False),
        sa.Column("rule", sa.String, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("evidence_digest", sa.String),
        sa.Column("policy_digest", sa.String),
        sa.Column("created_at", sa.String, nullable=False),
        sa.Column("previous_hash", sa.String, nullable=False),
        sa.Column("hash", sa.String, nullable=False),
    )
    op.create_table(
        "claims",
        sa.Column("kind", sa.String, primary_key=True),
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("outcome", sa.Text),
        sa.Column("created_at", sa.String, nullable=False),
        sa.Column("closed_at", sa.String),
    )
    op.create_table(
        "run_heads",
        sa.Column("run_id", sa.String, primary_key=True),
        sa.Column("fence", sa.Integer, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("state_digest", sa.String),
        sa.Column("updated_at", sa.String, nullable=False),
    )
    op.create_table(
        "holdout_looks",
        sa.Column("model", sa.String, primary_key=True),
        sa.Column("holdout_digest", sa.String, primary_key=True),
        sa.Column("look", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("bundle_digest", sa.String, nullable=False),
        sa.Column("evidence_digest", sa.String, nullable=False),
        sa.Column("created_at", sa.String, nullable=False),
        sa.UniqueConstraint("model", "holdout_digest", "bundle_digest", name="one_look_per_bundle"),
    )
    op.create_table(
        "manifests",
        sa.Column("lineage", sa.String, primary_key=True),
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("input_digest", sa.String, nullable=False),
        sa.Column("manifest_digest", sa.String, nullable=False),
        sa.Column("created_at", sa.String, nullable=False),
        sa.UniqueConstraint("lineage", "input_digest", name="one_manifest_per_input"),
    )
    refuse_changes_of_the_ledger()


def refuse_changes_of_the_ledger() -> None:
    """Let the database itself refuse what an append-only table never needs."""
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER ledger_no_{verb.lower()} BEFORE {verb} ON ledger "
                f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$"
    )
    op.execute(
        "CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_change()"
    )
