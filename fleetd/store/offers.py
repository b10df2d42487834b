"""Whom a rollout may offer its release next, and how many are at it."""

import math
from collections.abc import Collection
from typing import Any, Final

import sqlalchemy as sa

from fleetd.domain.assignment import BUSY, OFFERED, PENDING
from fleetd.domain.pacing import HOUR_S, Load
from fleetd.domain.presence import PresenceRules
from fleetd.domain.records import Assignment, AssignmentState
from fleetd.domain.rollout import StateCount
from fleetd.store.tables import assignments, camera_state, cameras

ASSIGNMENTS: Final = sa.select(assignments, cameras.c.name.label("camera"), cameras.c.site).join(
    cameras, cameras.c.id == assignments.c.camera_id
)


class SqlOffers:
    """The part of `ports.Rollouts` about offers."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def pending(
        self,
        rollout_id: int,
        up_to_wave: int,
        limit: int,
        *,
        now: float = math.inf,
        there: PresenceRules | None = None,
        not_at: Collection[str] = (),
    ) -> list[Assignment]:
        """Assignments of the waves begun that are still to be offered, first waves first.

        `now`: those that wait for their next try are not due yet. `there`: only cameras that are there by these
        rules. `not_at`: none of these sites.
        """
        query = ASSIGNMENTS.where(
            assignments.c.rollout_id == rollout_id,
            assignments.c.state == PENDING,
            assignments.c.wave <= up_to_wave,
        )
        if math.isfinite(now):
            query = query.where(sa.or_(assignments.c.retry_at.is_(None), assignments.c.retry_at <= now))
        if there is not None:
            query = query.join(camera_state, camera_state.c.camera_id == assignments.c.camera_id)
            query = query.where(sa.not_(is_away(now, there)))
        if not_at:
            query = query.where(cameras.c.site.not_in(sorted(not_at)))
        rows = self._connection.execute(query.order_by(assignments.c.wave, assignments.c.id).limit(limit))
        return [as_assignment(row) for row in rows]

    def offered(self, rollout_id: int, limit: int) -> list[Assignment]:
        """Assignments that are offered and that nobody has taken up."""
        query = ASSIGNMENTS.where(assignments.c.rollout_id == rollout_id, assignments.c.state == OFFERED)
        rows = self._connection.execute(query.order_by(assignments.c.id).limit(limit))
        return [as_assignment(row) for row in rows]

    def load(self, rollout_id: int, now: float) -> Load:
        """Cameras that are at an update now, and offers of the last hour, by site."""
        at_it = sa.or_(
            assignments.c.state.in_(sorted(BUSY)),
            sa.and_(assignments.c.state == OFFERED, assignments.c.deadline_at.is_not(None)),
        )
        mine = sa.func.sum(sa.case((assignments.c.rollout_id == rollout_id, 1), else_=0))
        joined = assignments.join(cameras, cameras.c.id == assignments.c.camera_id)
        busy = sa.select(cameras.c.site, sa.func.count(), mine).select_from(joined)
        rows = list(self._connection.execute(busy.where(at_it).group_by(cameras.c.site)))
        recent = sa.and_(assignments.c.offered_at > now - HOUR_S, assignments.c.offered_at <= now)
        offers = sa.select(cameras.c.site, sa.func.count()).select_from(joined)
        hour = self._connection.execute(offers.where(recent).group_by(cameras.c.site))
        return Load(
            here=sum(int(own) for _, _, own in rows),
            at_site={site: int(number) for site, number, _ in rows},
            last_hour={site: int(number) for site, number in hour},
        )

    def counts(
        self, rollout_id: int, *, now: float = math.inf, there: PresenceRules | None = None
    ) -> list[StateCount]:
        """How many cameras of each wave are in which state. An offer without a deadline waits for its camera; with
        `there`, whoever is not there by these rules is waited for before the offer, too.
        """
        waits = sa.and_(assignments.c.state == OFFERED, assignments.c.deadline_at.is_(None))
        table: Any = assignments
        if there is not None:
            table = assignments.outerjoin(camera_state, camera_state.c.camera_id == assignments.c.camera_id)
            waits = sa.or_(waits, sa.and_(assignments.c.state == PENDING, is_away(now, there)))
        flag = sa.case((waits, 1), else_=0)
        query = sa.select(assignments.c.wave, assignments.c.state, flag, sa.func.count()).select_from(table)
        query = query.where(assignments.c.rollout_id == rollout_id)
        query = query.group_by(assignments.c.wave, assignments.c.state, flag)
        return [
            StateCount(wave, AssignmentState(state), bool(is_away), number)
            for wave, state, is_away, number in self._connection.execute(query)
        ]


def is_away(now: float, rules: PresenceRules) -> Any:
    """SQL for `presence` being new or offline."""
    silent = sa.func.abs(now - camera_state.c.seen_at)
    return sa.or_(
        camera_state.c.seen_at.is_(None),
        silent >= rules.offline_after,
        sa.and_(silent >= rules.late_after, camera_state.c.connected.is_(False)),
    )


def as_assignment(row: sa.Row[Any]) -> Assignment:
    """The assignment in a row of ASSIGNMENTS."""
    known = row._mapping
    facts = {name: known[name] for name in Assignment.__dataclass_fields__}
    facts["state"] = AssignmentState(facts["state"])
    return Assignment(**facts)
