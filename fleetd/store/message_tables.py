"""Tables that hold what cameras send, and what is known of each boot."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from fleetd.store.schema import BigId, Json, camera_column, chunk_column, message_columns, metadata

CHUNKED: Final = ("results", "telemetry")  # tables that grow with every message: fleetd/store/chunks.py

boots = Table(
    "boots",
    metadata,
    Column("id", Integer, primary_key=True),
    camera_column(),
    Column("boot", String(16), nullable=False),
    Column("first_seen", Float, nullable=False),
    Column("last_seen", Float, nullable=False),
    Column("ranges", Text, nullable=False),  # JSON [[first, last], ...] of stored or declared-lost seqs
    Column("lost", BigInteger, nullable=False, server_default="0"),  # seqs the camera declared lost
    Column("offset_s", Float),  # smallest seen receive time minus the camera's monotonic clock
    UniqueConstraint("camera_id", "boot"),
    Index("ix_boots_first_seen", "first_seen"),  # who has restarted lately
)

results = Table(
    "results",
    metadata,
    *message_columns(),
    Column("n", Integer, nullable=False),  # position inside its message
    Column("label", String(64), nullable=False),
    Column("score", Float, nullable=False),
    Column("scores", Json),
    Column("inference_ms", Float),
    Column("frame", BigInteger),
    Column("count", Integer),  # frames that it stands for, in a summary; else it is one
    Column("release_id", String(64)),
    chunk_column(),
    Index("ix_results_chunk_camera_id_at", "chunk", "camera_id", "at"),
)

telemetry = Table(
    "telemetry",
    metadata,
    *message_columns(),
    Column("fps", Float),
    Column("inference_ms", Float),
    Column("inference_ms_max", Float),
    Column("capture_ms", Float),
    Column("frame_ms", Float),
    Column("heap_free", BigInteger),
    Column("storage_free", BigInteger),
    Column("rssi", Float),
    Column("temperature_c", Float),
    Column("supply_v", Float),
    Column("uptime_s", BigInteger),
    Column("frames", BigInteger),
    Column("queue", BigInteger),
    Column("dropped", Json),
    Column("reconnects", BigInteger),
    Column("picture", Json),
    chunk_column(),
    Index("ix_telemetry_chunk_camera_id_at", "chunk", "camera_id", "at"),
)

# What times the rows of each chunk are of: fleetd/store/chunks.py.
chunks = Table(
    "chunks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),  # the table
    Column("first_at", Float, nullable=False),
    Column("last_at", Float, nullable=False),
    Column("rows", Integer, nullable=False),
    Index("ix_chunks_kind_last_at", "kind", "last_at"),
    sqlite_autoincrement=True,  # a number is never given twice: who deletes old chunks may be behind
)

sightings = Table(
    "sightings",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    camera_column(),
    Column("at", Float, nullable=False),
    Column("received_at", Float, nullable=False),
    Column("color", String(16), nullable=False),
    Column("pattern", String(16), nullable=False),
    Column("source", String(16), nullable=False),  # agent, usb, operator, inference
    Column("reason", String(64)),
    Index("ix_sightings_camera_id_at", "camera_id", "at"),
)

events = Table(
    "events",
    metadata,
    *message_columns(),
    Column("kind", String(64), nullable=False),
    Column("text", Text),
    Column("hash", String(64)),
    Index("ix_events_camera_id_at", "camera_id", "at"),
)

update_reports = Table(
    "update_reports",
    metadata,
    *message_columns(),
    Column("generation", BigInteger, nullable=False),
    Column("release_id", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String(64)),
    Column("detail", Text),
    Column("digest", String(64)),
    Column("blocks_done", BigInteger),
    Column("blocks_total", BigInteger),
    Column("bytes", BigInteger),
    Column("ms", Json),
    Index("ix_update_reports_camera_id_id", "camera_id", "id"),
    sqlite_autoincrement=True,  # a number is never given twice: assignments follow behind a cursor
)

replies = Table(
    "replies",
    metadata,
    *message_columns(),
    Column("command", String(32), nullable=False),
    Column("command_id", String(64), nullable=False, index=True),
    Column("ok", Boolean, nullable=False),
    Column("reason", String(64)),
    Column("data", Json),
)

# Pictures, in the pieces they came in. Bounded for each camera: fleetd/store/images.py.
image_pieces = Table(
    "image_pieces",
    metadata,
    *message_columns(),
    Column("image", String(32), nullable=False),
    Column("n", Integer, nullable=False),
    Column("pieces", Integer, nullable=False),
    Column("size", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("why", String(64), nullable=False),
    Column("label", String(64)),
    Column("score", Float),
    Column("release_id", String(64)),
    Column("data", LargeBinary, nullable=False),
    Index("ix_image_pieces_camera_id_image_n", "camera_id", "image", "n"),
)

# Messages that could not be stored as what they claim to be. Bounded; the newest are kept for the operator.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("received_at", Float, nullable=False),
    Column("topic", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # at most the first 2 KB
    Column("size", Integer, nullable=False),
    Column("reason", String(64), nullable=False),
    Column("detail", Text, nullable=False),
)

unknown_cameras = Table(
    "unknown_cameras",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("first_seen", Float, nullable=False),
    Column("last_seen", Float, nullable=False),
    Column("messages", BigInteger, nullable=False),
)
