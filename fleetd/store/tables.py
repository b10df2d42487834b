"""The schema, once, for SQLite and PostgreSQL. Times are Unix seconds (UTC), durations say their unit.

Exactly-once landing rests on `boots`: one row per (camera, boot) holds the ranges of sequence numbers that
are stored, and changes in the same transaction as the rows themselves. That is one small write per camera and
batch, where a unique index over every message would halve the rate.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from fleetd.store.access_tables import departed, mqtt_users
from fleetd.store.message_tables import (
    CHUNKED,
    boots,
    chunks,
    dead_letters,
    events,
    image_pieces,
    replies,
    results,
    sightings,
    telemetry,
    unknown_cameras,
    update_reports,
)
from fleetd.store.rollup_tables import result_rollups, telemetry_rollups
from fleetd.store.schema import Json, camera_column, metadata

__all__ = [
    "CHUNKED",
    "assignments",
    "audit",
    "boots",
    "camera_state",
    "camera_tags",
    "cameras",
    "chunks",
    "commands",
    "dead_letters",
    "departed",
    "desired",
    "encodings",
    "events",
    "facts",
    "image_pieces",
    "metadata",
    "mqtt_users",
    "published",
    "releases",
    "replies",
    "result_rollups",
    "results",
    "rollouts",
    "sightings",
    "signing_keys",
    "telemetry",
    "telemetry_rollups",
    "tokens",
    "unknown_cameras",
    "update_reports",
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
    Column("site", String(63), nullable=False, server_default=""),
    Column("pinned", String(64)),  # the one release that rollouts may bring to it
    Column("mqtt_hash", String(160)),  # the same credential as mosquitto's password file has it
    Column("revoked_at", Float),
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
    camera_column(),
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
    Column("retry_at", Float),  # pending again after a failure, but not before that
    Column("was_release", String(64)),  # what the camera ran when the rollout began
    UniqueConstraint("rollout_id", "camera_id"),
    Index("ix_assignments_camera_id_state", "camera_id", "state"),
    Index("ix_assignments_state_deadline_at", "state", "deadline_at"),
    Index("ix_assignments_offered_at", "offered_at"),
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
    camera_column(),
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
