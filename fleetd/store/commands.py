"""Commands to cameras. Each row is both the intent and its record."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from fleetd.store.tables import cameras, commands


class SqlCommands:
    """Implements `ports.Commands` inside one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(
        self,
        command_id: str,
        camera_id: int,
        name: str,
        args: Mapping[str, Any],
        ttl_s: int,
        by: str,
        now: float,
    ) -> None:
        """Queues a command."""
        self._connection.execute(
            sa.insert(commands).values(
                id=command_id,
                camera_id=camera_id,
                name=name,
                args=dict(args),
                ttl_s=ttl_s,
                created_at=now,
                created_by=by,
            )
        )

    def get(self, command_id: str) -> Mapping[str, Any] | None:
        """The command with its camera's name."""
        row = self._connection.execute(self._select().where(commands.c.id == command_id)).one_or_none()
        return None if row is None else row._asdict()

    def unsent(self, now: float) -> list[Mapping[str, Any]]:
        """Commands that were not sent yet and are still good, oldest first."""
        query = self._select().where(
            commands.c.sent_at.is_(None), commands.c.created_at + commands.c.ttl_s > now
        )
        return [row._asdict() for row in self._connection.execute(query.order_by(commands.c.created_at))]

    def mark_sent(self, command_id: str, now: float) -> None:
        """Notes that the broker has it."""
        self._connection.execute(
            sa.update(commands)
            .where(commands.c.id == command_id, commands.c.sent_at.is_(None))
            .values(sent_at=now)
        )

    @staticmethod
    def _select() -> sa.Select[Any]:
        columns = [column for column in commands.c if column.name != "camera_id"]
        return sa.select(cameras.c.name.label("camera"), *columns).join(
            cameras, cameras.c.id == commands.c.camera_id
        )
