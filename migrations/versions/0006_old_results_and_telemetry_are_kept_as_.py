"""Old results and telemetry are kept as sums."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:

    op.create_table(
        "result_rollups",
        sa.Column("step", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("begin", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("camera_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("label", sa.String(length=64), nullable=False),
        sa.Column("release_id", sa.String(length=64), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("score_sum", sa.Float(), nullable=False),
        sa.Column("score_min", sa.Float(), nullable=False),
        sa.Column("score_max", sa.Float(), nullable=False),
        sa.Column("inference_ms_sum", sa.Float(), nullable=False),
        sa.Column("inference_ms_n", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["camera_id"],
            ["cameras.id"],
            name=op.f("fk_result_rollups_camera_id_cameras"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "step", "begin", "camera_id", "label", "release_id", name=op.f("pk_result_rollups")
        ),
    )
    with op.batch_alter_table("result_rollups", schema=None) as batch_op:
        batch_op.create_index("ix_result_rollups_camera_id_begin", ["camera_id", "begin"], unique=False)

    op.create_table(
        "telemetry_rollups",
        sa.Column("step", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("begin", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("camera_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("fps_sum", sa.Float(), nullable=False),
        sa.Column("fps_n", sa.BigInteger(), nullable=False),
        sa.Column("inference_ms_sum", sa.Float(), nullable=False),
        sa.Column("inference_ms_n", sa.BigInteger(), nullable=False),
        sa.Column("inference_ms_max", sa.Float(), nullable=True),
        sa.Column("rssi_sum", sa.Float(), nullable=False),
        sa.Column("rssi_n", sa.BigInteger(), nullable=False),
        sa.Column("rssi_min", sa.Float(), nullable=True),
        sa.Column("temperature_c_max", sa.Float(), nullable=True),
        sa.Column("supply_v_min", sa.Float(), nullable=True),
        sa.Column("heap_free_min", sa.BigInteger(), nullable=True),
        sa.Column("storage_free_min", sa.BigInteger(), nullable=True),
        sa.Column("queue_max", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["camera_id"],
            ["cameras.id"],
            name=op.f("fk_telemetry_rollups_camera_id_cameras"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("step", "begin", "camera_id", name=op.f("pk_telemetry_rollups")),
    )
    with op.batch_alter_table("telemetry_rollups", schema=None) as batch_op:
        batch_op.create_index("ix_telemetry_rollups_camera_id_begin", ["camera_id", "begin"], unique=False)
