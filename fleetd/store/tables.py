"""The schema, once, for SQLite and PostgreSQL. Times are Unix seconds (UTC), durations say their unit.

Exactly-once landing rests on `boots`: one row per (camera, boot) holds the ranges of sequence numbers that
are stored, and changes in the same transaction as the rows themselves. That is one small write per camera and
batch, where a unique index over every message would halve the rate.
"""

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

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


def _camera(*, unique: bool = False) -> Column[int]:
    return Column(
        "camera_id", Integer, ForeignKey("cameras.id", ondelete="CASCADE"), nullable=False, unique=unique
    )


def _message() -> list[Column]:  # type: ignore[type-arg]  # columns of several types
    """What every row that came in a camera's message has."""
    return [
        Column("id", BigId, primary_key=True, autoincrement=True),
        _camera(),
        Column("boot_id", Integer, nullable=False),
        Column("seq", BigInteger, nullable=False),
        Column("at", Float, nullable=False),  # best estimate of when it happened
        Column("received_at", Float, nullable=False),
    ]


cameras = Table(
    "cameras",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(63), nullable=False, unique=True),
    Column("created_at", Float, nullable=False),
    Column("secret_hash", String(64)),  # SHA-256 of a random 160-bit credential
    Column("fresh_key", String(64)),  # with which answers to the camera's nonces are authenticated
    Column("note", Text, nullable=False, server_default=""),
)

camera_tags = Table(
    "camera_tags",
    metadata,
    Column("camera_id", Integer, ForeignKey("cameras.id", ondelete="CASCADE"), primary_key=True),
    Column("tag", String(63), primary_key=True),
)

# What a camera last said of itself. Presence is never stored: it is computed from `seen_at` and the clock.
camera_state = Table(
    "camera_state",
    metadata,
    Column("camera_id", Integer, ForeignKey("cameras.id", ondelete="CASCADE"), primary_key=True),
    Column("seen_at", Float),
    Column(
        "connected", Boolean, nullable=False, server_default="0"
    ),  # last status or will; a claim, not presence
    Column("boot", String(16)),
    Column("status_at", Float),
    Column("status_seq", BigInteger),
    Column("reset_cause", String(16)),
    Column("agent", String(64)),
    Column("firmware", String(64)),
    Column("board", String(64)),
    Column("uid", String(64)),
    Column("generation", BigInteger),
    Column("release_id", String(64)),
    Column("release_digest", String(64)),
    Column("release_sequence", BigInteger),
    Column("release_epoch", BigInteger),
    Column("trial", String(64)),
    Column("key_serial", BigInteger),
    Column("key_epoch", BigInteger),
    Column("storage", Json),
    Column("network", Json),
    Column("capabilities", Json),
    Column("problems", Json),
    Column("led_color", String(16)),
    Column("led_pattern", String(16)),
    Column("led_reason", String(64)),
    Column("led_at", Float),
)

boots = Table(
    "boots",
    metadata,
    Column("id", Integer, primary_key=True),
    _camera(),
    Column("boot", String(16), nullable=False),
    Column("first_seen", Float, nullable=False),
    Column("last_seen", Float, nullable=False),
    Column("ranges", Text, nullable=False),  # JSON [[first, last], ...] of stored or declared-lost seqs
    Column("lost", BigInteger, nullable=False, server_default="0"),  # seqs the camera declared lost
    Column("offset_s", Float),  # smallest seen receive time minus the camera's monotonic clock
    UniqueConstraint("camera_id", "boot"),
)

results = Table(
    "results",
    metadata,
    *_message(),
    Column("n", Integer, nullable=False),  # position inside its message
    Column("label", String(64), nullable=False),
    Column("score", Float, nullable=False),
    Column("scores", Json),
    Column("inference_ms", Float),
    Column("frame", BigInteger),
    Column("release_id", String(64)),
    Index("ix_results_camera_id_at", "camera_id", "at"),
)

telemetry = Table(
    "telemetry",
    metadata,
    *_message(),
    Column("fps", Float),
    Column("inference_ms", Float),
    Column("inference_ms_max", Float),
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
    Index("ix_telemetry_camera_id_at", "camera_id", "at"),
)

sightings = Table(
    "sightings",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    _camera(),
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
    *_message(),
    Column("kind", String(64), nullable=False),
    Column("text", Text),
    Column("hash", String(64)),
    Index("ix_events_camera_id_at", "camera_id", "at"),
)

update_reports = Table(
    "update_reports",
    metadata,
    *_message(),
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
    *_message(),
    Column("command", String(32), nullable=False),
    Column("command_id", String(64), nullable=False, index=True),
    Column("ok", Boolean, nullable=False),
    Column("reason", String(64)),
    Column("data", Json),
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

releases = Table(
    "releases",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("name", String(64), nullable=False),
    Column("version", String(32), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("key_id", String(16), nullable=False),
    Column("digest", String(64), nullable=False),  # SHA-256 of the signed manifest's bytes
    Column("manifest", LargeBinary, nullable=False),  # signature and JSON, exactly as signed
    Column("content_sha256", String(64), nullable=False),
    Column("content_size", BigInteger, nullable=False),
    Column("labels", Json, nullable=False),
    Column("uploaded_at", Float, nullable=False),
    Column("uploaded_by", String(64), nullable=False),
    UniqueConstraint("kind", "epoch", "sequence"),
)

# An encoding's bytes, by content: what cameras pull in blocks.
encodings = Table(
    "encodings",
    metadata,
    Column("release_id", String(64), ForeignKey("releases.id", ondelete="CASCADE"), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("base", String(64)),
    Column("size", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

# What is retained on the broker right now, so that it can be cleared and published again.
published = Table(
    "published",
    metadata,
    Column("release_id", String(64), ForeignKey("releases.id", ondelete="CASCADE"), primary_key=True),
    Column("instance", String(32), nullable=False),  # the daemon and broker session that published it
    Column("published_at", Float, nullable=False),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("release_id", String(64), ForeignKey("releases.id"), nullable=False),
    Column("target", Text, nullable=False),  # the query as the operator wrote it
    Column("state", String(16), nullable=False),  # running, paused, halted, completed, cancelled
    Column("reason", Text),
    Column("waves", Json, nullable=False),  # cumulative shares in percent, e.g. [5, 25, 100]
    Column("wave", Integer, nullable=False),  # the wave being offered, from 0
    Column("settings", Json, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("finished_at", Float),
)

assignments = Table(
    "assignments",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("rollout_id", Integer, ForeignKey("rollouts.id", ondelete="CASCADE"), nullable=False),
    _camera(),
    Column("release_id", String(64), nullable=False),
    Column("wave", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String(64)),
    Column("detail", Text),
    Column("generation", BigInteger),  # the desired generation that offered it
    Column("blocks_done", BigInteger),
    Column("blocks_total", BigInteger),
    Column("created_at", Float, nullable=False),
    Column("offered_at", Float),
    Column("changed_at", Float, nullable=False),
    Column("deadline_at", Float),  # when silence becomes an answer
    Column("finished_at", Float),
    UniqueConstraint("rollout_id", "camera_id"),
    Index("ix_assignments_camera_id_state", "camera_id", "state"),
    Index("ix_assignments_state_deadline_at", "state", "deadline_at"),
)

# Intent is written with the state; a job publishes what is not yet published (`sent_generation` behind).
desired = Table(
    "desired",
    metadata,
    Column("camera_id", Integer, ForeignKey("cameras.id", ondelete="CASCADE"), primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("sent_generation", BigInteger, nullable=False, server_default="0"),
    Column("release_id", String(64)),
    Column("digest", String(64)),
    Column("config", Json, nullable=False),
    Column("deadline", Float),
    Column("changed_at", Float, nullable=False),
)

commands = Table(
    "commands",
    metadata,
    Column("id", String(32), primary_key=True),
    _camera(),
    Column("name", String(32), nullable=False),
    Column("args", Json, nullable=False),
    Column("ttl_s", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("sent_at", Float),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("key_id", String(16), primary_key=True),
    Column("public", String(128), nullable=False),  # x || y in hex
    Column("name", String(64), nullable=False),
    Column("added_at", Float, nullable=False),
    Column("revoked_at", Float),
)

# Which keys cameras trust, record after record. Before the first one they trust those of their provisioning.
key_records = Table(
    "key_records",
    metadata,
    Column("serial", BigInteger, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("record", LargeBinary, nullable=False),  # signature and JSON, exactly as signed
    Column("keys", Json, nullable=False),  # x || y in hex
    Column("recovery", Json, nullable=False),
    Column("signed_by", String(16), nullable=False),
    Column("added_at", Float, nullable=False),
    Column("added_by", String(64), nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),  # SHA-256 of a random 256-bit token
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(128), nullable=False),
    Column("facts", Json, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
)

# Facts about this installation, such as the daemon's instance.
facts = Table(
    "facts",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
