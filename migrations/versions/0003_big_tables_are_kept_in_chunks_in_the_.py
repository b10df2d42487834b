"""Big tables are kept in chunks, in the order of arrival, so that writing costs the same however much is stored."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ROWS = 4096


def upgrade() -> None:
    op.create_table(
        "chunks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("first_at", sa.Float(), nullable=False),
        sa.Column("last_at", sa.Float(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chunks")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_chunks_kind_last_at", "chunks", ["kind", "last_at"])
    for table in ("results", "telemetry"):
        _into_chunks(table)
    if op.get_bind().dialect.name == "postgresql":
        following = "(SELECT coalesce(max(id), 0) + 1 FROM chunks)"
        op.execute(f"SELECT setval(pg_get_serial_sequence('chunks', 'id'), {following}, false)")


def _into_chunks(table: str) -> None:
    """What is stored goes into chunks of its own: rows of neighbouring numbers arrived together."""
    op.add_column(table, sa.Column("chunk", sa.Integer(), server_default="0", nullable=False))
    op.drop_index(op.f(f"ix_{table}_camera_id_at"), table_name=table)
    taken = op.get_bind().execute(sa.text("SELECT coalesce(max(id), 0) FROM chunks")).scalar_one() + 1
    number = f"id / {ROWS} + {taken}"
    op.execute(
        "INSERT INTO chunks (id, kind, first_at, last_at, rows) "  # noqa: S608  # all of it is above
        f"SELECT {number}, '{table}', min(at), max(at), count(*) FROM {table} GROUP BY {number}"
    )
    op.execute(f"UPDATE {table} SET chunk = {number}")  # noqa: S608
    op.create_index(f"ix_{table}_chunk_camera_id_at", table, ["chunk", "camera_id", "at"])
