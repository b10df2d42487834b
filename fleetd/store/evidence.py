"""What a diagnosis looks at, for several cameras at once. Every query goes by an index that exists for it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from fleetd.domain.assignment import BUSY, LOST
from fleetd.store.chunks import holding
from fleetd.store.tables import assignments, boots, events, sightings, telemetry, update_reports

CHUNK: Final = 400  # ids in one IN (...)
ROWS: Final = 20_000  # of one answer; a diagnosis of the newest ones is good enough

Row = Mapping[str, Any]


class SqlEvidence:
    """Implements `ports.Evidence` inside one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def booted_since(self, since: float) -> frozenset[int]:
        """Cameras with a boot that is that new."""
        query = sa.select(boots.c.camera_id).where(boots.c.first_seen >= since).distinct()
        return frozenset(self._connection.execute(query).scalars())

    def boots(self, ids: Collection[int], since: float) -> Mapping[int, Sequence[Row]]:
        """Boots that were heard since then: boot, first_seen, last_seen; oldest first."""
        query = sa.select(boots.c.camera_id, boots.c.boot, boots.c.first_seen, boots.c.last_seen)
        return self._by_camera(
            query.where(boots.c.last_seen >= since).order_by(boots.c.first_seen), boots, ids
        )

    def events(self, ids: Collection[int], since: float) -> Mapping[int, Sequence[Row]]:
        """Boots and lost connections that cameras told of: at, kind, text; newest first."""
        kinds = events.c.kind.in_(["boot", "connection-lost"])
        query = sa.select(events.c.camera_id, events.c.at, events.c.kind, events.c.text)
        query = query.where(kinds, events.c.at >= since).order_by(events.c.at.desc())
        return self._by_camera(query, events, ids)

    def sightings(self, ids: Collection[int], since: float) -> Mapping[int, Sequence[Row]]:
        """What others than the agent saw: at, color, pattern, source, reason; newest first."""
        table = sightings
        query = sa.select(
            table.c.camera_id, table.c.at, table.c.color, table.c.pattern, table.c.source, table.c.reason
        )
        query = query.where(table.c.at >= since, table.c.source != "agent")
        return self._by_camera(query.order_by(table.c.at.desc(), table.c.id.desc()), table, ids)

    def updates(self, ids: Collection[int]) -> Mapping[int, Sequence[Row]]:
        """Updates under way or lost: state, release_id, changed_at; newest first."""
        table = assignments
        query = sa.select(table.c.camera_id, table.c.state, table.c.release_id, table.c.changed_at)
        query = query.where(table.c.state.in_([*sorted(BUSY), LOST])).order_by(table.c.changed_at.desc())
        return self._by_camera(query, table, ids)

    def reports(self, camera_id: int, since: float, limit: int) -> Sequence[Row]:
        """What one camera said about updates: at, release_id, state, reason, detail; newest first."""
        table = update_reports
        query = sa.select(table.c.at, table.c.release_id, table.c.state, table.c.reason, table.c.detail)
        query = query.where(table.c.camera_id == camera_id, table.c.at >= since).order_by(table.c.id.desc())
        return [row._asdict() for row in self._connection.execute(query.limit(limit))]

    def telemetry(self, ids: Collection[int], since: float) -> Mapping[int, Sequence[Row]]:
        """How pictures and connections were: at, boot_id, frames, reconnects, picture; newest first."""
        table = telemetry
        query = sa.select(
            table.c.camera_id,
            table.c.at,
            table.c.boot_id,
            table.c.frames,
            table.c.reconnects,
            table.c.picture,
        )
        query = query.where(table.c.at >= since, holding(table, since)).order_by(table.c.at.desc())
        return self._by_camera(query, table, ids)

    def _by_camera(
        self, query: sa.Select[Any], table: sa.Table, ids: Collection[int]
    ) -> Mapping[int, Sequence[Row]]:
        found: dict[int, list[Row]] = {}
        for chunk in _chunks(sorted(ids)):
            wanted = query.where(table.c.camera_id.in_(chunk)).limit(ROWS)
            for row in self._connection.execute(wanted):
                found.setdefault(row.camera_id, []).append(row._asdict())
        return found


def _chunks(ids: Sequence[int]) -> Iterable[Sequence[int]]:
    return (ids[at : at + CHUNK] for at in range(0, len(ids), CHUNK))
