"""Making old rows into sums and removing what has become too old, in steps that hold nobody up for long."""

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fleetd.store.cameras import note_removal
from fleetd.store.incident_tables import incidents, mutes, recoveries
from fleetd.store.tables import (
    boots,
    chunks,
    events,
    replies,
    result_rollups,
    results,
    sightings,
    telemetry,
    telemetry_rollups,
)

STEPS: Final = (60, 3600)  # seconds of a minute's and an hour's row
_ROLLUPS: Final = {"results": result_rollups, "telemetry": telemetry_rollups}
_NOTES: Final = {table.name: table for table in (events, sightings, replies)}
_FRAMES: Final = sa.func.coalesce(results.c["count"], 1)  # an entry of a summary stands for several
_SMALLEST: Final = "_min"
_ADDED_UP: Final = ("_sum", "_n")


class SqlUpkeep:
    """Implements `ports.Upkeep` inside one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._is_sqlite = connection.dialect.name == "sqlite"

    def roll_up(self, kind: str, before: float) -> int:
        """Makes the oldest chunk whose rows are all older than `before` into sums; how many rows that were."""
        old = (chunks.c.kind == kind, chunks.c.last_at < before)
        query = sa.select(chunks.c.id).where(*old).order_by(chunks.c.last_at).limit(1)
        number = self._connection.execute(query).scalar()
        if number is None:
            return 0
        # The row goes first: who is landing into this chunk right now has it locked, and makes it young again.
        gone = self._connection.execute(sa.delete(chunks).where(chunks.c.id == number, *old))
        if gone.rowcount == 0:
            return 0
        table = results if kind == "results" else telemetry
        for step in STEPS:
            self._add_up(kind, number, step)
        removed = self._connection.execute(sa.delete(table).where(table.c.chunk == number))
        return max(1, removed.rowcount)

    def _add_up(self, kind: str, chunk: int, step: int) -> None:
        rollups = _ROLLUPS[kind]
        sums = _result_sums() if kind == "results" else _telemetry_sums()
        table = results if kind == "results" else telemetry
        # SQLite has no floor everywhere, and a cast cuts there where it rounds in PostgreSQL.
        number = (
            sa.cast(table.c.at / step, sa.Integer) if self._is_sqlite else sa.func.floor(table.c.at / step)
        )
        keys: dict[str, Any] = {
            "step": sa.literal(step),
            "begin": number * step,
            "camera_id": table.c.camera_id,
        }
        if kind == "results":
            keys |= {"label": results.c.label, "release_id": sa.func.coalesce(results.c.release_id, "")}
        query = sa.select(*keys.values(), *sums.values()).where(table.c.chunk == chunk)
        query = query.group_by(*list(keys.values())[1:])
        insert: Any = (sqlite.insert if self._is_sqlite else postgresql.insert)(rollups)
        insert = insert.from_select([*keys, *sums], query)
        self._connection.execute(
            insert.on_conflict_do_update(
                index_elements=list(rollups.primary_key.columns),
                set_={name: self._merge(rollups.c[name], insert.excluded[name]) for name in sums},
            )
        )

    def _merge(self, old: Any, new: Any) -> Any:
        """What is stored for a period with what comes to it; a missing value leaves the other."""
        name = old.name
        if name == "n" or name.endswith(_ADDED_UP):
            return old + new
        if self._is_sqlite:  # its min and max of two are NULL when one is
            pick = sa.func.min if name.endswith(_SMALLEST) else sa.func.max
            return pick(sa.func.coalesce(old, new), sa.func.coalesce(new, old))
        return (sa.func.least if name.endswith(_SMALLEST) else sa.func.greatest)(old, new)

    def drop_sums(self, step: int, before: float, limit: int) -> int:
        """Removes sums of periods of `step` seconds that began before then, at most `limit` of each kind."""
        gone = 0
        for table in _ROLLUPS.values():
            keys = list(table.primary_key.columns)
            old = sa.select(*keys).where(table.c.step == step, table.c.begin < before).limit(limit)
            some = sa.tuple_(*keys).in_(old)
            gone = max(gone, self._connection.execute(sa.delete(table).where(some)).rowcount)
        return gone

    def drop_notes(self, before: float, limit: int) -> int:
        """Removes events, LED sightings and replies that were received before then, and incidents and recoveries that
        were over by then: at most `limit` of each.
        """
        gone = 0
        for name, table in _NOTES.items():
            time = table.c.received_at if "received_at" in table.c else table.c.at
            # Numbers rise with the time of receiving: the oldest are the lowest, no index over time is needed.
            some = sa.select(table.c.id).order_by(table.c.id).limit(limit).subquery(f"oldest_{name}")
            old = sa.and_(table.c.id.in_(sa.select(some.c.id)), time < before)
            gone = max(gone, self._connection.execute(sa.delete(table).where(old)).rowcount)
        return max(gone, self._drop_incidents(before, limit))

    def _drop_incidents(self, before: float, limit: int) -> int:
        """Incidents with their notes and notices, recoveries and maintenance that ended before then."""
        gone = 0
        for key, ended in (
            (incidents.c.id, incidents.c.closed_at),
            (recoveries.c.id, recoveries.c.finished_at),
            (mutes.c.subject, mutes.c.until),
        ):
            some = sa.select(key).where(ended < before).limit(limit)
            gone = max(gone, self._connection.execute(sa.delete(key.table).where(key.in_(some))).rowcount)
        return gone

    def drop_boots(self, before: float, limit: int) -> int:
        """Forgets boots that nothing was heard of since then: what they repeat would count again."""
        some = sa.select(boots.c.id).where(boots.c.last_seen < before).limit(limit)
        gone = self._connection.execute(sa.delete(boots).where(boots.c.id.in_(some))).rowcount
        if gone:
            note_removal(self._connection)
        return gone

    def refresh_statistics(self) -> None:
        """Lets the database learn how its tables look now; PostgreSQL does that by itself."""
        if self._is_sqlite:
            self._connection.exec_driver_sql("PRAGMA analysis_limit=400")
            self._connection.exec_driver_sql("PRAGMA optimize")


def _total(column: Any) -> Any:
    return sa.func.coalesce(sa.func.sum(column), 0.0)


def _result_sums() -> Mapping[str, Any]:
    return {
        "n": sa.func.sum(_FRAMES),
        "score_sum": sa.func.sum(results.c.score * _FRAMES),
        "score_min": sa.func.min(results.c.score),
        "score_max": sa.func.max(results.c.score),
        "inference_ms_sum": _total(results.c.inference_ms),
        "inference_ms_n": sa.func.count(results.c.inference_ms),
    }


def _telemetry_sums() -> Mapping[str, Any]:
    return {
        "n": sa.func.count(),
        "fps_sum": _total(telemetry.c.fps),
        "fps_n": sa.func.count(telemetry.c.fps),
        "inference_ms_sum": _total(telemetry.c.inference_ms),
        "inference_ms_n": sa.func.count(telemetry.c.inference_ms),
        "inference_ms_max": sa.func.max(telemetry.c.inference_ms_max),
        "rssi_sum": _total(telemetry.c.rssi),
        "rssi_n": sa.func.count(telemetry.c.rssi),
        "rssi_min": sa.func.min(telemetry.c.rssi),
        "temperature_c_max": sa.func.max(telemetry.c.temperature_c),
        "supply_v_min": sa.func.min(telemetry.c.supply_v),
        "heap_free_min": sa.func.min(telemetry.c.heap_free),
        "storage_free_min": sa.func.min(telemetry.c.storage_free),
        "queue_max": sa.func.max(telemetry.c.queue),
    }
