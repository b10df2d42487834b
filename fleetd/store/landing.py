"""Landing a batch of messages: one transaction for rows, marks and reported state.

What `write` returns is durable. A message counts once whatever the broker or the camera repeats, because the
range of stored sequence numbers of its boot (table `boots`) changes in the same transaction as its rows. That
holds with several processes too: on PostgreSQL they lock the boots of a batch, on SQLite writers take turns.
"""

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from operator import itemgetter
from typing import Final

import sqlalchemy as sa

from fleetd.store import boots, chunks, postgres, state, tables
from fleetd.store.arrivals import Arrival, DeadLetter, Landed, in_pieces
from fleetd.store.boots import Boot
from fleetd.store.bulk import insert_many
from fleetd.store.cameras import removals
from fleetd.store.engine import SqlStore
from fleetd.store.images import forget_old
from fleetd.store.leftovers import DEAD_LETTERS_PER_BATCH, UNKNOWN_KEPT, bury, note_unknown
from fleetd.store.rows import AHEAD_S, CHANNELS, COLUMNS, Head, Rows

__all__ = ["DEAD_LETTERS_PER_BATCH", "UNKNOWN_KEPT", "Arrival", "DeadLetter", "Landed", "Landing"]

BOOTS_CACHED: Final = 20_000
BEHIND_S: Final = 366 * 86400.0  # a camera's clock may be this far behind ours
_WRITER: Final = "landing_writer"  # the fact that names the process which landed last, on SQLite
_READ_WRITER: Final = sa.select(tables.facts.c.value).where(tables.facts.c.name == _WRITER)
_INTO_CHUNKS: Final = {"result": "results", "telemetry": "telemetry"}  # channel -> table
_AT: Final = {name: COLUMNS[name].index("at") for name in tables.CHUNKED}


class Landing:
    """The bulk writer, one per process: it remembers which sequence numbers are stored."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self._ids: dict[str, int] = {}
        self._boots: OrderedDict[boots.Key, Boot] = OrderedDict()
        self._chunks: chunks.Chunks = chunks.NONE
        self._removals: str | None = None
        self._name = secrets.token_hex(8)

    def forget(self) -> None:
        """Drops what is remembered; it is read again from the database when needed."""
        self._ids.clear()
        self._boots.clear()
        self._chunks = chunks.NONE

    def write(self, arrivals: Sequence[Arrival], dead: Sequence[DeadLetter] = ()) -> Landed:
        """Stores a batch in one transaction, or raises and stores nothing of it."""
        try:
            with self._store.connect(write=True, alone=False) as connection:
                if (removed := removals(connection)) != self._removals:
                    self.forget()  # numbers of removed cameras and of their boots are given to others
                    self._removals = removed
                if self._store.is_sqlite:
                    self._notice_others(connection)
                batch = _Batch(connection, self._ids, self._boots, self._chunks)
                landed = batch.land(arrivals, dead)
        except BaseException:
            self.forget()  # another process may have written
            raise
        self._ids = batch.ids
        self._chunks = batch.chunks
        self._boots.update(batch.boots)
        for key in batch.boots:
            self._boots.move_to_end(key)
        while len(self._boots) > BOOTS_CACHED:
            self._boots.popitem(last=False)
        return landed

    def _notice_others(self, connection: sa.Connection) -> None:
        """What is remembered is worth nothing once another process has landed something."""
        last = connection.execute(_READ_WRITER).scalar()
        if last == self._name:
            return
        self._boots.clear()
        mine = {"name": _WRITER, "value": self._name}
        if last is None:
            connection.execute(sa.insert(tables.facts).values(mine))
        else:
            connection.execute(sa.update(tables.facts).where(tables.facts.c.name == _WRITER).values(mine))


class _Batch:
    """One transaction's work. Remembered state is copied before it changes, so a rollback forgets nothing."""

    def __init__(
        self,
        connection: sa.Connection,
        ids: dict[str, int],
        known: OrderedDict[boots.Key, Boot],
        present: chunks.Chunks,
    ) -> None:
        self._connection = connection
        self._known = known
        self.ids = dict(ids)
        self.boots: dict[boots.Key, Boot] = {}
        self.chunks = dict(present)
        self._rows = Rows()
        self._seen: dict[int, tuple[float, float]] = {}  # by camera: when it was seen, when that was received
        self._landed = Landed()

    def land(self, arrivals: Sequence[Arrival], dead: Sequence[DeadLetter]) -> Landed:
        self._find_cameras({arrival.camera for arrival in arrivals})
        known = [arrival for arrival in arrivals if arrival.camera in self.ids]
        if len(known) < len(arrivals):
            strangers = [arrival for arrival in arrivals if arrival.camera not in self.ids]
            self._landed.unknown += len(strangers)
            note_unknown(self._connection, strangers)
        names = self._find_boots(known)
        self._open_chunks({arrival.channel for arrival in known})
        for arrival in known:
            self._take(arrival)
        if dead:
            self._landed.dead += len(dead)
            bury(self._connection, dead)
        self._write()
        receipts = self._landed.receipts
        for key, mark in self.boots.items():
            receipts[names[key], key[1]] = mark.ranges.pairs()
        return self._landed

    def _find_cameras(self, names: set[str]) -> None:
        missing = [name for name in names if name not in self.ids]
        for some in in_pieces(missing, 500):
            table = tables.cameras
            rows = self._connection.execute(
                sa.select(table.c.name, table.c.id).where(
                    table.c.name.in_(some), table.c.revoked_at.is_(None)
                )
            )
            self.ids.update((row.name, row.id) for row in rows)

    def _find_boots(self, arrivals: Sequence[Arrival]) -> dict[boots.Key, str]:
        """Loads the boots of the batch; answers the name of each one's camera."""
        wanted: dict[boots.Key, float] = {}
        names: dict[boots.Key, str] = {}
        ids = self.ids
        for arrival in arrivals:
            body = arrival.body
            key = (ids[arrival.camera], body["boot"])
            if key not in names and body["seq"]:
                names[key] = arrival.camera
                wanted[key] = arrival.received_at
        self.boots = boots.find(self._connection, wanted, self._known)
        return names

    def _open_chunks(self, channels: set[str]) -> None:
        for channel in channels:
            table = _INTO_CHUNKS.get(channel)
            if table is not None:
                self.chunks[table] = chunks.open_chunk(self._connection, table, self.chunks[table])
                self._rows.chunk[table] = self.chunks[table].id

    def _take(self, arrival: Arrival) -> None:
        camera, channel, rest, body, received_at, retained = arrival
        camera_id, seq = self.ids[camera], body["seq"]
        if not seq:
            self._last_will(camera_id, arrival)
            return
        landed = self._landed
        mark = self.boots[camera_id, body["boot"]]
        ranges = mark.ranges
        if not ranges.add(seq):
            landed.repeated += 1
            return
        low = body.get("low")
        if low is not None and low <= seq:  # a camera cannot be done with what it has not sent
            mark.lost += (lost := ranges.close_below(low))
            landed.lost += lost
        if ranges.many():
            mark.lost += (closed := ranges.bound())
            landed.lost += closed
        up_s = body["up_ms"] / 1000
        if not retained:
            mark.hear(received_at, up_s)
        happened = received_at if mark.offset_s is None else mark.offset_s + up_s
        if not retained:
            before = self._seen.get(camera_id)
            seen_at = happened if before is None or happened > before[0] else before[0]
            self._seen[camera_id] = seen_at, received_at
        at = body.get("t", happened)
        if not -BEHIND_S < at - received_at < AHEAD_S:
            at = happened  # the camera's clock is not to be believed
        CHANNELS[channel](self._rows, body, Head(camera_id, mark.id, seq, at, received_at), rest)
        if channel == "update":
            landed.updates = True
        elif channel == "status" and not retained and "nonce" in body:
            landed.nonces[camera] = body["nonce"]
        landed.stored += 1

    def _last_will(self, camera_id: int, arrival: Arrival) -> None:
        """A will says only that the connection of that boot broke; it may be older than the newest boot."""
        if arrival.channel == "status" and not arrival.retained:  # it takes its turn among the statuses
            self._rows.status.append({"camera_id": camera_id, "boot": arrival.body["boot"]})
        self._landed.stored += 1

    def _write(self) -> None:
        """Rows by table, then marks and reported state: a handful of statements whatever the batch's size."""
        connection = self._connection
        if self._rows.tables["update_reports"] and connection.dialect.name == "postgresql":
            postgres.order_reports(connection)
        for name, rows in self._rows.tables.items():
            if not rows:
                continue
            insert_many(connection, name, COLUMNS[name], rows)
            if name in _AT:
                times = list(map(itemgetter(_AT[name]), rows))
                first_at, last_at = min(times), max(times)
                chunk = self.chunks[name]
                self.chunks[name] = chunks.note(connection, name, chunk, len(rows), first_at, last_at)
        if self._rows.tables["image_pieces"]:
            forget_old(connection, {row[0] for row in self._rows.tables["image_pieces"]})
        boots.save(connection, self.boots.values())
        state.seen(connection, self._seen)
        state.statuses(connection, self._rows.status)
        state.leds(connection, self._rows.leds)
