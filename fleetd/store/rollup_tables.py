"""What is left of old results and telemetry: sums per camera and minute, and per hour."""

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, String, Table

from fleetd.store.schema import metadata


def _period() -> list[Column]:  # type: ignore[type-arg]  # columns of several types
    return [
        Column("step", Integer, primary_key=True, autoincrement=False),  # seconds: 60 or 3600
        Column(
            "begin", BigInteger, primary_key=True, autoincrement=False
        ),  # Unix seconds, a multiple of step
        Column(
            "camera_id",
            Integer,
            ForeignKey("cameras.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
    ]


# A result is either a row of `results` or counted here, never both: adding the two up is exact.
result_rollups = Table(
    "result_rollups",
    metadata,
    *_period(),
    Column("label", String(64), primary_key=True),
    Column("release_id", String(64), primary_key=True),  # "" for none
    Column("n", BigInteger, nullable=False),
    Column("score_sum", Float, nullable=False),
    Column("score_min", Float, nullable=False),
    Column("score_max", Float, nullable=False),
    Column("inference_ms_sum", Float, nullable=False),
    Column("inference_ms_n", BigInteger, nullable=False),
    Index("ix_result_rollups_camera_id_begin", "camera_id", "begin"),
)

telemetry_rollups = Table(
    "telemetry_rollups",
    metadata,
    *_period(),
    Column("n", BigInteger, nullable=False),
    Column("fps_sum", Float, nullable=False),
    Column("fps_n", BigInteger, nullable=False),
    Column("inference_ms_sum", Float, nullable=False),
    Column("inference_ms_n", BigInteger, nullable=False),
    Column("inference_ms_max", Float),
    Column("rssi_sum", Float, nullable=False),
    Column("rssi_n", BigInteger, nullable=False),
    Column("rssi_min", Float),
    Column("temperature_c_max", Float),
    Column("supply_v_min", Float),
    Column("heap_free_min", BigInteger),
    Column("storage_free_min", BigInteger),
    Column("queue_max", BigInteger),
    Index("ix_telemetry_rollups_camera_id_begin", "camera_id", "begin"),
)
