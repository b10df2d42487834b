"""What cannot be stored where it belongs: messages of cameras that nobody enrolled, and dead letters. Bounded."""

from collections.abc import Sequence

import sqlalchemy as sa

from fleetd.domain.fairness import keep_fairly
from fleetd.store import tables
from fleetd.store.arrivals import Arrival, DeadLetter, in_pieces

UNKNOWN_KEPT = 1_000
DEAD_LETTERS_KEPT = 1_000
DEAD_LETTERS_PER_BATCH = 100
DEAD_LETTER_BYTES = 2_048


def note_unknown(connection: sa.Connection, arrivals: Sequence[Arrival]) -> None:
    """Counts strangers by name. Bounded: the ones silent for longest make room."""
    table = tables.unknown_cameras
    counted: dict[str, list[float]] = {}
    for arrival in arrivals:
        counted.setdefault(arrival.camera, []).append(arrival.received_at)
    known: set[str] = set()
    for chunk in in_pieces(list(counted), 500):
        query = sa.select(table.c.name).where(table.c.name.in_(chunk))
        known.update(connection.execute(query).scalars())
    if known:
        again = [
            {"b_name": name, "b_seen": max(counted[name]), "b_more": len(counted[name])} for name in known
        ]
        connection.execute(_UPDATE_UNKNOWN, again)
    new = [
        {"name": name, "first_seen": min(times), "last_seen": max(times), "messages": len(times)}
        for name, times in counted.items()
        if name not in known
    ][-UNKNOWN_KEPT:]
    if not new:
        return
    connection.execute(sa.insert(table), new)
    total = int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
    if total > UNKNOWN_KEPT:
        oldest = sa.select(table.c.name).order_by(table.c.last_seen, table.c.name)
        oldest = oldest.limit(total - UNKNOWN_KEPT)
        connection.execute(sa.delete(table).where(table.c.name.in_(oldest.scalar_subquery())))


def bury(connection: sa.Connection, dead: Sequence[DeadLetter]) -> None:
    """Keeps dead letters, bounded in each batch and in all: the busiest sender gives way first."""
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
    connection.execute(sa.insert(table), rows)
    there = connection.execute(sa.select(table.c.id, table.c.topic).order_by(table.c.id)).all()
    kept = {
        there[place].id for place in keep_fairly([_sender(row.topic) for row in there], DEAD_LETTERS_KEPT)
    }
    gone = [row.id for row in there if row.id not in kept]
    for chunk in in_pieces(gone, 500):
        connection.execute(sa.delete(table).where(table.c.id.in_(chunk)))


def _sender(topic: str) -> str:
    return topic.partition("/up/")[0]


_UPDATE_UNKNOWN = (
    sa.update(tables.unknown_cameras)
    .where(tables.unknown_cameras.c.name == sa.bindparam("b_name"))
    .values(
        last_seen=sa.bindparam("b_seen"),
        messages=tables.unknown_cameras.c.messages + sa.bindparam("b_more"),
    )
)
