"""Tables about who may use the broker."""

from sqlalchemy import Column, Float, String, Table

from fleetd.store.schema import metadata

# People and programs that may read over MQTT. A camera cannot have the same name.
mqtt_users = Table(
    "mqtt_users",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("mqtt_hash", String(160), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", String(64), nullable=False),
)

# Removed cameras of which the broker still retains something.
departed = Table(
    "departed",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("at", Float, nullable=False),
)
