"""Incidents, their notes, maintenance, and the notices that are to be sent."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from fleetd.domain.incidents import Incident, Kind, Symptom, key_of
from fleetd.store.incident_tables import incident_notes, incidents, mutes, notices
from fleetd.store.tables import cameras

NOTES: Final = 200  # shown of one incident
_SELECT = sa.select(incidents, cameras.c.name.label("camera_name")).outerjoin(
    cameras, cameras.c.id == incidents.c.camera_id
)


class SqlIncidents:
    """Implements `ports.Incidents` inside one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(
        self, symptom: Symptom, severity: str, causes: Sequence[Mapping[str, Any]], now: float
    ) -> Incident:
        """Opens one; a ConflictError leaves the transaction when there is an open one about the same."""
        camera = symptom.camera
        insert = sa.insert(incidents).values(
            kind=symptom.kind,
            camera_id=None if camera is None else camera.id,
            site=symptom.site,
            open_key=symptom.key,
            severity=severity,
            summary=symptom.summary,
            causes=list(causes),
            opened_at=now,
            changed_at=now,
            bad_at=now,
            cameras=symptom.cameras,
        )
        found = self.get(int(self._connection.execute(insert.returning(incidents.c.id)).scalar_one()))
        assert found is not None  # noqa: S101  # it was just written
        return found

    def get(self, incident_id: int) -> Incident | None:
        """One."""
        row = self._connection.execute(_SELECT.where(incidents.c.id == incident_id)).one_or_none()
        return None if row is None else _incident(row)

    def opened(self) -> list[Incident]:
        """Those that are open, oldest first."""
        query = _SELECT.where(incidents.c.open_key.is_not(None)).order_by(incidents.c.id)
        return [_incident(row) for row in self._connection.execute(query)]

    def closed_since(self, since: float) -> list[Incident]:
        """Those that were closed since then."""
        query = _SELECT.where(incidents.c.closed_at >= since).order_by(incidents.c.closed_at)
        return [_incident(row) for row in self._connection.execute(query)]

    def all(
        self, *, is_open: bool | None, camera: str | None, since: float | None, limit: int
    ) -> list[Incident]:
        """Newest first."""
        query = _SELECT.order_by(incidents.c.opened_at.desc(), incidents.c.id.desc()).limit(limit)
        if is_open is not None:
            query = query.where(
                incidents.c.open_key.is_not(None) if is_open else incidents.c.open_key.is_(None)
            )
        if camera is not None:
            query = query.where(cameras.c.name == camera)
        if since is not None:
            query = query.where(incidents.c.opened_at >= since)
        return [_incident(row) for row in self._connection.execute(query)]

    def change(self, incident_id: int, **values: Any) -> None:
        """Writes columns of one."""
        self._connection.execute(sa.update(incidents).where(incidents.c.id == incident_id).values(**values))

    def reopen(self, incident: Incident, now: float) -> None:
        """The same incident again."""
        self.change(
            incident.id,
            open_key=key_of(incident),
            closed_at=None,
            outcome=None,
            changed_at=now,
            bad_at=now,
            times=incident.times + 1,
        )

    def close(self, incident_id: int, outcome: str, now: float) -> None:
        """Ends it."""
        self.change(incident_id, open_key=None, closed_at=now, changed_at=now, outcome=outcome)

    def add_note(self, incident_id: int, author: str, text: str, now: float) -> None:
        """Adds a line to its story."""
        self._connection.execute(
            sa.insert(incident_notes).values(incident_id=incident_id, at=now, author=author, text=text)
        )

    def notes(self, incident_id: int) -> list[Mapping[str, Any]]:
        """Its story, oldest first."""
        table = incident_notes
        query = sa.select(table.c.at, table.c.author, table.c.text).where(table.c.incident_id == incident_id)
        rows = self._connection.execute(query.order_by(table.c.id.desc()).limit(NOTES))
        return [row._asdict() for row in reversed(rows.all())]

    def set_mute(self, subject: str, until: float, reason: str, by: str, now: float) -> None:
        """Begins or changes a maintenance."""
        self.remove_mute(subject)
        self._connection.execute(
            sa.insert(mutes).values(
                subject=subject, until=until, reason=reason, created_by=by, created_at=now
            )
        )

    def remove_mute(self, subject: str) -> bool:
        """Ends a maintenance; False when there was none."""
        gone = self._connection.execute(sa.delete(mutes).where(mutes.c.subject == subject))
        return bool(gone.rowcount)

    def mutes(self, now: float) -> list[Mapping[str, Any]]:
        """Maintenance that is under way."""
        query = sa.select(mutes).where(mutes.c.until > now).order_by(mutes.c.subject)
        return [row._asdict() for row in self._connection.execute(query)]

    def add_notice(
        self, incident_id: int, channel: str, what: str, body: Mapping[str, Any], now: float
    ) -> None:
        """Puts something to be told into the outbox."""
        self._connection.execute(
            sa.insert(notices).values(
                incident_id=incident_id,
                channel=channel,
                what=what,
                body=dict(body),
                created_at=now,
                next_at=now,
            )
        )

    def due_notices(self, now: float, limit: int) -> list[Mapping[str, Any]]:
        """What is to be sent now, oldest first."""
        query = sa.select(notices).where(notices.c.next_at <= now).order_by(notices.c.next_at, notices.c.id)
        return [row._asdict() for row in self._connection.execute(query.limit(limit))]

    def mark_notice(
        self,
        notice_id: int,
        *,
        attempts: int,
        sent_at: float | None,
        next_at: float | None,
        error: str | None,
    ) -> None:
        """What became of it."""
        self._connection.execute(
            sa.update(notices)
            .where(notices.c.id == notice_id)
            .values(attempts=attempts, sent_at=sent_at, next_at=next_at, error=error)
        )

    def notices(self, incident_id: int) -> list[Mapping[str, Any]]:
        """What was told about one incident, oldest first."""
        table = notices
        query = sa.select(
            table.c.channel, table.c.what, table.c.created_at, table.c.sent_at, table.c.attempts, table.c.error,
            table.c.next_at,
        ).where(table.c.incident_id == incident_id)  # fmt: skip
        return [row._asdict() for row in self._connection.execute(query.order_by(table.c.id).limit(NOTES))]


def _incident(row: sa.Row[Any]) -> Incident:
    return Incident(
        id=row.id,
        kind=Kind(row.kind),
        camera_id=row.camera_id,
        camera=row.camera_name,
        site=row.site,
        severity=row.severity,
        summary=row.summary,
        causes=tuple(row.causes),
        opened_at=row.opened_at,
        changed_at=row.changed_at,
        bad_at=row.bad_at,
        closed_at=row.closed_at,
        outcome=row.outcome,
        owner=row.owner,
        muted_until=row.muted_until,
        times=row.times,
        cameras=row.cameras,
    )
