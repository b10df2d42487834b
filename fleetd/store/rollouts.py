"""Rollouts, assignments and the update reports that move them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import sqlalchemy as sa

from fleetd.domain.assignment import (
    OFFERED,
    OPEN,
    PENDING,
    REVERTED,
    TERMINAL,
    TRANSFERRING,
    VERIFYING,
    Watched,
)
from fleetd.domain.records import (
    Assignment,
    AssignmentState,
    Rollout,
    RolloutSettings,
    RolloutState,
    UpdateReport,
)
from fleetd.store.attempts import SqlAttempts, attempts
from fleetd.store.desired import SqlDesired
from fleetd.store.offers import ASSIGNMENTS, SqlOffers, as_assignment
from fleetd.store.tables import (
    assignments,
    boots,
    camera_state,
    cameras,
    desired,
    facts,
    releases,
    rollouts,
    update_reports,
)

CHUNK: Final = 500  # ids in one IN (...)
_DELETED: Final = "rollouts_deleted"  # the fact that keeps the highest number of a deleted rollout

_IS_OPEN = assignments.c.state.in_(sorted(OPEN))
# The boot of the camera's last update report: whether it booted anew since.
_REPORTED_BOOT = (
    sa.select(boots.c.boot)
    .join(update_reports, update_reports.c.boot_id == boots.c.id)
    .where(update_reports.c.camera_id == assignments.c.camera_id)
    .order_by(update_reports.c.id.desc())
    .limit(1)
    .scalar_subquery()
)
_WATCHED = (
    sa.select(
        assignments,
        cameras.c.name.label("camera"),
        cameras.c.site,
        releases.c.content_sha256,
        desired.c.generation.label("desired_generation"),
        desired.c.sent_generation,
        desired.c.release_id.label("desired_release"),
        sa.case((assignments.c.state.in_([TRANSFERRING, VERIFYING]), _REPORTED_BOOT)).label("reported_boot"),
        camera_state.c.boot,
        camera_state.c.connected,
        camera_state.c.seen_at,
        camera_state.c.generation.label("reported_generation"),
        camera_state.c.release_id.label("running"),
        camera_state.c.release_digest.label("running_digest"),
        camera_state.c.trial,
    )
    .join(cameras, cameras.c.id == assignments.c.camera_id)
    .join(releases, releases.c.id == assignments.c.release_id)
    .join(desired, desired.c.camera_id == assignments.c.camera_id)
    .outerjoin(camera_state, camera_state.c.camera_id == assignments.c.camera_id)
    .where(_IS_OPEN, assignments.c.generation.is_not(None))
    .order_by(assignments.c.id)
)


class SqlRollouts(SqlDesired, SqlOffers, SqlAttempts):
    """Implements `ports.Rollouts` inside one transaction."""

    # -- rollouts --------------------------------------------------------------------------------------------

    def add(
        self,
        *,
        release_id: str,
        target: str,
        waves: Sequence[int],
        settings: RolloutSettings,
        created_by: str,
        now: float,
        members: Iterable[tuple[int, int]],
    ) -> Rollout:
        """Creates a running rollout at its first wave; `members` are (camera id, wave)."""
        insert = sa.insert(rollouts).values(
            **self._number(),
            release_id=release_id,
            target=target,
            state=RolloutState.RUNNING,
            waves=list(waves),
            wave=0,
            settings=asdict(settings),
            created_at=now,
            created_by=created_by,
        )
        rollout_id = int(self._connection.execute(insert.returning(rollouts.c.id)).scalar_one())
        rows = [
            {
                "rollout_id": rollout_id,
                "camera_id": camera_id,
                "release_id": release_id,
                "wave": wave,
                "state": PENDING,
                "created_at": now,
                "changed_at": now,
            }
            for camera_id, wave in members
        ]
        if rows:
            self._connection.execute(sa.insert(assignments), rows)
            runs = sa.select(camera_state.c.release_id).where(
                camera_state.c.camera_id == assignments.c.camera_id
            )
            mine = sa.update(assignments).where(assignments.c.rollout_id == rollout_id)
            self._connection.execute(mine.values(was_release=runs.scalar_subquery()))
        return Rollout(
            id=rollout_id,
            release_id=release_id,
            target=target,
            state=RolloutState.RUNNING,
            reason=None,
            waves=tuple(waves),
            wave=0,
            settings=settings,
            created_at=now,
            created_by=created_by,
            finished_at=None,
        )

    def get(self, rollout_id: int) -> Rollout | None:
        """The rollout with that number."""
        row = self._connection.execute(sa.select(rollouts).where(rollouts.c.id == rollout_id)).one_or_none()
        return None if row is None else _rollout(row)

    def all(self, states: Collection[RolloutState] | None = None) -> list[Rollout]:
        """All rollouts, or those in one of `states`, newest first."""
        query = sa.select(rollouts).order_by(rollouts.c.id.desc())
        if states is not None:
            query = query.where(rollouts.c.state.in_(sorted(states)))
        return [_rollout(row) for row in self._connection.execute(query)]

    def change(
        self,
        rollout_id: int,
        *,
        was: RolloutState,
        state: RolloutState,
        wave: int,
        reason: str | None,
        finished_at: float | None,
        settings: RolloutSettings | None = None,
    ) -> bool:
        """Changes a rollout that is still in `was`; False when it is not. Settings stay unless given."""
        values: dict[str, Any] = {"state": state, "wave": wave, "reason": reason, "finished_at": finished_at}
        if settings is not None:
            values["settings"] = asdict(settings)
        guard = (rollouts.c.id == rollout_id, rollouts.c.state == was)
        return self._connection.execute(sa.update(rollouts).where(*guard).values(values)).rowcount == 1

    # -- assignments -----------------------------------------------------------------------------------------

    def assignments(self, rollout_id: int) -> list[Assignment]:
        """A rollout's assignments by wave and camera."""
        query = ASSIGNMENTS.where(assignments.c.rollout_id == rollout_id)
        rows = self._connection.execute(query.order_by(assignments.c.wave, cameras.c.name))
        return [as_assignment(row) for row in rows]

    def open_assignments(self, camera_id: int | None = None) -> list[Assignment]:
        """Assignments without an outcome yet, of all cameras or of one."""
        query = ASSIGNMENTS.where(_IS_OPEN).order_by(assignments.c.id)
        if camera_id is not None:
            query = query.where(assignments.c.camera_id == camera_id)
        return [as_assignment(row) for row in self._connection.execute(query)]

    def open_releases(self) -> frozenset[str]:
        """The releases that open assignments are about."""
        query = sa.select(assignments.c.release_id).where(_IS_OPEN).distinct()
        return frozenset(self._connection.execute(query).scalars())

    def watched(self, camera_ids: Collection[int] | None = None) -> list[Watched]:
        """Open assignments that were offered at least once, with all that decides about them."""
        if camera_ids is None:
            rows = list(self._connection.execute(_WATCHED))
        else:
            rows = []
            wanted = sorted(camera_ids)
            for start in range(0, len(wanted), CHUNK):
                mine = assignments.c.camera_id.in_(wanted[start : start + CHUNK])
                rows.extend(self._connection.execute(_WATCHED.where(mine)))
        limits = sa.select(rollouts.c.id, rollouts.c.settings)
        limits = limits.where(rollouts.c.id.in_({row.rollout_id for row in rows}))
        known = {row.id: read_settings(row.settings) for row in self._connection.execute(limits)}
        return [_watched(row, known[row.rollout_id]) for row in rows]

    def reverted(self, release_id: str) -> frozenset[int]:
        """Ids of cameras that reverted this release, in whatever rollout, deleted ones too."""
        queries = (
            sa.select(table.c.camera_id).where(table.c.release_id == release_id, table.c.state == REVERTED)
            for table in (assignments, attempts)
        )
        return frozenset(self._connection.execute(sa.union(*queries)).scalars())

    def remove(self, rollout_id: int) -> None:
        """Deletes a rollout with its assignments; what was tried stays, and its number is not given again."""
        self._connection.execute(sa.delete(rollouts).where(rollouts.c.id == rollout_id))
        mine = facts.c.name == _DELETED
        before = self._connection.execute(sa.select(facts.c.value).where(mine)).scalar()
        highest = str(max(rollout_id, int(before or 0)))
        if before is None:
            self._connection.execute(sa.insert(facts).values(name=_DELETED, value=highest))
        else:
            self._connection.execute(sa.update(facts).where(mine).values(value=highest))

    def _number(self) -> dict[str, int]:
        """The number of the next rollout, where the database would give that of a deleted one again."""
        if self._connection.dialect.name != "sqlite":
            return {}
        deleted = self._connection.execute(sa.select(facts.c.value).where(facts.c.name == _DELETED)).scalar()
        newest = self._connection.execute(sa.select(sa.func.max(rollouts.c.id))).scalar()
        return {"id": int(deleted) + 1} if deleted is not None and int(deleted) > (newest or 0) else {}

    def advance(
        self,
        assignment: Assignment,
        *,
        state: AssignmentState,
        now: float,
        reason: str | None = None,
        detail: str | None = None,
        generation: int | None = None,
        blocks: tuple[int, int] | None = None,
        deadline_at: float | None = None,
        retry_at: float | None = None,
    ) -> bool:
        """Moves an assignment that is still in `assignment.state`; False when it is not.

        Reason, detail and deadline become what is given, None too. A generation marks a new offer; without
        one, or without blocks, what was known stays.
        """
        values: dict[str, Any] = {
            "state": state,
            "reason": reason,
            "detail": detail,
            "deadline_at": deadline_at,
            "retry_at": retry_at,
            "finished_at": now if state in TERMINAL else None,
        }
        if state != assignment.state or blocks is not None:
            values["changed_at"] = now
        if state is OFFERED and state != assignment.state:
            values.update(blocks_done=None, blocks_total=None)
        if generation is not None:
            values.update(generation=generation, offered_at=now)
        if blocks is not None:
            values.update(blocks_done=blocks[0], blocks_total=blocks[1])
        guard = (assignments.c.id == assignment.id, assignments.c.state == assignment.state)
        return self._connection.execute(sa.update(assignments).where(*guard).values(values)).rowcount == 1

    def reports_after(self, report_id: int, limit: int) -> list[UpdateReport]:
        """The update reports that follow a number, in the order they were stored."""
        names = [name for name in UpdateReport.__dataclass_fields__ if name != "boot"]
        boot = sa.func.coalesce(boots.c.boot, "").label("boot")
        query = (
            sa.select(*(update_reports.c[name] for name in names), boot)
            .outerjoin(boots, boots.c.id == update_reports.c.boot_id)
            .where(update_reports.c.id > report_id)
            .order_by(update_reports.c.id)
            .limit(limit)
        )
        return [UpdateReport(**row._mapping) for row in self._connection.execute(query)]


def read_settings(stored: Mapping[str, Any]) -> RolloutSettings:
    """Settings as they were stored, by whatever version."""
    known = RolloutSettings.__dataclass_fields__
    plain: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in stored.items()
        if name in known
    }
    return RolloutSettings(**plain)


def _rollout(row: sa.Row[Any]) -> Rollout:
    found = dict(row._mapping)
    found["state"] = RolloutState(found["state"])
    found["waves"] = tuple(found["waves"])
    found["settings"] = read_settings(found["settings"])
    return Rollout(**found)


def _watched(row: sa.Row[Any], settings: RolloutSettings) -> Watched:
    return Watched(
        assignment=as_assignment(row),
        content_sha256=row.content_sha256,
        silence_s=settings.silence_s,
        settings=settings,
        desired_generation=row.desired_generation,
        desired_release=row.desired_release,
        sent_generation=row.sent_generation,
        reported_boot=row.reported_boot,
        boot=row.boot,
        connected=bool(row.connected),
        seen_at=row.seen_at,
        reported_generation=row.reported_generation,
        running=row.running,
        running_digest=row.running_digest,
        trial=row.trial,
    )
