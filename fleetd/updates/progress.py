"""What follows from cameras' reports and from the clock, one small transaction at a time.

Update reports are read behind a cursor that moves in the same transaction as the assignments, so being killed
anywhere repeats nothing and loses nothing.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from fleetd.domain import assignment as lifecycle
from fleetd.domain.assignment import Change, Watched
from fleetd.domain.presence import PresenceRules
from fleetd.domain.records import Rollout, RolloutState, UpdateReport
from fleetd.domain.rollout import Move, Step
from fleetd.logs import get_logger
from fleetd.ports import Store, UnitOfWork
from fleetd.updates.changes import BATCH, FLEETD, apply, change_rollout
from fleetd.updates.judging import Judge
from fleetd.updates.offering import due, offer
from fleetd.updates.stopping import stop

log = get_logger(__name__)

CURSOR: Final = "ota_reports_cursor"  # the fact that names the last update report that was read
HOLE_S: Final = 10.0  # a missing report number may belong to a transaction that is still running
ABSENCE_S: Final = 60.0  # not looked for so long: silence says nothing about the cameras


class Progress:
    """Moves assignments and rollouts on. `listening` says whether cameras can be heard right now."""

    def __init__(self, store: Store, rules: PresenceRules, listening: Callable[[], bool]) -> None:
        self._store = store
        self._rules = rules
        self._listening = listening
        self._judge = Judge(rules)
        self._looked_at: float | None = None  # None: cameras could not be heard

    def step(self, now: float) -> bool:
        """Does one piece of what is due; True when there was work. ConflictError: somebody was quicker."""
        self._excuse_absence(now)
        return self._read_reports(now) or self._look(now) or self._drive(now)

    def _excuse_absence(self, now: float) -> None:
        """Gives everybody the full time again when silence was not the cameras': fleetd or the broker was
        away, or the clock was set.
        """
        if not self._listening():
            self._looked_at = None
            return
        last = self._looked_at
        if last is None or not 0 <= now - last < ABSENCE_S:
            with self._store.reading() as work:
                anyone = bool(work.rollouts.watched())
            if anyone:
                self._give_time(now)
        self._looked_at = now

    def _give_time(self, now: float) -> None:
        with self._store.transaction() as work:
            for watched in work.rollouts.watched():
                change = lifecycle.fresh_deadline(watched, now)
                if change is not None:
                    apply(work, watched, change, now)

    def _read_reports(self, now: float) -> bool:
        """Moves assignments by what cameras reported, and the cursor with them."""
        with self._store.reading() as work:
            if not _unread(work, now):
                return False
        with self._store.transaction() as work:
            reports = _unread(work, now)
            ids = {report.camera_id for report in reports}
            known = {one.assignment.camera_id: one for one in work.rollouts.watched(ids)}
            for report in reports:
                watched = known.get(report.camera_id)
                change = None if watched is None else lifecycle.advance(watched, report)
                if watched is None or change is None:
                    log.debug("update_report_changes_nothing", report=report.id, state=report.state)
                else:
                    known[report.camera_id] = apply(work, watched, change, now)
            if reports:
                work.access.set_fact(CURSOR, str(reports[-1].id))
        return True

    def _look(self, now: float) -> bool:
        """Moves assignments by what cameras say of themselves, and by silence."""
        with self._store.reading() as work:
            if not self._due(work, now):
                return False
        with self._store.transaction() as work:
            for watched, change in self._due(work, now):
                apply(work, watched, change, now)
        return True

    def _due(self, work: UnitOfWork, now: float) -> list[tuple[Watched, Change]]:
        due: list[tuple[Watched, Change]] = []
        for watched in work.rollouts.watched():
            change = lifecycle.read_status(watched, now) or lifecycle.read_boot(watched, now)
            if change is None and self._looked_at is not None:
                change = lifecycle.read_clock(watched, now, self._rules)
            if change is not None:
                due.append((watched, change))
                if len(due) == BATCH:
                    break
        return due

    def _drive(self, now: float) -> bool:
        """Offers, widens, finishes or halts one rollout."""
        with self._store.reading() as work:
            if self._next_rollout(work, now) is None:
                return False
        with self._store.transaction() as work:
            due = self._next_rollout(work, now)
            if due is None:
                return False
            rollout, step = due
            if step.move is Move.HALT:
                stop(work, rollout, step, now, self._rules)
                return True
            if step.move is Move.FINISH:
                done = replace(rollout, state=RolloutState.COMPLETED, reason=step.reason, finished_at=now)
                change_rollout(work, done, rollout.state, "complete", FLEETD, now)
                return True
            if step.move is Move.WIDEN:
                rollout = replace(rollout, wave=rollout.wave + 1)
                change_rollout(work, rollout, rollout.state, "widen", FLEETD, now, step.reason)
            offer(work, rollout, now, self._rules)
        return True

    def _next_rollout(self, work: UnitOfWork, now: float) -> tuple[Rollout, Step] | None:
        """The running rollout for which something is to be done, and what: the highest priority, then the oldest."""
        running = work.rollouts.all({RolloutState.RUNNING})
        for rollout in sorted(running, key=lambda one: (-one.settings.priority, one.id)):
            step = self._judge.verdict(work, rollout, now).step
            if step.move is not Move.HOLD or due(work, rollout, now, self._rules):
                return rollout, step
        return None


def _unread(work: UnitOfWork, now: float) -> list[UpdateReport]:
    """The reports behind the cursor, up to a number that may only be missing because it is not committed."""
    last = int(work.access.get_fact(CURSOR) or 0)
    reports = work.rollouts.reports_after(last, BATCH)
    for place, report in enumerate(reports):
        if report.id != last + 1 and abs(now - report.received_at) < HOLE_S:
            return reports[:place]
        last = report.id
    return reports
