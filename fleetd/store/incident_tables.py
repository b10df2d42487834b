"""Tables of incidents, their notices, maintenance and recoveries. Part of the schema in `tables`."""

from typing import Final

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, String, Table, Text

from fleetd.store.schema import BigId, Json, metadata

KEY_CHARS: Final = 128

incidents = Table(
    "incidents",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("camera_id", Integer, ForeignKey("cameras.id", ondelete="CASCADE")),  # NULL: a whole site
    Column("site", String(63), nullable=False),
    Column(
        "open_key", String(KEY_CHARS), unique=True
    ),  # NULL once it is closed: no two open ones about the same
    Column("severity", String(16), nullable=False),
    Column("summary", Text, nullable=False),
    Column("causes", Json, nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("bad_at", Float, nullable=False),
    Column("closed_at", Float),
    Column("outcome", Text),
    Column("owner", String(64)),
    Column("muted_until", Float),
    Column("times", Integer, nullable=False, server_default="1"),
    Column("cameras", Integer, nullable=False, server_default="1"),
    Index("ix_incidents_closed_at", "closed_at"),
    Index("ix_incidents_camera_id_opened_at", "camera_id", "opened_at"),
)

incident_notes = Table(
    "incident_notes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column(
        "incident_id", Integer, ForeignKey("incidents.id", ondelete="CASCADE"), nullable=False, index=True
    ),
    Column("at", Float, nullable=False),
    Column("author", String(64), nullable=False),
    Column("text", Text, nullable=False),
)

# Maintenance: no new incidents and no notices about a camera, a site or everything until then.
mutes = Table(
    "mutes",
    metadata,
    Column("subject", String(80), primary_key=True),  # a camera's name, site=..., or all
    Column("until", Float, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
)

# What is to be told to whom; written with the incident, sent by a job.
notices = Table(
    "notices",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("incident_id", Integer, ForeignKey("incidents.id", ondelete="CASCADE"), nullable=False),
    Column("channel", String(16), nullable=False),  # webhook, email, mqtt
    Column("what", String(16), nullable=False),  # opened, changed, closed
    Column("body", Json, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("next_at", Float),  # NULL: sent, or given up
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("sent_at", Float),
    Column("error", Text),
    Index("ix_notices_next_at", "next_at"),
    Index("ix_notices_incident_id", "incident_id"),
)

recoveries = Table(
    "recoveries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("camera_id", Integer, ForeignKey("cameras.id", ondelete="CASCADE"), nullable=False),
    Column("incident_id", Integer, ForeignKey("incidents.id", ondelete="SET NULL")),
    Column("open_key", Integer, unique=True),  # the camera's id while it is open: one at a time
    Column("board", String(32), nullable=False),
    Column("cause", String(32), nullable=False),
    Column("guide", String(32), nullable=False),
    Column("step", String(64), nullable=False),
    Column("state", String(16), nullable=False),  # open, recovered, stopped, abandoned
    Column("causes", Json, nullable=False),
    Column("log", Json, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("finished_at", Float),
    Index("ix_recoveries_camera_id", "camera_id"),
)
