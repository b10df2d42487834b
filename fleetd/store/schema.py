"""What all tables share: the registry that knows them, and columns that many have."""

from typing import Final

from sqlalchemy import JSON, BigInteger, Column, Float, ForeignKey, Integer, MetaData

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# A missing value is SQL NULL, never the JSON word null.
Json = JSON(none_as_null=True)

# SQLite numbers rows by itself only for a column that is exactly INTEGER PRIMARY KEY.
BigId = BigInteger().with_variant(Integer, "sqlite")


def camera_column(*, unique: bool = False) -> Column[int]:
    """The camera that a row belongs to and goes with."""
    return Column(
        "camera_id", Integer, ForeignKey("cameras.id", ondelete="CASCADE"), nullable=False, unique=unique
    )


def message_columns() -> list[Column]:  # type: ignore[type-arg]  # columns of several types
    """What every row that came in a camera's message has."""
    return [
        Column("id", BigId, primary_key=True, autoincrement=True),
        camera_column(),
        Column("boot_id", Integer, nullable=False),
        Column("seq", BigInteger, nullable=False),
        Column("at", Float, nullable=False),  # best estimate of when it happened
        Column("received_at", Float, nullable=False),
    ]


def chunk_column() -> Column[int]:
    """The chunk that a row of a big table lies in: fleetd/store/chunks.py."""
    return Column("chunk", Integer, nullable=False, server_default="0")  # 0: in none yet
