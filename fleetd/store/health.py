"""What cameras saw before and after a release, in buckets of time, for judging the release.

Bounded whatever the fleet and its history: `CANARIES` cameras that confirmed the release, `CONTROLS` that do not run
it, `PAST` and `LATER` buckets of each, `ROWS` results of each camera at most (the newest).
"""

import json
import math
from collections import Counter
from typing import Any, Final

import sqlalchemy as sa

from fleetd.domain.assignment import CONFIRMED
from fleetd.domain.halting import Dark
from fleetd.domain.health import Bucket, Watch
from fleetd.store.chunks import holding, newest
from fleetd.store.tables import assignments, camera_state, cameras, results

CANARIES: Final = 36
CONTROLS: Final = 24
PAST: Final = 40  # buckets before the update, and of a control as many as of a canary
LATER: Final = 60  # buckets after it
ROWS: Final = 20_000
MARGINS: Final = 1_000  # results of a camera of which all scores are read
LAG_S: Final = 15.0  # a bucket is complete when its camera was heard of so long after its end

_RUNS_IT = assignments.c.state == CONFIRMED


class SqlHealth:
    """Implements `ports.Health` inside one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._is_sqlite = connection.dialect.name == "sqlite"

    def settled_at(self, rollout_id: int, wave: int) -> float | None:
        """When the last camera of the waves so far came to its end; None when none has."""
        query = sa.select(sa.func.max(assignments.c.finished_at)).where(
            assignments.c.rollout_id == rollout_id, assignments.c.wave <= wave
        )
        found = self._connection.execute(query).scalar()
        return None if found is None else float(found)

    def release_before(self, rollout_id: int) -> str | None:
        """The release with which the first camera of the rollout made its last result before the offer."""
        first = (
            sa.select(assignments.c.camera_id, assignments.c.offered_at)
            .where(assignments.c.rollout_id == rollout_id, assignments.c.offered_at.is_not(None))
            .order_by(assignments.c.offered_at, assignments.c.id)
            .limit(1)
        )
        row = self._connection.execute(first).one_or_none()
        if row is None:
            return None
        before = sa.select(results.c.release_id, results.c.at).where(
            results.c.camera_id == row.camera_id, results.c.at < row.offered_at
        )
        found = newest(self._connection, results, before, since=None, until=row.offered_at, limit=1)
        return str(found[0].release_id) if found and found[0].release_id is not None else None

    def dark(self, rollout_id: int, release_id: str, *, silence_s: float, now: float) -> Dark:
        """How many cameras that confirmed are silent now, and how many of all that do not run the release.

        A camera that was removed, or that was never heard of, counts nowhere.
        """
        runs = sa.exists().where(
            assignments.c.rollout_id == rollout_id,
            assignments.c.camera_id == camera_state.c.camera_id,
            _RUNS_IT,
        )
        takes_part = sa.exists().where(
            assignments.c.rollout_id == rollout_id,
            assignments.c.camera_id == camera_state.c.camera_id,
            assignments.c.offered_at.is_not(None),
        )
        silent = sa.func.abs(now - camera_state.c.seen_at) > silence_s
        # Only cameras that were there when the rollout began say anything about falling silent.
        began = sa.select(sa.func.min(assignments.c.created_at)).where(assignments.c.rollout_id == rollout_id)
        there = camera_state.c.seen_at > began.scalar_subquery() - silence_s
        query = (
            sa.select(
                sa.case((runs, 1), else_=0).label("runs"),
                sa.func.count().label("all"),
                sa.func.sum(sa.case((silent, 1), else_=0)).label("silent"),
            )
            .where(there, sa.or_(runs, ~takes_part))
            .where(sa.or_(runs, camera_state.c.release_id.is_(None), camera_state.c.release_id != release_id))
            .group_by(sa.text("1"))
        )
        counted = {row.runs: (int(row.all), int(row.silent)) for row in self._connection.execute(query)}
        running, others = counted.get(1, (0, 0)), counted.get(0, (0, 0))
        return Dark(running[0], running[1], others[0], others[1])

    def watches(
        self, rollout_id: int, release_id: str, *, bucket_s: float, threshold: float, now: float
    ) -> tuple[list[Watch], list[Watch]]:
        """Cameras that confirmed the release in that rollout, and cameras that do not run it, with what they saw.

        Times are Unix seconds; `bucket_s` is the length of a bucket, `threshold` the score below which a result
        is unknown (0: there is none).
        """
        canaries = [
            self._canary(row, release_id, bucket_s, threshold, now)
            for row in self._confirmed(rollout_id, now)
        ]
        first = min((row.left for row in canaries if row.left is not None), default=None)
        if first is None:
            return [], []
        begin = (first - PAST) * bucket_s
        controls = [
            Watch(row.name, self._buckets(row, None, begin, now, bucket_s, threshold))
            for row in self._others(rollout_id, release_id)
        ]
        return canaries, [one for one in controls if one.buckets]

    def _confirmed(self, rollout_id: int, now: float) -> list[sa.Row[Any]]:
        """The cameras that confirmed, the first ones first: they have the longest to tell."""
        query = (
            sa.select(
                cameras.c.id,
                cameras.c.name,
                camera_state.c.seen_at,
                assignments.c.offered_at,
                assignments.c.finished_at,
            )
            .join(cameras, cameras.c.id == assignments.c.camera_id)
            .join(camera_state, camera_state.c.camera_id == cameras.c.id)
            .where(assignments.c.rollout_id == rollout_id, _RUNS_IT, assignments.c.finished_at <= now)
            .where(assignments.c.offered_at.is_not(None))
            .order_by(assignments.c.finished_at, assignments.c.id)
            .limit(CANARIES)
        )
        return list(self._connection.execute(query))

    def _others(self, rollout_id: int, release_id: str) -> list[sa.Row[Any]]:
        """Cameras that run something else and to which nothing is being brought: of this rollout first."""
        mine = sa.and_(assignments.c.camera_id == cameras.c.id, assignments.c.rollout_id == rollout_id)
        query = (
            sa.select(cameras.c.id, cameras.c.name, camera_state.c.seen_at)
            .select_from(
                cameras.join(camera_state, camera_state.c.camera_id == cameras.c.id).outerjoin(
                    assignments, mine
                )
            )
            .where(camera_state.c.seen_at.is_not(None), assignments.c.offered_at.is_(None))
            .where(sa.or_(camera_state.c.release_id.is_(None), camera_state.c.release_id != release_id))
            .order_by(assignments.c.id.is_(None), camera_state.c.seen_at.desc(), cameras.c.id)
            .limit(CONTROLS)
        )
        return list(self._connection.execute(query))

    def _canary(
        self, row: sa.Row[Any], release_id: str, bucket_s: float, threshold: float, now: float
    ) -> Watch:
        left = math.floor(row.offered_at / bucket_s)
        changed = math.floor(row.finished_at / bucket_s) + 1
        begin = (left - PAST) * bucket_s
        past = self._buckets(row, None, begin, left * bucket_s, bucket_s, threshold)
        end = min(now, (changed + LATER) * bucket_s)
        later = self._buckets(row, release_id, changed * bucket_s, end, bucket_s, threshold)
        return Watch(row.name, {**past, **later}, changed, left)

    def _buckets(
        self,
        row: sa.Row[Any],
        release_id: str | None,
        begin: float,
        end: float,
        bucket_s: float,
        threshold: float,
    ) -> dict[int, Bucket]:
        """The complete buckets of one camera in [begin, end), empty ones between its first and its last too.

        With a release only its results count, and the first bucket is the one in which it could begin.
        """
        last = math.floor(min(end, row.seen_at - LAG_S) / bucket_s)  # exclusive
        taken = self._taken(row.id, release_id, begin, last * bucket_s)
        counted = self._counted(taken, bucket_s, threshold)
        if not counted and release_id is None:
            return {}
        margins = self._margins(taken, bucket_s)
        first = math.floor(begin / bucket_s) if release_id is not None else min(counted)
        found = {}
        for number in range(first, last):
            found[number] = counted.get(number, Bucket(0, {}))._replace(margin=margins.get(number))
        return found

    def _taken(self, camera_id: int, release_id: str | None, begin: float, end: float) -> Any:
        """The newest results of a camera in [begin, end)."""
        query = (
            sa.select(results)
            .where(results.c.camera_id == camera_id, results.c.at >= begin, results.c.at < end)
            .where(holding(results, begin, end))
        )
        if release_id is not None:
            query = query.where(results.c.release_id == release_id)
        return query.order_by(results.c.at.desc()).limit(ROWS).subquery()

    def _counted(self, taken: Any, bucket_s: float, threshold: float) -> dict[int, Bucket]:
        number = self._number(taken.c.at, bucket_s)
        query = sa.select(
            number.label("number"),
            taken.c.label,
            sa.func.count().label("results"),
            sa.func.sum(taken.c.score).label("score"),
            sa.func.min(taken.c.score).label("least"),
            sa.func.max(taken.c.score).label("most"),
            sa.func.sum(sa.case((taken.c.score < threshold, 1), else_=0)).label("unknown"),
            sa.func.sum(taken.c.inference_ms).label("spent"),
            sa.func.count(taken.c.inference_ms).label("timed"),
        ).group_by(number, taken.c.label)
        by_number: dict[int, list[Any]] = {}
        for row in self._connection.execute(query):
            by_number.setdefault(int(row.number), []).append(row)
        return {number: _bucket(rows, threshold) for number, rows in by_number.items()}

    def _margins(self, taken: Any, bucket_s: float) -> dict[int, float]:
        """The mean lead of the best class in each bucket, from the first result of each message that has all scores."""
        query = (
            sa.select(self._number(taken.c.at, bucket_s).label("number"), taken.c.scores)
            .where(taken.c.scores.is_not(None), taken.c.n == 0)
            .order_by(taken.c.at.desc())
            .limit(MARGINS)
        )
        leads: dict[int, list[float]] = {}
        for row in self._connection.execute(query):
            scores = json.loads(row.scores) if isinstance(row.scores, str) else row.scores
            if len(scores) > 1:
                second, best = sorted(scores)[-2:]
                leads.setdefault(int(row.number), []).append(best - second)
        return {number: math.fsum(some) / len(some) for number, some in leads.items()}

    def _number(self, at: Any, bucket_s: float) -> Any:
        if self._is_sqlite:  # a cast cuts there, and rounds in PostgreSQL
            return sa.cast(at / bucket_s, sa.Integer)
        return sa.func.floor(at / bucket_s)


def _bucket(rows: list[Any], threshold: float) -> Bucket:
    """One bucket from its rows, one per label."""
    labels: Counter[str] = Counter()
    for row in rows:
        labels[row.label] += int(row.results)
    total = labels.total()
    timed = sum(int(row.timed) for row in rows)
    return Bucket(
        results=total,
        labels=labels,
        score=math.fsum(row.score for row in rows) / total,
        unknown=sum(int(row.unknown) for row in rows) / total if threshold > 0 else None,
        inference_ms=math.fsum(row.spent or 0.0 for row in rows) / timed if timed else None,
        frozen=len(rows) == 1 and rows[0].least == rows[0].most,
    )
