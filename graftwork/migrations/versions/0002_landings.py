"""What has landed for each recipe, and the retrainings that were asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "landings",
        sa.Column("lineage", sa.String, primary_key=True),
        sa.Column("listing", sa.String, nullable=False),
        sa.Column("changed_at", sa.String, nullable=False),
        sa.Column("pending_since", sa.String, nullable=False),
        sa.Column("looked", sa.String),
        sa.Column("rows", sa.Integer),
        sa.Column("settled", sa.String),
        sa.Column("problem", sa.Text),
    )
    op.create_table(
        "retrainings",
        sa.Column("lineage", sa.String, primary_key=True),
        sa.Column("manifest_digest", sa.String, primary_key=True),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("run", sa.String),
        sa.Column("created_at", sa.String, nullable=False),
        sa.Column("closed_at", sa.String),
        sa.UniqueConstraint("lineage", "sequence", name="one_retraining_at_a_time"),
    )
