"""Pictures that cameras sent, kept in the pieces they came in: the newest of each camera, a bounded number."""

from collections.abc import Collection
from typing import Any, Final

import sqlalchemy as sa

from fleetd.domain.records import ImageFacts
from fleetd.protocol.limits import IMAGE_PIECES
from fleetd.store.tables import cameras, image_pieces

KEPT: Final = 50  # of each camera, pictures that did not arrive in full included

_COMPLETE: Final = sa.func.count(sa.distinct(image_pieces.c.n)) == sa.func.max(image_pieces.c.pieces)


class SqlImages:
    """Implements `ports.Images` inside one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def all(self, camera: str, *, limit: int) -> list[ImageFacts]:
        """The complete pictures of a camera, newest first."""
        table = image_pieces
        newest = sa.func.max(table.c.id)
        query = (
            sa.select(
                table.c.image,
                sa.func.min(table.c.at).label("at"),
                sa.func.max(table.c.size).label("size"),
                sa.func.max(table.c.why).label("why"),
                sa.func.max(table.c.label).label("label"),
                sa.func.max(table.c.score).label("score"),
                sa.func.max(table.c.release_id).label("release_id"),
            )
            .join(cameras, cameras.c.id == table.c.camera_id)
            .where(cameras.c.name == camera)
            .group_by(table.c.image)
            .having(_COMPLETE)
            .order_by(newest.desc())
            .limit(limit)
        )
        return [ImageFacts(*row) for row in self._connection.execute(query)]

    def data(self, camera: str, image: str) -> tuple[bytes, str] | None:
        """A picture's bytes and the SHA-256 that the camera gave them; None unless all of it is there."""
        table = image_pieces
        query: sa.Select[Any] = (
            sa.select(table.c.n, table.c.pieces, table.c.size, table.c.sha256, table.c.data)
            .join(cameras, cameras.c.id == table.c.camera_id)
            .where(cameras.c.name == camera, table.c.image == image)
            .order_by(table.c.n)
        )
        rows = self._connection.execute(query).all()
        pieces = {row.n: row.data for row in rows}
        if not rows or set(pieces) != set(range(rows[0].pieces)):
            return None
        return b"".join(pieces[n] for n in sorted(pieces)), str(rows[0].sha256)


def forget_old(connection: sa.Connection, camera_ids: Collection[int]) -> None:
    """Deletes what is too many, of cameras that have just sent pieces."""
    table = image_pieces
    for camera_id in camera_ids:
        mine = table.c.camera_id == camera_id
        newest = sa.select(table.c.image).where(mine).group_by(table.c.image)
        kept = newest.order_by(sa.func.max(table.c.id).desc()).limit(KEPT)
        names = connection.execute(kept).scalars().all()
        if len(names) == KEPT:
            connection.execute(sa.delete(table).where(mine, table.c.image.not_in(names)))
        # Whoever repeats pieces under new numbers gets no more room than that either.
        last = (
            sa.select(table.c.id).where(mine).order_by(table.c.id.desc()).offset(KEPT * IMAGE_PIECES).limit(1)
        )
        connection.execute(sa.delete(table).where(mine, table.c.id <= last.scalar_subquery()))
