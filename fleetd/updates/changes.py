"""Changes to rollouts and assignments, each with all that follows from it, inside a caller's transaction.

A change is guarded by the old value and raises ConflictError when somebody was quicker: the whole transaction
is rolled back then. The desired state and the audit entry are written with it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from fleetd.domain import assignment as lifecycle
from fleetd.domain.assignment import Change, Watched
from fleetd.domain.records import Assignment, AssignmentState, Rollout, RolloutState
from fleetd.domain.retrying import MAX_RETRIES, again
from fleetd.errors import ConflictError
from fleetd.logs import get_logger
from fleetd.ports import UnitOfWork

log = get_logger(__name__)

FLEETD: Final = "fleetd"  # who it was, in the audit trail, when nobody asked for it
BATCH: Final = 200  # cameras or reports in one transaction: others write too


def apply(work: UnitOfWork, watched: Watched, change: Change, now: float) -> Watched:
    """Writes what became of an assignment and answers it as it is now."""
    current = watched.assignment
    if change.state in lifecycle.UNDONE:
        work.rollouts.note_attempt(current, change.state, change.reason, now)
        spent = len(work.rollouts.attempts(current.camera_id, current.release_id, MAX_RETRIES + 2))
        change = again(current, change, watched.settings, spent, now) or change
    advance(work, current, change, now)
    if change.state in lifecycle.UNDONE or change.retry_at is not None:
        _take_back(work, current, now)
    if change.state in lifecycle.TERMINAL:
        facts = {
            "rollout": current.rollout_id,
            "release": current.release_id,
            "reason": change.reason,
            "was": current.state.value,
        }
        work.access.record(FLEETD, f"update.{change.state}", current.camera, facts, now)
    elif change.retry_at is not None:
        facts = {"rollout": current.rollout_id, "release": current.release_id, "reason": change.reason}
        work.access.record(FLEETD, "update.retry", current.camera, facts, now)
    done, total = change.blocks or (current.blocks_done, current.blocks_total)
    changed = replace(
        current,
        state=change.state,
        reason=change.reason,
        detail=change.detail,
        blocks_done=done,
        blocks_total=total,
        deadline_at=change.deadline_at,
        retry_at=change.retry_at,
    )
    return replace(watched, assignment=changed)


def end(work: UnitOfWork, current: Assignment, state: AssignmentState, reason: str, now: float) -> None:
    """Ends an assignment from our side, or sets it back, and takes its offer back."""
    advance(work, current, Change(state, reason), now)
    _take_back(work, current, now)


def halt(work: UnitOfWork, rollout: Rollout, reason: str, now: float, actor: str) -> None:
    """Stops a rollout and takes back what no camera tries yet; a trial that runs decides by itself."""
    for one in work.rollouts.assignments(rollout.id):
        if one.state in (lifecycle.OFFERED, lifecycle.TRANSFERRING, lifecycle.VERIFYING):
            end(work, one, lifecycle.PENDING, "halted", now)
    halted = replace(rollout, state=RolloutState.HALTED, reason=reason)
    change_rollout(work, halted, rollout.state, "halt", actor, now)


def change_rollout(
    work: UnitOfWork,
    rollout: Rollout,
    was: RolloutState,
    action: str,
    actor: str,
    now: float,
    why: str | None = None,
) -> Rollout:
    """Writes a rollout that is still in the state `was`."""
    if not work.rollouts.change(
        rollout.id,
        was=was,
        state=rollout.state,
        wave=rollout.wave,
        reason=rollout.reason,
        finished_at=rollout.finished_at,
        settings=rollout.settings,
    ):
        raise ConflictError(f"Rollout {rollout.id} is no longer {was}. Nothing was changed; look again.")
    facts: Mapping[str, object] = {
        "was": was.value,
        "state": rollout.state.value,
        "wave": rollout.wave,
        "accepted": rollout.settings.accepted,
        "reason": why or rollout.reason,
    }
    work.access.record(actor, f"rollout.{action}", str(rollout.id), facts, now)
    log.info("rollout_changed", rollout=rollout.id, action=action, actor=actor, **facts)
    return rollout


def advance(
    work: UnitOfWork, current: Assignment, change: Change, now: float, *, generation: int | None = None
) -> None:
    """Writes a change of an assignment that is still in the state it was seen in; ConflictError when it is not."""
    if not work.rollouts.advance(
        current,
        state=change.state,
        now=now,
        reason=change.reason,
        detail=change.detail,
        generation=generation,
        blocks=change.blocks,
        deadline_at=change.deadline_at,
        retry_at=change.retry_at,
    ):
        raise ConflictError(
            f"The update of {current.camera} is no longer {current.state}. Nothing was changed."
        )
    if change.state is not current.state:
        log.info(
            "update_advanced",
            camera=current.camera,
            release=current.release_id,
            was=current.state.value,
            state=change.state.value,
            reason=change.reason,
        )


def _take_back(work: UnitOfWork, assignment: Assignment, now: float) -> None:
    """Asks the camera to stay as it is, if this assignment's release is still asked of it."""
    if assignment.generation is None:
        return
    desired = work.rollouts.desired(assignment.camera_id)
    if desired is not None and desired.release_id == assignment.release_id:
        work.rollouts.set_desired(assignment.camera_id, release_id=None, digest=None, deadline=None, now=now)
