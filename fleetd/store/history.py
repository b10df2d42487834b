"""Reading what cameras sent, newest first."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from fleetd.domain.records import Sighting
from fleetd.store.chunks import holding, newest
from fleetd.store.tables import (
    CHUNKED,
    boots,
    cameras,
    chunks,
    dead_letters,
    events,
    replies,
    result_rollups,
    results,
    sightings,
    telemetry,
    unknown_cameras,
)

_FRAMES = sa.func.coalesce(results.c["count"], 1)
_HIDDEN = {"id", "camera_id", "boot_id", "chunk"}


def _with_camera(table: sa.Table) -> sa.Select[Any]:
    """Rows of a message table with the camera's name and the boot's, internal numbers left out."""
    columns = [column for column in table.c if column.name not in _HIDDEN]
    return sa.select(cameras.c.name.label("camera"), boots.c.boot, *columns).select_from(
        table.join(cameras, cameras.c.id == table.c.camera_id).outerjoin(boots, boots.c.id == table.c.boot_id)
    )


class SqlHistory:
    """Implements `ports.History` inside one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def results(
        self, *, camera: str | None, since: float | None, until: float | None, label: str | None, limit: int
    ) -> list[Mapping[str, Any]]:
        """Classifications, newest first."""
        query = _narrow(_with_camera(results), results, camera, since, until)
        if label is not None:
            query = query.where(results.c.label == label)
        found = newest(self._connection, results, query, since=since, until=until, limit=limit)
        return [row._asdict() for row in found]

    def telemetry(
        self, *, camera: str | None, since: float | None, until: float | None, limit: int
    ) -> list[Mapping[str, Any]]:
        """Telemetry, newest first."""
        query = _narrow(_with_camera(telemetry), telemetry, camera, since, until)
        found = newest(self._connection, telemetry, query, since=since, until=until, limit=limit)
        return [row._asdict() for row in found]

    def events(
        self, *, camera: str | None, since: float | None, until: float | None, limit: int
    ) -> list[Mapping[str, Any]]:
        """Events, newest first."""
        query = _narrow(_with_camera(events), events, camera, since, until)
        return self._rows(query.order_by(events.c.at.desc(), events.c.id.desc()).limit(limit))

    def sightings(self, *, camera: str | None, since: float | None, limit: int) -> list[Sighting]:
        """LED sightings, newest first."""
        query: sa.Select[Any] = sa.select(
            cameras.c.name,
            sightings.c.at,
            sightings.c.color,
            sightings.c.pattern,
            sightings.c.source,
            sightings.c.reason,
        ).join(cameras, cameras.c.id == sightings.c.camera_id)
        query = _narrow(query, sightings, camera, since, None)
        query = query.order_by(sightings.c.at.desc(), sightings.c.id.desc()).limit(limit)
        return [Sighting(*row) for row in self._connection.execute(query)]

    def add_sighting(
        self, camera_id: int, at: float, color: str, pattern: str, source: str, reason: str | None
    ) -> None:
        """Stores one observation of an LED that did not come from the camera itself."""
        self._connection.execute(
            sa.insert(sightings).values(
                camera_id=camera_id,
                at=at,
                received_at=at,
                color=color,
                pattern=pattern,
                source=source,
                reason=reason,
            )
        )

    def replies(self, *, command_id: str) -> list[Mapping[str, Any]]:
        """What cameras answered to one command."""
        return self._rows(_with_camera(replies).where(replies.c.command_id == command_id).limit(10))

    def dead_letters(self, *, limit: int) -> list[Mapping[str, Any]]:
        """Messages that could not be stored as what they claim to be, newest first."""
        return self._rows(sa.select(dead_letters).order_by(dead_letters.c.id.desc()).limit(limit))

    def counts(self) -> Mapping[str, int]:
        """How much is stored of each kind."""
        tables = (cameras, results, telemetry, sightings, events, dead_letters, unknown_cameras)
        return {table.name: self._count(table) for table in tables}

    def _count(self, table: sa.Table) -> int:
        """The number of rows; of a big table what its chunks say, which a removed camera's rows stay in."""
        query: sa.Select[Any] = sa.select(sa.func.count()).select_from(table)
        if table.name in CHUNKED:
            query = sa.select(sa.func.coalesce(sa.func.sum(chunks.c.rows), 0)).where(
                chunks.c.kind == table.name
            )
        return int(self._connection.execute(query).scalar_one())

    def labels(self, *, camera: str | None, since: float) -> list[Mapping[str, Any]]:
        """How often each camera saw each label with each release since then, and how sure it was.

        What was added up since counts from the first full hour.
        """
        raw = _per_label(
            results, results.c.release_id, sa.func.sum(_FRAMES), sa.func.sum(results.c.score * _FRAMES)
        )
        raw = _narrow(raw.where(holding(results, since)), results, camera, since, None)
        release = sa.func.nullif(result_rollups.c.release_id, "")
        count, score = sa.func.sum(result_rollups.c.n), sa.func.sum(result_rollups.c.score_sum)
        old = _per_label(result_rollups, release, count, score)
        old = old.where(result_rollups.c.step == 3600, result_rollups.c.begin >= since)
        if camera is not None:
            old = old.where(cameras.c.name == camera)
        sums: dict[tuple[Any, ...], list[float]] = {}
        for row in [*self._connection.execute(raw), *self._connection.execute(old)]:
            total = sums.setdefault((row.camera, row.label, row.release_id), [0, 0.0])
            total[0] += int(row.count)
            total[1] += row.score
        found = [
            {
                "camera": name,
                "label": label,
                "release_id": release,
                "count": count,
                "mean_score": score / count,
            }
            for (name, label, release), (count, score) in sums.items()
        ]
        return sorted(found, key=lambda one: (one["camera"], -one["count"]))

    def _rows(self, query: sa.Select[Any]) -> list[Mapping[str, Any]]:
        return [row._asdict() for row in self._connection.execute(query)]


def _per_label(table: sa.Table, release: Any, count: Any, score: Any) -> sa.Select[Any]:
    return (
        sa.select(
            cameras.c.name.label("camera"),
            table.c.label,
            release.label("release_id"),
            count.label("count"),
            score.label("score"),
        )
        .join(cameras, cameras.c.id == table.c.camera_id)
        .group_by(cameras.c.name, table.c.label, table.c.release_id)
    )


def _narrow(
    query: sa.Select[Any], table: sa.Table, camera: str | None, since: float | None, until: float | None
) -> sa.Select[Any]:
    if camera is not None:
        query = query.where(cameras.c.name == camera)
    if since is not None:
        query = query.where(table.c.at >= since)
    if until is not None:
        query = query.where(table.c.at < until)
    return query
