"""Tries to bring a release to a camera that came to nothing."""

from typing import Final

import sqlalchemy as sa

from fleetd.domain.records import Assignment, AssignmentState, Attempt
from fleetd.store.schema import camera_column, metadata
from fleetd.store.tables import cameras

# Every try that did not succeed, whatever becomes of the rollout it belonged to: what a camera reverted and how often
# it failed must outlive both.
attempts: Final = sa.Table(
    "attempts",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    camera_column(),
    sa.Column("release_id", sa.String(64), nullable=False),
    sa.Column("rollout_id", sa.Integer, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(64)),
    sa.Index("ix_attempts_camera_id_release_id", "camera_id", "release_id"),
)


class SqlAttempts:
    """The part of `ports.Rollouts` about them."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def note_attempt(
        self, assignment: Assignment, state: AssignmentState, reason: str | None, now: float
    ) -> None:
        """Keeps that a try came to an end without success."""
        self._connection.execute(
            sa.insert(attempts).values(
                camera_id=assignment.camera_id,
                release_id=assignment.release_id,
                rollout_id=assignment.rollout_id,
                at=now,
                state=state,
                reason=reason,
            )
        )

    def attempts(self, camera_id: int, release_id: str | None = None, limit: int = 100) -> list[Attempt]:
        """The tries with a camera that did not succeed, of one release or of all, newest first."""
        query = (
            sa.select(
                cameras.c.name.label("camera"),
                attempts.c.release_id,
                attempts.c.rollout_id,
                attempts.c.at,
                attempts.c.state,
                attempts.c.reason,
            )
            .join(cameras, cameras.c.id == attempts.c.camera_id)
            .where(attempts.c.camera_id == camera_id)
            .order_by(attempts.c.id.desc())
            .limit(limit)
        )
        if release_id is not None:
            query = query.where(attempts.c.release_id == release_id)
        return [Attempt(**row._mapping) for row in self._connection.execute(query)]
