"""What cameras reported of themselves, as it changes while landing. The newest word counts, whenever it comes."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from fleetd.store.bulk import run_many
from fleetd.store.tables import camera_state


def seen(connection: sa.Connection, cameras: Mapping[int, tuple[float, float]]) -> None:
    """Notes when each camera was seen: by its number, the time and when that was received."""
    rows = [(camera_id, *cameras[camera_id]) for camera_id in sorted(cameras)]
    run_many(connection, _SEEN_SQLITE, _SEEN_POSTGRES, rows)


def statuses(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Notes statuses, in the order of their arrival; a row without `status_seq` is a last will."""
    table = camera_state
    for row in rows:
        values = {name: value for name, value in row.items() if name != "camera_id"}
        mine = table.c.camera_id == row["camera_id"]
        if "status_seq" not in values:
            ended = sa.update(table).where(mine, table.c.boot == row["boot"])
            connection.execute(ended.values(connected=False))
            continue
        older = sa.or_(table.c.status_seq.is_(None), table.c.status_seq < row["status_seq"])
        other_boot = sa.or_(table.c.boot.is_(None), table.c.boot != row["boot"])
        connection.execute(sa.update(table).where(mine, sa.or_(older, other_boot)).values(values))


def leds(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Notes what colour each camera says that its LED has."""
    if rows:
        connection.execute(_LED, rows)


# A time that lies in the future was noted before the clock was set back; it must not stay for that long.
_SEEN_SQLITE: Final = (
    "UPDATE camera_state SET seen_at = ?2 "
    "WHERE camera_id = ?1 AND (seen_at IS NULL OR seen_at < ?2 OR seen_at > ?3)"
)
_SEEN_POSTGRES: Final = (
    "UPDATE camera_state AS s SET seen_at = v.seen_at "
    "FROM unnest(%s::bigint[], %s::float8[], %s::float8[]) AS v(camera_id, seen_at, now) "
    "WHERE s.camera_id = v.camera_id AND (s.seen_at IS NULL OR s.seen_at < v.seen_at OR s.seen_at > v.now)"
)
_LED: Final = (
    sa.update(camera_state)
    .where(
        camera_state.c.camera_id == sa.bindparam("b_camera"),
        sa.or_(
            camera_state.c.led_at.is_(None),
            camera_state.c.led_at <= sa.bindparam("b_at"),
            camera_state.c.led_at > sa.bindparam("b_ahead"),
        ),
    )
    .values(
        led_color=sa.bindparam("b_color"),
        led_pattern=sa.bindparam("b_pattern"),
        led_reason=sa.bindparam("b_reason"),
        led_at=sa.bindparam("b_at"),
    )
)
