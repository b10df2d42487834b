"""Recoveries: how far somebody is in bringing a camera back."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from fleetd.domain.recovery import Recovery
from fleetd.store.incident_tables import recoveries
from fleetd.store.tables import cameras

_SELECT = sa.select(recoveries, cameras.c.name.label("camera")).join(
    cameras, cameras.c.id == recoveries.c.camera_id
)


class SqlRecoveries:
    """Implements `ports.Recoveries` inside one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, camera_id: int, values: Mapping[str, Any], by: str, now: float) -> Recovery:
        """Begins one; a ConflictError leaves the transaction when one is open."""
        insert = sa.insert(recoveries).values(
            camera_id=camera_id,
            open_key=camera_id,
            state="open",
            created_at=now,
            changed_at=now,
            created_by=by,
            **values,
        )
        found = self.get(int(self._connection.execute(insert.returning(recoveries.c.id)).scalar_one()))
        assert found is not None  # noqa: S101  # it was just written
        return found

    def get(self, recovery_id: int) -> Recovery | None:
        """One."""
        row = self._connection.execute(_SELECT.where(recoveries.c.id == recovery_id)).one_or_none()
        return None if row is None else _recovery(row)

    def opened(self, camera_id: int) -> Recovery | None:
        """The one that is open for a camera."""
        row = self._connection.execute(_SELECT.where(recoveries.c.open_key == camera_id)).one_or_none()
        return None if row is None else _recovery(row)

    def all(self, *, camera: str | None, limit: int) -> list[Recovery]:
        """Newest first."""
        query = _SELECT.order_by(recoveries.c.id.desc()).limit(limit)
        if camera is not None:
            query = query.where(cameras.c.name == camera)
        return [_recovery(row) for row in self._connection.execute(query)]

    def advance(self, before: Recovery, values: Mapping[str, Any], log: Sequence[Any], now: float) -> bool:
        """Writes a step, unless somebody else was quicker: False then."""
        changed = self._connection.execute(
            sa.update(recoveries)
            .where(
                recoveries.c.id == before.id,
                recoveries.c.step == before.step,
                recoveries.c.changed_at == before.changed_at,
                recoveries.c.state == "open",
            )
            .values(log=list(log), changed_at=now, **values)
        )
        return changed.rowcount == 1


def _recovery(row: sa.Row[Any]) -> Recovery:
    return Recovery(
        id=row.id,
        camera_id=row.camera_id,
        camera=row.camera,
        incident_id=row.incident_id,
        board=row.board,
        cause=row.cause,
        guide=row.guide,
        step=row.step,
        state=row.state,
        causes=tuple(row.causes),
        log=tuple(row.log),
        created_at=row.created_at,
        created_by=row.created_by,
        changed_at=row.changed_at,
        finished_at=row.finished_at,
    )
