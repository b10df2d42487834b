"""Accounts at the broker: cameras' MQTT credentials, people who read, revoked cameras."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "departed",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_departed")),
    )
    op.create_table(
        "mqtt_users",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("mqtt_hash", sa.String(length=160), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_mqtt_users")),
    )
    # Not as a batch: that may rebuild the table, and deleting the old one would take everything with it.
    op.add_column("cameras", sa.Column("mqtt_hash", sa.String(length=160), nullable=True))
    op.add_column("cameras", sa.Column("revoked_at", sa.Float(), nullable=True))
