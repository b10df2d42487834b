"""Who may connect to the broker: cameras with a credential, and people who read."""

from collections.abc import Mapping

import sqlalchemy as sa

from fleetd.domain.records import MqttUser
from fleetd.store.cameras import ACCOUNTS
from fleetd.store.changes import mark, mark_changed
from fleetd.store.tables import cameras, mqtt_users


class SqlAccounts:
    """Implements `ports.Accounts` inside one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def version(self) -> str | None:
        """Changes whenever an account is made, changed or taken away."""
        return mark(self._connection, ACCOUNTS)

    def cameras(self) -> Mapping[str, str]:
        """Every camera that may connect, with its credential's hash."""
        query = sa.select(cameras.c.name, cameras.c.mqtt_hash).where(
            cameras.c.mqtt_hash.is_not(None), cameras.c.revoked_at.is_(None)
        )
        return {row.name: row.mqtt_hash for row in self._connection.execute(query)}

    def people(self) -> Mapping[str, str]:
        """Everybody who may read, with their password's hash."""
        rows = self._connection.execute(sa.select(mqtt_users.c.name, mqtt_users.c.mqtt_hash))
        return {row.name: row.mqtt_hash for row in rows}

    def users(self) -> list[MqttUser]:
        """Everybody who may read, by name."""
        query = sa.select(mqtt_users.c.name, mqtt_users.c.created_at, mqtt_users.c.created_by)
        rows = self._connection.execute(query.order_by(mqtt_users.c.name))
        return [MqttUser(row.name, row.created_at, row.created_by) for row in rows]

    def add_user(self, name: str, mqtt_hash: str, by: str, now: float) -> None:
        """Lets somebody read; a ConflictError leaves the transaction when the name is taken."""
        self._connection.execute(
            sa.insert(mqtt_users).values(name=name, mqtt_hash=mqtt_hash, created_by=by, created_at=now)
        )
        mark_changed(self._connection, ACCOUNTS)

    def remove_user(self, name: str) -> bool:
        """Ends it; False when there is none of that name."""
        done = self._connection.execute(sa.delete(mqtt_users).where(mqtt_users.c.name == name))
        mark_changed(self._connection, ACCOUNTS)
        return done.rowcount == 1
