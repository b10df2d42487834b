"""Landing a batch of messages: one transaction for rows, marks and reported state.

What `write` returns is durable. A message counts once whatever the broker or the camera repeats, because the
range of stored sequence numbers of its boot (table `boots`) changes in the same transaction as its rows.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import sqlalchemy as sa

from fleetd.domain.fairness import keep_fairly
from fleetd.domain.ranges import Ranges
from fleetd.store import tables
from fleetd.store.bulk import insert_many
from fleetd.store.cameras import removals
from fleetd.store.engine import SqlStore
from fleetd.store.rows import AHEAD_S, CHANNELS, COLUMNS, Head, Rows

BOOTS_CACHED = 20_000
UNKNOWN_KEPT = 1_000
DEAD_LETTERS_KEPT = 1_000
DEAD_LETTERS_PER_BATCH = 100
DEAD_LETTER_BYTES = 2_048
CLOCK_WINDOW_S = 600.0  # the newest estimate of a boot's clock is as old as this at most, twice at worst
CLOCK_GAP_S = 60.0  # of a silence; a longer one is fleetd's or the camera's absence, not time listened


class Arrival(NamedTuple):
    """One valid message from a camera. `channel` is the first word after `up/`, `rest` what follows it."""

    camera: str
    channel: str
    rest: str
    body: Any  # a dict that the channel's TypeAdapter has validated
    received_at: float
    retained: bool


class DeadLetter(NamedTuple):
    """A message that could not be stored as what it claims to be."""

    topic: str
    payload: bytes
    reason: str
    detail: str
    received_at: float


@dataclass(slots=True)
class Landed:
    """What one batch did. `receipts` are all stored ranges of the boots it touched."""

    stored: int = 0
    repeated: int = 0
    unknown: int = 0
    dead: int = 0
    lost: int = 0  # sequence numbers that cameras declared lost
    updates: bool = False  # an update report is among the rows
    receipts: dict[tuple[str, str], list[tuple[int, int]]] = field(default_factory=dict)


@dataclass(slots=True)
class _Boot:
    id: int
    ranges: Ranges
    lost: int
    offset_s: float | None
    last_seen: float
    heard_s: float = 0.0  # time listened in the present window
    fresh_s: float | None = None  # the smallest offset in it

    def copy(self) -> "_Boot":
        return replace(self, ranges=self.ranges.copy())

    def hear(self, received_at: float, up_s: float) -> None:
        """Learns the boot's start in our time from a message: the fastest one tells it best.

        What the fastest message told is true for a while only: the camera's clock drifts (a minute in two
        weeks), and ours may be set. So after some time of listening only the last minutes count. A silence
        counts little, so that messages which waited in a queue meanwhile are not taken for new ones.
        """
        offset = received_at - up_s
        self.heard_s += min(max(received_at - self.last_seen, 0.0), CLOCK_GAP_S)
        self.fresh_s = offset if self.fresh_s is None else min(self.fresh_s, offset)
        if self.heard_s >= CLOCK_WINDOW_S:
            self.offset_s, self.fresh_s, self.heard_s = self.fresh_s, None, 0.0
        self.offset_s = offset if self.offset_s is None else min(self.offset_s, offset)
        self.last_seen = received_at


class Landing:
    """The bulk writer. One per database: it remembers which sequence numbers are stored."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self._ids: dict[str, int] = {}
        self._boots: OrderedDict[tuple[int, str], _Boot] = OrderedDict()
        self._removals: str | None = None

    def forget(self) -> None:
        """Drops what is remembered; it is read again from the database when needed."""
        self._ids.clear()
        self._boots.clear()

    def write(self, arrivals: Sequence[Arrival], dead: Sequence[DeadLetter] = ()) -> Landed:
        """Stores a batch in one transaction, or raises and stores nothing of it."""
        try:
            with self._store.connect(write=True) as connection:
                if (removed := removals(connection)) != self._removals:
                    self.forget()  # numbers of removed cameras and of their boots are given to others
                    self._removals = removed
                batch = _Batch(connection, self._ids, self._boots)
                landed = batch.land(arrivals, dead)
        except BaseException:
            self.forget()  # another process may have written
            raise
        self._ids = batch.ids
        self._boots.update(batch.boots)
        for key in batch.boots:
            self._boots.move_to_end(key)
        while len(self._boots) > BOOTS_CACHED:
            self._boots.popitem(last=False)
        return landed


class _Batch:
    """One transaction's work. Remembered state is copied before it changes, so a rollback forgets nothing."""

    def __init__(
        self, connection: sa.Connection, ids: dict[str, int], known: OrderedDict[tuple[int, str], _Boot]
    ) -> None:
        self._connection = connection
        self._known = known
        self.ids = dict(ids)
        self.boots: dict[tuple[int, str], _Boot] = {}
        self._rows = Rows()
        self._seen: dict[int, tuple[float, float]] = {}  # by camera: when it was seen, when that was received
        self._landed = Landed()

    def land(self, arrivals: Sequence[Arrival], dead: Sequence[DeadLetter]) -> Landed:
        self._find_cameras({arrival.camera for arrival in arrivals})
        known = [arrival for arrival in arrivals if arrival.camera in self.ids]
        if len(known) < len(arrivals):
            self._note_unknown([arrival for arrival in arrivals if arrival.camera not in self.ids])
        self._find_boots(known)
        for arrival in known:
            self._take(arrival)
        self._bury(dead)
        self._write()
        names = {self.ids[arrival.camera]: arrival.camera for arrival in known}
        for (camera_id, boot), mark in self.boots.items():
            self._landed.receipts[names[camera_id], boot] = mark.ranges.pairs()
        return self._landed

    def _find_cameras(self, names: set[str]) -> None:
        missing = [name for name in names if name not in self.ids]
        for chunk in _chunks(missing, 500):
            table = tables.cameras
            rows = self._connection.execute(
                sa.select(table.c.name, table.c.id).where(table.c.name.in_(chunk))
            )
            self.ids.update((row.name, row.id) for row in rows)

    def _find_boots(self, arrivals: Iterable[Arrival]) -> None:
        table = tables.boots
        first: dict[tuple[int, str], Arrival] = {}
        for arrival in arrivals:
            if arrival.body["seq"]:
                first.setdefault((self.ids[arrival.camera], arrival.body["boot"]), arrival)
        missing = []
        for key in first:
            mark = self._known.get(key)
            if mark is None:
                missing.append(key)
            else:
                self.boots[key] = mark.copy()
        for chunk in _chunks(missing, 200):
            wanted = sa.tuple_(table.c.camera_id, table.c.boot).in_(chunk)
            for row in self._connection.execute(sa.select(table).where(wanted)):
                self.boots[row.camera_id, row.boot] = _Boot(
                    row.id, Ranges.from_json(row.ranges), row.lost, row.offset_s, row.last_seen
                )
        for key in missing:
            if key not in self.boots:
                at = first[key].received_at
                insert = sa.insert(table).values(
                    camera_id=key[0], boot=key[1], first_seen=at, last_seen=at, ranges="[]"
                )
                boot_id = int(self._connection.execute(insert.returning(table.c.id)).scalar_one())
                self.boots[key] = _Boot(boot_id, Ranges(), 0, None, at)

    def _take(self, arrival: Arrival) -> None:
        body = arrival.body
        camera_id = self.ids[arrival.camera]
        if body["seq"] == 0:
            self._last_will(camera_id, arrival)
            return
        mark = self.boots[camera_id, body["boot"]]
        if not mark.ranges.add(body["seq"]):
            self._landed.repeated += 1
            return
        low = body.get("low")
        if low is not None and low <= body["seq"]:  # a camera cannot be done with what it has not sent
            mark.lost += (lost := mark.ranges.close_below(low))
            self._landed.lost += lost
        mark.lost += (closed := mark.ranges.bound())
        self._landed.lost += closed
        up_s = body["up_ms"] / 1000
        if not arrival.retained:
            mark.hear(arrival.received_at, up_s)
        happened = arrival.received_at if mark.offset_s is None else mark.offset_s + up_s
        if not arrival.retained:
            seen_at, _ = self._seen.get(camera_id, (0.0, 0.0))
            self._seen[camera_id] = max(seen_at, happened), arrival.received_at
        at = body.get("t", happened)
        if not -366 * 86400 < at - arrival.received_at < AHEAD_S:
            at = happened  # the camera's clock is not to be believed
        head = Head(camera_id, mark.id, body["seq"], at, arrival.received_at)
        CHANNELS[arrival.channel](self._rows, body, head, arrival.rest)
        self._landed.updates = self._landed.updates or arrival.channel == "update"
        self._landed.stored += 1

    def _last_will(self, camera_id: int, arrival: Arrival) -> None:
        """A will says only that the connection of that boot broke; it may be older than the newest boot."""
        if arrival.channel == "status" and not arrival.retained:  # it takes its turn among the statuses
            self._rows.status.append({"camera_id": camera_id, "boot": arrival.body["boot"]})
        self._landed.stored += 1

    def _note_unknown(self, arrivals: Sequence[Arrival]) -> None:
        """Counts strangers by name. Bounded: the ones silent for longest make room."""
        table = tables.unknown_cameras
        counted: dict[str, list[float]] = {}
        for arrival in arrivals:
            counted.setdefault(arrival.camera, []).append(arrival.received_at)
        self._landed.unknown += len(arrivals)
        known: set[str] = set()
        for chunk in _chunks(list(counted), 500):
            query = sa.select(table.c.name).where(table.c.name.in_(chunk))
            known.update(self._connection.execute(query).scalars())
        if known:
            again = [
                {"b_name": name, "b_seen": max(counted[name]), "b_more": len(counted[name])} for name in known
            ]
            self._connection.execute(_UPDATE_UNKNOWN, again)
        new = [
            {"name": name, "first_seen": min(times), "last_seen": max(times), "messages": len(times)}
            for name, times in counted.items()
            if name not in known
        ][-UNKNOWN_KEPT:]
        if not new:
            return
        self._connection.execute(sa.insert(table), new)
        total = int(self._connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
        if total > UNKNOWN_KEPT:
            oldest = sa.select(table.c.name).order_by(table.c.last_seen, table.c.name)
            oldest = oldest.limit(total - UNKNOWN_KEPT)
            self._connection.execute(sa.delete(table).where(table.c.name.in_(oldest.scalar_subquery())))

    def _bury(self, dead: Sequence[DeadLetter]) -> None:
        """Keeps dead letters, bounded in each batch and in all: the busiest sender gives way first."""
        self._landed.dead += len(dead)
        chosen = keep_fairly([_sender(letter.topic) for letter in dead], DEAD_LETTERS_PER_BATCH)
        rows = [
            {
                "received_at": letter.received_at,
                "topic": letter.topic[:512].replace("\x00", "\ufffd"),  # PostgreSQL refuses that character
                "payload": letter.payload[:DEAD_LETTER_BYTES],
                "size": len(letter.payload),
                "reason": letter.reason,
                "detail": letter.detail[:500],
            }
            for letter in (dead[place] for place in chosen)
        ]
        if not rows:
            return
        table = tables.dead_letters
        self._connection.execute(sa.insert(table), rows)
        there = self._connection.execute(sa.select(table.c.id, table.c.topic).order_by(table.c.id)).all()
        kept = {
            there[place].id for place in keep_fairly([_sender(row.topic) for row in there], DEAD_LETTERS_KEPT)
        }
        gone = [row.id for row in there if row.id not in kept]
        for chunk in _chunks(gone, 500):
            self._connection.execute(sa.delete(table).where(table.c.id.in_(chunk)))

    def _write(self) -> None:
        """Rows by table, then marks and reported state: a handful of statements whatever the batch's size."""
        for name, rows in self._rows.tables.items():
            if rows:
                insert_many(self._connection, name, COLUMNS[name], rows)
        if self.boots:
            marks = [
                {
                    "b_id": mark.id,
                    "b_ranges": mark.ranges.to_json(),
                    "b_lost": mark.lost,
                    "b_offset": mark.offset_s,
                    "b_seen": mark.last_seen,
                }
                for mark in self.boots.values()
            ]
            self._connection.execute(_UPDATE_BOOT, marks)
        if self._seen:
            seen = [
                {"b_camera": camera, "b_seen": at, "b_now": now} for camera, (at, now) in self._seen.items()
            ]
            self._connection.execute(_UPDATE_SEEN, seen)
        for row in self._rows.status:
            mine = _STATE.c.camera_id == row.pop("camera_id")
            if "status_seq" not in row:  # a last will
                ended = sa.update(_STATE).where(mine, _STATE.c.boot == row["boot"])
                self._connection.execute(ended.values(connected=False))
                continue
            older = sa.or_(_STATE.c.status_seq.is_(None), _STATE.c.status_seq < row["status_seq"])
            other_boot = sa.or_(_STATE.c.boot.is_(None), _STATE.c.boot != row["boot"])
            self._connection.execute(sa.update(_STATE).where(mine, sa.or_(older, other_boot)).values(row))
        if self._rows.leds:
            self._connection.execute(_UPDATE_LED, self._rows.leds)


def _sender(topic: str) -> str:
    return topic.partition("/up/")[0]


def _chunks(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (items[i : i + size] for i in range(0, len(items), size))


_UPDATE_BOOT = (
    sa.update(tables.boots)
    .where(tables.boots.c.id == sa.bindparam("b_id"))
    .values(
        ranges=sa.bindparam("b_ranges"),
        lost=sa.bindparam("b_lost"),
        offset_s=sa.bindparam("b_offset"),
        last_seen=sa.bindparam("b_seen"),
    )
)
_UPDATE_UNKNOWN = (
    sa.update(tables.unknown_cameras)
    .where(tables.unknown_cameras.c.name == sa.bindparam("b_name"))
    .values(
        last_seen=sa.bindparam("b_seen"),
        messages=tables.unknown_cameras.c.messages + sa.bindparam("b_more"),
    )
)
_STATE = tables.camera_state
# A time that lies in the future was noted before the clock was set back; it must not stay for that long.
_UPDATE_SEEN = (
    sa.update(_STATE)
    .where(
        _STATE.c.camera_id == sa.bindparam("b_camera"),
        sa.or_(
            _STATE.c.seen_at.is_(None),
            _STATE.c.seen_at < sa.bindparam("b_seen"),
            _STATE.c.seen_at > sa.bindparam("b_now"),
        ),
    )
    .values(seen_at=sa.bindparam("b_seen"))
)
_UPDATE_LED = (
    sa.update(_STATE)
    .where(
        _STATE.c.camera_id == sa.bindparam("b_camera"),
        sa.or_(
            _STATE.c.led_at.is_(None),
            _STATE.c.led_at <= sa.bindparam("b_at"),
            _STATE.c.led_at > sa.bindparam("b_ahead"),
        ),
    )
    .values(
        led_color=sa.bindparam("b_color"),
        led_pattern=sa.bindparam("b_pattern"),
        led_reason=sa.bindparam("b_reason"),
        led_at=sa.bindparam("b_at"),
    )
)
