"""Where rows of the big tables lie: in chunks of some thousand, in the order of their arrival.

An index over (camera, time) has one place to write per camera: with 200 cameras a batch of 1,000 rows dirties 200
pages, and the more history the worse. So rows carry the number of a chunk, the index begins with it, and all writing
happens at the index's end, however many cameras and rows there are. `chunks` knows for each what times are inside, so
that reading one camera's rows visits one place per chunk, the newest first, and old ones are deleted whole.

Every process that lands has chunks of its own. A query that asks for rows in time adds `holding`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from fleetd.store.tables import CHUNKED, chunks

CHUNK_ROWS: Final = 4096  # then the next one is begun
_LOOK_FIRST, _LOOK_MOST = 2, 256  # chunks that one query looks into


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk as far as this process knows it. `id` 0: none was begun."""

    id: int = 0
    rows: int = 0
    first_at: float = 0.0
    last_at: float = 0.0


Chunks = Mapping[str, Chunk]  # by table
NONE: Final[Chunks] = dict.fromkeys(CHUNKED, Chunk())


def open_chunk(connection: sa.Connection, table: str, chunk: Chunk) -> Chunk:
    """The chunk that the next rows go to: the present one, or a new one when that is full."""
    if chunk.id and chunk.rows < CHUNK_ROWS:
        return chunk
    insert = sa.insert(chunks).values(kind=table, first_at=0.0, last_at=0.0, rows=0)
    return Chunk(int(connection.execute(insert.returning(chunks.c.id)).scalar_one()))


def note(
    connection: sa.Connection, table: str, chunk: Chunk, rows: int, first_at: float, last_at: float
) -> Chunk:
    """Notes that so many rows of those times are in the chunk now, in the transaction that inserts them."""
    grown = Chunk(
        chunk.id,
        chunk.rows + rows,
        min(chunk.first_at, first_at) if chunk.rows else first_at,
        max(chunk.last_at, last_at) if chunk.rows else last_at,
    )
    values = {"rows": grown.rows, "first_at": grown.first_at, "last_at": grown.last_at}
    changed = connection.execute(sa.update(chunks).where(chunks.c.id == chunk.id).values(values))
    if changed.rowcount == 0:  # it had become old, and was deleted with what was in it
        connection.execute(sa.insert(chunks).values(id=chunk.id, kind=table, **values))
    return grown


def holding(table: sa.Table, since: float | None, until: float | None = None) -> sa.ColumnElement[bool]:
    """Condition for rows in chunks that may hold something of [since, until): what makes such queries quick."""
    query = sa.select(chunks.c.id).where(chunks.c.kind == table.name)
    if since is not None:
        query = query.where(chunks.c.last_at >= since)
    if until is not None:
        query = query.where(chunks.c.first_at < until)
    return table.c.chunk.in_(query)


def newest(
    connection: sa.Connection,
    table: sa.Table,
    query: sa.Select[Any],
    *,
    since: float | None,
    until: float | None,
    limit: int,
) -> list[sa.Row[Any]]:
    """The newest `limit` rows of a query on `table`, by `at`, without looking into more chunks than it takes.

    The query has no order and no limit of its own, and selects `at`.
    """
    found: list[sa.Row[Any]] = []
    ordered = query.order_by(table.c.at.desc(), table.c.id.desc()).limit(limit)
    for numbers, newest_left in _groups(connection, table.name, since, until):
        if len(found) >= limit and found[limit - 1].at > newest_left:
            break
        found += connection.execute(ordered.where(table.c.chunk.in_(numbers)))
        found.sort(key=lambda row: row.at, reverse=True)  # stable: among equals the newest number stays first
        del found[limit:]
    return found


def _groups(
    connection: sa.Connection, kind: str, since: float | None, until: float | None
) -> Iterator[tuple[Sequence[int], float]]:
    """Numbers of chunks, those with the newest rows first, in groups that grow, each with the newest time in it."""
    query = sa.select(chunks.c.id, chunks.c.last_at).where(chunks.c.kind == kind)
    if since is not None:
        query = query.where(chunks.c.last_at >= since)
    if until is not None:
        query = query.where(chunks.c.first_at < until)
    rows = connection.execute(query.order_by(chunks.c.last_at.desc(), chunks.c.id.desc())).all()
    at, size = 0, _LOOK_FIRST
    while at < len(rows):
        group = rows[at : at + size]
        yield [row.id for row in group], group[0].last_at
        at += size
        size = min(size * 2, _LOOK_MOST)
