"""What is known of each boot while landing: which sequence numbers are stored, and where its clock began."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fleetd.domain.ranges import Ranges
from fleetd.store import tables
from fleetd.store.bulk import run_many

CLOCK_WINDOW_S: Final = (
    600.0  # the newest estimate of a boot's clock is as old as this at most, twice at worst
)
CLOCK_GAP_S: Final = 60.0  # of a silence; a longer one is fleetd's or the camera's absence, not time listened

Key = tuple[int, str]  # camera_id, boot


class Boot:
    """One row of `boots`, and what only this process knows: how its clock is being estimated."""

    __slots__ = ("fresh_s", "heard_s", "id", "last_seen", "lost", "offset_s", "ranges", "stored")

    def __init__(
        self, boot_id: int, ranges: str, lost: int, offset_s: float | None, last_seen: float
    ) -> None:
        self.id = boot_id
        self.stored = ranges  # as the row has it
        self.ranges = Ranges.from_json(ranges)
        self.lost = lost
        self.offset_s = offset_s
        self.last_seen = last_seen
        self.heard_s = 0.0  # time listened in the present window
        self.fresh_s: float | None = None  # the smallest offset in it

    def copy(self) -> "Boot":
        """An independent copy."""
        twin = Boot.__new__(Boot)
        twin.id, twin.stored, twin.ranges, twin.lost = self.id, self.stored, self.ranges.copy(), self.lost
        twin.offset_s, twin.last_seen = self.offset_s, self.last_seen
        twin.heard_s, twin.fresh_s = self.heard_s, self.fresh_s
        return twin

    def hear(self, received_at: float, up_s: float) -> None:
        """Learns the boot's start in our time from a message: the fastest one tells it best.

        What the fastest message told is true for a while only: the camera's clock drifts (a minute in two
        weeks), and ours may be set. So after some time of listening only the last minutes count. A silence
        counts little, so that messages which waited in a queue meanwhile are not taken for new ones.
        """
        offset = received_at - up_s
        passed = received_at - self.last_seen
        if passed > 0:
            self.heard_s += min(CLOCK_GAP_S, passed)
        fresh = self.fresh_s
        if fresh is None or offset < fresh:
            self.fresh_s = offset
        if self.heard_s >= CLOCK_WINDOW_S:
            self.offset_s, self.fresh_s, self.heard_s = self.fresh_s, None, 0.0
        known = self.offset_s
        if known is None or offset < known:
            self.offset_s = offset
        self.last_seen = received_at


def find(
    connection: sa.Connection, wanted: Mapping[Key, float], known: Mapping[Key, Boot]
) -> dict[Key, Boot]:
    """The boots of a batch, each with the time its first message was received; new ones are made.

    What is remembered is used on SQLite, where nobody else writes meanwhile. On PostgreSQL the rows are locked
    until the end of the transaction and read again, because another process may have changed them.
    """
    if connection.dialect.name == "sqlite":
        found = {key: known[key].copy() for key in wanted if key in known}
    else:
        found = _lock(connection, [(key, known[key]) for key in wanted if key in known])
    missing = sorted(key for key in wanted if key not in found)
    if missing:
        found.update(_read(connection, missing))
        new = [key for key in missing if key not in found]
        if new:
            _make(connection, {key: wanted[key] for key in new})
            found.update(_read(connection, new))
    return found


def _lock(connection: sa.Connection, remembered: Sequence[tuple[Key, Boot]]) -> dict[Key, Boot]:
    if not remembered:
        return {}
    by_id = {boot.id: (key, boot) for key, boot in remembered}
    rows = connection.exec_driver_sql(
        "SELECT id, ranges, lost, offset_s, last_seen FROM boots WHERE id = ANY(%s) ORDER BY id FOR UPDATE",
        (list(by_id),),
    )
    found = {}
    for row in rows:
        key, boot = by_id[row.id]
        fresh = boot.copy()
        if row.ranges != boot.stored:
            fresh.stored, fresh.ranges, fresh.lost = row.ranges, Ranges.from_json(row.ranges), row.lost
            fresh.offset_s, fresh.last_seen = row.offset_s, max(fresh.last_seen, row.last_seen)
        found[key] = fresh
    return found


def _read(connection: sa.Connection, keys: Sequence[Key]) -> dict[Key, Boot]:
    table = tables.boots
    found = {}
    for start in range(0, len(keys), 200):
        chosen = sa.tuple_(table.c.camera_id, table.c.boot).in_(keys[start : start + 200])
        for row in connection.execute(sa.select(table).where(chosen).order_by(table.c.id).with_for_update()):
            boot = Boot(row.id, row.ranges, row.lost, row.offset_s, row.last_seen)
            found[row.camera_id, row.boot] = boot
    return found


def _make(connection: sa.Connection, new: Mapping[Key, float]) -> None:
    """Inserts rows, in an order that every process keeps; one that another process has just made is left."""
    rows = [
        {"camera_id": camera_id, "boot": boot, "first_seen": at, "last_seen": at, "ranges": "[]"}
        for (camera_id, boot), at in new.items()
    ]
    connection.execute(_INSERT[connection.dialect.name], rows)


def save(connection: sa.Connection, boots: Iterable[Boot]) -> None:
    """Writes what has changed back, in the transaction that stores the messages themselves."""
    rows = []
    for boot in boots:
        boot.stored = boot.ranges.to_json()
        rows.append((boot.stored, boot.lost, boot.offset_s, boot.last_seen, boot.id))
    run_many(connection, _SAVE_SQLITE, _SAVE_POSTGRES, rows)


_INSERT: Final[dict[str, Any]] = {
    "sqlite": sqlite.insert(tables.boots).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(tables.boots).on_conflict_do_nothing(),
}
_SAVE_SQLITE: Final = "UPDATE boots SET ranges = ?, lost = ?, offset_s = ?, last_seen = ? WHERE id = ?"
_SAVE_POSTGRES: Final = (
    "UPDATE boots SET ranges = v.ranges, lost = v.lost, offset_s = v.offset_s, last_seen = v.last_seen "
    "FROM unnest(%s::text[], %s::bigint[], %s::float8[], %s::float8[], %s::bigint[]) "
    "AS v(ranges, lost, offset_s, last_seen, id) WHERE boots.id = v.id"
)
